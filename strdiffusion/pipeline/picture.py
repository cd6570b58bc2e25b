"""Pictures as people have them: any file format, gray or colour, 8 or 16 bits, with alpha, EXIF and an ICC profile.

A picture is read upright, its hole is replaced, and it is written with everything else as it was.
"""

import io
import logging
import os
import struct
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Union

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from strdiffusion.data.images import opencv
from strdiffusion.data.listing import write_atomically
from strdiffusion.data.masks import LUMA
from strdiffusion.errors import UserError

log = logging.getLogger(__name__)

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}
ORIENTATION = ExifTags.Base.Orientation
ROTATIONS = {  # EXIF orientation: how the stored pixels become upright
    2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a),
}  # fmt: skip
# TIFF tags that say how pixels are stored, which is for the writer to say; 34675 is the colour profile, which is kept by itself
STRUCTURAL = {*range(254, 260), 262, 263, 266, 273, *range(277, 282), 284, *range(290, 294), 317, *range(320, 326), 330, 338, 339, 340, 341,
              347, *range(512, 522), *range(529, 533), 34377, 34675}  # fmt: skip
SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

Source = Union[str, os.PathLike, Image.Image, np.ndarray, torch.Tensor, "Picture"]


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels. jpeg: quantisation tables and chroma subsampling, so that it is saved as it was."""

    exif: Image.Exif | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg: dict = field(default_factory=dict)


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
        """How many channels are no alpha: 1 or 3."""
        return 3 if self.levels.shape[2] >= 3 else 1

    @property
    def alpha(self) -> np.ndarray | None:
        """Opacity (H, W) in the picture's own levels, if it has one."""
        return self.levels[..., -1] if self.levels.shape[2] in (2, 4) else None

    def rgb(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A part of the picture as float32 (h, w, 3) in [0, 1], without alpha."""
        part = self.levels[rows, columns, :self.colours].astype(np.float32) / np.float32(self.scale)
        return np.repeat(part, 3, axis=2) if self.colours == 1 else part

    def as_levels(self, rgb: np.ndarray) -> np.ndarray:
        """Colours float (..., 3) in [0, 1] in this picture's own channels and levels, without alpha."""
        values = np.clip(rgb if self.colours == 3 else rgb @ LUMA[:, None], 0, 1) * self.scale
        return values.astype(np.float32) if self.scale == 1 else np.rint(values).astype(self.levels.dtype)

    def copy(self) -> "Picture":
        """The same picture with levels of its own."""
        return replace(self, levels=self.levels.copy())

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        levels = self.levels[..., 0] if self.levels.shape[2] == 1 else self.levels
        return np.array(levels, dtype=dtype, copy=copy or None)

    def pil(self) -> Image.Image:
        """A Pillow image, 8 bits, with EXIF and profile in its info; gray ones of 16 bits stay so."""
        channels = self.levels.shape[2]
        if channels == 1 and self.scale == 65535:
            image = Image.fromarray(self.levels[..., 0])
        else:
            levels = self.eight_bits().levels
            image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if channels == 1 else levels))
        image.info.update(self._options())
        if self.metadata.exif is not None:
            image.info["exif"] = self.metadata.exif.tobytes()  # where its getexif looks
        return image

    def tensor(self) -> torch.Tensor:
        """float32 (C, H, W) in [0, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self.levels.transpose(2, 0, 1), np.float32) / np.float32(self.scale))

    def eight_bits(self) -> "Picture":
        """The same picture in 8 bits."""
        if self.scale == 255:
            return self
        return replace(self, levels=np.rint(np.clip(self.levels * (255 / self.scale), 0, 255)).astype(np.uint8))

    def save(self, path: str | os.PathLike) -> None:
        """Write the picture in the format of the path's suffix; the file appears complete or not at all.

        PNG, TIFF, WebP and BMP keep every pixel, JPEG does not. 16 bits are kept by PNG and TIFF. Raises UserError for another suffix,
        for alpha in a JPEG or BMP, and where the file cannot be written.
        """
        kind = require_format(path, self)
        if kind == "TIFF":
            content = self._tiff()
        elif kind == "PNG" and self.scale == 65535:
            content = self._png_16()
        else:
            if self.scale == 65535:
                log.warning("%s: %s holds 8 bits, so the picture's 16 bits are rounded; save as .png or .tif to keep them", path, kind)
            content = self._through_pillow(kind)
        try:
            write_atomically(Path(path).expanduser(), content)
        except OSError as error:
            raise UserError(f"cannot write image {path}: {error.strerror}; choose another place") from error

    def _options(self) -> dict:
        """What Pillow's save is told."""
        options = {"icc_profile": self.metadata.icc_profile, "dpi": self.metadata.dpi, "exif": self.metadata.exif}
        return {key: value for key, value in options.items() if value is not None}

    def _through_pillow(self, kind: str) -> bytes:
        options = self._options()
        if kind == "JPEG":
            options |= self.metadata.jpeg if self.colours == 3 and self.metadata.jpeg else {"quality": 95, "subsampling": 0}
        if kind == "WEBP":
            options |= {"lossless": True, "exact": True}
        if kind == "BMP":
            options = {}
        pixels = self.eight_bits().levels
        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        if kind == "WEBP" and pixels.shape[2] < 3:
            image = image.convert(MODES[pixels.shape[2] + 2])
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    def _exif_bytes(self) -> bytes | None:
        return None if self.metadata.exif is None else self.metadata.exif.tobytes().removeprefix(b"Exif\0\0")

    def _png_16(self) -> bytes:
        """A PNG file of 16 bits, which Pillow cannot write in colour; what else the file says is put into chunks of their own."""
        cv2 = opencv()
        levels = self.levels
        if levels.shape[2] == 2:
            levels = np.concatenate([np.repeat(levels[..., :1], 3, axis=2), levels[..., 1:]], axis=2)
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[levels.shape[2]]
        encoded = cv2.imencode(".png", np.ascontiguousarray(levels[..., order]))[1].tobytes()
        chunks = b""
        if self.metadata.icc_profile:
            chunks += _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(self.metadata.icc_profile))
        if self.metadata.dpi:
            x, y = (round(float(value) / 0.0254) for value in self.metadata.dpi)
            chunks += _png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
        exif = self._exif_bytes()
        chunks += _png_chunk(b"eXIf", exif) if exif else b""
        header = 8 + 4 + 4 + 13 + 4  # signature and the IHDR chunk
        return encoded[:header] + chunks + encoded[header:]

    def _tiff(self) -> bytes:
        """A TIFF file, deflated, its directory of tags by Pillow; which itself writes no colour of 16 bits, and loses EXIF."""
        levels = self.levels if self.scale == 65535 else self.eight_bits().levels
        H, W, C = levels.shape
        strip = zlib.compress(np.ascontiguousarray(levels, levels.dtype.newbyteorder("<")))
        directory = TiffImagePlugin.ImageFileDirectory_v2()  # it counts the place of the strip, 0, from its own end
        tags = {256: W, 257: H, 258: (8 * levels.itemsize,) * C, 259: 8, 262: 2 if C >= 3 else 1, 273: 0, 277: C, 278: H,
                279: len(strip), 284: 1, 339: (1,) * C}  # fmt: skip
        if C in (2, 4):
            tags[338] = 2  # the last channel is alpha, not multiplied
        if self.metadata.dpi:
            tags |= {282: TiffImagePlugin.IFDRational(self.metadata.dpi[0]), 283: TiffImagePlugin.IFDRational(self.metadata.dpi[1]), 296: 2}
        if self.metadata.icc_profile:
            tags[34675] = self.metadata.icc_profile
        exif = self.metadata.exif or {}
        tags |= {tag: value for tag, value in exif.items() if tag not in (282, 283, 296, *SUB_DIRECTORIES)}  # the resolution is there
        tags |= {int(tag): part for tag in SUB_DIRECTORIES if exif and (part := exif.get_ifd(tag))}
        directory.tagtype |= {273: 4, 279: 4, 34675: 7} | {int(tag): 4 for tag in SUB_DIRECTORIES}
        for tag, value in tags.items():
            directory[tag] = value
        out = io.BytesIO()
        directory.save(out)
        return out.getvalue() + strip


def require_format(path: str | os.PathLike, picture: Picture | None = None) -> str:
    """The format of a file to write, by its suffix; UserError where it is none of ours or cannot hold the picture."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise UserError(f"{path} has no suffix of a picture that can be written: use {', '.join(FORMATS)}")
    if picture is not None and picture.alpha is not None and kind in ("JPEG", "BMP"):
        raise UserError(f"{path}: {kind} holds no alpha, and {picture.name} has one: save as .png, .tif or .webp")
    return kind


def open_picture(source: Source, name: str = "the image") -> Picture:
    """A picture from a file, a Pillow image, an array (H, W), (H, W, C) or a tensor (C, H, W), (1, C, H, W).

    Arrays and tensors hold bool, uint8, uint16, or numbers in [0, 1]. Raises UserError for what is no picture.
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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}; check the path") from None
    if not data:
        raise UserError(f"image {path} is an empty file; replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture is no attack before Pillow refuses it
            with Image.open(io.BytesIO(data)) as image:
                return _from_pillow(image, str(path), data)
    except Image.DecompressionBombError:
        raise UserError(f"image {path} has more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} megapixels; make it smaller") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is damaged or not an image; replace or remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UserError(f"{path} is damaged or not an image ({' '.join(str(error).split())[:100]}); replace or remove it") from None


def _from_array(array: np.ndarray, name: str) -> Picture:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in MODES or not array.size:
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
    """A picture from an opened image; `data` is the file's content, for what Pillow would round to 8 bits."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # phones write MPO: a JPEG with previews behind it
        raise UserError(f"image {name} holds {image.n_frames} frames or pages; give one of them")
    exif = image.getexif()
    metadata = Metadata(exif=_upright_exif(exif), icc_profile=image.info.get("icc_profile"), dpi=image.info.get("dpi"), jpeg=_jpeg(image))
    if data is not None and _colour_of_16_bits(image, data):
        return Picture(_decode_16(data, exif.get(ORIENTATION, 1), image.format, name), metadata, name)
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":
        image, metadata = _cmyk_to_rgb(image, metadata, name)
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise UserError(f"image {name} has pixels of 32 bits; convert it to 8 or 16 bits")
        return Picture(levels.astype(np.uint16)[..., None], metadata, name)
    if image.mode == "F":
        raise UserError(f"image {name} has pixels of type float; convert it to 8 or 16 bits")
    gray = image.mode in ("1", "L", "LA", "La")
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    levels = np.array(image.convert(("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")))
    return Picture(levels[..., None] if levels.ndim == 2 else levels, metadata, name)


def _upright_exif(exif: Image.Exif) -> Image.Exif | None:
    """EXIF for the upright picture: without the orientation, and without what it would repeat of the pixels."""
    if not exif:
        return None
    kept = Image.Exif()
    try:
        kept.load(exif.tobytes())
    except (ValueError, TypeError, KeyError, struct.error, SyntaxError, OSError) as error:
        log.warning("the picture's EXIF data are damaged and are left out (%s)", error)
        return None
    for tag in STRUCTURAL:
        kept.pop(tag, None)
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    return kept


def _jpeg(image: Image.Image) -> dict:
    """How a JPEG was compressed."""
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return {}
    from PIL import JpegImagePlugin

    subsampling = JpegImagePlugin.get_sampling(image)
    return {"qtables": image.quantization} | ({"subsampling": subsampling} if subsampling >= 0 else {})


def _cmyk_to_rgb(image: Image.Image, metadata: Metadata, name: str) -> tuple[Image.Image, Metadata]:
    log.warning("image %s is CMYK (for print); it is worked on, and saved, as sRGB", name)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = image.convert("RGB")
    if metadata.icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc_profile))
            converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            log.warning("image %s: its colour profile cannot be used", name)
    return converted, replace(metadata, icc_profile=srgb.tobytes(), jpeg={})


def _colour_of_16_bits(image: Image.Image, data: bytes) -> bool:
    """Whether a file holds more than one channel of 16 bits, which Pillow would round to 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)  # bit depth and colour type of the header
    if image.format == "TIFF":
        bits, kind = image.tag_v2.get(258, (1,)), image.tag_v2.get(339, (1,))
        return len(bits) > 1 and set(bits) == {16} and set(kind) == {1} and image.tag_v2.get(262) in (1, 2)
    return False


def _decode_16(data: bytes, orientation: int, kind: str, name: str) -> np.ndarray:
    """Levels uint16 (H, W, C) of a PNG or TIFF file."""
    cv2 = opencv()
    try:
        levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        levels = None
    if levels is None or levels.dtype != np.uint16:
        raise UserError(f"{name} is damaged, or a picture of 16 bits in a form that cannot be read; save it as a plain PNG or TIFF")
    levels = levels[..., None] if levels.ndim == 2 else levels[..., [2, 1, 0, 3][:levels.shape[2]]]
    if kind == "PNG":  # OpenCV has turned a TIFF upright already
        levels = ROTATIONS.get(orientation, lambda a: a)(levels)
    return np.ascontiguousarray(levels)


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
