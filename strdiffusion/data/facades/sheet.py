"""A supersampled drawing surface. Only integer and elementwise arithmetic is used, so the bytes are the same everywhere."""

import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]  # 0..255

MARGIN = 0.125  # of the side, drawn around the picture: perspective looks there


class Sheet:
    """A square picture of side 1 (x to the right, y down) with a margin, `resolution` samples a side.

    pixels: (n, n, 3) float32, 0..255.
    """

    def __init__(self, resolution: int):
        self.resolution = resolution
        self.margin = int(MARGIN * resolution)
        side = resolution + 2 * self.margin
        self.pixels = np.zeros((side, side, 3), np.float32)

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

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.region(x0, y0, x1, y1)[...] = colour

    def gradient(self, x0: float, y0: float, x1: float, y1: float, top: Colour, bottom: Colour) -> None:
        """Fill a rectangle from one colour down to another."""
        area = self.region(x0, y0, x1, y1)
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
        self._paint(self.pixels[top:bottom, left:right], positive | negative, colour, factor)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour | None = None, factor: float = 1.0) -> None:
        """As `polygon`, an ellipse around (x, y)."""
        a, b = self.length(rx), self.length(ry)
        side = len(self.pixels)
        cx, cy = self.sample(x), self.sample(y)
        top, bottom = (min(max(v, 0), side) for v in (cy - b, cy + b + 1))
        left, right = (min(max(v, 0), side) for v in (cx - a, cx + a + 1))
        rows, columns = np.arange(top - cy, bottom - cy)[:, None], np.arange(left - cx, right - cx)[None, :]
        inside = (columns * b) ** 2 + (rows * a) ** 2 <= (a * b) ** 2
        self._paint(self.pixels[top:bottom, left:right], inside, colour, factor)

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
        self.pixels, self.margin = self.pixels.reshape(-1, 3)[flat], 0

    def picture(self, size: int) -> np.ndarray:
        """The picture without its margin, averaged down to (size, size, 3) uint8."""
        m, n = self.margin, self.resolution
        k = n // size
        samples = np.clip(self.pixels[m : m + n, m : m + n], 0, 255).astype(np.uint8)
        total = sum(samples[i::k, j::k].astype(np.uint32) for i in range(k) for j in range(k))
        return ((total + k * k // 2) // (k * k)).astype(np.uint8)

    @staticmethod
    def _paint(area: np.ndarray, inside: np.ndarray, colour: Colour | None, factor: float) -> None:
        area[inside] = colour if colour is not None else area[inside] * np.float32(factor)


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
