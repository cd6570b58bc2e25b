"""Bytes of picture files to pixels: limits, damage, depth and orientation.

Every file passes `opened`, where Pillow reads its header and what it declares is bounded. Then there are two decoders, whose pixels
differ. `decode_colours`, for data sets, is OpenCV: fast, and alpha is dropped. `decode_all`,
for pictures that will be saved as they were, is Pillow: it keeps alpha, applies palettes and the profile of CMYK, and refuses
animations; to OpenCV it leaves colours of 16 bits, which it would round.
"""

import contextlib
import functools
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data.containers import directories_fit, exif_fits, exif_of_jpeg, is_cut_short, scans_too_often
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import read_regular

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

# Larger pictures would fill the memory: 100 million pixels take 1.2 GB as float32, and their 16 bits 0.6 GB beside them.
MAX_PIXELS = 100_000_000
MAX_BYTES = 3 * 2**28
TOO_LARGE = "declares more than {} pixels ({:g} megapixels); make it smaller, or remove it"
READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}  # the level of white, by the type of levels
ORIENTATION = 0x0112  # the number of this EXIF tag
ROTATIONS = {  # EXIF orientation: how the stored pixels become upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@functools.cache
def opencv():
    """The `cv2` module, silenced and on one thread."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # its own limit: it need not find the size that Pillow finds
    import cv2

    # Failures are reported as UserError; OpenCV's own lines on stderr would only repeat them.
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Loader processes are the parallelism, and OpenCV's thread pool does not survive a fork.
    cv2.setNumThreads(0)
    return cv2


def read_file(path: str | os.PathLike, limit: int | None = None) -> bytes:
    """The content of a picture file; UserError if it cannot be read, is empty or no regular file, or has more than `limit` bytes."""
    try:
        data = read_regular(path, MAX_BYTES if limit is None else limit)
    except (OSError, ValueError) as error:  # ValueError: too large, or a name that no file can have
        raise UserError(f"cannot read image {path}: {getattr(error, 'strerror', None) or error}; check the path") from error
    if not data:
        raise UserError(f"image {path} is an empty file; replace or remove it")
    return data


@contextlib.contextmanager
def opened(data: bytes, path: str | os.PathLike) -> Iterator["Image.Image"]:
    """A file's content as a Pillow image, not decoded yet. Every reader begins here: what Pillow cannot parse, and what declares more
    than can be wanted, is decoded by nobody.

    Raises UserError, which names the path; so does what goes wrong in this context.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if not directories_fit(data) or data[:2] == b"\xff\xd8" and not directories_fit(exif_of_jpeg(data)):
            raise UserError(f"image {path} declares more than it holds; replace or remove it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: the limit is ours
            with Image.open(io.BytesIO(data), formats=READABLE) as image:
                require_decodable(image, path)
                if scans_too_often(data, image.width * image.height):
                    raise UserError(f"image {path} has too many scans to be decoded; save it anew")
                yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"image {path} {TOO_LARGE.format(MAX_PIXELS, MAX_PIXELS / 1e6)}") from None
    except MemoryError:
        raise UserError(f"image {path} needs more memory than there is; make it smaller") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is damaged or not an image ({', '.join(READABLE)}); replace or remove it") from None
    except Exception as error:  # Pillow's parsers raise whatever broken bytes lead them to
        log.debug("%s", path, exc_info=True)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path} is damaged or not an image ({reason}); replace or remove it") from None


def require_decodable(image: "Image.Image", path: str | os.PathLike) -> None:
    """Raise UserError if an opened image declares too many pixels, or EXIF data that would fill the memory."""
    if image.height * image.width > MAX_PIXELS:
        raise UserError(f"image {path} {TOO_LARGE.format(MAX_PIXELS, MAX_PIXELS / 1e6)}")
    if not exif_fits(image.info):
        raise UserError(f"image {path} declares more EXIF data than it holds; replace or remove it")


# ---- for data sets ------------------------------------------------------------------------------------


def decode_colours(data: bytes, path: str | os.PathLike) -> np.ndarray:
    """Levels (H, W) of gray or (H, W, 3) RGB in the file's own depth: uint8, uint16 or float32; upright, alpha dropped.

    Raises UserError, which names the path, for what is damaged, too large or no image.
    """
    with opened(data, path) as image:
        declared = image.size[::-1]
        pixels = None if is_cut_short(data) else _decode(data)
    if pixels is None or pixels.size == 0 or pixels.shape[:2] not in (declared, declared[::-1]):
        raise UserError(f"{path} is damaged or not an image; replace or remove it")
    if pixels.dtype.name not in SCALES:
        raise UserError(f"image {path} has pixels of type {pixels.dtype}; convert it to 8 or 16 bits")
    return pixels


def _decode(data: bytes) -> np.ndarray | None:
    """(H, W) or RGB (H, W, 3) in the file's own depth; None if it cannot be decoded."""
    cv2 = opencv()
    if data[:4] in (b"II*\0", b"MM\0*"):
        try:
            return _decode_tiff(data)
        except cv2.error:
            return None
    # Not IMREAD_UNCHANGED: that ignores the EXIF orientation.
    pixels = _through_opencv(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    return pixels if pixels is None or pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _decode_tiff(data: bytes) -> np.ndarray | None:
    """`_decode` for TIFF, where OpenCV multiplies 8-bit colours by alpha; those go through Pillow."""
    from PIL import Image, ImageOps

    pixels = _through_opencv(data, opencv().IMREAD_UNCHANGED)  # for TIFF this does apply the orientation
    if pixels is None or pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3 or pixels.dtype != np.uint8:
        return np.ascontiguousarray(pixels[..., 2::-1])
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _through_opencv(data: bytes, how: int) -> np.ndarray | None:
    """What OpenCV decodes, (H, W) or BGR (H, W, C); None if it cannot."""
    cv2 = opencv()
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None


# ---- for pictures that will be saved as they were -----------------------------------------------------


@dataclass(frozen=True)
class Decoded:
    """Levels (H, W, C), upright: uint8 or uint16; C is 1 gray, 2 with alpha, 3 RGB, 4 with alpha.

    profile: the ICC profile of colours that were converted, so that it is not the file's any more.
    """

    levels: np.ndarray
    profile: bytes | None = None


def decode_all(image: "Image.Image", name: str, data: bytes | None = None) -> Decoded:
    """All that an opened image holds; `data` is the file's content, for what Pillow would round to 8 bits. Raises UserError.

    Pillow's own errors are left to `opened`.
    """
    from PIL import ImageOps

    if image.format == "PNG":
        image.load()  # its EXIF data may stand after the pixels
        require_decodable(image, name)
    if data is not None and _is_colour_of_16_bits(image, data):
        return Decoded(_decode_16(data, image.getexif().get(ORIENTATION, 1), image.format, name))
    image, profile = ImageOps.exif_transpose(image), None
    if image.mode == "CMYK":
        image, profile = _cmyk_to_rgb(image, name)
    if image.mode.startswith("I"):
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise UserError(f"image {name} has pixels of 32 bits; convert it to 8 or 16 bits")
        return Decoded(levels.astype(np.uint16)[..., None])
    if image.mode == "F":
        raise UserError(f"image {name} has pixels of type float; convert it to 8 or 16 bits")
    gray = image.mode in ("1", "L", "LA", "La")
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    levels = np.array(image.convert(("LA" if transparent else "L") if gray else ("RGBA" if transparent else "RGB")))
    return Decoded(levels[..., None] if levels.ndim == 2 else levels, profile)


def _cmyk_to_rgb(image: "Image.Image", name: str) -> tuple["Image.Image", bytes]:
    """The image in sRGB, and the profile of sRGB."""
    from PIL import ImageCms

    log.warning("image %s is CMYK (for print); it is worked on, and saved, as sRGB", name)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    converted = image.convert("RGB")
    own = image.info.get("icc_profile")
    if own:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(own))
            converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            log.warning("image %s: its colour profile cannot be used", name)
    return converted, srgb.tobytes()


def _is_colour_of_16_bits(image: "Image.Image", data: bytes) -> bool:
    """Whether a file holds more than one channel of 16 bits, which Pillow would round to 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)  # bit depth and colour type of the header
    if image.format == "TIFF":
        bits, kind = image.tag_v2.get(258, (1,)), image.tag_v2.get(339, (1,))
        return len(bits) > 1 and set(bits) == {16} and set(kind) == {1} and image.tag_v2.get(262) in (1, 2)
    return False


def _decode_16(data: bytes, orientation: int, kind: str, name: str) -> np.ndarray:
    """Levels uint16 (H, W, C) of a PNG or TIFF file."""
    levels = _through_opencv(data, opencv().IMREAD_UNCHANGED)
    if levels is None or levels.dtype != np.uint16:
        raise UserError(f"{name} is damaged, or a picture of 16 bits in a form that cannot be read; save it as a plain PNG or TIFF")
    levels = levels[..., None] if levels.ndim == 2 else levels[..., [2, 1, 0, 3][: levels.shape[2]]]
    if kind == "PNG":  # OpenCV has turned a TIFF upright already
        levels = ROTATIONS.get(orientation, lambda a: a)(levels)
    return np.ascontiguousarray(levels)
