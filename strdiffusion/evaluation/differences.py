"""Differences between two rows of a table, image by image."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from strdiffusion.evaluation.columns import PAIRED
from strdiffusion.evaluation.compare import Cell
from strdiffusion.evaluation.perceptual import KID_SUBSET, kernel_distance
from strdiffusion.evaluation.statistics import LEVEL, Summary, summarise
from strdiffusion.evaluation.table import ResultRow, read_rows
from strdiffusion.evaluation.tablecells import ImageNumbers
from strdiffusion.system.errors import UserError

SET_RESAMPLES = 500  # of the images, for the interval of a difference of Frechet or kernel distances


def paired_differences(
    folder: Path, reference: Path, metrics: list[str], numbers: Mapping[Path, ImageNumbers] | None = None
) -> dict[str, Cell]:
    """The mean over images of this run's metrics minus those of the reference run, with the interval of that mean.

    Both runs have the same images and masks, so the difficulty of an image cancels out, and the interval is narrower than those of
    the two means. Distances between sets of images are drawn anew with the same images for both. numbers: of both folders, for metrics
    that are not in results.csv. Raises UserError if images or masks differ.
    """
    ours, theirs = ({row.name: row for row in read_rows(run / "results.csv")} for run in (folder, reference))
    names = shared_names(ours, theirs, folder, reference)
    cells = {}
    for metric in metrics:
        if metric in PAIRED:
            pairs = [(ours[name].number(metric), theirs[name].number(metric)) for name in names]
        elif metric in OF_SETS:
            cells[metric] = _set_difference(numbers[folder], numbers[reference], names, OF_SETS[metric])
            continue
        else:
            pairs = [tuple(numbers[run].values.get(name, {}).get(metric) for run in (folder, reference)) for name in names]
        summary = summarise(a - b for a, b in pairs if a is not None and b is not None and math.isfinite(a - b))
        cells[metric] = Cell(summary, None if summary else "no image has both numbers")
    return cells


def shared_names(ours: dict[str, ResultRow], theirs: dict[str, ResultRow], folder: Path, reference: Path) -> list[str]:
    """The names that both runs have. Raises UserError if one stands for another file or mask."""
    given = [{name: (row.image, row.mask, row.hole_share) for name, row in rows.items()} for rows in (ours, theirs)]
    other = next((name for name in ours if name in theirs and given[0][name] != given[1][name]), None)
    if other is not None:
        raise UserError(f"{folder} and {reference} differ in the file or the mask of {other}, and cannot be compared image by image")
    return [name for name in ours if name in theirs]


def _set_difference(ours: ImageNumbers, theirs: ImageNumbers, names: list[str], prepare: "Prepare") -> Cell:
    """The difference of two distances from the truths, with the interval of a bootstrap over the images."""
    names = [name for name in names if name in ours.judged and name in theirs.judged]
    if len(names) < 2:
        return Cell(None, "fewer than two images have both numbers")
    features = (np.array([run.judged[name] for name in names]) for run in (ours, theirs))  # each (n,2,C): result, truth
    mine, other = (prepare(run[:, 0], run[:, 1]) for run in features)

    def difference(rows: np.ndarray) -> float:
        return mine(rows) - other(rows)

    rng = np.random.default_rng(0)
    drawn = np.sort([difference(rng.integers(0, len(names), len(names))) for _ in range(SET_RESAMPLES)])
    tail = round((1 - LEVEL) / 2 * (SET_RESAMPLES - 1))
    return Cell(Summary(difference(np.arange(len(names))), float(drawn[tail]), float(drawn[-1 - tail]), len(names)))


def quick_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """`frechet_distance` of features (n,d) and (m,d) by the eigenvalues of a symmetric matrix: much faster, for the bootstrap.

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2) with the covariances A and B.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(A)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    together = np.sqrt(np.linalg.eigvalsh(root @ B @ root).clip(0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(A) + np.trace(B) - 2 * together)


def frechet_of(results: np.ndarray, truths: np.ndarray) -> Callable[[np.ndarray], float]:
    """The Frechet distance of features (n,C) and (n,C) as a function of the rows that are drawn."""
    return lambda rows: quick_frechet(results[rows], truths[rows])


def kernel_of(results: np.ndarray, truths: np.ndarray) -> Callable[[np.ndarray], float]:
    """`kernel_distance` of features (n,C) and (n,C) as a function of the rows that are drawn.

    The kernel of all pairs is computed once; a draw only counts how often it takes each row. Of pairs of draws, those of a draw with
    itself are left out, as in `kernel_distance`, and those of two draws of one row are not.
    """
    n, C = results.shape
    if n > KID_SUBSET:
        return lambda rows: kernel_distance(results[rows], truths[rows])
    a, b = results.astype(np.float64), truths.astype(np.float64)
    K_aa, K_bb, K_ab = ((x @ y.T / C + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))  # each (n,n)

    def distance(rows: np.ndarray) -> float:
        count, m = np.bincount(rows, minlength=n).astype(np.float64), len(rows)
        within = sum(count @ K @ count - count @ np.diag(K) for K in (K_aa, K_bb)) / (m * (m - 1))
        return float(within - 2 * (count @ K_ab @ count) / m**2)

    return distance


Prepare = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], float]]
OF_SETS: dict[str, Prepare] = {"judge_fid": frechet_of, "judge_kid": kernel_of}
