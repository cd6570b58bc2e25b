"""Several results of the same images and masks: how much they differ in the holes, and the best of them."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from strdiffusion.evaluation.compare import NO_JUDGE, Cell, Measures
from strdiffusion.evaluation.judge import features_distance
from strdiffusion.evaluation.judging_options import EvaluateConfig
from strdiffusion.evaluation.metrics import agreement, l1, psnr
from strdiffusion.evaluation.pairs import Loaded, find_pairs, load_pair, reading
from strdiffusion.evaluation.statistics import summarise
from strdiffusion.system.errors import UserError

OF_JUDGE = ("judge_diversity", "best_agreement")


def sample_cells(folders: Sequence[Path], metrics: Sequence[str], measures: Measures, labels: str | None) -> dict[str, Cell]:
    """The cells of these metrics (`SampleMetric`) of the result folders of scripts/test.py with the same images and masks.

    labels: the folder of the truths' labels, for a judge. Raises UserError if a folder lacks an image of another.
    """
    columns: dict[str, list[float]] = {metric: [] for metric in metrics if measures.judge is not None or metric not in OF_JUDGE}
    for results in _results(folders, labels):
        for metric, values in columns.items():
            values.append(float("nan") if results[0].known is None else VALUES[metric](results, results[0].known < 0.5, measures))
    summaries = {metric: summarise(values) for metric, values in columns.items()}
    cells = {metric: Cell(summary, None if summary else "no mask with a hole") for metric, summary in summaries.items()}
    return {metric: cells.get(metric, Cell(None, NO_JUDGE)) for metric in metrics}


def _results(folders: Sequence[Path], labels: str | None) -> Iterator[list[Loaded]]:
    """For each image its results, one from each folder."""
    configs = [EvaluateConfig(str(folder / "inpainted"), "", csv=str(folder / "results.csv"), labels=labels) for folder in folders]
    found = [(find_pairs(config), reading(config)) for config in configs]
    names = [[pair.name for pair in pairs.pairs] for pairs, _ in found]
    other = next((folder for folder, its in zip(folders, names, strict=True) if its != names[0]), None)
    if other is not None:
        raise UserError(f"{other} and {folders[0]} do not hold results of the same images")
    for i in range(len(names[0])):
        yield [load_pair(pairs.pairs[i], how) for pairs, how in found]


def _diversity(results: list[Loaded], hole: np.ndarray, measures: Measures) -> float:
    """The mean over pairs of results of their L1 distance in the hole."""
    return float(np.mean([l1(a.image, b.image, hole) for a, b in itertools.combinations(results, 2)]))


def _judge_diversity(results: list[Loaded], hole: np.ndarray, measures: Measures) -> float:
    """The same of the judge's distance."""
    opinions = [measures.judge(result.image) for result in results]
    return float(np.mean([features_distance(a, b, hole) for a, b in itertools.combinations(opinions, 2)]))


def _best_hole_psnr(results: list[Loaded], hole: np.ndarray, measures: Measures) -> float:
    return max(psnr(result.image, result.truth, hole) for result in results)


def _best_agreement(results: list[Loaded], hole: np.ndarray, measures: Measures) -> float:
    first = results[0]
    truth = measures.judge(first.truth).labels if first.labels is None else first.labels
    return max(agreement(measures.judge(result.image).labels, truth, hole) for result in results)


VALUES = {
    "diversity": _diversity,
    "judge_diversity": _judge_diversity,
    "best_hole_psnr": _best_hole_psnr,
    "best_agreement": _best_agreement,
}
