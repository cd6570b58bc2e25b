"""A mean over images with its confidence interval."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CHUNK = 10_000_000  # values drawn at once
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A mean over `count` values with its interval [low, high]; nan if there is no interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap_interval(values: Iterable[float], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of values (n,); the same for the same seed.

    `resamples` times, n values are drawn with replacement and averaged; the interval holds the middle share `level` of these
    means. (nan, nan) for fewer than two values. Values may be infinite, but not nan.
    """
    values = np.asarray(list(values), np.float64)
    if values.size < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // values.size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        part[:] = values[rng.integers(0, values.size, (part.size, values.size))].mean(axis=1)
    means.sort()
    tail = round((1 - level) / 2 * (resamples - 1))  # by rank, not interpolated: means may be infinite
    return float(means[tail]), float(means[resamples - 1 - tail])


def summarise(values: Iterable[float], seed: int = 0) -> Summary | None:
    """Mean and bootstrap interval of the values that are not nan; None if all are nan."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    return Summary(float(np.mean(known)), *bootstrap_interval(known, seed), len(known))
