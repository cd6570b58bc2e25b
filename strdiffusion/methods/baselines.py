"""Inpainting without a network, as simple baselines for tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from strdiffusion.batch import Known
from strdiffusion.data.images import opencv
from strdiffusion.methods.method import Method, Options, Result, register
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range

SMALLEST_SHIFTED = 16  # pixels a side that OpenCV's shift map needs


class Filling(Method):
    """Fills one image after the other by `fill`, without randomness and without steps."""

    draws = False

    def inpaint(self, known: Known, seeds: Sequence[int], **_) -> Iterator[Result]:
        images, masks = known.image.permute(0, 2, 3, 1).cpu().numpy(), known.mask[:, 0].cpu().numpy() > 0.5
        filled = np.stack([self.fill(image, mask) for image, mask in zip(images, masks, strict=True)])
        yield Result(known.put_back(torch.from_numpy(filled.astype(np.float32)).permute(0, 3, 1, 2).to(known.image.device)))

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Fill the hole of image (H,W,3) in [0,1], which is zero there; known (H,W) bool."""
        raise NotImplementedError


@register("masked_input")
class MaskedInput(Filling):
    """The hole stays black."""

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        return image


@register("mean_fill")
class MeanFill(Filling):
    """The hole gets the mean colour of the known pixels."""

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        return np.where(known[..., None], image, image[known].mean(axis=0))


@dataclass
class OpenCVOptions(Options):
    """radius: of the neighbourhood that OpenCV uses for a pixel of the hole, in pixels."""

    radius: Annotated[int, Range(1, 100)] = 5


class OpenCVInpainting(Filling):
    """OpenCV's `inpaint` on the 8-bit image."""

    Options = OpenCVOptions
    flag: str

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        cv2 = opencv()
        pixels = np.round(image * 255).astype(np.uint8)
        hole = (~known).astype(np.uint8) * 255
        return cv2.inpaint(pixels, hole, self.options.radius, getattr(cv2, self.flag)).astype(np.float32) / 255


@register("telea")
class Telea(OpenCVInpainting):
    """Telea's fast marching method."""

    flag = "INPAINT_TELEA"


@register("navier_stokes")
class NavierStokes(OpenCVInpainting):
    """Bertalmio's method, based on fluid dynamics."""

    flag = "INPAINT_NS"


@register("shift_map")
class ShiftMap(Filling):
    """Filling by pieces of the known part, moved by the shifts that occur most between alike patches: OpenCV's `xphoto`, which is in
    opencv-contrib-python-headless alone. Slow: a minute for 384x384 pixels. The image needs at least 16 pixels a side.
    """

    def require_size(self, height: int, width: int) -> None:
        if min(height, width) < SMALLEST_SHIFTED:
            raise UserError(f"is smaller than {SMALLEST_SHIFTED} pixels a side, which shift_map needs: choose another method")

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        cv2 = opencv()
        if not hasattr(cv2, "xphoto"):
            advice = "pip uninstall opencv-python-headless, then pip install opencv-contrib-python-headless"
            raise UserError(f"the method shift_map needs OpenCV's xphoto, which this OpenCV has not: {advice}")
        pixels = cv2.cvtColor(np.round(image * 255).astype(np.uint8), cv2.COLOR_RGB2Lab)
        filled = np.zeros_like(pixels)
        cv2.xphoto.inpaint(pixels, known.astype(np.uint8) * 255, filled, cv2.xphoto.INPAINT_SHIFTMAP)
        return np.where(known[..., None], image, cv2.cvtColor(filled, cv2.COLOR_Lab2RGB).astype(np.float32) / 255)


@register("biharmonic")
class Biharmonic(Filling):
    """The smoothest continuation: the biharmonic equation, solved by scikit-image for each hole. Slow for large holes."""

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        from skimage.restoration import inpaint_biharmonic

        filled = inpaint_biharmonic(image.astype(np.float64), ~known, channel_axis=-1, split_into_regions=True)
        return np.clip(filled, 0, 1).astype(np.float32)
