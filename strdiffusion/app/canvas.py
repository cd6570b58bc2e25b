"""Canvases: a window of the picture at the networks' scale, and its result put back into the picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from strdiffusion.app.inputs import Inputs
from strdiffusion.app.windows import Box, Layout, Window, shrink_first, tiles_of
from strdiffusion.batch import Known
from strdiffusion.data.images import filled_from, opencv, resize_image
from strdiffusion.data.masks import resize_mask
from strdiffusion.data.tensors import as_tensor
from strdiffusion.methods import Method, see
from strdiffusion.networks.discriminator import SMALLEST_SIDE

WHOLLY = 0.999  # a pixel of a shrunk canvas is known if all the pixels that it covers are known


def as_image(texture: Tensor) -> np.ndarray:
    """A texture (3, h, w) as float32 (h, w, 3) in [0, 1]."""
    return texture.float().clamp(0, 1).permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class Canvas:
    """A window at the size at which the networks see it: its known pixels, bool (h, w), and the tiles over the hole.

    coarse: the same window on a smaller canvas, from whose result the sampling begins: shrunk to one tile if there are several, for a tile
    in the middle of a large hole may have no known pixel; or shrunk because the hole is thick.
    """

    window: Window
    known: np.ndarray
    tiles: tuple[Box, ...]
    coarse: "Canvas | None" = None

    def steps(self) -> "Iterator[Canvas]":
        """The canvases that are inpainted one after the other, the coarsest first."""
        if self.coarse is not None:
            yield from self.coarse.steps()
        yield self

    @property
    def area(self) -> int:
        """The pixels of all tiles, which a network sees in one evaluation of each."""
        return sum(tile.height * tile.width for tile in self.tiles)

    def image(self, inputs: Inputs) -> np.ndarray:
        """The picture's window at this size, float32 (h, w, 3), zero in the hole. The hole's content has no influence."""
        seen = inputs.seen[self.window.box.slices]
        image = inputs.picture.rgb(*self.window.box.slices)
        if enlarged(self.window):
            image = filled_from(image, seen)  # interpolation would spread the hole's content
        else:
            image[~seen] = 0
        return resize_image(image, *self.window.canvas) * self.known[..., None]

    def known_image(self, image: np.ndarray, method: Method) -> Known:
        """The method's input for the canvas' image (h, w, 3)."""
        return one(image, self.known.astype(np.float32), method)

    def estimate(self, image: np.ndarray, coarse: np.ndarray, method: Method) -> Known:
        """An estimate of the clean image from the coarse canvas' result (h', w', 3), with all its pixels marked as known."""
        texture = np.where(self.known[..., None], image, resize_image(coarse, *self.known.shape))
        return one(texture, np.ones(self.known.shape, np.float32), method)


def one(image: np.ndarray, known: np.ndarray, method: Method) -> Known:
    """A batch of one image."""
    maps = {name: as_tensor(values)[None] for name, values in see(method, image, known).items()}
    return Known(as_tensor(image)[None], as_tensor(known)[None], maps)


def together(parts: Sequence[Known]) -> Known:
    """Batches of images of one size as one batch."""
    maps = {name: torch.cat([part.maps[name] for part in parts]) for name in parts[0].maps}
    return Known(torch.cat([part.image for part in parts]), torch.cat([part.mask for part in parts]), maps)


def make_canvas(inputs: Inputs, window: Window, size: int | None, largest: int | None = None) -> Canvas | None:
    """The canvas of a window, in tiles of `size` (None: without tiles), or of `largest`, see `lay_out`; None if no pixel of the window is
    known.
    """
    seen = inputs.seen[window.box.slices]
    if not seen.any():
        return None
    if enlarged(window):
        known = resize_mask(seen, *window.canvas) > 0.5
    else:
        known = resize_image(seen.astype(np.float32), *window.canvas) > WHOLLY
    if size is None:
        return Canvas(window, known, (Box(0, 0, *known.shape),))
    if window.thickness is None:
        tiles = tiles_of(known, size)
        factor = max(window.canvas) / size if len(tiles) > 1 else 1.0
    else:
        tiles = tiles_of(known, largest)
        factor = shrink_first(window, size)
    smaller = tuple(max(round(side / factor), SMALLEST_SIDE) for side in window.canvas) if factor > 1 else window.canvas
    if smaller == window.canvas:
        return Canvas(window, known, tiles)
    first = replace(window, canvas=smaller)
    coarse = make_canvas(inputs, first, max(size, *smaller)) if window.thickness is None else make_canvas(inputs, first, size, largest)
    return Canvas(window, known, tiles, coarse)


def enlarged(window: Window) -> bool:
    """Whether a window's canvas is larger than the window."""
    return window.canvas[0] > window.box.height or window.canvas[1] > window.box.width


def put_back(levels: np.ndarray, result: np.ndarray, inputs: Inputs, layout: Layout, window: Window) -> None:
    """Write a window's result (h, w, 3) into the picture's levels (H, W, C), in place: in its own holes, and blended within the feather."""
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
