"""Cost and quality of a table's rows: quality over network evaluations and over seconds."""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strdiffusion.evaluation.columns import column, is_evaluations
from strdiffusion.figures.style import COLOURS, TWO_COLUMNS, check_labels, fit_text, log_scale, new_figure, styled
from strdiffusion.system.errors import UserError, brief
from strdiffusion.system.files import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 1e15  # of what a table holds
COSTS = {"evaluations": "network evaluations per image", "seconds": "seconds per image"}


@dataclass(frozen=True)
class Point:
    """One row of a table in one bucket: mean cost and quality by name, and the quality's interval."""

    values: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]


def read_points(path: Path, bucket: str | None = None) -> dict[str, list[Point]]:
    """The points of a table.csv of scripts/reproduce.py, grouped by their labels without the number of steps.

    Rows called "posterior, 5 steps" and "posterior, 10 steps" become the line "posterior"; a label without a number of steps
    is a line with one point. `bucket` may be None if the table has only one. Raises UserError.
    """
    path = path.expanduser()
    path = path / "table.csv" if path.is_dir() else path
    try:
        lines = [line for line in csv.DictReader(io.StringIO(read_table(path), newline="")) if line["source"] == "ours"]
        buckets = list(dict.fromkeys(line["bucket"] for line in lines))
        numbers = {(line["row"], line["bucket"], line["metric"]): [number(line[key]) for key in ("mean", "low", "high")] for line in lines}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the folder that scripts/reproduce.py wrote") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table.csv of scripts/reproduce.py, or damaged: {brief(error)}") from None
    if bucket is None and len(buckets) > 1:
        raise UserError(f"{path} has several buckets: give one of {', '.join(buckets)} as --bucket")
    if bucket is not None and bucket not in buckets:
        raise UserError(f"{path} has no bucket {bucket}: it has {', '.join(buckets)}")
    bucket = bucket or (buckets[0] if buckets else "")
    found: dict[str, list[Point]] = defaultdict(list)
    for row in dict.fromkeys(line["row"] for line in lines):
        cells = {metric: cell for (r, b, metric), cell in numbers.items() if (r, b) == (row, bucket)}
        mean, low, high = ({metric: cell[i] for metric, cell in cells.items() if cell[i] is not None} for i in range(3))
        evaluations = [value for metric, value in mean.items() if is_evaluations(metric)]
        if evaluations and sum(evaluations) > 0:  # baselines have no networks
            label = re.sub(r",? *\d+ steps?$", "", row)
            found[label].append(Point(mean | {"evaluations": sum(evaluations)}, low, high))
    if not found:
        raise UserError(f"{path} has no row with network evaluations: name them among the table's metrics")
    return dict(found)


def number(text: str) -> float | None:
    """A number of a cell; None if it is empty or not known. Raises ValueError for what no table holds."""
    if not text or text.lower() == "nan":
        return None
    value = float(text)
    if not abs(value) <= LARGEST:
        raise ValueError(f"{text!r} is no number of a table")
    return value


@styled
def tradeoff_figure(points: dict[str, list[Point]], metrics: Sequence[str]) -> "Figure":
    """Draw a panel for each metric and cost, with a line for each group of rows and 95 % intervals. Costs are on a log scale."""
    check_labels(list(points))
    costs = [cost for cost in COSTS if all(cost in point.values for group in points.values() for point in group)]
    for metric in metrics:
        if not any(metric in point.values for group in points.values() for point in group):
            raise UserError(f"the table has no numbers of {metric}")
    figure = new_figure(TWO_COLUMNS, 1.5 + 5.0 * len(metrics))
    panels = figure.subplots(len(metrics), len(costs), squeeze=False, sharey="row", sharex="col")
    for i, metric in enumerate(metrics):
        for j, cost in enumerate(costs):
            axes = panels[i][j]
            for (label, group), colour in zip(points.items(), COLOURS, strict=False):
                shown = sorted((p for p in group if metric in p.values), key=lambda p: p.values[cost])
                x, y = [p.values[cost] for p in shown], [p.values[metric] for p in shown]
                axes.plot(x, y, color=colour, marker="o", label=fit_text(label, 3.5))
                axes.fill_between(
                    x,
                    [p.low.get(metric, p.values[metric]) for p in shown],
                    [p.high.get(metric, p.values[metric]) for p in shown],
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
            log_scale(axes.xaxis)
            axes.grid(color="#dddddd", linewidth=0.4)
            axes.set_axisbelow(True)
            if j == 0:
                axes.set_ylabel(column(metric).title)
            if i == len(metrics) - 1:
                axes.set_xlabel(COSTS[cost])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure
