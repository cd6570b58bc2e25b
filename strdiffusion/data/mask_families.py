"""Families of masks: irregular holes by hole share, RePaint's six families, boxes.

A family is a pure function of `rng`, height and width (pixels) that returns known, float32 (height, width): 1 =
known, 0 = hole. Sizes of strokes and windows are stated for 256 pixels and scale with the image. Everything but the
strokes of `irregular` is drawn in integers. `draw_mask` draws from any family by name; `numbered_mask` gives mask
number i of a set, the same on every machine and in every set.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from strdiffusion.data.decoding import opencv
from strdiffusion.data.masks import check_hole_share, irregular_mask, stable_hash
from strdiffusion.system.errors import UserError

Bucket = tuple[int, int]
Phase = Literal[0, 1]  # the first row (and column) that is known; RePaint's files have 1

MIN_SIDE = 8
MAX_TRIES = 1000
DEFAULT_SHARE = (0.1, 0.5)


def irregular(
    rng: np.random.Generator, height: int, width: int, hole_share: tuple[float, float] = DEFAULT_SHARE, border: bool = True
) -> np.ndarray:
    """The free-form hole that training uses (`irregular_mask`) with low < hole share <= high.

    border: True, the hole may touch the image's border; False, it keeps 50 of 512 pixels away from it, or less if
    it needs the room (NVIDIA's set of the partial-convolution paper has both kinds).
    Raises UserError if there is no such hole.
    """
    low, high = _hole_pixels(hole_share, height * width)
    margin = 0 if border else _margin(height, width, high)
    rows, columns = height - 2 * margin, width - 2 * margin
    # in the middle between two whole numbers of pixels, where rounding cannot matter
    share = (low - 0.5) / (rows * columns), (high + 0.5) / (rows * columns)
    known = np.ones((height, width), np.float32)
    known[margin : height - margin, margin : width - margin] = irregular_mask(rng, rows, columns, share)
    return known


def wide(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One to four strokes, 24 to 80 pixels thick (RePaint's "wide", LaMa's thick masks); at most half the image."""
    return _strokes(rng, height, width, strokes=(1, 4), reach=100, thickness=(24, 80))


def narrow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Ten to forty strokes, 3 to 10 pixels thick (RePaint's "narrow", LaMa's thin masks); at most half the image."""
    return _strokes(rng, height, width, strokes=(10, 40), reach=40, thickness=(3, 10))


def every_second_line(_rng: np.random.Generator, height: int, width: int, phase: Phase = 0) -> np.ndarray:
    """Rows `phase`, `phase` + 2, ... are known, the others hole; always the same."""
    known = np.zeros((height, width), np.float32)
    known[phase::2] = 1
    return known


def super_resolution(_rng: np.random.Generator, height: int, width: int, phase: Phase = 0) -> np.ndarray:
    """Only every second pixel of every second row is known, from row and column `phase` on; always the same."""
    known = np.zeros((height, width), np.float32)
    known[phase::2, phase::2] = 1
    return known


def half(_rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """The right half is hole, as in RePaint; always the same. Of an odd width, the middle column is hole too."""
    known = np.ones((height, width), np.float32)
    known[:, width // 2 :] = 0
    return known


def expand(_rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Only a central window of a quarter of each side (64 of 256 pixels) is known; always the same."""
    return 1 - _central_hole(height, width, height // 4, width // 4)


def center_box(rng: np.random.Generator, height: int, width: int, hole_share: tuple[float, float] | None = None) -> np.ndarray:
    """A central hole of half of each side, always the same; or of a share of the area, see `random_box`."""
    rows, columns = (height // 2, width // 2) if hole_share is None else _box_sides(rng, height, width, hole_share)
    return _central_hole(height, width, rows, columns)


def random_box(rng: np.random.Generator, height: int, width: int, hole_share: tuple[float, float] | None = None) -> np.ndarray:
    """A hole whose sides are a quarter to a half of the image's, anywhere within the image.

    hole_share: instead, a box of the image's shape (of a square image, a square) with low <= share of the area <= high, up to rounding:
    each side is round(sqrt(share) side).
    """
    if hole_share is None:
        rows = int(rng.integers(height // 4, height // 2 + 1))
        columns = int(rng.integers(width // 4, width // 2 + 1))
    else:
        rows, columns = _box_sides(rng, height, width, hole_share)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    known = np.ones((height, width), np.float32)
    known[top : top + rows, left : left + columns] = 0
    return known


FAMILIES: dict[str, Callable[..., np.ndarray]] = {
    family.__name__: family
    for family in (irregular, wide, narrow, every_second_line, super_resolution, half, expand, center_box, random_box)
}
Family = Literal[tuple(FAMILIES)]
TrainingFamily = Literal[(*FAMILIES, "mixed")]  # mixed: strokes (irregular) or a box, each as often
BUCKETED = frozenset({"irregular"})  # families with buckets of hole shares, whose holes can be kept off the border
BOXES = ("center_box", "random_box")  # families that may have a hole share
PHASED = ("every_second_line", "super_resolution")  # families that have a phase


def draw_mask(
    family: str,
    rng: np.random.Generator,
    height: int,
    width: int,
    hole_share: tuple[float, float] | None = None,
    border: bool = True,
    phase: Phase = 0,
) -> np.ndarray:
    """A mask known (height, width) of the named family, determined by `rng`.

    hole_share: low < share of hole pixels <= high (default: 0.1 to 0.5), of the families in BOXES low <= share <= high;
    border: see `irregular`. Other families take neither. phase: of the families in PHASED, see `every_second_line`.
    Raises UserError for an unknown family, an option that it does not have, or sides below 8 pixels.
    """
    if family not in FAMILIES:
        raise UserError(f"unknown mask family {family!r}: choose one of {', '.join(FAMILIES)}")
    if min(height, width) < MIN_SIDE:
        raise UserError(f"a mask of {height}x{width} pixels is too small: both sides must be at least {MIN_SIDE}")
    if family in BUCKETED:
        return FAMILIES[family](rng, height, width, hole_share or DEFAULT_SHARE, border)
    if not border:
        raise UserError(f"masks of the family {family} cannot be kept off the border: only {', '.join(sorted(BUCKETED))} can")
    if hole_share is not None:
        if family not in BOXES:
            raise UserError(f"masks of the family {family} take no hole share: only {', '.join((*sorted(BUCKETED), *BOXES))} do")
        return FAMILIES[family](rng, height, width, hole_share)
    if family in PHASED:
        return FAMILIES[family](rng, height, width, phase)
    if phase:
        raise UserError(f"masks of the family {family} have no phase: only {', '.join(PHASED)} have one")
    return FAMILIES[family](rng, height, width)


def numbered_mask(
    family: str,
    seed: int,
    index: int,
    height: int,
    width: int,
    bucket: Bucket | None = None,
    touching: bool = True,
    hole_share: tuple[float, float] | None = None,
    phase: Phase = 0,
) -> np.ndarray:
    """Mask number `index` of the set that `seed`, `family` and `bucket` name: known (height, width).

    It depends only on the arguments: on no other mask, and on no machine. bucket: (low, high) in whole percent, low <
    hole share <= high. touching: whether the hole touches the border or stays away from it. Families without buckets
    take neither. hole_share: of a box. phase: as in `draw_mask`. Raises UserError as `draw_mask` does.
    """
    rng = np.random.default_rng(stable_hash(f"{seed}:{family}:{bucket_name(bucket)}:{index}"))
    if family not in BUCKETED:
        return draw_mask(family, rng, height, width, hole_share, phase=phase)
    share = None if bucket is None else (bucket[0] / 100, bucket[1] / 100)
    for _ in range(MAX_TRIES):
        known = draw_mask(family, rng, height, width, share, border=touching)
        if bucket is not None and not in_bucket(known, bucket):
            raise RuntimeError(f"mask {index} of {family} is not in its bucket {bucket_name(bucket)}")
        if touches_border(known) == touching:
            return known
    raise UserError(f"no hole of {bucket_name(bucket)} % touches the border of {height}x{width} pixels in {MAX_TRIES} tries")


def bucket_name(bucket: Bucket | None) -> str:
    """(10, 20) as "10-20"; None as ""."""
    return "" if bucket is None else f"{bucket[0]}-{bucket[1]}"


def in_bucket(known: np.ndarray, bucket: Bucket) -> bool:
    """Whether low < hole share <= high, in percent, exactly."""
    holes = known.size - np.count_nonzero(known)
    return bucket[0] * known.size < 100 * holes <= bucket[1] * known.size


def touches_border(known: np.ndarray) -> bool:
    """Whether a hole pixel of known (H, W) lies in the outermost rows or columns."""
    return not (known[0].all() and known[-1].all() and known[:, 0].all() and known[:, -1].all())


def _hole_pixels(share: tuple[float, float], pixels: int) -> tuple[int, int]:
    """The least and the greatest number of hole pixels with low < share <= high, at least one pixel being known."""
    check_hole_share(share)
    # rounding to 6 digits undoes the error of products such as 0.29 * 100
    low = math.floor(round(share[0] * pixels, 6)) + 1
    high = min(math.floor(round(share[1] * pixels, 6)), pixels - 1)
    if low > high:
        raise UserError(
            f"no hole of {pixels} pixels has a share above {share[0]:g} and up to {share[1]:g}: take a larger size or a wider range"
        )
    return low, high


def _margin(height: int, width: int, holes: int) -> int:
    """The margin that keeps a hole off the border: 50 of 512 pixels, less if `holes` would fill 3/4 of the inside."""
    for margin in range(max(1, min(height, width) * 50 // 512), 0, -1):
        if 4 * holes <= 3 * (height - 2 * margin) * (width - 2 * margin):
            return margin
    if holes < (height - 2) * (width - 2):
        return 1
    raise UserError(f"{holes} hole pixels leave no room to keep off the border of {height}x{width} pixels: take a smaller hole share")


def _box_sides(rng: np.random.Generator, height: int, width: int, share: tuple[float, float]) -> tuple[int, int]:
    """(rows, columns) of a box of the image's shape, at least a pixel less than the image; its share is drawn in steps of 1/10,000."""
    check_hole_share(share)
    root = math.sqrt(rng.integers(round(1e4 * share[0]), round(1e4 * share[1]) + 1) / 1e4)
    return tuple(min(max(1, round(root * side)), side - 1) for side in (height, width))


def _central_hole(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """known (height, width) with a hole of (rows, columns) in the middle."""
    top, left = (height - rows) // 2, (width - columns) // 2
    known = np.ones((height, width), np.float32)
    known[top : top + rows, left : left + columns] = 0
    return known


def _strokes(
    rng: np.random.Generator, height: int, width: int, strokes: tuple[int, int], reach: int, thickness: tuple[int, int]
) -> np.ndarray:
    """Bent strokes of one to five straight pieces with round ends: known (height, width), the hole at most half of it.

    strokes: least and greatest number; reach: greatest extent of a piece along an axis; thickness: least and greatest;
    both in pixels of an image whose shorter side is 256.
    """
    cv2 = opencv()
    side = min(height, width)
    hole = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(strokes[0], strokes[1] + 1)):
        start = rng.integers(0, (width, height))  # x, y
        pixels = max(1, side * int(rng.integers(thickness[0], thickness[1] + 1)) // 256)
        for _ in range(rng.integers(1, 6)):
            step = rng.integers(-reach, reach + 1, 2) * side // 256
            end = np.clip(start + step, 0, (width - 1, height - 1))
            drawn = cv2.line(hole.copy(), start.tolist(), end.tolist(), 1, pixels)
            if 2 * np.count_nonzero(drawn) > drawn.size:
                return (1 - hole).astype(np.float32)
            hole, start = drawn, end
    return (1 - hole).astype(np.float32)
