"""The mask and hints that were painted in the browser."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from strdiffusion.data.masks import resize_mask
from strdiffusion.system.errors import UserError

PREFIX = "data:image/png;base64,"
OPAQUE = 128  # the threshold of opacity for the soft edges of strokes


@dataclass(frozen=True)
class Painted:
    """What paint.js sends. number: of the picture. hole, hints: layers of the preview's size as data URLs, or None."""

    number: int
    hole: str | None
    hints: str | None


@dataclass(frozen=True)
class Painting:
    """hole: bool (H, W) of the picture's size. hints: uint8 RGBA (h, w, 4) of the preview's size, or None."""

    hole: np.ndarray
    hints: np.ndarray | None


def read_painting(painted: object, preview: tuple[int, int], size: tuple[int, int]) -> Painting:
    """The painting that paint.js sent; `preview` and `size` are the (height, width) of the preview and of the picture.

    Raises UserError if it is invalid, has no hole, or has no known pixel.
    """
    hole = read_hole(painted, preview, size)
    hints = _layer(painted["hints"], preview) if painted.get("hints") else None
    if hints is not None and not (hints[..., 3] >= OPAQUE).any():
        hints = None
    if hole.all() and hints is None:
        raise UserError("The hole covers all of the picture: leave something to go by, or paint a hint into it.")
    return Painting(hole, hints)


def read_hole(painted: object, preview: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The hole of a painting, bool (H, W). Raises UserError if there is none."""
    if not isinstance(painted, dict) or not painted.get("hole"):
        raise UserError("Paint a hole first: what should be replaced.")
    hole = (_layer(painted["hole"], preview)[..., 3] >= OPAQUE).astype(np.float32)
    if preview != size:
        hole = resize_mask(hole, *size)
    if not (hole > 0.5).any():
        raise UserError("Paint a hole first: what should be replaced.")
    return hole > 0.5


def _layer(url: object, size: tuple[int, int]) -> np.ndarray:
    """The RGBA levels of a PNG data URL. Another size than `size` is refused before decoding."""
    try:
        if not isinstance(url, str) or not url.startswith(PREFIX):
            raise ValueError
        with Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PREFIX), validate=True)), formats=["PNG"]) as image:
            if image.size != size[::-1]:
                raise ValueError
            return np.array(image.convert("RGBA"))
    except Exception:  # whatever broken bytes lead Pillow's parser to
        raise UserError("What was painted does not belong to this picture: clear it and paint again.") from None
