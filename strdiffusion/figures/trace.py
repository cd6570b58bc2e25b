"""The resampling trace: scores, decisions and network evaluations over t, from the trace files of scripts/test.py."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from strdiffusion.figures.style import (
    BLACK,
    BLUE,
    COLOURS,
    DASHED,
    GREEN,
    ONE_COLUMN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    legend_above,
    new_figure,
    styled,
    time_axis,
)
from strdiffusion.samplers import ImageTrace
from strdiffusion.samplers.trace import Decision, StepTrace
from strdiffusion.system.errors import UserError, brief
from strdiffusion.system.files import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_COUNT, LARGEST_SCORE = 10**6, 1e30
log = logging.getLogger(__name__)

DECISIONS: tuple[Decision, ...] = get_args(Decision)
DECISION_COLOURS = dict(zip(DECISIONS, (GREEN, ORANGE, VERMILLION, PURPLE), strict=True))
DECISION_MARKERS = dict(zip(DECISIONS, ("^", "s", "x", "+"), strict=True))
NETWORK_COLOURS = (BLUE, SKY, BLACK, *COLOURS)  # in the order in which networks are named


@dataclass(frozen=True)
class TraceSummary:
    """What happened at each t, summed over images.

    t: descending. first: the scores of the first proposals at each t. resampled: the scores of the resamplings with their
    decisions. decisions, evaluations: counts per t, (n,).
    """

    images: int
    t: np.ndarray
    first: dict[int, list[float]]
    resampled: dict[int, list[tuple[float, Decision]]]
    decisions: dict[Decision, np.ndarray]
    evaluations: dict[str, np.ndarray]


def read_traces(folder: Path, image: str | None = None) -> dict[str, ImageTrace]:
    """The traces of a result folder by image name; all, or that of one image.

    A trace that cannot be read is reported and left out. Raises UserError if none is left.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"the result folder {folder} does not exist: give one that scripts/test.py wrote")
    root = folder / "traces" if (folder / "traces").is_dir() else folder
    paths = {path.relative_to(root).as_posix().removesuffix(".json"): path for path in sorted(root.rglob("*.json"))}
    if not paths:
        raise UserError(f"no trace in {root}: give a result folder of scripts/test.py, of a method that records traces")
    if image is not None:
        if image not in paths:
            raise UserError(f"no trace of the image {image} in {root}: the first is {next(iter(paths))}")
        return {image: read_trace(paths[image])}
    traces = {}
    for name, path in paths.items():
        try:
            traces[name] = read_trace(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            log.warning("left out: %s", error)
    if not traces:
        raise UserError(f"none of the {len(paths)} traces in {root} can be read")
    return traces


def read_trace(path: Path) -> ImageTrace:
    """Read a JSON file of `ImageTrace.as_dict`."""
    try:
        steps = [StepTrace.from_dict(step) for step in json.loads(read_table(path))["steps"]]
        for step in steps:
            require_sound(step)
        if not steps:
            raise ValueError("it has no step")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a result folder of scripts/test.py") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a trace of scripts/test.py, or damaged: {brief(error)}") from None
    return ImageTrace(steps)


def require_sound(step: StepTrace) -> None:
    """Raise ValueError or TypeError if a step of a file is none that a sampler records."""
    times_fit = type(step.t) is int and 0 <= step.t <= LARGEST_COUNT and len(step.decisions) == max(len(step.scores) - 1, 0)
    if not times_fit or set(step.decisions) - set(DECISIONS):
        raise ValueError(f"the step at t = {brief(step.t)}")
    if not all(type(score) in (int, float) and abs(score) <= LARGEST_SCORE for score in step.scores):  # false for NaN
        raise ValueError(f"a score at t = {step.t}")
    if not all(type(count) is int and 0 <= count <= LARGEST_COUNT for count in step.evaluations.values()):
        raise ValueError(f"the evaluations at t = {step.t}")


def summarise(traces: Sequence[ImageTrace]) -> TraceSummary:
    """Collect and count by t. If a sampler visits a t several times, all visits are summed."""
    times = sorted({step.t for trace in traces for step in trace.steps}, reverse=True)
    position = {t: i for i, t in enumerate(times)}
    first, resampled = defaultdict(list), defaultdict(list)
    decisions = {decision: np.zeros(len(times), int) for decision in DECISIONS}
    networks = dict.fromkeys(name for trace in traces for step in trace.steps for name in step.evaluations)
    evaluations = {network: np.zeros(len(times), int) for network in networks}
    for step in (step for trace in traces for step in trace.steps):
        first[step.t].extend(step.scores[:1])
        resampled[step.t].extend(zip(step.scores[1:], step.decisions, strict=True))
        for decision in step.decisions:
            decisions[decision][position[step.t]] += 1
        for network in networks:
            evaluations[network][position[step.t]] += step.evaluations.get(network, 0)
    return TraceSummary(len(traces), np.array(times), dict(first), dict(resampled), decisions, evaluations)


@styled
def trace_figure(summary: TraceSummary, title: str) -> "Figure":
    """Draw scores, resamplings and evaluations over t, one panel below the other."""
    figure = new_figure(ONE_COLUMN, 12.5)
    scores, decisions, evaluations = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 1, 1))
    figure.suptitle(title, x=0.02, ha="left")
    if not any(summary.first.values()):
        scores.text(0.5, 0.5, "no scores: the sampler has no discriminator", transform=scores.transAxes, ha="center", va="center")
        scores.set_yticks([])
    elif summary.images == 1:
        draw_scores(scores, summary)
    else:
        draw_mean_scores(scores, summary)
    scores.yaxis.set_major_formatter("{x:g}")
    scores.set_ylabel("discriminator score")
    stack(decisions, summary.t, {name: (counts, DECISION_COLOURS[name]) for name, counts in summary.decisions.items() if counts.any()})
    decisions.set_ylabel("resamplings per step")
    if not any(counts.any() for counts in summary.decisions.values()):
        decisions.text(0.5, 0.5, "no resampling", transform=decisions.transAxes, ha="center", va="center")
        decisions.set_yticks([])
    layers = zip(summary.evaluations.items(), NETWORK_COLOURS)
    stack(evaluations, summary.t, {name: (counts, colour) for (name, counts), colour in layers if counts.any()})
    evaluations.set_ylabel("evaluations per step")
    time_axis(evaluations, int(summary.t[0]))
    for axes in figure.axes:
        legend_above(axes)
    figure.align_ylabels()
    return figure


def draw_scores(axes, summary: TraceSummary) -> None:
    """Every score of one image, with a marker for its decision."""
    times = [t for t in summary.t if summary.first.get(t)]
    axes.plot(times, [summary.first[t][-1] for t in times], color=BLACK, linewidth=0.9, marker="o", markersize=2, label="first")
    for decision in DECISIONS:
        points = [(t, score) for t, entries in summary.resampled.items() for score, made in entries if made == decision]
        if points:
            marker, colour = DECISION_MARKERS[decision], DECISION_COLOURS[decision]
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker=marker,
                color=colour,
                markerfacecolor="none",
                markeredgewidth=0.7,
                label=decision,
            )


def draw_mean_scores(axes, summary: TraceSummary) -> None:
    """Means over several images, and the range of the first scores."""
    resampled = {t: [score for score, _ in entries] for t, entries in summary.resampled.items()}
    for label, scores, colour, style in (
        ("first (mean, range)", summary.first, BLACK, "-"),
        ("resampled (mean)", resampled, VERMILLION, DASHED),
    ):
        times = [t for t in summary.t if scores.get(t)]
        if times:
            axes.plot(times, [np.mean(scores[t]) for t in times], color=colour, linestyle=style, marker="o", markersize=2, label=label)
    times = [t for t in summary.t if summary.first.get(t)]
    low, high = ([f(summary.first[t]) for t in times] for f in (min, max))
    axes.fill_between(times, low, high, color=BLACK, alpha=0.12, linewidth=0)


def stack(axes, times: np.ndarray, layers: dict[str, tuple[np.ndarray, str]]) -> None:
    """Bars of counts per t, with the layers stacked."""
    from matplotlib.ticker import MaxNLocator

    edges = np.arange(times.min(), times.max() + 2) - 0.5
    base = np.zeros(len(edges) - 1)
    for label, (counts, colour) in layers.items():
        layer = np.zeros(len(edges) - 1)
        layer[times - times.min()] = counts
        axes.stairs(base + layer, edges, baseline=base, fill=True, color=colour, label=label, linewidth=0)
        base = base + layer
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
