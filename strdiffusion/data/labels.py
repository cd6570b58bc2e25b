"""Labels: the class of every pixel of an image, as files of one 8-bit channel or drawn with the facades."""

import os
from pathlib import Path

import numpy as np

from strdiffusion.data.decoding import MAX_BYTES, decode_colours, read_file
from strdiffusion.data.facades import is_virtual, read_facade_labels
from strdiffusion.system.errors import UserError


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """The class of every pixel, uint8 (H, W): of a facade that is drawn (`facades:64/test/00003.png`), or of a gray 8-bit file.

    Raises UserError for a file that is missing, no image, or has colours or more bits.
    """
    if is_virtual(path):
        return read_facade_labels(Path(path))
    levels = decode_colours(read_file(path, MAX_BYTES), path)
    if levels.ndim != 2 or levels.dtype != np.uint8:
        kind = "colours" if levels.ndim == 3 else f"pixels of type {levels.dtype}"
        raise UserError(f"{path} has {kind}, and is no file of labels: those have one 8-bit channel, the number of each pixel's class")
    return levels


def read_labels_of(image: Path, path: Path, size: tuple[int, int]) -> np.ndarray:
    """The labels, uint8 (H, W), that a file holds of an image of this (height, width). Raises UserError if it cannot be used for it."""
    labels = read_labels(path)
    if labels.shape != size:
        raise UserError(f"the labels {path} have {labels.shape[1]}x{labels.shape[0]} pixels, and the image {image} {size[1]}x{size[0]}")
    return labels


class LabelFolder:
    """The labels of the images below a folder: PNG files of the same relative paths below another, or a virtual folder of facades.

    Raises UserError if there is no such folder.
    """

    def __init__(self, labels: str | os.PathLike, images: str | os.PathLike):
        self.labels, self.images = Path(labels).expanduser(), Path(images).expanduser()
        if not is_virtual(self.labels) and not self.labels.is_dir():
            raise UserError(f"the folder of labels {self.labels} does not exist; check the path")

    def read(self, image: Path, size: tuple[int, int]) -> np.ndarray:
        """The labels, uint8 (H, W), of an image file of this (height, width). Raises UserError for a file that cannot be used."""
        return read_labels_of(image, self.labels / image.relative_to(self.images).with_suffix(".png"), size)
