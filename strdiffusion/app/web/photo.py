"""A picture that a visitor has opened, and previews of pictures for the browser."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from strdiffusion.app import Picture, open_picture
from strdiffusion.system.errors import UserError

PREVIEW_SIDE = 1024  # pixels; visitors paint on the preview


@dataclass(frozen=True)
class Example:
    """A picture of the gallery, (H, W, 3) uint8, or a cut-out of the first pool, (H, W, 4)."""

    name: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Photo:
    """An opened picture. name: for people, with the suffix of its result. size, preview: (height, width)."""

    path: Path
    name: str
    size: tuple[int, int]
    preview: tuple[int, int]
    number: int

    def open(self) -> Picture:
        """The picture at full size. Raises UserError if another picture was opened since."""
        if not self.path.exists():
            raise UserError(f"{self.name} is no longer open.")
        return replace(open_picture(self.path), name=self.name)

    def blank(self) -> Picture:
        """A picture of this size that takes no memory, where the pixels do not matter."""
        return Picture(np.broadcast_to(np.uint8(0), (*self.size, 1)), name=self.name)


def preview_of(picture: Picture) -> Picture:
    """The picture in 8-bit RGB or RGBA, at most PREVIEW_SIDE wide and high, with its colour profile."""
    image = picture.eight_bits().pil()
    gray = picture.colours == 1
    image = image.convert("RGBA" if picture.alpha is not None else "RGB")
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS)
    metadata = replace(picture.metadata, exif=None, dpi=None, icc_profile=None if gray else picture.metadata.icc_profile)
    return Picture(np.array(image), metadata)


def as_png(picture: Picture) -> bytes:
    """An 8-bit picture as a PNG file, with fast compression."""
    out = io.BytesIO()
    levels = picture.levels[..., 0] if picture.levels.shape[2] == 1 else picture.levels
    Image.fromarray(np.ascontiguousarray(levels)).save(out, "PNG", compress_level=1, icc_profile=picture.metadata.icc_profile)
    return out.getvalue()
