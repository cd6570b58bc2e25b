"""Structure maps of an image: gray values and Canny edges, and the states of the structure process."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range

StructurePair = Literal["gray2edge", "gray2gray", "edge2edge", "edge2gray", "labels"]
EdgeSource = Literal["full", "known"]


@dataclass
class StructureConfig:
    """Structure maps (spec sec. 3), or "labels" of which nothing is known, for the joint form (sec. 11)."""

    pair: StructurePair = "gray2edge"
    edge_source: EdgeSource = "full"
    edge_sigma: Annotated[float, Range(0, 100, open_low=True)] = 2.0


def gray_map(image: np.ndarray) -> np.ndarray:
    """Rec. 709 luma, float32 (H, W) in [0, 1], of `image` (H, W, 3) in [0, 1] after rounding it to 8 bits.

    The luma itself is not rounded to 8 bits again.
    """
    from skimage.color import rgb2gray

    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return rgb2gray(levels).astype(np.float32)


def edge_map(gray: np.ndarray, sigma: float, known: np.ndarray | None = None) -> np.ndarray:
    """Canny edges, float32 (H, W) of 0 and 1, of `gray` (H, W) smoothed by `sigma` pixels.

    With `known` (H, W), 1 = known, only known pixels are used: the hole's content has no influence.
    """
    from skimage.feature import canny

    return canny(gray, sigma, mask=None if known is None else known > 0.5).astype(np.float32)


def check_edge_source(pair: StructurePair, edge_source: EdgeSource, ground_truth: bool) -> None:
    """Raise UserError if edges of the full image are asked for and the hole's content does not exist."""
    if not ground_truth and edge_source == "full" and "edge" in pair:
        raise UserError(
            "edges of the full image need the ground truth, which a photograph with a real hole lacks; set structure.edge_source=known"
        )


def structure_maps(
    image: np.ndarray, known: np.ndarray, pair: StructurePair, edge_source: EdgeSource, sigma: float, ground_truth: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The clean structure state x0 and the terminal state mu_x, both float32 (H, W).

    image (H, W, 3) in [0, 1]; known (H, W), 1 = known pixel; sigma of the edges in pixels.
    x0 is the gray map for "gray2*", the edges for "edge2*", of the full image: it is the training target.
    mu_x is the edges for "*2edge", the gray map for "*2gray", times `known`. Its edges are those of the full
    image (edge_source "full", as released) or of the known pixels alone ("known").
    Labels are no map of the image: both are empty then.
    Without `ground_truth` the hole's content is ignored everywhere, in x0 too; its edges must be "known" then.
    """
    if pair == "labels":
        nothing = np.zeros(known.shape, np.float32)
        return nothing, nothing
    start, _, end = pair.partition("2")
    if {start, end} - {"gray", "edge"} or edge_source not in ("full", "known"):
        raise ValueError(f"unknown structure pair {pair!r} or edge source {edge_source!r}")
    check_edge_source(pair, edge_source, ground_truth)
    if not ground_truth:
        # Selected, not multiplied: the hole of a damaged photograph may hold NaN.
        image = np.where(known[..., None] > 0.5, image, np.float32(0))
    gray = gray_map(image)
    x0 = gray if start == "gray" else edge_map(gray, sigma, None if ground_truth else known)
    if end == "gray":
        mean = gray
    elif edge_source == "full":
        mean = x0 if start == "edge" else edge_map(gray, sigma)
    else:
        mean = edge_map(gray, sigma, known)
    return x0, mean * known.astype(np.float32)
