"""A facade by its number: the picture, and the class of every pixel."""

from collections.abc import Collection

import numpy as np

from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.sheet import CLASSES, Sheet
from strdiffusion.data.facades.street import draw_street
from strdiffusion.system.errors import UserError

SPLITS = {"train": 20_000, "val": 100, "test": 200, "more": 1_000}  # images in each; more: for differences too small for 200
SIZES = (64, 128, 256)
VERSION = 1  # part of every seed: a change of what is drawn is another benchmark
CLASS_COLOURS = ((135, 190, 235), (150, 70, 60), (225, 205, 165), (60, 80, 130), (140, 90, 40), (80, 150, 70), (120, 120, 120))


def draw_facade(split: str, number: int, size: int) -> np.ndarray:
    """Image `number` of a split, (size, size, 3) uint8 RGB: the same bytes on every machine, the same street at every size.

    Raises UserError for a split, number or size that the benchmark does not have.
    """
    return _sheet(split, number, size).picture(size)


def draw_labels(split: str, number: int, size: int) -> np.ndarray:
    """The class of every pixel of `draw_facade`, (size, size) uint8: positions in CLASSES. Raises UserError as it does."""
    return _sheet(split, number, size).label_map(size)


def draw_scene(split: str, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both `draw_facade` and `draw_labels`, drawn once."""
    sheet = _sheet(split, number, size)
    return sheet.picture(size), sheet.label_map(size)


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """A picture of labels, (H, W) to (H, W, 3) uint8 RGB, with a colour for each class."""
    return np.array(CLASS_COLOURS, np.uint8)[labels]


def draw_cutout(split: str, number: int, size: int, classes: Collection[str], columns: tuple[float, float] = (0, 1)) -> np.ndarray:
    """What of an image is of these CLASSES, between two shares of its width: RGBA uint8, transparent elsewhere, cropped to it. Raises
    UserError as `draw_facade` does.
    """
    rgb, labels = draw_scene(split, number, size)
    inside = np.isin(labels, [CLASSES.index(name) for name in classes])
    inside[:, : round(columns[0] * size)] = inside[:, round(columns[1] * size) :] = False
    rows, across = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    rgba = np.dstack([rgb, np.where(inside, 255, 0).astype(np.uint8)])
    return rgba[rows[0] : rows[-1] + 1, across[0] : across[-1] + 1]


def _sheet(split: str, number: int, size: int) -> Sheet:
    require_split(split)
    require_size(size)
    if not 0 <= number < SPLITS[split]:
        raise UserError(f"the facades' split {split} has no image {number}: it has 0 to {SPLITS[split] - 1}")
    return draw_street(size, Dice(VERSION, list(SPLITS).index(split), number))


def require_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"the facades have no split {split!r}: it must be one of {', '.join(SPLITS)}")


def require_size(size: int) -> None:
    if size not in SIZES:
        raise UserError(f"the facades are not drawn at {size} pixels: the size must be one of {', '.join(map(str, SIZES))}")
