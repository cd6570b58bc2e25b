"""A facade by its number."""

import numpy as np

from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.street import draw_street
from strdiffusion.system.errors import UserError

SPLITS = {"train": 20_000, "val": 100, "test": 200}  # images in each
SIZES = (64, 128, 256)
VERSION = 1  # part of every seed: a change of what is drawn is another benchmark


def draw_facade(split: str, number: int, size: int) -> np.ndarray:
    """Image `number` of a split, (size, size, 3) uint8 RGB: the same bytes on every machine, the same street at every size.

    Raises UserError for a split, number or size that the benchmark does not have.
    """
    require_split(split)
    require_size(size)
    if not 0 <= number < SPLITS[split]:
        raise UserError(f"the facades' split {split} has no image {number}: it has 0 to {SPLITS[split] - 1}")
    return draw_street(size, Dice(VERSION, list(SPLITS).index(split), number))


def require_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"the facades have no split {split!r}: it must be one of {', '.join(SPLITS)}")


def require_size(size: int) -> None:
    if size not in SIZES:
        raise UserError(f"the facades are not drawn at {size} pixels: the size must be one of {', '.join(map(str, SIZES))}")
