"""What is unknown in training images: photographs that have holes themselves, of which a training must not learn."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from strdiffusion.data.images import resize_image
from strdiffusion.data.listing import find_images
from strdiffusion.data.masks import Polarity, read_mask, resize_mask
from strdiffusion.data.pairing import pair_masks
from strdiffusion.system.errors import UserError

WHOLLY = 0.999  # a pixel of a smaller mask is known if all the pixels that it covers are


class UnknownParts:
    """The masks of images that have holes themselves: one file for all images, or files of the same names below a folder.

    Raises UserError if there is no such file or folder, or a mask is missing.
    """

    def __init__(self, source: str | os.PathLike, images: Sequence[Path], folder: Path, polarity: Polarity = "white_hole"):
        path, self.polarity = Path(source).expanduser(), polarity
        if path.is_dir():
            self.files = dict(zip(images, pair_masks(list(images), find_images(path), "name", 0, folder, path), strict=True))
        else:
            self.files = dict.fromkeys(images, path)

    def read(self, image: Path, size: tuple[int, int]) -> np.ndarray:
        """The known pixels, bool (H, W), of an image of this (height, width). Raises UserError for a mask that cannot be used."""
        known = resize_mask(read_mask(self.files[image], self.polarity), *size) > 0.5
        if not known.any():
            raise UserError(f"{self.files[image]} leaves no known pixel of {image}, so nothing can be learnt from it")
        return known


def shrunk_mask(known: np.ndarray, height: int, width: int) -> np.ndarray:
    """Known pixels (H, W) at a new size, float32: 1 where all that a pixel covers is known."""
    return (resize_image(known.astype(np.float32), height, width) > WHOLLY).astype(np.float32)
