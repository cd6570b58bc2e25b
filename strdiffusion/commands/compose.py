"""Paint a scene around cut-outs that lie on a canvas (Intelligent Painter, arXiv 2210.17106).

    strdiffusion compose scene.yml -o painted                        with weights/benchmark
    strdiffusion compose scene.yml -o painted --samples 5 --seed 7   five scenes, and all of them on one sheet
    strdiffusion compose scenes -o painted                           a folder of compositions, several files, or a file that lists them
    strdiffusion compose scene.yml -o painted --model weights/places --resampling intelligent_painter       with a prior of RePaint
    strdiffusion compose boat.png -o painted                         a picture: what is transparent is painted

A composition is a YAML file: the canvas, and for each object its picture with alpha, position, scale, angle and order (docs/compose.md).
For each one it writes into the folder: NAME.yml, NAME_composed.png (with alpha), NAME_mask.png (white is painted), NAME_painted.png (or
NAME_painted_0.png, ...) and NAME_sheet.png, all of them side by side. What is known comes back bit for bit.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_args

import numpy as np

from strdiffusion.app import Composition, Output, Picture, StrDiffusion
from strdiffusion.app.composition import Composed
from strdiffusion.app.outputs import HOW_TO
from strdiffusion.commands.painting import (
    add_model_options,
    add_sampling_options,
    by_options,
    open_model,
    require_free,
    sample_names,
    sampling,
)
from strdiffusion.data.listing import IMAGE_SUFFIXES, find_images
from strdiffusion.data.masks import Polarity
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together
from strdiffusion.system.folders import output_folder, require_new
from strdiffusion.system.parser import build, read_yaml

log = logging.getLogger(__name__)

DESCRIPTIONS = (".yml", ".yaml", ".json")
MASK = "_mask"  # at the end of the name of a picture's mask, as the authors' program names it
LIST = "compositions"  # the key of a file that lists compositions
GAP, CHECKER = 8, 8  # pixels of the sheet
ROW = 6  # pictures


@dataclass
class CompositionList:
    """A file that lists compositions; paths are relative to its folder."""

    compositions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """A composition, and its place in the output folder."""

    composition: Composition
    folder: Path

    def file(self, ending: str) -> Path:
        return self.folder / f"{self.composition.name}{ending}"

    @property
    def description(self) -> Path | None:
        """The YAML file that is written; None if it is the one that was read, which stays as it is."""
        file, read = self.file(".yml"), self.composition.file
        return None if read is not None and read.resolve() == file.resolve() else file

    def painted(self, samples: int) -> list[Path]:
        return sample_names(self.file("_painted.png"), samples)

    def files(self, samples: int) -> list[Path]:
        """All pictures that are written."""
        return [self.file("_composed.png"), self.file("_mask.png"), *self.painted(samples), self.file("_sheet.png")]


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+", metavar="FILE", help="compositions, pictures with alpha, or folders of either")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the folder to write to")
    parser.add_argument("--samples", type=int, default=1, help="how many different scenes for each composition (1)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another scene (0)")
    parser.add_argument(
        "--opaque", type=float, help="from which alpha on a pixel is known; 1: wholly opaque ones alone (the composition's)"
    )
    parser.add_argument("--erode", type=int, metavar="PIXELS", help="paint so much of the rims anew (the composition's)")
    parser.add_argument(
        "--polarity",
        choices=get_args(Polarity),
        default="white_hole",
        help="what white means in NAME_mask.png beside a picture (white_hole)",
    )
    add_model_options(parser)
    add_sampling_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    if options.samples < 1:
        raise UserError(f"--samples must be at least 1, not {options.samples}")
    scenes = [checked(composition, options) for path in options.scenes for composition in compositions_of(path, options.polarity)]
    files = [file for scene in scenes for file in scene.files(options.samples)]
    require_free(files, options.overwrite)
    files += [scene.description for scene in scenes if scene.description is not None]
    require_new(files, options.overwrite, HOW_TO)
    with by_options(options):
        model = open_model(options)
    with output_folder(options.output, True, HOW_TO), by_options(options):
        require_new(files, options.overwrite, HOW_TO)  # now that nobody else writes there
        for scene in scenes:
            composed = scene.composition.render()
            write(scene, composed, paint(model, scene.composition.name, composed, options), options.samples)


def compositions_of(path: Path, polarity: Polarity, lists: tuple[Path, ...] = ()) -> Iterator[Composition]:
    """The compositions of a file or a folder: YAML files, or if there are none, pictures with alpha or with a mask beside them.

    lists: the files that list this one. Raises UserError if one lists itself.
    """
    if path.resolve() in lists:
        raise UserError(f"the list {path} lists itself: take it out of {lists[-1]}")
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in DESCRIPTIONS)
        for file in found or [image for image in find_images(path) if not image.stem.endswith(MASK)]:
            yield from compositions_of(file, polarity, lists)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        masks = [file for suffix in sorted(IMAGE_SUFFIXES) if (file := path.with_name(f"{path.stem}{MASK}{suffix}")).exists()]
        composition = Composition(image=str(path), mask=str(masks[0]) if masks else None, polarity=polarity)
        composition.name = path.stem
        yield composition
    elif LIST in (tree := read_yaml(path, is_composition)):
        for name in build(CompositionList, tree, str(path)).compositions:
            yield from compositions_of(path.parent / name, polarity, (*lists, path.resolve()))
    else:
        yield Composition.load(path)


def is_composition(path: Path) -> bool:
    """Whether all keys of a YAML file are those of a composition, or it lists some."""
    try:
        tree = read_yaml(path)
    except UserError:
        return False
    return LIST in tree or (bool(tree) and set(tree) <= {each.name for each in fields(Composition)})


def checked(composition: Composition, options: argparse.Namespace) -> Scene:
    """A composition with the options that the command line changes, drawn once to find what is wrong with it."""
    for name in ("opaque", "erode"):
        if getattr(options, name) is not None:
            setattr(composition, name, getattr(options, name))
    composition.render()
    return Scene(composition, options.output)


def paint(model: StrDiffusion, name: str, composed: Composed, options: argparse.Namespace) -> Output:
    """Paint, and say beforehand how much work it is."""
    how = sampling(options)
    batch_size = how.pop("batch_size")
    plan = model.plan(composed.picture, composed.hole, num_samples=options.samples, **how)
    each = ", ".join(f"{count.most:,} evaluations of {name}" for name, count in plan.evaluations.items() if count.most) or "no network"
    height, width = composed.known.shape
    log.info("%s: %dx%d pixels, %.0f %% to paint, %s", name, width, height, 100 * composed.hole.mean(), each)
    return model(
        composed.picture, composed.hole, seed=options.seed, num_samples=options.samples, batch_size=batch_size, progress=True, **how
    )


def write(scene: Scene, composed: Composed, output: Output, samples: int) -> None:
    """Write the files of a scene, its composition last."""
    sheet = contact_sheet(composed.rgba, [picture.eight_bits().levels[..., :3] for picture in output.images])
    hole = 255 * composed.hole[..., None].astype(np.uint8)
    with Together() as files:
        for pixels, ending in ((composed.rgba, "_composed.png"), (hole, "_mask.png"), (sheet, "_sheet.png")):
            Picture(pixels).save(scene.file(ending), files)
        for picture, file in zip(output.images, scene.painted(samples), strict=True):
            picture.save(file, files)
    print(*scene.painted(samples), scene.file("_sheet.png"), sep="\n")
    if scene.description is not None:
        scene.composition.save(scene.description)


def contact_sheet(rgba: np.ndarray, samples: Sequence[np.ndarray]) -> np.ndarray:
    """The composition (H, W, 4) over squares, and its samples (H, W, 3), in rows of ROW; uint8."""
    H, W = rgba.shape[:2]
    rows, columns = np.mgrid[:H, :W] // CHECKER
    squares = np.where((rows + columns) % 2, 204, 238)[..., None]
    alpha = rgba[..., 3:] / 255
    pictures = [np.rint(rgba[..., :3] * alpha + squares * (1 - alpha)).astype(np.uint8), *samples]
    per_row = min(len(pictures), ROW)
    sheet = np.full((-(-len(pictures) // per_row) * (H + GAP) - GAP, per_row * (W + GAP) - GAP, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // per_row * (H + GAP), i % per_row * (W + GAP)
        sheet[top : top + H, left : left + W] = picture
    return sheet
