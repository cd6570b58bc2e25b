"""Read pictures, upright, from files of any format, Pillow images, arrays and tensors."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, JpegImagePlugin

from strdiffusion.app.picture import Picture
from strdiffusion.app.writing import Metadata
from strdiffusion.data.decoding import ORIENTATION, SCALES, decode_all, opened, read_file
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

# TIFF tags on how pixels are stored, which the writer sets itself; 34675 is the colour profile, which is stored separately
STRUCTURAL = {
    *range(254, 260),
    262,
    263,
    266,
    273,
    *range(277, 282),
    284,
    *range(290, 294),
    317,
    *range(320, 326),
    330,
    338,
    339,
    340,
    341,
    347,
    *range(512, 522),
    *range(529, 533),
    34377,
    34675,
}

COUNTED = 2**22  # bytes; the frames of larger files are not counted
LARGEST_DPI = 65_535  # JPEG holds 16 bits

Source = str | os.PathLike | Image.Image | np.ndarray | torch.Tensor | Picture


def open_picture(source: Source, name: str = "the image") -> Picture:
    """A picture from a file, a Pillow image, an array (H, W), (H, W, C) or a tensor (C, H, W), (1, C, H, W).

    Arrays and tensors hold bool, uint8, uint16, or floats in [0, 1]. Raises UserError if the source is not a picture.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, torch.Tensor):
        array = source.detach().cpu()
        array = array[0] if array.dim() == 4 and len(array) == 1 else array
        return _from_array((array.permute(1, 2, 0) if array.dim() == 3 else array).numpy(), name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return _from_pillow(source, name, None)
    path = Path(source).expanduser()
    data = read_file(path)
    with opened(data, path) as image:
        return _from_pillow(image, str(path), data)


def _from_array(array: np.ndarray, name: str) -> Picture:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or not array.size:
        raise UserError(f"{name} is an array of shape {array.shape}: arrays are (H, W), (H, W, 3) or (H, W, 4), tensors (C, H, W)")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UserError(f"{name} has values from {array.min():g} to {array.max():g}: numbers must lie in [0, 1]; scale them")
        array = array.astype(np.float32)
    elif array.dtype.name not in SCALES:
        raise UserError(f"{name} has values of type {array.dtype}: use uint8, uint16, or numbers in [0, 1]")
    return Picture(array, name=name)


def _from_pillow(image: Image.Image, name: str, data: bytes | None) -> Picture:
    """A picture from an opened image; `data` is the file's content, to decode what Pillow would round to 8 bits."""
    if getattr(image, "is_animated", False) and image.format != "MPO":  # phones write MPO: a JPEG with previews after it
        count = image.n_frames if data is None or len(data) < COUNTED else "several"
        raise UserError(f"image {name} holds {count} frames or pages; give one of them")
    decoded = decode_all(image, name, data)
    metadata = Metadata(_upright_exif(image.getexif()), image.info.get("icc_profile"), _resolution(image), _jpeg(image))
    if decoded.profile is not None:
        metadata = replace(metadata, icc_profile=decoded.profile, jpeg={})
    return Picture(decoded.levels, metadata, name)


def _upright_exif(exif: Image.Exif) -> Image.Exif | None:
    """EXIF for the upright picture: with a neutral orientation, and without tags that describe the stored pixels."""
    if not exif:
        return None
    kept = Image.Exif()
    try:
        kept.load(exif.tobytes())
    except Exception as error:  # Pillow's parsers raise whatever broken bytes lead them to
        log.warning("the picture's EXIF data are damaged and are left out (%s)", error)
        return None
    for tag in STRUCTURAL:
        kept.pop(tag, None)
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    return kept


def _resolution(image: Image.Image) -> tuple[float, float] | None:
    """Horizontal and vertical dots per inch, if the file states numbers that other files can hold."""
    try:
        x, y = (float(value) for value in image.info.get("dpi") or ())
    except (TypeError, ValueError, ArithmeticError):  # 0/0, or not two of them
        return None
    return (x, y) if 0 < x <= LARGEST_DPI and 0 < y <= LARGEST_DPI else None


def _jpeg(image: Image.Image) -> dict:
    """How a JPEG was compressed."""
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return {}
    subsampling = JpegImagePlugin.get_sampling(image)
    return {"qtables": image.quantization} | ({"subsampling": subsampling} if subsampling >= 0 else {})
