"""A composition that was arranged in the browser, of the cut-outs in the visit's pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from strdiffusion.app import Composition, Picture, PlacedObject, open_picture
from strdiffusion.app.composition import MOST_OBJECTS, Composed
from strdiffusion.app.web.limits import Limits
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, build

NAME = "composition"
WHERE = "What was arranged"
COVERED = 4  # times the largest picture is what all objects together may cover: each of its pixels takes time
NO_OBJECTS = "Put a cut-out on the canvas first."


@dataclass(frozen=True)
class Cutout:
    """A cut-out of a visit's pool. size: (height, width). preview: the name of the file that the browser shows."""

    number: int
    path: Path
    name: str
    size: tuple[int, int]
    preview: str

    def open(self) -> Picture:
        """The cut-out at full size, under its visitor's name."""
        return replace(open_picture(self.path), name=self.name)


@dataclass
class ArrangedObject:
    """An object as compose.js sends it; x, y: of its middle, in pixels of the canvas."""

    cutout: Count
    x: float
    y: float
    scale: float
    angle: float = 0.0


@dataclass
class Arranged:
    """What compose.js sends. objects: from the back to the front. number: of the open picture. width, height: of a blank canvas."""

    canvas: Literal["blank", "picture"] = "blank"
    number: int = 0
    width: int = 0
    height: int = 0
    erode: int = 0
    objects: list[ArrangedObject] = field(default_factory=list)


def read_composition(
    arranged: object, pool: Mapping[int, Cutout], limits: Limits, picture: Picture | None = None, hole: np.ndarray | None = None
) -> Composition:
    """The composition that compose.js sent, on a blank canvas, or on the open picture with its hole, bool (H, W).

    Nothing in it is trusted. Raises UserError if it is invalid, too large, or names a cut-out that is not in the pool.
    """
    if not isinstance(arranged, dict) or not arranged.get("objects"):
        raise UserError(NO_OBJECTS)
    if not isinstance(arranged["objects"], list) or len(arranged["objects"]) > MOST_OBJECTS:
        raise UserError(f"At most {MOST_OBJECTS} objects can lie on the canvas.")
    wanted = build(Arranged, arranged, WHERE)
    canvas = picture.size if picture is not None else (wanted.height, wanted.width)
    opened, objects, covered = {}, [], 0.0
    for one in wanted.objects:
        if (cutout := pool.get(one.cutout)) is None:
            raise UserError("A cut-out on the canvas is no longer in the pool: remove it.")
        covered += min(cutout.size[0] * cutout.size[1] * one.scale * one.scale, canvas[0] * canvas[1])
        if covered > COVERED * limits.megapixels * 10**6:
            raise UserError("The objects are too large for so many: make some smaller, or remove some.")
        if one.cutout not in opened:
            opened[one.cutout] = cutout.open()
        objects.append(PlacedObject(opened[one.cutout], (one.x, one.y), one.scale, one.angle))
    composition = Composition(objects, erode=wanted.erode)
    if wanted.canvas == "picture":
        composition.image, composition.mask = picture, hole
    else:
        composition.width, composition.height = wanted.width, wanted.height
    composition.name = NAME
    composition.check(WHERE)
    if wanted.canvas == "blank":
        limits.require_pixels(wanted.width, wanted.height, "The canvas")
    return composition


def write_bundle(composition: Composition, composed: Composed, folder: Path, name: str) -> None:
    """Write composition.yml with all its pictures, the canvas and its mask as a ZIP file of the folder, to go on with elsewhere."""
    work = folder / f"{name}.work"
    work.mkdir()
    try:
        composition.save(work / f"{NAME}.yml")
        Picture(composed.rgba).save(work / f"{NAME}_composed.png")
        Picture(255 * composed.hole[..., None].astype(np.uint8)).save(work / f"{NAME}_mask.png")
        with ZipFile(folder / name, "w", ZIP_DEFLATED) as bundle:
            for path in sorted(work.iterdir()):
                bundle.write(path, path.name)
    finally:
        for path in work.iterdir():
            path.unlink()
        work.rmdir()
