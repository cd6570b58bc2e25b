"""The semantic discrepancy: how far the hole region lags behind the known region while sampling."""

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
from strdiffusion.errors import UserError
from strdiffusion.evaluation.figures.methods import (
    DiscrepancyConfig,
    FiguresConfig,
    Method,
    SameImages,
    first_items,
    image_seed,
    load_methods,
)
from strdiffusion.evaluation.figures.states import State, estimate, visit_states
from strdiffusion.evaluation.figures.style import BLACK, COLOURS, DASHED, GRAY, ONE_COLUMN, fit_text, new_figure, styled, time_axis
from strdiffusion.evaluation.metrics import psnr
from strdiffusion.inpainting import Inpainter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

WHAT = {
    ("texture", "state"): "texture state",
    ("structure", "state"): "structure state",
    ("texture", "estimate"): "texture predicted from the state",
    ("structure", "estimate"): "structure predicted from the state",
}


@dataclass(frozen=True)
class Discrepancy:
    """The curves of one method: PSNR in dB to the truth of the known and of the hole region, means over `images` images.

    t falls from T to where the process ends. Values are not cut to [0,1]. Infinite where a region is exact.
    """

    label: str
    t: np.ndarray
    known: np.ndarray
    hole: np.ndarray
    images: int


def measure_discrepancy(config: FiguresConfig) -> list[Discrepancy]:
    """Run every method on the first images, and measure its states. Raises UserError where there is no truth or no structure."""
    methods, options = load_methods(config), config.discrepancy
    for method in methods:
        if not method.config.data.ground_truth:
            raise UserError(f"{method.label} has data.ground_truth=false: without a truth there is nothing to compare its states with")
        if options.network == "structure" and not method.config.sampler.guidance:
            raise UserError(f"{method.label} has no structure (sampler.guidance=false): set discrepancy.network=texture")
    same = SameImages()
    curves = [measure_method(method, options, same) for method in methods]
    if len({curve.images for curve in curves}) > 1:
        raise UserError(f"the methods have different numbers of images ({', '.join(f'{c.label}: {c.images}' for c in curves)})")
    for curve in curves:
        exact = curve.t[np.isinf(curve.known)]
        if exact.size:
            log.warning("%s: the known region is exact at t = %s, its PSNR infinite and not drawn", curve.label, ", ".join(map(str, exact)))
    return curves


def measure_method(method: Method, options: DiscrepancyConfig, same: SameImages) -> Discrepancy:
    """Run one method on its images, batch by batch, and average their curves."""
    inpainter = Inpainter(method.config)
    values: dict[int, list[tuple[float, float]]] = defaultdict(list)  # t -> (known, hole) of each image
    count = 0
    with tqdm(desc=method.label, unit="image", mininterval=0.5) as bar, logging_redirect_tqdm():
        for items in first_items(method, options.images):
            for item in items:
                same.require(method, item)
            for t, pairs in measure_batch(inpainter, items, method, options, bar).items():
                values[t].extend(pairs)
            count += len(items)
            bar.update(len(items))
    times = sorted(values, reverse=True)
    means = np.array([np.mean(values[t], axis=0) for t in times])
    return Discrepancy(method.label, np.array(times), means[:, 0], means[:, 1], count)


def measure_batch(
    inpainter: Inpainter, items: list[TestItem], method: Method, options: DiscrepancyConfig, bar: tqdm
) -> dict[int, list[tuple[float, float]]]:
    """The PSNR of (known, hole) of every image at every t; of what a sampler visits several times, the last."""
    batch = collate(items)
    known = batch.to(inpainter.device)
    truth = getattr(batch, options.network)
    found: dict[int, list[tuple[float, float]]] = {}

    def measure(state: State) -> None:
        bar.set_postfix_str(f"t {state.t}/{inpainter.sde.T}", refresh=False)
        bar.update(0)
        if getattr(state, options.network) is None:
            return
        texture, structure = estimate(inpainter.models, known, state) if options.of == "estimate" else (state.texture, state.structure)
        values = (texture if options.network == "texture" else structure).cpu()
        found[state.t] = [region_psnr(values[i], truth[i], batch.mask[i]) for i in range(len(items))]

    visit_states(inpainter, batch, [image_seed(method.config, item) for item in items], measure)
    return found


def region_psnr(values: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    """PSNR of the known and of the hole region of values (C,H,W); mask (1,H,W), 1 = known."""
    hole = mask[0].numpy() < 0.5
    image, target = values.permute(1, 2, 0).numpy(), truth.permute(1, 2, 0).numpy()
    return psnr(image, target, ~hole), psnr(image, target, hole)


@styled
def discrepancy_figure(curves: Sequence[Discrepancy], options: DiscrepancyConfig) -> "Figure":
    """Draw the curves above, with the gap between them shaded, and below the gap itself."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    figure = new_figure(ONE_COLUMN, 8.5 + 0.36 * max(len(curves), 3))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    for curve, colour in zip(curves, COLOURS, strict=False):
        # infinite values are left out, not drawn at the edge
        known, hole = (np.where(np.isfinite(values), values, np.nan) for values in (curve.known, curve.hole))
        above.plot(curve.t, known, color=colour, linestyle="-")
        above.plot(curve.t, hole, color=colour, linestyle=DASHED)
        above.fill_between(curve.t, hole, known, color=colour, alpha=0.15, linewidth=0)
        below.plot(curve.t, known - hole, color=colour)
    above.set_ylabel("PSNR to the truth (dB)")
    below.set_ylabel("gap (dB)")
    time_axis(below, max(int(curve.t[0]) for curve in curves))
    below.axhline(0, color=GRAY, linewidth=0.5)
    for axes in (above, below):
        axes.grid(axis="y", color="#dddddd", linewidth=0.4)
        axes.set_axisbelow(True)
    count = curves[0].images
    above.set_title(f"{WHAT[options.network, options.of]}, {f'mean of {count} images' if count > 1 else '1 image'}", loc="left")
    methods = [(Line2D([], [], color=colour), fit_text(curve.label, 4.5)) for curve, colour in zip(curves, COLOURS, strict=False)]
    meanings = [
        (Line2D([], [], color=BLACK), "known region"),
        (Line2D([], [], color=BLACK, linestyle=DASHED), "hole region"),
        (Patch(color=GRAY, alpha=0.3, linewidth=0), "gap"),
    ]
    rows = max(len(methods), len(meanings))
    empty = (Line2D([], [], linestyle="none"), " ")
    entries = [entry for column in (methods, meanings) for entry in column + [empty] * (rows - len(column))]
    figure.legend(*zip(*entries, strict=True), loc="outside upper left", ncols=2)
    return figure
