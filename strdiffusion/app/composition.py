"""Compositions: cut-outs placed on a canvas, around which a scene is painted (Intelligent Painter, arXiv 2210.17106)."""

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import numpy as np

from strdiffusion.app.cutouts import Placement, as_rgba, lay_over, premultiplied
from strdiffusion.app.inputs import read_known
from strdiffusion.app.model import Output, StrDiffusion
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import Source, open_picture
from strdiffusion.data.decoding import opencv
from strdiffusion.data.masks import Polarity
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range, build, convert, read_yaml, save_tree

SIDE = 512  # of a blank canvas, as in the authors' window
MOST_PIXELS = 25_000_000  # of a canvas
MOST_OBJECTS = 100
FAR = 100_000.0
SOURCES = ("image", "mask", "objects")  # fields that are no numbers

Side = Annotated[int, Range(8, 8192)]
Coordinate = Annotated[float, Range(-FAR, FAR)]


@dataclass
class PlacedObject:
    """A cut-out on the canvas.

    image: a picture with alpha. position: (x, y) of its anchor on the canvas, in pixels from the upper left corner.
    scale: canvas pixels for a pixel of the cut-out; None: as large as fits into the canvas. angle: degrees clockwise, about the anchor.
    order: what is larger lies above what is smaller; of equal ones, the later one lies above.
    anchor: the "middle" of the cut-out, or its upper left "corner", about which the authors' window turns.
    """

    image: Source
    position: tuple[Coordinate, Coordinate]
    scale: Annotated[float, Range(0.001, 1000)] | None = None
    angle: Annotated[float, Range(-360, 360)] = 0.0
    order: Annotated[int, Range(-1_000_000, 1_000_000)] = 0
    anchor: Literal["middle", "corner"] = "middle"

    def place(self, cutout: tuple[int, int], canvas: tuple[int, int]) -> Placement:
        """Where a cut-out of this (height, width) lies on a canvas of that (height, width)."""
        (h, w), (H, W) = cutout, canvas
        scale = min(H / h, W / w) if self.scale is None else self.scale
        ax, ay = (w / 2, h / 2) if self.anchor == "middle" else (0.0, 0.0)
        return Placement(*self.position, scale, self.angle, ax, ay)


@dataclass(frozen=True)
class Composed:
    """A composition as pixels. rgba: uint8 (H, W, 4). known: bool (H, W), the pixels that are kept. picture: the same pixels without alpha,
    black where they are not known, with the metadata of the open picture.
    """

    rgba: np.ndarray
    known: np.ndarray
    picture: Picture

    @property
    def hole(self) -> np.ndarray:
        """Bool (H, W): what is to be painted."""
        return ~self.known


@dataclass
class Composition:
    """Objects on a canvas; everything else is to be painted.

    objects: the cut-outs. width, height: of a blank canvas (512), or `image`: an open picture, whose hole is `mask` (None: where the
    picture is transparent). Objects cover what is below them; over the known part of a picture their rims blend with it.
    polarity: what is white in the mask. opaque: from which alpha on a pixel is known; 1, as released: wholly opaque ones alone.
    erode: known pixels at most so far from the hole are painted, too.
    No parts of the file: name, for people and files; file, that it was read from.
    """

    objects: list[PlacedObject] = field(default_factory=list)
    width: Side | None = None
    height: Side | None = None
    image: Source | None = None
    mask: Source | None = None
    polarity: Polarity = "white_hole"
    opaque: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    erode: Annotated[int, Range(0, 1000)] = 0

    name = "composition"
    file = None

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Composition":
        """Read a YAML (or JSON) file. Its paths are relative to its folder. Raises UserError for unknown keys and values out of range."""
        path = Path(path).expanduser()
        composition = build(cls, read_yaml(path), str(path))
        composition.name, composition.file = path.stem, path

        def found(source: str | None) -> str | None:
            return source if source is None else str(path.parent / Path(source).expanduser())

        composition.image, composition.mask = found(composition.image), found(composition.mask)
        for placed in composition.objects:
            placed.image = found(placed.image)
        composition.check(str(path))
        return composition

    def save(self, path: str | os.PathLike) -> None:
        """Write the YAML file that `load` reads. Pictures that are no files are written beside it, as PNG."""
        path = Path(path).expanduser()
        tree = {name: getattr(self, name) for name in (each.name for each in fields(self))}
        tree["image"] = _saved(self.image, path, "picture")
        tree["mask"] = _saved(self.mask, path, "picture_mask")
        tree["objects"] = [
            vars(placed) | {"image": _saved(placed.image, path, f"object_{i}")} for i, placed in enumerate(self.objects, start=1)
        ]
        save_tree({name: value for name, value in tree.items() if value is not None}, path)

    def check(self, where: str = "the composition") -> None:
        """Check all numbers, which in Python may be anything. Raises UserError."""
        if len(self.objects) > MOST_OBJECTS:
            raise UserError(f"{where} has {len(self.objects)} objects, and at most {MOST_OBJECTS} are allowed")
        for key, part in [("", self), *((f"objects[{i}].", placed) for i, placed in enumerate(self.objects))]:
            hints = get_type_hints(type(part), include_extras=True)
            for each in fields(part):
                if each.name not in SOURCES:
                    setattr(part, each.name, convert(hints[each.name], getattr(part, each.name), where, key + each.name))
        if self.image is not None and (self.width, self.height) != (None, None):
            raise UserError(f"{where}: width and height are of a blank canvas, and image is an open picture: leave one of them out")
        if self.image is None and self.mask is not None:
            raise UserError(f"{where}: mask is the hole of an open picture, and there is none: give image, or leave mask out")
        if self.image is None and not self.objects:
            raise UserError(f"{where}: the canvas is blank: place at least one object")

    def render(self) -> Composed:
        """Draw the composition. Raises UserError if an object cannot be used, if nothing is known, or if nothing is to be painted."""
        self.check()
        base = None if self.image is None else open_picture(self.image, "the open picture").eight_bits()
        H, W = (self.height or SIDE, self.width or SIDE) if base is None else base.size
        require_canvas(H, W)
        canvas = np.zeros((H, W, 4), np.float32) if base is None else self._opened(base)
        for i in sorted(range(len(self.objects)), key=lambda i: self.objects[i].order):  # of equal ones, the earlier one first
            placed = self.objects[i]
            cutout = open_cutout(placed.image, f"objects[{i}]")
            if not lay_over(canvas, premultiplied(cutout), placed.place(cutout.size, (H, W))):
                raise UserError(
                    f"{cutout.name} lies wholly outside of the canvas of {W}x{H} pixels, at ({placed.position[0]:g}, "
                    f"{placed.position[1]:g}): move it, or leave it out"
                )
        rgba = as_rgba(canvas)
        known = rgba[..., 3] >= 255 * self.opaque
        if self.erode and not known.all():
            cv2 = opencv()
            known = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > self.erode
        if not known.any():
            raise UserError(f"no pixel of {self.name} is known: all have an alpha below opaque={self.opaque:g}, or erode took them away")
        if known.all():
            raise UserError(f"nothing of {self.name} is to be painted: its objects and its picture cover all of the canvas")
        levels = rgba[..., :3] * known[..., None]
        return Composed(rgba, known, Picture(levels, name=self.name) if base is None else replace(base, levels=levels, name=self.name))

    def paint(self, model: StrDiffusion, **arguments) -> Output:
        """Paint what is not known. arguments: of calling a `StrDiffusion`, such as seed and num_samples."""
        composed = self.render()
        return model(composed.picture, composed.hole, **arguments)

    def _opened(self, base: Picture) -> np.ndarray:
        """The open picture, premultiplied, with its hole."""
        if self.mask is None and base.alpha is None:
            raise UserError(f"{base.name} has no hole: give a mask, or a picture that is transparent where it shall be painted")
        canvas = premultiplied(base)
        if self.mask is not None:
            canvas[~read_known(self.mask, base, self.polarity)] = 0
        return canvas


def require_canvas(height: int, width: int) -> None:
    """Raise UserError for a canvas that is too large."""
    if height * width > MOST_PIXELS:
        most = MOST_PIXELS // 10**6
        raise UserError(f"the canvas has {width}x{height} pixels, and at most {most} megapixels are allowed: make it smaller")


def open_cutout(source: Source, name: str) -> Picture:
    """A picture with alpha that is not transparent everywhere. Raises UserError."""
    cutout = open_picture(source, name)
    if cutout.alpha is None:
        raise UserError(f"{cutout.name} has no alpha, so it is no cut-out: give RGBA (PNG, TIFF, WebP), transparent around the object")
    if not cutout.alpha.any():
        raise UserError(f"{cutout.name} is transparent everywhere: there is nothing to place")
    return cutout


def _saved(source: Source | None, beside: Path, part: str) -> str | None:
    """How a file names a picture: by its path from there. One that is no file becomes one."""
    if source is None:
        return None
    if isinstance(source, str | os.PathLike):
        return os.path.relpath(Path(source).expanduser().absolute(), beside.parent.absolute())
    path = beside.with_name(f"{beside.stem}_{part}.png")
    open_picture(source, part).save(path)
    return path.name
