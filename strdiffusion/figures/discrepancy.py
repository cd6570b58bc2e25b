"""The semantic discrepancy: how far the hole region lags behind the known region during sampling."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.data import TestItem, collate
from strdiffusion.evaluation.metrics import psnr
from strdiffusion.figures.methods import DiscrepancyConfig, Entry, FiguresConfig, SameImages, first_items, load_entries, truths
from strdiffusion.figures.states import visit_states
from strdiffusion.figures.style import (
    BLACK,
    COLOURS,
    DASHED,
    GRAY,
    ONE_COLUMN,
    TWO_COLUMNS,
    fit_text,
    legend_above,
    new_figure,
    styled,
    time_axis,
)
from strdiffusion.methods import Method, Step
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MOST_IN_ONE_COLUMN = 2  # panels side by side
STYLES = ("-", (0, (4, 1)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
WHAT = {
    ("texture", "state"): "texture state",
    ("structure", "state"): "structure state",
    ("texture", "estimate"): "texture predicted from the state",
    ("structure", "estimate"): "structure predicted from the state",
}


@dataclass(frozen=True)
class Discrepancy:
    """The curves of one method: PSNR in dB of the known and of the hole region against the truth, means over `images` images.

    t falls from T to the end of the process. Values are not clipped to [0,1]. The PSNR is infinite if a region is exact.
    """

    label: str
    t: np.ndarray
    known: np.ndarray
    hole: np.ndarray
    images: int


def measure_discrepancy(config: FiguresConfig) -> list[Discrepancy]:
    """Run every entry on the first images, and measure its states. Raises UserError if truth, structure or steps are missing."""
    entries, options = load_entries(config), config.discrepancy
    for entry in entries:
        if not entry.config.data.ground_truth:
            raise UserError(f"{entry.label} has data.ground_truth=false: without a truth there is nothing to compare its states with")
        if options.network not in ("texture", *entry.config.options.pictures):
            raise UserError(f"{entry.label} has no structure (method={entry.config.method}): set discrepancy.network=texture")
    same = SameImages()
    curves = [measure_entry(entry, options, same) for entry in entries]
    if len({curve.images for curve in curves}) > 1:
        raise UserError(f"the methods have different numbers of images ({', '.join(f'{c.label}: {c.images}' for c in curves)})")
    for curve in curves:
        exact = curve.t[np.isinf(curve.known)]
        if exact.size:
            log.warning("%s: the known region is exact at t = %s, its PSNR infinite and not drawn", curve.label, ", ".join(map(str, exact)))
    return curves


def measure_entry(entry: Entry, options: DiscrepancyConfig, same: SameImages) -> Discrepancy:
    """Run one entry on its images, batch by batch, and average their curves."""
    method = entry.open()
    values: dict[int, list[tuple[float, float]]] = defaultdict(list)  # t -> (known, hole) of each image
    count = 0
    with tqdm(desc=entry.label, unit="image", mininterval=0.5) as bar, logging_redirect_tqdm():
        for items in first_items(entry, method, options.images):
            for item in items:
                same.require(entry, item)
            for t, pairs in measure_batch(entry, method, items, options, bar).items():
                values[t].extend(pairs)
            if not values:
                raise UserError(f"{entry.label} has no steps (method={entry.config.method}): leave it out")
            count += len(items)
            bar.update(len(items))
    times = sorted(values, reverse=True)
    means = np.array([np.mean(values[t], axis=0) for t in times])
    return Discrepancy(entry.label, np.array(times), means[:, 0], means[:, 1], count)


def measure_batch(
    entry: Entry, method: Method, items: list[TestItem], options: DiscrepancyConfig, bar: tqdm
) -> dict[int, list[tuple[float, float]]]:
    """The PSNR of (known, hole) of every image at every t. If a sampler visits a t several times, the last visit counts."""
    known, truth = collate(items), truths(method, items)[options.network]
    found: dict[int, list[tuple[float, float]]] = {}

    def measure(state: Step, after: Step | None) -> None:
        bar.set_postfix_str(f"t {state.to}/{state.T}", refresh=False)
        bar.update(0)
        if options.network == "structure" and "structure" not in state.pictures:
            return
        if options.of == "estimate":
            state = method.predict(known, state, after)
        values = (state.image if options.network == "texture" else state.pictures["structure"]).cpu()
        found[state.to] = [region_psnr(values[i], truth[i], known.mask[i]) for i in range(len(items))]

    visit_states(entry, method, items, measure)
    return found


def region_psnr(values: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    """PSNR of the known and of the hole region of values (C,H,W); mask (1,H,W), 1 = known."""
    hole = mask[0].numpy() < 0.5
    image, target = values.permute(1, 2, 0).numpy(), truth.permute(1, 2, 0).numpy()
    return psnr(image, target, ~hole), psnr(image, target, hole)


@styled
def discrepancy_figure(curves: Sequence[Discrepancy], options: DiscrepancyConfig) -> "Figure":
    """Draw a panel for each method, with its curves and the gap between them shaded, and below it the gaps of all methods."""
    from matplotlib.patches import Patch

    wide = len(curves) > MOST_IN_ONE_COLUMN
    figure = new_figure(TWO_COLUMNS if wide else ONE_COLUMN, 9.5)
    grid = figure.add_gridspec(2, len(curves), height_ratios=(1.4, 1))
    T = max(int(curve.t[0]) for curve in curves)
    first = None
    for i, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        axes = first = figure.add_subplot(grid[0, i], sharey=first)
        draw_regions(axes, curve, colour)
        axes.set_title(fit_text(curve.label, (TWO_COLUMNS if wide else ONE_COLUMN) / len(curves) - 1, lines=2), color=colour)
        axes.tick_params(labelleft=i == 0)
        time_axis(axes, T, narrow=len(curves) > 1)
    figure.axes[0].set_ylabel("PSNR to the truth (dB)")
    count = curves[0].images
    title = f"{WHAT[options.network, options.of]}, {f'mean of {count} images' if count > 1 else '1 image'}"
    handles, labels = figure.axes[0].get_legend_handles_labels()
    handles[-1] = Patch(color=GRAY, alpha=0.35, linewidth=0)  # the gap has another colour in each panel
    figure.legend(handles, labels, title=title, alignment="left", loc="outside upper left", ncols=3)

    below = figure.add_subplot(grid[1, :])
    for curve, colour, style in zip(curves, COLOURS, STYLES, strict=False):
        known, hole = finite(curve)
        below.plot(curve.t, known - hole, color=colour, linestyle=style, label=fit_text(curve.label, 3.0))
    below.set_ylabel("gap (dB)")
    below.axhline(0, color=GRAY, linewidth=0.5)
    time_axis(below, T)
    legend_above(below)
    for axes in figure.axes:
        axes.grid(axis="y", color="#dddddd", linewidth=0.4)
        axes.set_axisbelow(True)
    figure.align_ylabels([figure.axes[0], below])
    return figure


def draw_regions(axes, curve: Discrepancy, colour: str) -> None:
    """The curves of both regions, and the shaded gap."""
    known, hole = finite(curve)
    axes.plot(curve.t, known, color=BLACK, linestyle="-", label="known region")
    axes.plot(curve.t, hole, color=BLACK, linestyle=DASHED, label="hole region")
    axes.fill_between(curve.t, hole, known, color=colour, alpha=0.35, linewidth=0, label="gap")


def finite(curve: Discrepancy) -> tuple[np.ndarray, np.ndarray]:
    """Known and hole region with nan for infinite values, so that these are not drawn."""
    known, hole = (np.where(np.isfinite(values), values, np.nan) for values in (curve.known, curve.hole))
    return known, hole
