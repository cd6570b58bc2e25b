"""Pictures: gray or colour, 8 or 16 bits, with alpha, EXIF and an ICC profile.

They are read upright (reading.py), the hole is replaced, and they are written with all else unchanged (writing.py).
"""

import os
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from strdiffusion.app.writing import Metadata, eight_bits, encode, info, require_format, require_writable
from strdiffusion.data.decoding import SCALES
from strdiffusion.data.masks import LUMA
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, write_atomically


@dataclass(frozen=True)
class Picture:
    """A picture, upright. levels (H, W, C): uint8, uint16, or float32 in [0, 1]; C is 1 gray, 2 with alpha, 3 RGB, 4 with alpha."""

    levels: np.ndarray
    metadata: Metadata = field(default_factory=Metadata)
    name: str = "the image"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.levels.shape[:2]

    @property
    def scale(self) -> int:
        """The level of white."""
        return SCALES[self.levels.dtype.name]

    @property
    def colours(self) -> int:
        """The number of channels without alpha: 1 or 3."""
        return 3 if self.levels.shape[2] >= 3 else 1

    @property
    def alpha(self) -> np.ndarray | None:
        """Opacity (H, W) in the picture's own levels; None if it has no alpha."""
        return self.levels[..., -1] if self.levels.shape[2] in (2, 4) else None

    def rgb(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A part of the picture as float32 (h, w, 3) in [0, 1], without alpha."""
        part = np.divide(self.levels[rows, columns, : self.colours], np.float32(self.scale), dtype=np.float32)  # no second copy
        return np.repeat(part, 3, axis=2) if self.colours == 1 else part

    def as_levels(self, rgb: np.ndarray) -> np.ndarray:
        """Convert colours, float (..., 3) in [0, 1], to this picture's channels and levels, without alpha."""
        values = np.clip(rgb if self.colours == 3 else rgb @ LUMA[:, None], 0, 1) * self.scale
        return values.astype(np.float32) if self.scale == 1 else np.rint(values).astype(self.levels.dtype)

    def copy(self) -> "Picture":
        """The same picture with a copy of the levels."""
        return replace(self, levels=self.levels.copy())

    def __repr__(self) -> str:
        H, W, C = self.levels.shape
        kind = {1: "gray", 2: "gray with alpha", 3: "RGB", 4: "RGB with alpha"}[C]
        return f"<Picture {self.name}: {W}x{H}, {kind}, {self.levels.dtype}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: 8 bits, in PNG, without metadata."""
        return encode(self.eight_bits().levels, Metadata(icc_profile=self.metadata.icc_profile), "PNG", self.name)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        levels = self.levels[..., 0] if self.levels.shape[2] == 1 else self.levels
        return np.array(levels, dtype=dtype, copy=copy or None)

    def pil(self) -> Image.Image:
        """A Pillow image of 8 bits (16 bits for gray pictures of 16 bits), with EXIF and profile in its info."""
        channels = self.levels.shape[2]
        if channels == 1 and self.scale == 65535:
            image = Image.fromarray(self.levels[..., 0])
        else:
            levels = self.eight_bits().levels
            image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if channels == 1 else levels))
        image.info.update(info(self.metadata))
        if self.metadata.exif is not None:
            image.info["exif"] = self.metadata.exif.tobytes()  # read by Pillow's getexif
        return image

    def tensor(self) -> torch.Tensor:
        """float32 (C, H, W) in [0, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self.levels.transpose(2, 0, 1), np.float32) / np.float32(self.scale))

    def eight_bits(self) -> "Picture":
        """The same picture in 8 bits."""
        if self.scale == 255:
            return self
        return replace(self, levels=eight_bits(self.levels))

    def format_for(self, path: str | os.PathLike) -> str:
        """The format of a path's suffix. Raises UserError if it cannot be written, or cannot hold this picture and its metadata."""
        kind = require_format(path, self.alpha is not None, self.name)
        require_writable(self.levels, self.metadata, kind, path)
        return kind

    def save(self, path: str | os.PathLike, into: Together | None = None) -> None:
        """Write the picture in the format of the path's suffix, whole or not at all.

        PNG, TIFF, WebP and BMP keep every pixel, JPEG does not. PNG and TIFF keep 16 bits. Raises UserError for another suffix,
        for alpha in a JPEG or BMP, and if the file cannot be written; what a format cannot hold is then saved as PNG beside it.
        into: let it appear with others, and survive a power cut.
        """
        path = Path(path).expanduser()
        kind = require_format(path, self.alpha is not None, self.name)
        try:
            content = encode(self.levels, self.metadata, kind, path)
        except Exception as error:  # whatever: what was computed is not lost
            reason, beside = " ".join(str(error).split()), free_name(path)
            write(beside, encode(self.levels, Metadata(), "PNG", beside))
            raise UserError(f"{path} cannot be written ({reason}): the picture is saved as {beside}, without its metadata") from None
        write(path, content, into)


def write(path: Path, content: bytes, into: Together | None = None) -> None:
    """Write a file, whole or not at all, alone or with the others of `into`. Raises UserError."""
    try:
        write_atomically(path, content) if into is None else into.write(path, content)
    except OSError as error:
        raise UserError(f"cannot write image {path}: {error.strerror}; choose another place") from error


def free_name(path: Path) -> Path:
    """A PNG file beside `path` that does not exist."""
    names = (path.with_name(f"{path.name}{number or ''}.png") for number in count())
    return next(name for name in names if not name.exists())
