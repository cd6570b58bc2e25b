"""What is wrong with folders of images and masks, found by reading them as training and test do."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from strdiffusion.data.datasets import SMALLEST_SIDE
from strdiffusion.data.decoding import opened, read_file
from strdiffusion.data.facades import is_virtual
from strdiffusion.data.images import read_pixels
from strdiffusion.data.masks import GRAY_SHARE, LUMA, SUSPICIOUS_SHARE, Polarity, gray_share, hole_share, other_polarity, require_levels
from strdiffusion.data.pairing import Pairing, pair_masks
from strdiffusion.system.errors import UserError

Topic = Literal[
    "unreadable",
    "too small",
    "small",
    "colours",
    "duplicate",
    "in both sets",
    "grays",
    "no mask",
    "no hole",
    "all hole",
    "inverted",
    "pairing",
    "unused",
    "sizes",
]
MEND: frozenset[Topic] = frozenset({"unreadable", "too small", "in both sets", "no mask", "no hole", "all hole", "inverted", "pairing"})


class Problem(NamedTuple):
    """One line about one file or folder. must_mend: it would be refused, replaced, or make results wrong; otherwise the line is a note."""

    topic: Topic
    text: str

    @property
    def must_mend(self) -> bool:
        return self.topic in MEND


@dataclass(frozen=True)
class CheckedFile:
    """An image or mask that can be read: (height, width), a hash of its pixels, and a mask's hole share in [0, 1]."""

    path: Path
    size: tuple[int, int]
    content: str
    hole_share: float | None = None


def check_image(path: Path, size: int | None) -> tuple[CheckedFile | None, list[Problem]]:
    """Read an image as training does. size: of the training crops in pixels; smaller images are enlarged."""
    try:
        pixels = read_pixels(path)
    except UserError as error:
        return None, [Problem("unreadable", str(error))]
    checked = CheckedFile(path, pixels.shape[:2], content_hash(pixels))
    height, width = checked.size
    problems = []
    if min(height, width) < SMALLEST_SIDE:
        problems.append(Problem("too small", f"image {path} has only {width}x{height} pixels; remove it"))
    elif size is not None and min(height, width) < size:
        problems.append(Problem("small", f"image {path} has {width}x{height} pixels, less than {size} a side: it is enlarged, and blurred"))
    if (colours := unusual_colours(path)) is not None:
        problems.append(Problem("colours", f"image {path} {colours}"))
    return checked, problems


def check_mask(path: Path, polarity: Polarity) -> tuple[CheckedFile | None, list[Problem]]:
    """Read a mask as training and test do, see `read_mask`."""
    try:
        pixels = read_pixels(path)
        gray = pixels if pixels.ndim == 2 else pixels @ LUMA
        require_levels(gray, path)
    except UserError as error:
        return None, [Problem("unreadable", str(error))]
    share = hole_share((gray < 0.5) == (polarity == "white_hole"))
    checked = CheckedFile(path, gray.shape, content_hash(gray), share)
    between = gray_share(gray)
    problems = []
    if between > GRAY_SHARE:
        problems.append(Problem("no mask", f"mask {path} is gray in {between:.0%} of its pixels, so it seems to be no mask; remove it"))
    elif between > 0:
        problems.append(Problem("grays", f"mask {path} is gray in {between:.2%} of its pixels: from half on they count as white"))
    if share == 0:
        problems.append(Problem("no hole", f"mask {path} has no hole (polarity {polarity}), so there is nothing to inpaint; remove it"))
    elif share == 1:
        problems.append(Problem("all hole", f"mask {path} has no known pixel (polarity {polarity}); remove it"))
    return checked, problems


def unusual_colours(path: Path) -> str | None:
    """What an image file has instead of plain RGB, and how it is read; None for RGB."""
    if is_virtual(path):
        return None
    with opened(read_file(path), path) as image:
        mode, transparent = image.mode, image.has_transparency_data
    if transparent:
        return f"has transparency ({mode}), which is dropped: the colours behind it are used"
    if mode == "CMYK":
        return "is CMYK and read as RGB without its colour profile: convert it to sRGB where colours matter"
    if mode == "P":
        return "has a palette, of at most 256 colours"
    return f"is gray ({mode}): the networks get three equal channels" if mode in ("1", "L", "F") or mode.startswith("I") else None


def content_hash(pixels: np.ndarray) -> str:
    """A hash of pixel values (H, W[, C]) and shape; file format and compression do not matter."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16).hexdigest()


def check_duplicates(folders: Sequence[Iterable[CheckedFile]]) -> Iterator[Problem]:
    """Equal pictures: within a folder they only count more; those in two folders (training and test) make results too good."""
    seen: dict[str, tuple[int, Path]] = {}
    for number, files in enumerate(folders):
        for file in files:
            where, first = seen.setdefault(file.content, (number, file.path))
            if first == file.path:
                continue
            said = f"{file.path} shows the same as {first}"
            if where == number:
                yield Problem("duplicate", said)
            else:
                yield Problem("in both sets", f"{said}, so a test would be on what was trained on; remove one of them")


def check_polarity(masks: Sequence[CheckedFile], polarity: Polarity) -> Iterator[Problem]:
    """Whether the masks look inverted."""
    median = np.median([mask.hole_share for mask in masks]) if masks else 0.0
    if median > SUSPICIOUS_SHARE:
        yield Problem(
            "inverted",
            f"the masks look inverted: with polarity {polarity} the hole covers {median:.0%} of the median mask; "
            f"set data.masks.polarity={other_polarity(polarity)}, or invert the files",
        )


def check_pairs(
    images: dict[Path, CheckedFile | None], masks: dict[Path, CheckedFile | None], pairing: Pairing, image_folder: Path, mask_folder: Path
) -> Iterator[Problem]:
    """Whether every image has its mask, and of what size; files that cannot be read are None."""
    try:
        paired = pair_masks(list(images), list(masks), pairing, 0, image_folder, mask_folder)
    except UserError as error:
        yield Problem("pairing", str(error))
        return
    for path, mask_path in zip(images, paired):
        image, mask = images[path], masks[mask_path]
        if image is not None and mask is not None and image.size != mask.size:
            (height, width), (mask_height, mask_width) = image.size, mask.size
            said = f"mask {mask_path} has {mask_width}x{mask_height} pixels, its image {path} {width}x{height}"
            yield Problem("sizes", f"{said}: it is resized")
    if pairing == "name":
        used = set(paired)
        for mask_path in [path for path in masks if path not in used]:
            yield Problem("unused", f"mask {mask_path} belongs to no image")
