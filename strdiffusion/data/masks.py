"""Masks: reading, resizing and drawing them.

Inside the program a mask is always `known`, float32 (H, W): 1 = known pixel, 0 = hole. Mask *files* are white
in the hole, unless the polarity says otherwise.
"""

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from strdiffusion.data.decoding import opencv
from strdiffusion.data.images import read_pixels, resize_nearest
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

Polarity = Literal["white_hole", "white_known"]

LUMA = np.array([0.2125, 0.7154, 0.0721], np.float32)
SUSPICIOUS_SHARE = 0.6
BLACK_OR_WHITE = 8 / 255  # what JPEG leaves of them
GRAY_SHARE = 0.1  # a mask's outline may be soft, but most of it is black or white
CONTACT_SHEET = "contact_sheet.png"  # that scripts/make_masks.py writes beside its masks
MAX_STROKES = 200
SAMPLED_MASKS = 50
STROKE_SCALES = (1.0, 0.6, 0.3)


def read_mask(path: str | os.PathLike, polarity: Polarity = "white_hole") -> np.ndarray:
    """The mask file at `path` as known (H, W). A gray value of at least 0.5 is white; alpha is dropped.

    Raises UserError for a file that is missing, empty or no image.
    """
    if polarity not in get_args(Polarity):
        raise ValueError(f"unknown polarity {polarity!r}")
    pixels = read_pixels(path)
    gray = pixels if pixels.ndim == 2 else pixels @ LUMA
    require_levels(gray, path)
    white = gray >= 0.5
    return (white == (polarity == "white_known")).astype(np.float32)


def gray_share(gray: np.ndarray) -> float:
    """The share of pixels (H, W) in [0, 1] that are neither black nor white, as far as JPEG leaves them so."""
    return np.count_nonzero((gray > BLACK_OR_WHITE) & (gray < 1 - BLACK_OR_WHITE)) / gray.size


def require_levels(gray: np.ndarray, name: object) -> None:
    """Raise UserError if a mask (H, W) in [0, 1] holds 0 and 1 of 255, as programs write it that mean false and true."""
    if 0 < gray.max() < 1.5 / 255:
        raise UserError(f"mask {name} has only the levels 0 and 1 of 255, which are both black: save white as 255")


def resize_mask(known: np.ndarray, height: int, width: int) -> np.ndarray:
    """`known` (H, W) at (height, width) by nearest neighbour, so it stays 0 or 1."""
    return known if known.shape == (height, width) else resize_nearest(known.astype(np.uint8), height, width).astype(np.float32)


def hole_share(known: np.ndarray) -> float:
    """The share of hole pixels in `known` (H, W), in [0, 1]."""
    return np.count_nonzero(known < 0.5) / known.size


def count_buckets(shares: Sequence[float]) -> np.ndarray:
    """How many shares lie in each tenth, (10,): as in all tables a bucket holds its upper bound; the first also holds 0."""
    uppers = np.array([(i + 1) / 10 for i in range(10)])
    return np.bincount(np.searchsorted(uppers, shares, side="left"), minlength=10)


def sampled_hole_shares(paths: Sequence[Path], polarity: Polarity) -> list[float]:
    """The hole shares of at most SAMPLED_MASKS mask files, evenly spaced in `paths`; those that cannot be read are left out."""
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(SAMPLED_MASKS, len(paths))).round().astype(int))
    shares = []
    for i in chosen:
        with contextlib.suppress(UserError):  # reported when the mask is used
            shares.append(hole_share(read_mask(paths[i], polarity)))
    return shares


def warn_if_inverted(shares: Sequence[float], polarity: Polarity) -> None:
    """Log one warning if the median of the hole shares is so large that the masks are probably inverted."""
    if len(shares) == 0 or np.median(shares) <= SUSPICIOUS_SHARE:
        return
    log.warning(
        "the masks look inverted: with polarity %s the hole covers %.0f %% of the median mask; "
        "if that is not meant, set data.masks.polarity=%s",
        polarity,
        100 * np.median(shares),
        other_polarity(polarity),
    )


def other_polarity(polarity: Polarity) -> Polarity:
    """The polarity that exchanges hole and known pixels."""
    return "white_known" if polarity == "white_hole" else "white_hole"


def stable_hash(text: str) -> int:
    """A 64-bit number that depends only on `text`: the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def irregular_mask(rng: np.random.Generator, height: int, width: int, hole_share: tuple[float, float] = (0.1, 0.5)) -> np.ndarray:
    """A free-form hole of thick, bending strokes and some ellipses: known (height, width), determined by `rng`.

    The share of hole pixels lies in the closed range `hole_share`, or next to it if that is too narrow for a
    whole number of pixels. There is at least one hole pixel and one known pixel.
    Raises UserError if `hole_share` is no range of shares.
    """
    low, high = _pixel_range(hole_share, height * width)
    target = int(rng.integers(low, high + 1))
    hole = np.zeros((height, width), np.uint8)
    count = 0
    for _ in range(MAX_STROKES):
        if count >= target:
            break
        for scale in STROKE_SCALES:
            drawn = _with_stroke(rng, hole, scale)
            drawn_count = np.count_nonzero(drawn)
            if drawn_count <= high:
                break
        else:
            drawn, drawn_count = _first_pixels(rng, hole, drawn, target - count), target
        hole, count = drawn, drawn_count
    if count < target:  # strokes rarely reach the last pixels of a nearly full mask
        hole = _first_pixels(rng, hole, np.ones_like(hole), target - count)
    return (1 - hole).astype(np.float32)


def check_hole_share(share: tuple[float, float]) -> None:
    """Raise UserError unless `share` is a range low <= high within [0, 1] that is not "no hole" or "all hole"."""
    low, high = share
    if not (0 <= low <= high <= 1 and low < 1 and high > 0):
        raise UserError(f"hole share {low}-{high} is not a range of shares from low to high between 0 and 1; give for example 0.1 and 0.5")


def _pixel_range(share: tuple[float, float], pixels: int) -> tuple[int, int]:
    """The least and the greatest number of hole pixels within `share`."""
    check_hole_share(share)
    # The small number undoes the rounding of products such as 0.07 * 100.
    low = max(1, math.ceil(share[0] * pixels - 1e-9))
    high = min(pixels - 1, math.floor(share[1] * pixels + 1e-9))
    if low > high:
        low = high = min(max(1, round(sum(share) / 2 * pixels)), pixels - 1)
    return low, high


def _with_stroke(rng: np.random.Generator, hole: np.ndarray, scale: float) -> np.ndarray:
    """A copy of `hole` (H, W) uint8 with one more random stroke or ellipse, `scale` times the usual size."""
    cv2 = opencv()
    height, width = hole.shape
    side = math.sqrt(height * width) * scale
    drawn = hole.copy()
    start = rng.random(2) * (width, height)
    if rng.random() < 0.15:
        axes = 1 + side * rng.uniform(0.02, 0.12, 2)
        cv2.ellipse(drawn, start.astype(int).tolist(), axes.astype(int).tolist(), rng.uniform(0, 180), 0, 360, 1, -1)
        return drawn
    steps = int(rng.integers(3, 12))
    # A walk that mostly keeps its direction, with some sharp turns.
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.9, steps))
    lengths = side * rng.uniform(0.03, 0.2, steps)
    points = np.empty((steps + 1, 2))
    points[0] = start
    points[1:, 0] = start[0] + np.cumsum(lengths * np.cos(angles))
    points[1:, 1] = start[1] + np.cumsum(lengths * np.sin(angles))
    thickness = max(1, round(side * rng.uniform(0.015, 0.1)))
    cv2.polylines(drawn, [np.rint(points).astype(np.int32)], False, 1, thickness)  # thick lines get round ends
    return drawn


def _first_pixels(rng: np.random.Generator, hole: np.ndarray, drawn: np.ndarray, count: int) -> np.ndarray:
    """`hole` plus exactly `count` of the pixels that `drawn` adds: those nearest to a random one of them."""
    rows, columns = np.nonzero(drawn > hole)
    start = rng.integers(rows.size)
    distance = (rows - rows[start]) ** 2 + (columns - columns[start]) ** 2
    keep = np.argsort(distance, kind="stable")[:count]
    trimmed = hole.copy()
    trimmed[rows[keep], columns[keep]] = 1
    return trimmed
