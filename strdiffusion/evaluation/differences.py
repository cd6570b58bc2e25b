"""Differences between two rows of a table, image by image."""

import math
from pathlib import Path

from strdiffusion.evaluation.compare import Cell
from strdiffusion.evaluation.statistics import summarise
from strdiffusion.evaluation.table import read_rows
from strdiffusion.system.errors import UserError


def paired_differences(folder: Path, reference: Path, metrics: list[str]) -> dict[str, Cell]:
    """The mean over images of this run's metrics minus those of the reference run, with the interval of that mean.

    Both runs have the same images and masks, so the difficulty of an image cancels out, and the interval is narrower than those of
    the two means. Raises UserError if images or masks differ.
    """
    ours, theirs = ({row.name: row for row in read_rows(run / "results.csv")} for run in (folder, reference))
    given = [{name: (row.image, row.mask, row.hole_share) for name, row in rows.items()} for rows in (ours, theirs)]
    other = next((name for name in ours if name in theirs and given[0][name] != given[1][name]), None)
    if other is not None:
        raise UserError(f"{folder} and {reference} differ in the file or the mask of {other}, and cannot be compared image by image")
    cells = {}
    for metric in metrics:
        pairs = [(ours[name].number(metric), theirs[name].number(metric)) for name in ours if name in theirs]
        summary = summarise(a - b for a, b in pairs if a is not None and b is not None and math.isfinite(a - b))
        cells[metric] = Cell(summary, None if summary else "no image has both numbers")
    return cells
