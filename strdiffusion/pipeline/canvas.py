"""A window of the picture on the networks' scale, and what they made of it back in the picture."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from strdiffusion.config.common import StructureConfig
from strdiffusion.data.images import filled_from, opencv, resize_image
from strdiffusion.data.masks import resize_mask
from strdiffusion.data.structure import structure_maps
from strdiffusion.data.tensors import sample_tensors
from strdiffusion.networks.discriminator import SMALLEST_SIDE
from strdiffusion.pipeline.inputs import Inputs
from strdiffusion.pipeline.windows import Box, Layout, Window, tiles_of

WHOLLY = 0.999  # a shrunk pixel is known where all it covers is


def as_image(texture: Tensor) -> np.ndarray:
    """A texture (3, h, w) as float32 (h, w, 3) in [0, 1]."""
    return texture.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class Canvas:
    """What the networks are given for a window. image (h, w, 3), zero in the hole; known (h, w), 1 = known; tiles over the hole.

    coarse: where there are several tiles, the same window shrunk to one, which is inpainted first. A tile in the middle of a large
    hole sees nothing that is known; so it begins with what was made of the whole.
    """

    window: Window
    image: np.ndarray
    known: np.ndarray
    tiles: tuple[Box, ...]
    coarse: "Canvas | None" = None

    def estimate(self, coarse: np.ndarray) -> np.ndarray:
        """What the coarse canvas' result (h', w', 3) says of this one's clean texture, (h, w, 3)."""
        texture = resize_image(coarse, *self.known.shape)
        return np.where(self.known[..., None] > 0.5, self.image, texture)

    def tensors(self, structure: StructureConfig) -> dict[str, Tensor]:
        """The fields of a batch. Edges are those of the known pixels, whatever the training's were: there are no others."""
        x0, mean = structure_maps(self.image, self.known, structure.pair, "known", structure.edge_sigma, ground_truth=False)
        return sample_tensors(self.image, self.known, x0, mean)


def make_canvas(inputs: Inputs, window: Window, size: int) -> Canvas | None:
    """Bring a window to its canvas; what is in the hole has no influence. None where no pixel of the window is known."""
    seen = inputs.seen[window.box.slices]
    if not seen.any():
        return None
    image = inputs.picture.rgb(*window.box.slices)
    known = seen.astype(np.float32)
    if window.canvas == seen.shape:
        image[~seen] = 0
    elif window.canvas[0] > seen.shape[0] or window.canvas[1] > seen.shape[1]:
        image = resize_image(filled_from(image, seen), *window.canvas)  # interpolation would spread the hole's content
        known = resize_mask(known, *window.canvas)
    else:
        image[~seen] = 0
        image = resize_image(image, *window.canvas)
        known = (resize_image(known, *window.canvas) > WHOLLY).astype(np.float32)
    image *= known[..., None]
    tiles = tiles_of(known, size)
    coarse = None
    if len(tiles) > 1:
        factor = max(window.canvas) / size
        smaller = tuple(max(round(side / factor), SMALLEST_SIDE) for side in window.canvas)
        coarse = make_canvas(inputs, replace(window, canvas=smaller), max(size, *smaller))
    return Canvas(window, image, known, tiles, coarse)


def put_back(levels: np.ndarray, result: np.ndarray, inputs: Inputs, layout: Layout, window: Window) -> None:
    """Write a window's result (h, w, 3) into the picture's levels (H, W, C), in place: into its own holes, and blended over the feather."""
    rows, columns = window.box.slices
    hole = ~inputs.known[rows, columns] & layout.own(window)
    result = resize_image(result, window.box.height, window.box.width)
    colours = inputs.picture.colours
    target = levels[rows, columns, :colours]
    if inputs.feather:
        distance = opencv().distanceTransform((~hole).astype(np.uint8), opencv().DIST_L2, opencv().DIST_MASK_PRECISE)
        seam = (distance > 0) & (distance <= inputs.feather) & inputs.known[rows, columns]
        weight = (1 - distance[seam] / (inputs.feather + 1))[:, None]
        target[seam] = blended(target[seam], inputs.picture.as_levels(result[seam]), weight)
    target[hole] = inputs.picture.as_levels(result[hole])


def blended(old: np.ndarray, new: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(1-w) old + w new, in the type of the old levels."""
    mixed = old * (1 - weight) + new * weight
    return mixed.astype(old.dtype) if old.dtype == np.float32 else np.rint(mixed).astype(old.dtype)
