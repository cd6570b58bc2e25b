"""Losses and validation over the iterations of one or several trainings."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.evaluation.columns import METRICS
from strdiffusion.figures.style import COLOURS, DASHED, TWO_COLUMNS, check_labels, fit_text, log_scale, new_figure, styled
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import read_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = tuple[np.ndarray, np.ndarray]  # iterations, values

SMOOTHED = 20  # losses are averaged over windows of 1/20 of the curve: single values vary with the draws of t
SAMPLED = ("hole_psnr", "hole_ssim")  # the metrics of validation that are drawn


@dataclass(frozen=True)
class Curves:
    """The log of one training: its loss, and its validation values by name."""

    label: str
    loss: Series
    validation: dict[str, Series]


def read_curves(label: str, path: Path) -> Curves:
    """Read a training's metrics.jsonl, given the file or its folder. Raises UserError if it holds no loss."""
    path = path.expanduser()
    path = path / "metrics.jsonl" if path.is_dir() else path
    try:
        lines = [json.loads(text) for text in read_table(path).splitlines() if text.strip()]
        events = {kind: [line for line in lines if line["kind"] == kind] for kind in ("train", "validation")}
        names = sorted({name for line in events["validation"] for name in line} - {"step", "kind", "seconds"})
        loss = series(events["train"], "loss")
        validation = {name: series(events["validation"], name) for name in names}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the output folder of a training") from None
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the metrics.jsonl of a training ({type(error).__name__}: {error})") from None
    if not loss[0].size:
        raise UserError(f"{path} holds no loss yet")
    return Curves(label, loss, validation)


def series(events: list[dict], name: str) -> Series:
    """The finite values with this name, by iteration."""
    found = {int(e["step"]): float(e[name]) for e in events if e.get(name) is not None and math.isfinite(float(e[name]))}
    steps = sorted(found)
    return np.array(steps, int), np.array([found[step] for step in steps], float)


def smooth(values: np.ndarray, parts: int = SMOOTHED) -> np.ndarray:
    """The moving average over windows of 1/parts of the values; windows are narrower at both ends."""
    half = len(values) // (2 * parts)
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


@styled
def curves_figure(curves: Sequence[Curves]) -> "Figure":
    """Draw the losses (validation: dots), and beside them the hole PSNR and SSIM of validations that sampled images.

    The validation before the first iteration is left out, because it would compress the scale.
    """
    check_labels([curve.label for curve in curves])
    sampled = [name for name in SAMPLED if any(name in curve.validation for curve in curves)]
    figure = new_figure(TWO_COLUMNS, 6.0)
    panels = figure.subplots(1, 1 + len(sampled), squeeze=False)[0]
    for curve, colour in zip(curves, COLOURS, strict=False):
        steps, values = curve.loss
        panels[0].plot(steps, smooth(values), color=colour, label=fit_text(curve.label, 3.5))
        found = {name: (at[at > 0], values[at > 0]) for name, (at, values) in curve.validation.items()}
        if "loss" in found:
            panels[0].plot(*found["loss"], color=colour, linestyle=DASHED, marker="o")
        for name, axes in zip(sampled, panels[1:], strict=True):
            if name in found:
                axes.plot(*found[name], color=colour, marker="o")
    log_scale(panels[0].yaxis)
    for axes, label in zip(panels, ["loss (dots: validation)", *(f"validation {METRICS[name].title}" for name in sampled)], strict=True):
        axes.set_ylabel(label)
        axes.set_xlabel("iteration")
        axes.grid(axis="y", color="#dddddd", linewidth=0.4)
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=4)
    return figure
