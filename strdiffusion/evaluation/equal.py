"""Rows of a table compared with a reference that is brought to the same sharpness.

Fewer steps give smoother holes with more PSNR, more steps sharper ones with less. So two rows whose sharpness differs are compared with
a curve instead: the same method with several settings. A mixture of two settings, each for a share of the images, has every sharpness
between theirs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from strdiffusion.evaluation.compare import Cell
from strdiffusion.evaluation.differences import shared_names
from strdiffusion.evaluation.statistics import LEVEL, RESAMPLES, Summary
from strdiffusion.evaluation.table import read_rows
from strdiffusion.evaluation.tablecells import ImageNumbers


def differences_at_equal(
    folder: Path, curve: Sequence[Path], equal: str, metrics: Sequence[str], numbers: Mapping[Path, ImageNumbers]
) -> dict[str, Cell]:
    """The mean of each metric over the images of a run, minus that of the mixture of the curve's runs with the same mean of `equal`.

    The mixture is of the two runs whose means of `equal` are next to the run's. The interval is that of a bootstrap over images, with
    the share computed anew for each draw. A reason instead of a number where the run lies beyond the ends of the curve. numbers: of all
    folders. Raises UserError if images or masks differ.
    """
    rows = {run: {row.name: row for row in read_rows(run / "results.csv")} for run in (folder, *curve)}
    names = [name for run in curve for name in shared_names(rows[folder], rows[run], folder, run)]
    names = [name for name in rows[folder] if names.count(name) == len(curve)]
    return {metric: _cell([_pairs(numbers[run], names, equal, metric) for run in (folder, *curve)], equal) for metric in metrics}


def _pairs(numbers: ImageNumbers, names: list[str], equal: str, metric: str) -> np.ndarray:
    """(n,2): `equal` and the metric of each image; nan where there is none."""
    columns = (numbers.values.get(name, {}) for name in names)
    return np.array([[found.get(equal, np.nan), found.get(metric, np.nan)] for found in columns], np.float64).reshape(-1, 2)


def _cell(pairs: list[np.ndarray], equal: str) -> Cell:
    known = np.isfinite(pairs).all(axis=(0, 2))  # of every run
    ours, *curve = (run[known] for run in pairs)
    if len(ours) < 2:
        return Cell(None, "fewer than two images have all numbers")
    curve.sort(key=lambda run: run[:, 0].mean())
    below = [run for run in curve if run[:, 0].mean() <= ours[:, 0].mean()]
    above = [run for run in curve if run[:, 0].mean() >= ours[:, 0].mean()]
    if not below or not above:
        return Cell(None, f"{'below' if above else 'above'} every {equal} of the reference")
    every = np.stack([ours, below[-1], above[0]], axis=2)  # (n,2,3)
    rng = np.random.default_rng(0)
    drawn = np.sort([_difference(every[rng.integers(0, len(ours), len(ours))].mean(axis=0)) for _ in range(RESAMPLES)])
    tail = round((1 - LEVEL) / 2 * (RESAMPLES - 1))
    return Cell(Summary(_difference(every.mean(axis=0)), float(drawn[tail]), float(drawn[-1 - tail]), len(ours)))


def _difference(means: np.ndarray) -> float:
    """Of means (2,3): rows `equal` and metric; columns the run, and the settings of the curve below and above it."""
    (ours, low, high), (value, at_low, at_high) = means
    share = (ours - low) / (high - low) if high != low else 0.0
    return float(value - (1 - share) * at_low - share * at_high)
