"""Inpainting without a network: the sanity rows of every table."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch

from strdiffusion.batch import Batch
from strdiffusion.data.images import opencv
from strdiffusion.samplers import ImageTrace, Sample

BaselineName = Literal["masked_input", "mean_fill", "telea", "navier_stokes"]
RADIUS = 5  # pixels around a hole's pixel that OpenCV looks at


class Baseline:
    """A method that needs no training, called like an `Inpainter`.

    masked_input: the hole is black. mean_fill: every hole has the mean colour of the image's known pixels.
    telea, navier_stokes: OpenCV's `inpaint` on the 8-bit image.
    """

    def __init__(self, name: BaselineName):
        if name not in get_args(BaselineName):
            raise ValueError(f"unknown baseline {name!r}")
        self.name = name

    def __call__(self, batch: Batch, seeds: Sequence[int], callback: Callable | None = None) -> Sample:
        """Inpaint a batch; seeds and callback are not used."""
        images = (batch.texture * batch.mask).permute(0, 2, 3, 1).numpy()
        known = batch.mask[:, 0].numpy() > 0.5
        filled = np.stack([self.fill(image, k) for image, k in zip(images, known, strict=True)])
        result = torch.from_numpy(filled.astype(np.float32)).permute(0, 3, 1, 2)
        texture = torch.where(batch.mask > 0.5, batch.texture, result)
        return Sample(texture, None, [ImageTrace() for _ in seeds])

    def fill(self, image: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Fill the hole of image (H,W,3) in [0,1]; known (H,W) bool."""
        if self.name == "masked_input":
            return image
        if self.name == "mean_fill":
            return np.where(known[..., None], image, image[known].mean(axis=0))
        cv2 = opencv()
        method = cv2.INPAINT_TELEA if self.name == "telea" else cv2.INPAINT_NS
        pixels = np.round(image * 255).astype(np.uint8)
        return cv2.inpaint(pixels, (~known).astype(np.uint8) * 255, RADIUS, method).astype(np.float32) / 255
