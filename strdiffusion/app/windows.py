"""Windows: the part of a picture that the networks see for each hole, its size, and its tiles.

If a hole fits, its window has the training size, with context around the hole. A larger hole gets a larger window, shrunk by at
most `shrink`. If it is then still larger than the training size, its canvas is divided into overlapping tiles and inpainted as a whole
first (see canvas.py); tiles without a hole are not evaluated. Pictures smaller than the training size are enlarged to it.

Networks that learnt from parts of pictures see windows of up to `largest` pixels as a whole, at the picture's own scale. For them it is
not a hole's extent that counts but its thickness: a long scratch is close to what is known everywhere. A thick hole is first inpainted
on a smaller canvas, on which it is thin.
"""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple, get_type_hints

import numpy as np

from strdiffusion.networks.discriminator import SMALLEST_SIDE
from strdiffusion.system.parser import Range, convert

CELLS_PER_SIZE = 8  # holes are separated on a grid with cells of training size / 8
SHARED = 0.6  # at most this context is asked for where holes share a window: more windows would only cost more
THICK = 0.75  # a hole is thick if it is thicker than this share of the training size; it is shrunk first ...
THIN = 0.5  # ... until it is no thicker than this share
MOST_AT_ONCE = 4.0  # a canvas is at most so many times larger than the one from which it begins
OVERLAP = 4  # tiles overlap by a quarter of their side


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class LayoutOptions:
    """context: a window is larger than its hole by at least this share of the hole's height and width. More lets the networks see the
    scene at the scale of their training: in facades twice and four times as large as their images, a context of 2 fills holes 2.4 to
    3.2 dB better than one of 0.6 (docs/photographs.md). For networks that see large windows it is a share of the training size, or of
    twice the hole's thickness if that is more.
    shrink: the largest factor by which a window is shrunk before tiles are used. max_tiles: a window is shrunk further rather than
    divided into more tiles.
    """

    context: Annotated[float, Range(0, 100)] = 2.0
    shrink: Annotated[float, Range(1, 100)] = 2.0
    max_tiles: Annotated[int, Range(1, 10_000)] = 16

    def __post_init__(self):
        for name, hint in get_type_hints(LayoutOptions, include_extras=True).items():
            convert(hint, getattr(self, name), "the call", name)


@dataclass(frozen=True)
class Window:
    """A part of the picture, the (height, width) of its canvas, and the labels of its holes.

    thickness: of the thickest hole, in pixels of the picture: twice the distance from the pixel deepest inside to what is known. None
    where it does not matter.
    """

    box: Box
    canvas: tuple[int, int]
    labels: tuple[int, ...]
    thickness: float | None = None


@dataclass(frozen=True)
class Layout:
    """The windows of a picture. labels (cells, cells): the hole that a cell of `cell` x `cell` pixels belongs to, 0 for none."""

    windows: list[Window]
    labels: np.ndarray
    cell: int

    def own(self, window: Window) -> np.ndarray:
        """The part of the window's box in which holes are its own, bool (height, width); other holes are of other windows."""
        rows = np.arange(window.box.top, window.box.top + window.box.height) // self.cell
        columns = np.arange(window.box.left, window.box.left + window.box.width) // self.cell
        return np.isin(self.labels, window.labels)[np.ix_(rows, columns)]


def lay_out(hole: np.ndarray, size: int, options: LayoutOptions, largest: int | None = None) -> Layout:
    """The windows for the holes of a picture, bool (H, W). Holes near each other share a window, but a thick one has its own.

    size: of the training images. largest: the longest side that the networks see as a whole, if it is more.
    """
    from scipy.ndimage import find_objects, label

    cell = max(size // CELLS_PER_SIZE, 1)
    H, W = hole.shape
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(hole, np.arange(0, H, cell), axis=0), np.arange(0, W, cell), axis=1)
    labels, _ = label(coarse, np.ones((3, 3)))
    extents = np.array([_extent(hole, rows, columns, labels, i + 1, cell) for i, (rows, columns) in enumerate(find_objects(labels))])
    wide = largest is not None and largest > size
    thickness = _thicknesses(hole, labels, cell) if wide else np.zeros(len(extents))
    windows = []
    for members in _gather(extents, thickness > THICK * size, largest if wide else size, options):
        top, left = extents[members, :2].min(axis=0)
        bottom, right = extents[members, 2:].max(axis=0)
        bounds, thickest = Box(top, left, bottom - top, right - left), float(thickness[members].max()) if wide else None
        box, canvas = _window(bounds, hole.shape, size, largest if wide else size, thickest, options)
        windows.append(Window(box, canvas, tuple(i + 1 for i in members), thickest))
    return Layout(windows, labels, cell)


def shrink_first(window: Window, size: int) -> float:
    """By what factor the canvas of a window is shrunk for the inpainting from which it begins; 1: it begins from noise. size: of the
    training images.
    """
    scale = max(canvas / side for canvas, side in zip(window.canvas, window.box[2:], strict=True))
    thickness = (window.thickness or 0) * scale
    if thickness <= THICK * size:
        return 1.0
    whole = thickness / (THIN * size)
    return whole ** (1 / math.ceil(math.log(whole, MOST_AT_ONCE)))  # in equal parts


def whole_picture(hole: np.ndarray) -> Layout:
    """One window with the whole picture, bool (H, W), unscaled, for methods without a preferred size."""
    H, W = hole.shape
    return Layout([Window(Box(0, 0, H, W), (H, W), (1,))], np.ones((1, 1), int), max(H, W))


def tiles_of(known: np.ndarray, size: int) -> tuple[Box, ...]:
    """Overlapping tiles of one size, at most size x size, that cover the hole of a canvas with known pixels `known`, bool (h, w)."""
    hole = ~known
    (tops, height), (lefts, width) = (_along(np.nonzero(hole.any(axis=1 - axis))[0], known.shape[axis], size) for axis in (0, 1))
    boxes = (Box(top, left, height, width) for top in tops for left in lefts)
    return tuple(box for box in boxes if hole[box.slices].any())


def _extent(hole: np.ndarray, rows: slice, columns: slice, labels: np.ndarray, number: int, cell: int) -> tuple[int, int, int, int]:
    """The extent of the hole with this label: top, left, bottom, right; bottom and right are exclusive."""
    here = hole[rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell]
    mine = (labels[rows, columns] == number).repeat(cell, axis=0).repeat(cell, axis=1)[: here.shape[0], : here.shape[1]] & here
    y, x = np.nonzero(mine.any(axis=1))[0], np.nonzero(mine.any(axis=0))[0]
    top, left = rows.start * cell, columns.start * cell
    return top + y[0], left + x[0], top + y[-1] + 1, left + x[-1] + 1


def _thicknesses(hole: np.ndarray, labels: np.ndarray, cell: int) -> np.ndarray:
    """The thickness of each hole, float (holes,), see `Window`."""
    from scipy.ndimage import distance_transform_edt, maximum

    if hole.all():
        return np.full(labels.max(), 2.0 * max(hole.shape))
    numbers = labels.repeat(cell, axis=0).repeat(cell, axis=1)[: hole.shape[0], : hole.shape[1]]
    return 2 * np.asarray(maximum(distance_transform_edt(hole), numbers, np.arange(1, labels.max() + 1)))


def _gather(extents: np.ndarray, alone: np.ndarray, size: int, options: LayoutOptions) -> list[list[int]]:
    """Which holes share a window: holes that, with their context, fit together into a window of this size. Some stay `alone`."""
    room = size / (1 + min(options.context, SHARED))
    free = ~alone
    gathered = [[int(i)] for i in np.nonzero(alone)[0]]
    for first in range(len(extents)):
        if not free[first]:
            continue
        members, bounds = [first], extents[first]
        free[first] = False
        for i in np.nonzero(free & _fit_together(bounds, extents, room))[0]:
            if _fit_together(bounds, extents[i], room):
                members.append(int(i))
                bounds = np.concatenate([np.minimum(bounds[:2], extents[i, :2]), np.maximum(bounds[2:], extents[i, 2:])])
                free[i] = False
        gathered.append(members)
    return gathered


def _fit_together(bounds: np.ndarray, extents: np.ndarray, room: float) -> np.ndarray:
    """Whether the rectangle around `bounds` and each of `extents` (..., 4) is at most `room` high and wide."""
    sides = np.maximum(bounds[2:], extents[..., 2:]) - np.minimum(bounds[:2], extents[..., :2])
    return (sides <= room).all(axis=-1)


def _window(
    bounds: Box, shape: tuple[int, int], size: int, tile: int, thickness: float | None, options: LayoutOptions
) -> tuple[Box, tuple[int, int]]:
    """The window around a hole, inside a picture of (H, W) `shape`, and the (height, width) of its canvas. tile: the side of tiles."""
    if thickness is None:
        wanted = [n * (1 + options.context) for n in (bounds.height, bounds.width)]
        factor = min(max(max(wanted) / size, 1), options.shrink)
    else:
        wanted = [n + options.context * max(size, thickness / THIN) for n in (bounds.height, bounds.width)]
        factor = 1.0
    while math.prod(_tile_count(bounds[2 + i], min(shape[i], wanted[i]), factor, tile) for i in (0, 1)) > options.max_tiles:
        factor *= 1.1
    sides = [min(n, max(math.ceil(want), math.ceil(size * factor))) for n, want in zip(shape, wanted)]
    factor = min(factor, max(sides) / size, min(sides) / SMALLEST_SIDE)  # at the picture's edge it is shrunk less, or enlarged
    top, left = (
        min(max(start + length // 2 - side // 2, 0), n - side) for start, length, side, n in zip(bounds[:2], bounds[2:], sides, shape)
    )
    canvas = (max(round(side / factor), SMALLEST_SIDE) for side in sides)
    return Box(int(top), int(left), *sides), tuple(tile if side == tile + 1 else side for side in canvas)  # no extra tile for one pixel


def _tile_count(hole: int, window: float, factor: float, size: int) -> int:
    """The largest number of tiles that a hole needs along one axis if its window is shrunk by `factor`."""
    if window <= size * factor:
        return 1
    return len(_starts(math.ceil(hole / factor) + 2 + 2 * (size // OVERLAP), size))


def _along(hole: np.ndarray, length: int, size: int) -> tuple[list[int], int]:
    """The starts of tiles along one axis of `length`, and their length, for a hole in these rows (or columns)."""
    tile = min(length, size)
    margin = max(tile // OVERLAP, (tile - (hole[-1] + 1 - hole[0]) + 1) // 2)  # tiles extend beyond the hole
    first, last = max(int(hole[0]) - margin, 0), min(int(hole[-1]) + 1 + margin, length)
    first = max(min(first, last - tile), 0)
    return [first + start for start in _starts(max(last - first, tile), tile)], tile


def _starts(length: int, tile: int) -> list[int]:
    """The starts of tiles that cover `length` with an overlap of at least tile / OVERLAP."""
    if length <= tile:
        return [0]
    step = tile - tile // OVERLAP
    count = math.ceil((length - tile) / step) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]
