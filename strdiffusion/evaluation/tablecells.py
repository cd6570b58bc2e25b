"""The numbers of one run of a table, computed once: metrics by `compare`, costs from results.csv."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from strdiffusion.evaluation.columns import is_cost, of_samples
from strdiffusion.evaluation.compare import Cell, Comparison, Measures, compare_folders
from strdiffusion.evaluation.judging_options import EvaluateConfig
from strdiffusion.evaluation.samples import sample_cells
from strdiffusion.evaluation.statistics import Summary, summarise
from strdiffusion.evaluation.table import read_rows
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import read_table, write_atomically

log = logging.getLogger(__name__)

CACHE, SAMPLES_CACHE, IMAGES_CACHE = "numbers.json", "samples.json", "images.json"


@dataclass(frozen=True)
class ImageNumbers:
    """The numbers of a run by image: values by column, and the judge's features (C,) in the hole of result and truth."""

    values: dict[str, dict[str, float]]
    judged: dict[str, tuple[list[float], list[float]]]


def image_numbers(folder: Path) -> ImageNumbers:
    """What `run_cells` stored of the images of a run."""
    kept = read_cache(folder / IMAGES_CACHE)
    return ImageNumbers(**kept) if kept.keys() == {"values", "judged"} else ImageNumbers({}, {})


def read_cache(path: Path) -> dict:
    """What a file of numbers holds; empty if there is none, or it is damaged: then the numbers are computed again."""
    try:
        kept = json.loads(read_table(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s is damaged, and computed again: %s", path, error)
        return {}
    return kept if isinstance(kept, dict) else {}


def _store_images(folder: Path, comparison: Comparison) -> None:
    values = {image.name: image.values for image in comparison.images}
    pairs = zip(comparison.images, comparison.judged, strict=False)  # without a judge there are no features
    judged = {image.name: [part.tolist() for part in features] for image, features in pairs if features is not None}
    write_atomically(folder / IMAGES_CACHE, json.dumps({"values": values, "judged": judged}).encode(), durable=True)


def image_metrics(metrics: list[str]) -> list[str]:
    """The metrics that `Measures` must compute for a table."""
    return list(dict.fromkeys(metric.removeprefix("hole_") for metric in metrics if not is_cost(metric) and not of_samples(metric)))


def run_cells(folders: list[Path], metrics: list[str], measures: Measures, labels: str | None = None) -> dict[str, Cell]:
    """The cells of a run by metric, of the folder of its first sample; those that need several samples are of all folders.

    They are stored in the first folder, and computed again only if results or metrics change. labels: of the truths, for a judge.
    """
    missing = next((folder for folder in folders if not (folder / "results.csv").exists()), None)
    if missing is not None:
        return {metric: Cell(None, f"no image of {missing} could be inpainted") for metric in metrics}
    single = [metric for metric in metrics if not of_samples(metric)]
    several = [metric for metric in metrics if of_samples(metric)]
    if measures.metrics and not read_cache(folders[0] / IMAGES_CACHE):
        (folders[0] / CACHE).unlink(missing_ok=True)  # both are computed at once
    cells = _stored(
        folders[0] / CACHE, _key(folders[:1], single, measures, labels), lambda: _single_cells(folders[0], single, measures, labels)
    )
    if several:
        key = _key(folders, several, measures, labels)
        cells |= _stored(folders[0] / SAMPLES_CACHE, key, lambda: sample_cells(folders, several, measures, labels))
    return {metric: cells[metric] for metric in metrics}


def _stored(path: Path, key: str, compute: Callable[[], dict[str, Cell]]) -> dict[str, Cell]:
    """The cells that a file holds under `key`, or else computed ones, which it then holds."""
    kept = read_cache(path)
    if kept.get("key") == key:
        return {name: Cell(None if s is None else Summary(**s), reason) for name, (s, reason) in kept["cells"].items()}
    cells = compute()
    content = {name: (None if cell.summary is None else asdict(cell.summary), cell.reason) for name, cell in cells.items()}
    write_atomically(path, json.dumps({"key": key, "cells": content}).encode(), durable=True)
    return cells


def _single_cells(folder: Path, metrics: list[str], measures: Measures, labels: str | None) -> dict[str, Cell]:
    cells = _costs(folder, metrics)
    if measures.metrics:
        config = EvaluateConfig(str(folder / "inpainted"), "", csv=str(folder / "results.csv"), labels=labels)
        comparison = compare_folders(config, measures)
        if comparison.problems or comparison.pairs.truths_alone:
            reason = (comparison.problems or [f"no picture of {comparison.pairs.truths_alone[0]}"])[0]
            raise UserError(f"the results in {folder} are not whole any more ({reason}): remove that folder, and start again")
        cells |= comparison.rows()[-1].cells
        _store_images(folder, comparison)
    return {metric: cells.get(metric, Cell(None, f"{metric} is not computed here")) for metric in metrics}


def _costs(folder: Path, metrics: list[str]) -> dict[str, Cell]:
    rows = read_rows(folder / "results.csv")
    cells = {metric: Cell(summarise(float(row.number(metric)) for row in rows)) for metric in metrics if is_cost(metric)}
    if "seconds" in cells:  # images of a batch share its time, so an interval would be too narrow
        s = cells["seconds"].summary
        cells["seconds"] = Cell(Summary(s.mean, math.nan, math.nan, s.count))
    return cells


def _key(folders: list[Path], metrics: list[str], measures: Measures, labels: str | None) -> str:
    """A hash of everything that the numbers depend on: the results, the metrics, and their weights or why there are none."""
    content = [*((folder / "results.csv").read_text(encoding="utf-8") for folder in folders), metrics, measures.unavailable, IMAGES_CACHE]
    content.append({name: weights.digest for name, weights in measures.weights.items()})
    if measures.judge is not None:
        content.append([measures.judge.digest, labels])
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def published_cell(value: float) -> Cell:
    """A published number, whose interval and number of images are unknown."""
    return Cell(Summary(value, math.nan, math.nan, 0))
