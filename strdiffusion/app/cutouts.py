"""Cut-outs drawn on a canvas: scaled, turned, and laid over each other, with their rims averaged by alpha.

All colours here are *premultiplied*: (H, W, 4) float32 with RGB times alpha, and alpha, in [0, 1]. Then an average of pixels weighs each
by its alpha, and the colour of a transparent pixel has no influence. Lengths are in pixels, x to the right and y down; the middle of a
pixel lies at half numbers.
"""

import math
from dataclasses import dataclass

import numpy as np

from strdiffusion.app.picture import Picture
from strdiffusion.data.images import resize_image

BAND = 1 << 18  # pixels drawn at once


def premultiplied(picture: Picture) -> np.ndarray:
    """A picture (H, W, 4), opaque where it has no alpha."""
    alpha = np.ones(picture.size, np.float32) if picture.alpha is None else picture.alpha.astype(np.float32) / np.float32(picture.scale)
    return np.dstack([picture.rgb() * alpha[..., None], alpha])


def as_rgba(canvas: np.ndarray) -> np.ndarray:
    """A premultiplied canvas as uint8 (H, W, 4) with plain colours; those of wholly transparent pixels are black."""
    alpha = canvas[..., 3:]
    colours = np.divide(canvas[..., :3], alpha, out=np.zeros_like(canvas[..., :3]), where=alpha > 0)
    return np.rint(np.clip(np.concatenate([colours, alpha], axis=2), 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Placement:
    """Where a cut-out lies: the point (ax, ay) of the cut-out comes to (x, y) of the canvas, enlarged by `scale` and turned clockwise by
    `angle` degrees about it.
    """

    x: float
    y: float
    scale: float
    angle: float
    ax: float
    ay: float

    def corners(self, height: int, width: int) -> np.ndarray:
        """The corners of a cut-out of this size on the canvas, (4, 2) as x, y."""
        c, s = _turn(self.angle)
        u, v = (np.array([0, width, width, 0]) - self.ax) * self.scale, (np.array([0, 0, height, height]) - self.ay) * self.scale
        return np.stack([self.x + c * u - s * v, self.y + s * u + c * v], axis=1)


def lay_over(canvas: np.ndarray, cutout: np.ndarray, place: Placement) -> bool:
    """Draw a premultiplied cut-out (h, w, 4) over a premultiplied canvas (H, W, 4), in place. Returns whether any of it is on the canvas.

    A point shows what is interpolated between the four nearest pixels of the cut-out, weighed by the share that its rectangle covers there.
    If the cut-out shrinks, it is first averaged over areas, to twice the size it will have, and each pixel averages four points.
    """
    h, w = cutout.shape[:2]
    corners = place.corners(h, w)
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, canvas.shape[1]), min(bottom, canvas.shape[0])
    if left >= right or top >= bottom:
        return False
    points, small = ((0.5,), cutout) if place.scale >= 1 else ((0.25, 0.75), cutout)
    if place.scale < 0.5:
        small = resize_image(cutout, max(math.ceil(2 * h * place.scale), 1), max(math.ceil(2 * w * place.scale), 1))
    rows, drawn = max(BAND // (right - left), 1), False
    for first in range(top, bottom, rows):
        target = canvas[first : min(first + rows, bottom), left:right]
        y, x = np.mgrid[first : first + target.shape[0], left:right]
        patch = np.mean([_sample(small, place, x + dx, y + dy, h, w, len(points)) for dy in points for dx in points], axis=0)
        drawn = drawn or bool(patch[..., 3].any())
        target *= 1 - patch[..., 3:]
        target += patch
    return drawn


def _sample(cutout: np.ndarray, place: Placement, x: np.ndarray, y: np.ndarray, height: int, width: int, points: int) -> np.ndarray:
    """What a cut-out shows at points (x, y) of the canvas, premultiplied (..., 4). height, width: before it was shrunk. points: for a pixel
    of the canvas, along its side.
    """
    c, s = _turn(place.angle)
    dx, dy = x - place.x, y - place.y
    u, v = (c * dx + s * dy) / place.scale + place.ax, (c * dy - s * dx) / place.scale + place.ay  # of the cut-out, as it was given
    covered = _coverage(u, width, place.scale * points) * _coverage(v, height, place.scale * points)
    h, w = cutout.shape[:2]
    i, di = _between(v * (h / height), h)
    j, dj = _between(u * (w / width), w)
    below, right = np.minimum(i + 1, h - 1), np.minimum(j + 1, w - 1)
    upper = cutout[i, j] * (1 - dj) + cutout[i, right] * dj
    lower = cutout[below, j] * (1 - dj) + cutout[below, right] * dj
    return ((upper * (1 - di) + lower * di) * covered[..., None]).astype(np.float32)


def _coverage(along: np.ndarray, length: int, scale: float) -> np.ndarray:
    """The share of a square around each point that lies between 0 and `length`. along: the middles, on the cut-out; the squares' sides
    in its pixels are 1 / scale.
    """
    return np.clip(np.minimum(along, length - along) * scale + 0.5, 0, 1)


def _between(along: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel before each point, and the share (..., 1) of the one after it."""
    along = np.clip(along - 0.5, 0, length - 1)
    first = along.astype(int)
    return first, (along - first)[..., None]


def _turn(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in degrees, exact for quarter turns."""
    if angle % 90 == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(angle // 90) % 4]
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))
