"""How DGTS fills an image: the order of its patches as numbers, and where a patch looks among the texture references (docs/dgts.md)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import collate
from strdiffusion.evaluation.folder import open_method
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.figures.methods import Entry, chosen_item
from strdiffusion.figures.style import BLUE, FONT_SIZE, GRAY, TWO_COLUMNS, VERMILLION, new_figure, styled
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 12  # references of largest weight that are marked
HEIGHT = 6.2  # cm


@dataclass(frozen=True)
class FillingPicture:
    """How one image was filled, at the size at which it is filled.

    masked, filled: (S,S,3) in [0,1]; the hole of `masked` is white. order: the positions of the patches filled one by one, row by row on a
    grid of `grid` patches a side. patch: which of these positions is shown. attention: its weights over the references, (side,side).
    """

    name: str
    masked: np.ndarray
    filled: np.ndarray
    order: list[int]
    grid: int
    patch: int
    attention: np.ndarray


def record_filling(config: TestConfig, image: str | None = None, number: int | None = None) -> FillingPicture:
    """Fill an image of a test, the first one if no name is given. number: of the patch to show, in the order of filling from 1; without it
    that in the middle of the order. Raises UserError if the method is not DGTS, or if there is no such patch.
    """
    if config.method != "dgts":
        raise UserError(f"this shows how DGTS fills: set method=dgts, not {config.method}")
    method = open_method(config)
    item = chosen_item(Entry("dgts", config), method, image)
    known = method.sized(collate([item]).to(method.device))
    result, core = method.fill(known), method.model.core
    order = [p for p in result.order[0].tolist() if p >= 0]
    if not order:
        raise UserError(f"no patch of {item.name} was filled one by one: take another image, or set dgts.one_by_one=null")
    shown = (len(order) + 1) // 2 if number is None else number
    if not 1 <= shown <= len(order):
        raise UserError(f"patches 1 to {len(order)} of {item.name} were filled one by one, and {shown} is asked for")
    image, mask = core.reduced(known.image)[0], core.reduced(known.mask)[0]
    masked = image * mask + 1 - mask  # (3,S,S)
    side = core.references.side
    return FillingPicture(
        name=item.name,
        masked=masked.permute(1, 2, 0).cpu().numpy(),
        filled=((result.image[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy(),
        order=order,
        grid=core.grid,
        patch=order[shown - 1],
        attention=result.attention[0, shown - 1].view(side, side).cpu().numpy(),
    )


@styled
def filling_figure(picture: FillingPicture) -> "Figure":
    """Draw the order of filling, the weights of one patch over the references, the references of largest weight, and the result."""
    figure = new_figure(TWO_COLUMNS, HEIGHT)
    order, weights, largest, result = figure.subplots(1, 4)
    number = picture.order.index(picture.patch) + 1
    extent = (0, picture.grid, picture.grid, 0)  # axes in patches

    order.imshow(picture.masked, extent=extent)
    for i, p in enumerate(picture.order, start=1):
        row, column = divmod(p, picture.grid)
        colour = VERMILLION if p == picture.patch else BLUE
        order.text(column + 0.5, row + 0.5, str(i), ha="center", va="center", fontsize=min(FONT_SIZE, 44 / picture.grid), color=colour)
    order.set_title("order of filling")

    shown = weights.imshow(picture.attention, extent=extent, cmap="viridis")
    figure.colorbar(shown, ax=weights, orientation="horizontal", shrink=0.8, pad=0.04, format="%.2g").set_ticks(
        [float(picture.attention.min()), float(picture.attention.max())]
    )
    weights.set_title(f"patch {number}: its weights")

    largest.imshow(picture.masked, extent=extent)
    side = len(picture.attention)
    for index in np.argsort(picture.attention, axis=None)[::-1][:SHOWN]:
        row, column = divmod(int(index), side)
        frame(largest, row * picture.grid / side, column * picture.grid / side, picture.grid / side, BLUE)
    largest.set_title(f"the {min(SHOWN, side**2)} largest")

    result.imshow(picture.filled, extent=extent)
    result.set_title("filled")
    for axes in (order, weights, largest, result):
        frame(axes, *divmod(picture.patch, picture.grid), 1, VERMILLION)
        axes.set_anchor("N")
        axes.set(xticks=[], yticks=[], xlim=(0, picture.grid), ylim=(picture.grid, 0))
        for spine in axes.spines.values():
            spine.set(visible=True, color=GRAY)
    return figure


def frame(axes: "Axes", top: float, left: float, side: float, colour: str) -> None:
    """Draw the outline of a square."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=colour, linewidth=0.8))
