"""Dead leaves: images of overlapping shapes of all sizes, drawn from their number, to learn from before there is a photograph.

Opaque shapes whose sizes follow a power law have the edges, the occlusions and nearly the spectrum of photographs (Lee, Mumford, Huang
2001), and networks that learn from them alone restore photographs (Achddou, Gousseau, Ladjal 2021).
"""

from functools import cache

import cv2
import numpy as np

VERSION = 3
SPLITS = {"train": 20_000, "val": 100}
FINER = 2  # images are drawn so many times larger, and shrunk
VIVID = 0.5  # the share of images that may have vivid colours, coloured light, black and white
SUBPIXEL = 4  # bits of the fraction of a pixel in OpenCV's coordinates
SMALLEST, LARGEST = (0.025, 0.16), (0.25, 0.85)  # where the limits of the radii are drawn, as shares of the side
FEWEST, MOST = 4, 150  # shapes
SLOPES = (0.3, 0.6, 1.0, 1.3, 1.6, 2.0)  # of the amplitude of noise over its frequency

Colours = np.ndarray  # float32 (n, 3)
Plane = np.ndarray  # float32 (side, side, 3)


def draw_leaves(split: str, number: int, size: int = 64) -> np.ndarray:
    """One image, uint8 (size, size, 3), RGB."""
    rng = np.random.default_rng([list(SPLITS).index(split), number, size])
    vivid, side = rng.random() < VIVID, FINER * size
    colours = draw_colours(rng, vivid)
    image, materials = draw_material(rng, colours, side), [draw_material(rng, colours, side) for _ in range(rng.integers(3, 9))]
    for radius in draw_radii(rng):
        inside = fill_shape(draw_outline(rng, radius * side, side), side)
        material = materials[rng.integers(len(materials))]
        if rng.random() < 0.3:
            material = np.roll(material, rng.integers(0, side, 2), (0, 1))
        image += inside * (np.clip(material + rng.normal(0, 0.05, 3).astype(np.float32), 0, 1) - image)
    for _ in range(rng.poisson(0.7)):
        image += draw_line(rng, side) * (colours[rng.integers(len(colours))] - image)
    return expose(rng, np.clip(image, 0, 1), size, vivid)


def draw_colours(rng: np.random.Generator, vivid: bool) -> Colours:
    """The colours of an image: their lightness varies more than their hue, and most images are rather gray."""
    count, saturation = rng.integers(2, 7), rng.random() ** 1.5 * (3 if vivid and rng.random() < 0.3 else 1)
    darkest = 0.0 if vivid else 0.02
    lightness = np.clip(rng.uniform(*(0, 1) if vivid else (0.1, 0.9)) + rng.normal(0, 0.35, (count, 1)), darkest, 1 - darkest)
    hue = rng.normal(0, 0.18, 3) + rng.normal(0, 0.22, (count, 3))
    hue -= hue.mean(axis=1, keepdims=True)
    return np.clip(lightness + 3 * saturation * np.minimum(lightness, 1 - lightness) * hue, 0, 1).astype(np.float32)


def draw_radii(rng: np.random.Generator) -> np.ndarray:
    """Radii as shares of the side, of a density that falls with their third power, so that no scale is special."""
    count = int(np.exp(rng.uniform(np.log(FEWEST), np.log(MOST))))
    low, high = rng.uniform(*SMALLEST), rng.uniform(*LARGEST)
    return (low**-2 - rng.random(count) * (low**-2 - high**-2)) ** -0.5


def draw_outline(rng: np.random.Generator, radius: float, side: int) -> np.ndarray:
    """The corners of a shape, (n, 2) in pixels: an ellipse, a rectangle, a polygon or a blob, somewhere, turned."""
    kind, stretch, turn = rng.integers(4), np.exp(rng.normal(0, 0.5)), rng.uniform(0, 2 * np.pi)
    around = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    if kind == 1:
        corners, turn = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), turn * rng.integers(2)  # half of them upright
    elif kind == 2:
        around = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        corners = np.stack([np.cos(around), np.sin(around)], axis=1)
    else:
        bumps = sum(rng.normal(0, 0.35 / k) * np.cos(k * around + rng.uniform(0, 2 * np.pi)) for k in range(1, 6)) if kind == 3 else 0
        corners = np.stack([np.cos(around), np.sin(around)], axis=1) * (1 + np.broadcast_to(bumps, around.shape))[:, None]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return radius * corners * [stretch, 1 / stretch] @ rotation.T + rng.uniform(-0.2, 1.2, 2) * side


def fill_shape(corners: np.ndarray, side: int) -> np.ndarray:
    """The share of each pixel that lies inside an outline, float32 (side, side, 1)."""
    inside = np.zeros((side, side), np.uint8)
    cv2.fillPoly(inside, [np.rint(corners * 2**SUBPIXEL).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL)
    return inside[..., None] / np.float32(255)


def draw_line(rng: np.random.Generator, side: int) -> np.ndarray:
    """A straight line across, as `fill_shape`."""
    begin, end = np.rint(rng.uniform(-0.3, 1.3, (2, 2)) * side * 2**SUBPIXEL).astype(int)
    inside = np.zeros((side, side), np.uint8)
    cv2.line(inside, tuple(map(int, begin)), tuple(map(int, end)), 255, int(rng.integers(1, 9)), cv2.LINE_AA, SUBPIXEL)
    return inside[..., None] / np.float32(255)


def draw_material(rng: np.random.Generator, colours: Colours, side: int) -> Plane:
    """A plane of one colour, shaded, and perhaps with a texture of noise or of stripes."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    turn, shade, tint = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.25), rng.normal(0, 0.08, 3)
    plane = colours[rng.integers(len(colours))] + rng.normal(0, 0.06, 3)
    plane = plane + (x * np.cos(turn) + y * np.sin(turn))[..., None] * (shade + tint)
    kind = rng.random()
    if kind < 0.35:
        noise = np.roll(noise_of(side)[rng.integers(len(SLOPES))], rng.integers(0, side, 2), (0, 1))
        plane = plane + noise[..., None] * abs(rng.normal(0, 0.08)) * rng.normal(1, 0.3, 3)
    elif kind < 0.5:
        waves, turn = np.exp(rng.uniform(np.log(4), np.log(40))), rng.uniform(0, 2 * np.pi)
        stripes = np.sin(2 * np.pi * waves * (x * np.cos(turn) + y * np.sin(turn)) + rng.uniform(0, 2 * np.pi))
        stripes = np.sign(stripes) if rng.random() < 0.4 else stripes
        plane = plane + stripes[..., None] * rng.normal(0, 0.15) * np.clip(rng.normal(1, 0.4, 3), 0, 2)
    return plane.astype(np.float32)


@cache
def noise_of(side: int) -> list[np.ndarray]:
    """Planes of noise, float32 (side, side), of unit variance: one for each of SLOPES."""
    rng, planes = np.random.default_rng(side), []
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    for slope in SLOPES:
        plane = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) / frequency**slope).real
        planes.append(((plane - plane.mean()) / plane.std()).astype(np.float32))
    return planes


def expose(rng: np.random.Generator, image: Plane, size: int, vivid: bool) -> np.ndarray:
    """What a camera makes of the scene, uint8 (size, size, 3): out of focus or not, shrunk, of little or full contrast, with noise; and if
    it is vivid, perhaps in a light of some colour, or so exposed that much is black or white.
    """
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.2))
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    if vivid and rng.random() < 0.5:
        image = image * np.exp(rng.normal(0, 0.35, 3) - 0.1)
    gain, offset = rng.uniform(0.6, 1), rng.uniform(0, 0.15)
    if vivid and rng.random() < 0.5:
        gain, offset = rng.uniform(0.9, 1.3), rng.uniform(-0.15, 0.02)
    image = image * gain + offset + rng.normal(0, abs(rng.normal(0, 0.012)), image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
