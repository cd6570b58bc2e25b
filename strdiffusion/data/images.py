"""Image files to arrays and back, and the resizing and cropping of arrays.

An image is float32 (H, W, 3), RGB, in [0, 1]. Decoding: see `decoding`; listing of folders: see `listing`.
"""

import logging
import os
from pathlib import Path

import numpy as np

from strdiffusion.data.decoding import MAX_BYTES, MAX_PIXELS, SCALES, decode_colours, opencv, read_file
from strdiffusion.data.facades import is_virtual, read_facade
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, write_atomically

log = logging.getLogger(__name__)

PNG_BEGINS, PNG_ENDS = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The image at `path` as float32 (H, W, 3), RGB in [0, 1]; upright (EXIF), alpha dropped.

    Raises UserError for a file that is missing, empty or no image.
    """
    pixels = read_pixels(path)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def read_pixels(path: str | os.PathLike) -> np.ndarray:
    """Like `read_image`, but a gray file stays float32 (H, W)."""
    if is_virtual(path):
        return read_facade(Path(path))
    levels = decode_colours(read_file(path, MAX_BYTES), path)
    if levels.dtype == np.float32:
        return np.clip(np.nan_to_num(levels, copy=False), 0, 1, out=levels)
    return np.divide(levels, np.float32(SCALES[levels.dtype.name]), dtype=np.float32)  # in one step: a copy would take a gigabyte


def write_image(path: str | os.PathLike, image: np.ndarray, into: Together | None = None) -> None:
    """Write `image`, float (H, W, 3) RGB or (H, W) or (H, W, 1) in [0, 1], as an 8-bit PNG file.

    Values are clipped and rounded. Missing folders are made. The file appears complete or not at all; with the other files of `into`,
    if that is given, and then it survives a power cut.
    Raises UserError if it cannot be written and ValueError for another shape.
    """
    cv2, path = opencv(), Path(path)
    image = np.asarray(image, np.float32)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.size == 0 or image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise ValueError(f"an image of shape (H,W), (H,W,1) or (H,W,3) is needed, not {image.shape}")
    if not np.isfinite(image).all():
        log.warning("image %s has values that are not finite numbers; they are written as 0 or 1", path)
    levels = np.rint(np.clip(np.nan_to_num(image, nan=0.0), 0, 1) * 255).astype(np.uint8)
    encoded = cv2.imencode(".png", levels if levels.ndim == 2 else cv2.cvtColor(levels, cv2.COLOR_RGB2BGR))[1]
    try:
        write_atomically(path, encoded.tobytes()) if into is None else into.write(path, encoded.tobytes())
    except OSError as error:
        raise UserError(f"cannot write image {path}: {error.strerror}; choose another place") from error


def is_whole_png(path: Path) -> bool:
    """Whether a file begins and ends as a PNG file does: one that was cut off, or that a power cut left empty or with zeros, does not."""
    try:
        with open(path, "rb") as file:
            begins = file.read(len(PNG_BEGINS)) == PNG_BEGINS
            file.seek(-len(PNG_ENDS), os.SEEK_END)
            return begins and file.read() == PNG_ENDS
    except (OSError, ValueError):  # also where it is shorter than that; ValueError: a name that no file can have
        return False


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` (H, W, 3) or (H, W) at a new size: averaged over areas along an axis that shrinks, cubic along one
    that grows, clipped to [0, 1]. Unchanged if it has that size."""
    cv2 = opencv()
    if height * width > MAX_PIXELS:
        raise UserError(f"an image of {image.shape[1]}x{image.shape[0]} pixels would be resized to {width}x{height}: it is too narrow")
    least = min(height, image.shape[0]), min(width, image.shape[1])
    if image.shape[:2] != least:
        image = cv2.resize(image, least[::-1], interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = np.clip(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
    return image


def resize_as_released(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` (H, W, 3) or (H, W) at a new size as the release of StrDiffusion resizes at test: bilinear between the four nearest pixels,
    whatever the scale, so that fine detail of a picture that shrinks aliases. Unchanged if it has that size."""
    cv2 = opencv()
    if height * width > MAX_PIXELS:
        raise UserError(f"an image of {image.shape[1]}x{image.shape[0]} pixels would be resized to {width}x{height}: it is too narrow")
    return image if image.shape[:2] == (height, width) else cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def truncated(image: np.ndarray) -> np.ndarray:
    """`image`, float32 in [0, 1], with each value lowered to the 8-bit level below it. The levels k / 255 stay as they are."""
    return np.floor(np.clip(image, 0, 1) * np.float32(255)) / np.float32(255)


def resize_nearest(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """`levels` (H, W) uint8 at (height, width) by nearest neighbour, so that no new levels appear."""
    if levels.shape == (height, width):
        return levels
    cv2 = opencv()
    return cv2.resize(levels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def enlarged_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after `enlarge_to`."""
    short = min(height, width)
    return (height, width) if short >= size else _scaled(height, width, size)


def enlarge_to(image: np.ndarray, size: int) -> np.ndarray:
    """`image`, enlarged so that its shorter side is `size` if it is below; the aspect ratio stays."""
    return resize_image(image, *enlarged_size(*image.shape[:2], size))


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """`image`, enlarged or shrunk so that its shorter side is `size`; the aspect ratio stays."""
    return resize_image(image, *_scaled(*image.shape[:2], size))


def _scaled(height: int, width: int, size: int) -> tuple[int, int]:
    if height <= width:
        return size, max(size, round(width * size / height))
    return max(size, round(height * size / width)), size


def filled_from(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`image` (H, W, 3) with the nearest pixel that is `seen`, bool (H, W), in place of each that is not."""
    from scipy.ndimage import distance_transform_edt

    return image[tuple(distance_transform_edt(~seen, return_distances=False, return_indices=True))]


def center_crop(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle (height, width) of an array (H, W) or (H, W, C). Raises ValueError if it is smaller than that."""
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(f"an array of {array.shape[:2]} cannot be cropped to {(height, width)}")
    return array[top : top + height, left : left + width]
