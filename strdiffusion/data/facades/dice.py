"""Random numbers that are the same on every machine and with every version of numpy.

Only the bit stream of PCG64 is used, which numpy keeps fixed; what numpy's own distributions draw from it may change.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Draws from the stream that `key`, integers of 0 or more, names."""

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + ((self._bits.random_raw() >> 32) * (high - low + 1) >> 32)

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def choice(self, values: Sequence[T]) -> T:
        return values[self.integer(0, len(values) - 1)]

    def noise(self, *shape: int) -> np.ndarray:
        """Independent values of `shape`, float32 in [-1, 1], 256 levels; what is drawn next does not depend on the shape."""
        bits = np.random.PCG64(np.random.SeedSequence(self._bits.random_raw()))
        count = int(np.prod(shape))
        raw = bits.random_raw((count + 7) // 8).astype("<u8").view(np.uint8)[:count]
        return raw.reshape(shape).astype(np.float32) / np.float32(127.5) - np.float32(1)
