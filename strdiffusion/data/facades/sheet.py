"""A supersampled drawing surface. Only integer and elementwise arithmetic is used, so the bytes are the same everywhere.

What is filled with a colour becomes part of the class that is being painted, see `Sheet.painting` and `paints`; what only shades or
textures does not.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType

import numpy as np

Colour = tuple[float, float, float]  # 0..255

MARGIN = 0.125  # of the side, drawn around the picture: perspective looks there
CLASSES = ("sky", "roof", "wall", "window", "door", "tree", "street")  # a label is a position in this list


class Sheet:
    """A square picture of side 1 (x to the right, y down) with a margin, `resolution` samples a side.

    pixels: (n, n, 3) float32, 0..255. labels: (n, n) uint8, the class that each sample belongs to.
    """

    def __init__(self, resolution: int):
        self.resolution = resolution
        self.margin = int(MARGIN * resolution)
        side = resolution + 2 * self.margin
        self.pixels = np.zeros((side, side, 3), np.float32)
        self.labels = np.zeros((side, side), np.uint8)
        self._class: int | None = None

    @contextlib.contextmanager
    def painting(self, name: str | None) -> Iterator[None]:
        """What is filled in this context is of this class; None: it is thin, and of the class that it stands in front of."""
        before, self._class = self._class, None if name is None else CLASSES.index(name)
        try:
            yield
        finally:
            self._class = before

    def sample(self, v: float) -> int:
        """The sample at which coordinate v lies."""
        return math.floor(v * self.resolution + 0.5) + self.margin

    def length(self, v: float) -> int:
        """A length in samples, at least 1."""
        return max(1, math.floor(v * self.resolution + 0.5))

    def box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Rows and columns of a rectangle, at least one sample wide and high; empty if it lies outside."""
        left, top = self.sample(x0), self.sample(y0)
        right, bottom = max(self.sample(x1), left + 1), max(self.sample(y1), top + 1)
        return slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))

    def region(self, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        """A rectangle's pixels, as a view."""
        return self.pixels[self.box(x0, y0, x1, y1)]

    def planes(self, x0: float, y0: float, x1: float, y1: float) -> tuple[np.ndarray, np.ndarray]:
        """A rectangle's pixels and labels, as views."""
        box = self.box(x0, y0, x1, y1)
        return self.pixels[box], self.labels[box]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        area, labels = self.planes(x0, y0, x1, y1)
        area[...] = colour
        self._label(labels)

    def gradient(self, x0: float, y0: float, x1: float, y1: float, top: Colour, bottom: Colour) -> None:
        """Fill a rectangle from one colour down to another."""
        area, labels = self.planes(x0, y0, x1, y1)
        self._label(labels)
        w = (np.arange(len(area), dtype=np.float32) / np.float32(max(len(area) - 1, 1)))[:, None, None]
        area[...] = np.array(top, np.float32) * (1 - w) + np.array(bottom, np.float32) * w

    def shade(self, x0: float, y0: float, x1: float, y1: float, factor: float) -> None:
        """Darken or lighten a rectangle."""
        area = self.region(x0, y0, x1, y1)
        area *= np.float32(factor)

    def polygon(self, corners: Sequence[tuple[float, float]], colour: Colour | None = None, factor: float = 1.0) -> None:
        """Fill a convex polygon with a colour, or (colour None) multiply what is there."""
        points = [(self.sample(x), self.sample(y)) for x, y in corners]
        side = len(self.pixels)
        left, right = (min(max(f(p[0] for p in points), 0), side) for f in (min, max))
        top, bottom = (min(max(f(p[1] for p in points), 0), side) for f in (min, max))
        rows, columns = np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
        positive = negative = np.ones((bottom - top, right - left), bool)
        for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
            cross = (bx - ax) * (rows - ay) - (by - ay) * (columns - ax)
            positive, negative = positive & (cross >= 0), negative & (cross <= 0)
        self._paint((slice(top, bottom), slice(left, right)), positive | negative, colour, factor)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour | None = None, factor: float = 1.0) -> None:
        """As `polygon`, an ellipse around (x, y)."""
        a, b = self.length(rx), self.length(ry)
        side = len(self.pixels)
        cx, cy = self.sample(x), self.sample(y)
        top, bottom = (min(max(v, 0), side) for v in (cy - b, cy + b + 1))
        left, right = (min(max(v, 0), side) for v in (cx - a, cx + a + 1))
        rows, columns = np.arange(top - cy, bottom - cy)[:, None], np.arange(left - cx, right - cx)[None, :]
        inside = (columns * b) ** 2 + (rows * a) ** 2 <= (a * b) ** 2
        self._paint((slice(top, bottom), slice(left, right)), inside, colour, factor)

    def texture(self, x0: float, y0: float, x1: float, y1: float, tones: np.ndarray) -> None:
        """Multiply a rectangle by `tones` (h, w) or (h, w, 3), cut to its size."""
        area = self.region(x0, y0, x1, y1)
        tones = tones if tones.ndim == 3 else tones[:, :, None]
        area *= tones[: area.shape[0], : area.shape[1]]

    def perspective(self, strength: float, horizon: float) -> None:
        """Turn the wall: things grow to the right (strength > 0) or left, about the line y = horizon. |strength| up to 0.2.

        The margin is used up: what is drawn from here on is clipped at the picture's border.
        """
        side = len(self.pixels)
        v = np.arange(self.resolution, dtype=np.float64) / self.resolution
        scale = 1 + strength * (v - 0.5)
        columns = np.floor((0.5 + (v - 0.5) / scale) * self.resolution).astype(np.int64) + self.margin
        rows = np.floor((horizon + (v[:, None] - horizon) / scale[None, :]) * self.resolution).astype(np.int64) + self.margin
        flat = np.clip(rows, 0, side - 1) * side + np.clip(columns, 0, side - 1)[None, :]
        self.pixels, self.labels, self.margin = self.pixels.reshape(-1, 3)[flat], self.labels.reshape(-1)[flat], 0

    def picture(self, size: int) -> np.ndarray:
        """The picture without its margin, averaged down to (size, size, 3) uint8."""
        total, count = self._sums(np.clip(self.pixels, 0, 255).astype(np.uint8), size)
        return ((total + count // 2) // count).astype(np.uint8)

    def label_map(self, size: int) -> np.ndarray:
        """The labels without the margin, (size, size) uint8: of each pixel the class of most of its samples, the first of equals."""
        votes = [self._sums(self.labels == label, size)[0] for label in range(len(CLASSES))]
        return np.argmax(votes, axis=0).astype(np.uint8)

    def _sums(self, plane: np.ndarray, size: int) -> tuple[np.ndarray, int]:
        """Sums, uint32, of the samples (n, n, ...) of each pixel, and how many samples a pixel has."""
        m, n = self.margin, self.resolution
        k = n // size
        samples = plane[m : m + n, m : m + n]
        return sum(samples[i::k, j::k].astype(np.uint32) for i in range(k) for j in range(k)), k * k

    def _paint(self, box: tuple[slice, slice], inside: np.ndarray, colour: Colour | None, factor: float) -> None:
        area = self.pixels[box]
        area[inside] = colour if colour is not None else area[inside] * np.float32(factor)
        if colour is not None:
            self._label(self.labels[box], inside)

    def _label(self, labels: np.ndarray, inside: np.ndarray | EllipsisType = ...) -> None:
        if self._class is not None:
            labels[inside] = self._class


def paints(name: str) -> Callable:
    """Decorator of a function whose first argument is a sheet: what it fills is of this class, where it says nothing else."""

    def decorate(draw: Callable) -> Callable:
        @functools.wraps(draw)
        def drawing(sheet: Sheet, *arguments, **options):
            with sheet.painting(name):
                return draw(sheet, *arguments, **options)

        return drawing

    return decorate


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from a to b."""
    return tuple(u + (v - u) * share for u, v in zip(a, b, strict=True))


def toned(colour: Colour, factor: float) -> Colour:
    """A lighter (factor above 1) or darker colour."""
    return tuple(min(255.0, v * factor) for v in colour)


def varied(dice, colour: Colour, spread: float) -> Colour:
    """A colour near another: each channel moved by up to `spread`, and all together by as much."""
    common = dice.uniform(-spread, spread)
    return tuple(min(255.0, max(0.0, v + common + dice.uniform(-spread, spread) / 2)) for v in colour)
