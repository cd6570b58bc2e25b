"""Write pictures to files, with their metadata."""

import io
import logging
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from strdiffusion.data.decoding import SCALES, opencv
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
LARGEST_SIDE = {"WEBP": 16_383, "JPEG": 65_500}
SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


@dataclass(frozen=True)
class Metadata:
    """What a file holds besides its pixels. jpeg: quantisation tables and chroma subsampling, used again when the picture is saved."""

    exif: Image.Exif | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg: dict = field(default_factory=dict)


def require_format(path: str | os.PathLike, alpha: bool = False, name: str = "the image") -> str:
    """The format of a file to write, by its suffix. Raises UserError if it is not in FORMATS, or cannot hold the picture's alpha."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise UserError(f"{path} has no suffix of a picture that can be written: use {', '.join(FORMATS)}")
    if alpha and kind in ("JPEG", "BMP"):
        raise UserError(f"{path}: {kind} holds no alpha, and {name} has one: save as .png, .tif or .webp")
    return kind


def require_writable(levels: np.ndarray, metadata: Metadata, kind: str, path: str | os.PathLike) -> None:
    """Raise UserError if a file in the format `kind` cannot hold a picture of this size, or its metadata.

    One pixel is encoded with all metadata, so that what fails does so before anything is computed.
    """
    side = max(levels.shape[:2])
    if side > LARGEST_SIDE.get(kind, side):
        raise UserError(
            f"{path}: {kind} holds at most {LARGEST_SIDE[kind]} pixels a side, and the picture has {side}: save as .png or .tif"
        )
    try:
        encode(levels[:1, :1], metadata, kind, path, quiet=True)
    except Exception as error:  # Pillow raises whatever odd metadata lead it to
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path}: {kind} cannot hold the metadata of the picture ({reason}): save as .png or .tif") from None


def encode(levels: np.ndarray, metadata: Metadata, kind: str, path: str | os.PathLike, quiet: bool = False) -> bytes:
    """The content of a file in the format `kind` with the levels (H, W, C) of a Picture. `path` is only for messages.

    quiet: do not warn that levels are rounded.
    """
    if kind == "TIFF":
        return _tiff(levels, metadata)
    if kind == "PNG" and levels.dtype == np.uint16:
        return _png_16(levels, metadata)
    if levels.dtype == np.uint16 and not quiet:
        log.warning("%s: %s holds 8 bits, so the picture's 16 bits are rounded; save as .png or .tif to keep them", path, kind)
    return _through_pillow(eight_bits(levels), metadata, kind)


def eight_bits(levels: np.ndarray) -> np.ndarray:
    """Levels of any type as uint8."""
    scale = SCALES[levels.dtype.name]
    return levels if scale == 255 else np.rint(np.clip(levels * (255 / scale), 0, 255)).astype(np.uint8)


def info(metadata: Metadata) -> dict:
    """The metadata as options of Pillow's `save`."""
    options = {"icc_profile": metadata.icc_profile, "dpi": metadata.dpi, "exif": metadata.exif}
    return {key: value for key, value in options.items() if value is not None}


def _through_pillow(pixels: np.ndarray, metadata: Metadata, kind: str) -> bytes:
    options = info(metadata)
    if kind == "JPEG":
        options |= metadata.jpeg if pixels.shape[2] >= 3 and metadata.jpeg else {"quality": 95, "subsampling": 0}
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    if kind == "BMP":
        options = {}
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if kind == "WEBP" and pixels.shape[2] < 3:
        image = image.convert("RGB" if pixels.shape[2] == 1 else "RGBA")
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _exif_bytes(metadata: Metadata) -> bytes | None:
    return None if metadata.exif is None else metadata.exif.tobytes().removeprefix(b"Exif\0\0")


def _png_16(levels: np.ndarray, metadata: Metadata) -> bytes:
    """A PNG file of 16 bits, which Pillow cannot write in colour. Metadata are added as PNG chunks."""
    cv2 = opencv()
    if levels.shape[2] == 2:
        levels = np.concatenate([np.repeat(levels[..., :1], 3, axis=2), levels[..., 1:]], axis=2)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[levels.shape[2]]
    encoded = cv2.imencode(".png", np.ascontiguousarray(levels[..., order]))[1].tobytes()
    chunks = b""
    if metadata.icc_profile:
        chunks += _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc_profile))
    if metadata.dpi:
        x, y = (round(float(value) / 0.0254) for value in metadata.dpi)
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    exif = _exif_bytes(metadata)
    chunks += _png_chunk(b"eXIf", exif) if exif else b""
    header = 8 + 4 + 4 + 13 + 4  # signature and the IHDR chunk
    return encoded[:header] + chunks + encoded[header:]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _tiff(levels: np.ndarray, metadata: Metadata) -> bytes:
    """A TIFF file with deflate compression. Pillow makes only the tag directory: its own writer has no 16-bit colour and loses EXIF."""
    levels = levels if levels.dtype == np.uint16 else eight_bits(levels)
    H, W, C = levels.shape
    strip = zlib.compress(np.ascontiguousarray(levels, levels.dtype.newbyteorder("<")))
    directory = TiffImagePlugin.ImageFileDirectory_v2()  # the strip's offset, 0, is relative to the directory's end
    tags = {
        256: W,
        257: H,
        258: (8 * levels.itemsize,) * C,
        259: 8,
        262: 2 if C >= 3 else 1,
        273: 0,
        277: C,
        278: H,
        279: len(strip),
        284: 1,
        339: (1,) * C,
    }
    if C in (2, 4):
        tags[338] = 2  # the last channel is alpha, not premultiplied
    if metadata.dpi:
        tags |= {282: TiffImagePlugin.IFDRational(metadata.dpi[0]), 283: TiffImagePlugin.IFDRational(metadata.dpi[1]), 296: 2}
    if metadata.icc_profile:
        tags[34675] = metadata.icc_profile
    exif = metadata.exif or {}
    tags |= {tag: value for tag, value in exif.items() if tag not in (282, 283, 296, *SUB_DIRECTORIES)}  # the resolution is already set
    tags |= {int(tag): part for tag in SUB_DIRECTORIES if exif and (part := exif.get_ifd(tag))}
    directory.tagtype |= {273: 4, 279: 4, 34675: 7} | {int(tag): 4 for tag in SUB_DIRECTORIES}
    for tag, value in tags.items():
        directory[tag] = value
    out = io.BytesIO()
    directory.save(out)
    return out.getvalue() + strip
