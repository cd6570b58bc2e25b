"""The distance over t between the structure that guides in a test and the true structure, which guided in training."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from tqdm import tqdm

from strdiffusion.data import collate
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.figures.methods import Entry, first_items
from strdiffusion.figures.states import Visit, visit_states
from strdiffusion.figures.style import BLACK, BLUE, DASHED, GREEN, ONE_COLUMN, VERMILLION, new_figure, styled, time_axis
from strdiffusion.methods import Step
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class GuideDistance:
    """Root mean squares over `images` images, by t, of the difference between two structure states drawn with the same noise.

    hole, known: the denoised structure against the true one, in each region; wrong: another image's structure against the
    true one, in the hole; noise: the standard deviation of the noise in both states (spec sec. 2).
    """

    t: np.ndarray
    hole: np.ndarray
    known: np.ndarray
    wrong: np.ndarray
    noise: np.ndarray
    images: int


def measure_guide(config: TestConfig, images: int) -> GuideDistance:
    """Sample with the denoised, the true and another image's structure from the same noise, and compare the structure states."""
    if config.method != "strdiffusion" or config.options.sampler.resampling != "none" or not config.data.ground_truth:
        raise UserError("this compares guides: set method=strdiffusion, sampler.resampling=none and data.ground_truth=true")
    guides = ("ground_truth", "denoised", "other_image")
    entries = [Entry(guide, replace(config, options=replace(config.options, guide=guide))) for guide in guides]
    methods = [entry.open() for entry in entries]
    squares: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    sde = methods[0].sde
    count = 0
    with tqdm(desc="guides", unit="image", mininterval=0.5) as bar:
        batches = [first_items(entry, method, images) for entry, method in zip(entries, methods, strict=True)]
        for several in zip(*batches, strict=True):
            states: dict[str, dict[int, Tensor]] = {guide: {} for guide in guides}
            for entry, method, items in zip(entries, methods, several, strict=True):
                visit_states(entry, method, items, keep_structure(states[entry.label]))
            hole = collate(several[0]).mask < 0.5
            for t in states["denoised"]:
                true, denoised, other = (states[guide][t] for guide in guides)
                regions = [mean_square(denoised - true, hole), mean_square(denoised - true, ~hole), mean_square(other - true, hole)]
                squares[t].extend(zip(*regions, strict=True))
            count += len(several[0])
            bar.update(len(several[0]))
    times = sorted(squares, reverse=True)
    hole, known, wrong = np.sqrt(np.array([np.nanmean(squares[t], axis=0) for t in times])).T
    noise = np.array([float(sde.sigma_bar[t]) for t in times])
    return GuideDistance(np.array(times), hole, known, wrong, noise, count)


def keep_structure(found: dict[int, Tensor]) -> Visit:
    """A visitor that stores the structure of every state that has one, by t."""

    def keep(state: Step, _: Step | None) -> None:
        if "structure" in state.pictures:
            found[state.to] = state.pictures["structure"].cpu()

    return keep


def mean_square(difference: Tensor, region: Tensor) -> list[float]:
    """For each image, the mean square of (B,1,H,W) over a region (B,1,H,W)."""
    return [float(values[inside].square().mean()) for values, inside in zip(difference, region, strict=True)]


@styled
def guide_figure(distance: GuideDistance) -> "Figure":
    """Draw the distances, with the noise for comparison."""
    figure = new_figure(ONE_COLUMN, 8.0)
    axes = figure.subplots()
    axes.plot(distance.t, distance.noise, color=BLACK, linestyle=DASHED, label="noise of the state")
    axes.plot(distance.t, distance.wrong, color=GREEN, marker="o", label="another image's structure, hole")
    axes.plot(distance.t, distance.hole, color=VERMILLION, marker="o", label="denoised structure, hole")
    axes.plot(distance.t, distance.known, color=BLUE, marker="o", label="denoised structure, known")
    axes.set_ylabel(f"RMS distance to the true structure\n({distance.images} images, the same noise)")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.4)
    axes.set_axisbelow(True)
    time_axis(axes, int(distance.t[0]))
    figure.legend(loc="outside upper left")
    return figure
