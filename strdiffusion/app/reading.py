"""Pictures from files of any format, from Pillow images, arrays and tensors, upright."""

import io
import logging
import os
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from strdiffusion.app.picture import SCALES, Metadata, Picture
from strdiffusion.data.images import opencv
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

ORIENTATION = ExifTags.Base.Orientation
ROTATIONS = {  # EXIF orientation: how the stored pixels become upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
# TIFF tags that say how pixels are stored, which is for the writer to say; 34675 is the colour profile, which is kept by itself
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

Source = str | os.PathLike | Image.Image | np.ndarray | torch.Tensor | Picture


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
    levels = levels[..., None] if levels.ndim == 2 else levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    if kind == "PNG":  # OpenCV has turned a TIFF upright already
        levels = ROTATIONS.get(orientation, lambda a: a)(levels)
    return np.ascontiguousarray(levels)
