"""Fill the hole of a photograph of any size, or of every photograph of a folder.

    strdiffusion inpaint photo.jpg mask.png -o out.png
    strdiffusion inpaint photo.jpg mask.png -o out.png --seed 7 --samples 3          writes out_0.png, out_1.png, out_2.png
    strdiffusion inpaint photo.jpg mask.png -o out.png --hints sketch.png            opaque pixels of sketch.png count as known
    strdiffusion inpaint photos masks -o filled --sampler mars_sde --steps 10        masks of the same names; many times faster
    strdiffusion inpaint photo.jpg mask.png -o out.png --model released --T 400      released checkpoints in a folder
    strdiffusion inpaint photo.jpg mask.png -o out.png --method telea                another method
    strdiffusion inpaint photo.jpg mask.png -o out.png --adapt 5min                  learns from the photograph first

The mask is white in the hole. Every other pixel stays as it is (save as .png, .tif or .webp: JPEG compresses the whole picture again),
and so do EXIF, colour profile, alpha and 16 bits. Holes larger than the training images are filled in overlapping tiles.
If the command is interrupted in a folder, the same command goes on. Until all is done, the folder holds a file unfinished.txt.
"""

import argparse
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_type_hints

from strdiffusion.app import StrDiffusion
from strdiffusion.app.adapting import AdaptOptions, adapt
from strdiffusion.app.inputs import read_inputs
from strdiffusion.app.model import BatchSize, Samples
from strdiffusion.app.outputs import Outputs, outputs_at, outputs_in
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import open_picture
from strdiffusion.app.windows import LayoutOptions
from strdiffusion.app.writing import FORMATS
from strdiffusion.commands.adapt import AMOUNT, amount, take_learning_model
from strdiffusion.commands.painting import (
    add_model_options,
    add_sampling_options,
    by_options,
    open_model,
    require_places,
    sample_names,
    sampling,
    typed,
)
from strdiffusion.config import load_config
from strdiffusion.data.listing import find_images
from strdiffusion.data.masks import Polarity
from strdiffusion.data.pairing import pair_masks
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import METHODS
from strdiffusion.methods.strdiffusion import StrDiffusionMethod
from strdiffusion.system.cli import DEFAULT_MODEL, PHOTOGRAPHS_MODEL, OneLineParser, default_model, exit_on_user_error
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import file_hash
from strdiffusion.system.folders import key_of
from strdiffusion.system.parser import Count, convert

log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="a photograph, or a folder of them")
    parser.add_argument("mask", type=Path, help="its mask; or a folder of masks of the same names (x.png or x_mask.png for x.jpg)")
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"the file to write ({' '.join(FORMATS)}), or a folder")
    add_model_options(parser, f"{DEFAULT_MODEL}; with --adapt {PHOTOGRAPHS_MODEL}")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another picture (0)")
    parser.add_argument("--samples", type=int, default=1, help="how many different pictures (1)")
    parser.add_argument("--hints", type=Path, help="an RGBA picture; its opaque pixels in the hole count as known")
    parser.add_argument(
        "--feather",
        type=int,
        default=0,
        metavar="PIXELS",
        help="blend so many pixels around the hole with what was there (0: known pixels stay as they are)",
    )
    parser.add_argument("--polarity", choices=get_args(Polarity), default="white_hole", help="what white means in the mask (white_hole)")
    add_sampling_options(parser)
    parser.add_argument(
        "--context",
        type=float,
        default=LayoutOptions.context,
        help="by how much a window is larger than its hole, at least, as a share of the hole (2)",
    )
    parser.add_argument(
        "--structure",
        type=Path,
        metavar="FILE",
        help="also write the structure of the first sample: the last state that guided, with its noise",
    )
    parser.add_argument(
        "--adapt",
        nargs="?",
        const=str(AdaptOptions.iterations),
        metavar="AMOUNT",
        help=f"first let the networks learn from the known part of each photograph: {AMOUNT}; Ctrl-C ends it and fills (see adapt --help)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    with by_options(options):
        inpaint_all(options)


def inpaint_all(options: argparse.Namespace) -> None:
    """Inpaint every photograph. Raises UserError, also if some were left out."""
    if options.adapt is not None:
        options.adapt = amount(options.adapt, options.seed, "--adapt")
        take_learning_model(options)
    require_inputs(options)
    jobs = plan_jobs(options)
    with hold_outputs(options, jobs) as outputs:
        model = open_model(options)
        if options.structure is not None and "structure" not in model.method.Options.pictures:
            raise UserError(f"the method {model.method.name} has no structure to write: leave out --structure")
        left = [job for job in jobs if not outputs.is_done(sample_names(job[2], options.samples))]
        if len(left) < len(jobs):
            log.info("%d of %d photographs are done already", len(jobs) - len(left), len(jobs))
        problems = []
        for image, mask, output in left:
            try:
                inpaint(model, image, mask, output, options, outputs)
            except UserError as error:
                if len(jobs) == 1:
                    raise
                log.warning("left out: %s", typed(error, options))
                problems.append(error)
        if problems:
            raise UserError(f"{len(problems)} of {len(jobs)} photographs were left out, the first because: ", *problems[0].parts)
        outputs.finish()


def hold_outputs(options: argparse.Namespace, jobs: list[tuple[Path, Path, Path]]) -> contextlib.AbstractContextManager[Outputs]:
    """Hold the files to write: those of a folder with a mark, by which the same command goes on, or those of one photograph."""
    files = [name for _, _, output in jobs for name in sample_names(output, options.samples)]
    if not options.image.is_dir():
        files += [options.structure] if options.structure is not None else []
        return outputs_at(files, options.overwrite)
    neutral = ("output", "overwrite", "batch_size", "device")
    work = {name: value for name, value in vars(options).items() if name not in neutral}
    source = options.model or (default_model() if options.method in (None, StrDiffusionMethod.name) else None)
    work |= {"image": options.image.resolve(), "mask": options.mask.resolve(), "model": [file_hash(file) for file in model_files(source)]}
    return outputs_in(options.output, key_of("inpaint", work), files, options.overwrite)


def model_files(source: Path | None) -> list[Path]:
    """The files that a model consists of: of a model folder, training runs or checkpoints, or those that a test configuration names."""
    if source is None or not source.exists():
        return []
    if source.is_file():
        return [source, *(file for file in load_config(TestConfig, source).options.files() if file is not None)]
    patterns = ("*.yml", "*.safetensors", "*.pt", "*.pth", "*/latest.pt")
    return [file for pattern in patterns for file in sorted(source.glob(pattern)) if file.is_file()]


def require_inputs(options: argparse.Namespace) -> None:
    """Raise UserError for a number out of range, and for all files that do not exist at once."""
    hints = get_type_hints(LayoutOptions, include_extras=True)
    for name, hint in (("samples", Samples), ("batch_size", BatchSize), ("feather", Count), ("context", hints["context"])):
        convert(hint, getattr(options, name), "the call", name)
    model = None if options.model is None or str(options.model) in METHODS else options.model
    given = {"the image": options.image, "the mask": options.mask, "--hints": options.hints, "--model": model}
    absent = [f"{name} {path}" for name, path in given.items() if path is not None and not path.expanduser().exists()]
    if len(absent) > 1:
        raise UserError(f"{', '.join(absent)} do not exist: check the paths")
    if absent and not absent[0].startswith("--model"):  # what a model may be, its own message says
        raise UserError(f"cannot read {absent[0]}: it does not exist; check the path")


def plan_jobs(options: argparse.Namespace) -> list[tuple[Path, Path, Path]]:
    """(image, mask, output) of every photograph; an output that cannot be written is refused before anything is computed."""
    if options.image.is_dir():
        if options.structure is not None or options.hints is not None:
            raise UserError("--structure and --hints are of a single photograph, not of a folder")
        images = find_images(options.image)
        masks = [options.mask] * len(images)
        if options.mask.is_dir():
            masks = pair_masks(images, find_images(options.mask), "name", 0, options.image, options.mask)
        outputs = [options.output / image.relative_to(options.image) for image in images]
    else:
        if options.mask.is_dir():
            raise UserError(f"{options.mask} is a folder, but {options.image} is one photograph: give its mask")
        if options.output.is_dir():
            options.output /= options.image.name
        images, masks, outputs = [options.image], [options.mask], [options.output]
    files = [name for output in outputs for name in sample_names(output, options.samples)]
    files += [options.structure] if options.structure is not None else []
    require_places(files)
    return list(zip(images, masks, outputs))


def inpaint(model: StrDiffusion, image: Path, mask: Path, output: Path, options: argparse.Namespace, outputs: Outputs) -> None:
    """Inpaint one photograph and write it."""
    picture = open_picture(image)
    for name in sample_names(output, options.samples):
        picture.format_for(name)
    if options.structure is not None:
        Picture(picture.levels[..., :1]).format_for(options.structure)
    if options.adapt is not None:
        model = adapt(model, [read_inputs(picture, mask, options.hints, options.polarity, options.feather)], options.adapt)
    result = model(
        picture,
        mask,
        seed=options.seed,
        num_samples=options.samples,
        hints=options.hints,
        feather=options.feather,
        polarity=options.polarity,
        **sampling(options),
        context=options.context,
        progress=True,
    )
    pictures = list(zip(sample_names(output, options.samples), result.images, strict=True))
    if options.structure is not None:
        pictures.append((options.structure, result.structure[0]))
    outputs.write(pictures)
    for name, _ in pictures:
        print(one_line(str(name)))
