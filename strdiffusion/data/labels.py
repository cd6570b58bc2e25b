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
