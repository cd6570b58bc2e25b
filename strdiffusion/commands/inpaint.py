"""Fill the hole of a photograph of any size, or of every photograph of a folder.

    strdiffusion inpaint photo.jpg mask.png -o out.png
    strdiffusion inpaint photo.jpg mask.png -o out.png --seed 7 --samples 3          writes out_0.png, out_1.png, out_2.png
    strdiffusion inpaint photo.jpg mask.png -o out.png --hints sketch.png            opaque pixels of sketch.png count as known
    strdiffusion inpaint photos masks -o filled --sampler mars_sde --steps 10        masks of the same names; many times faster
    strdiffusion inpaint photo.jpg mask.png -o out.png --model released --T 400      released checkpoints in a folder
    strdiffusion inpaint photo.jpg mask.png -o out.png --method telea                another method

The mask is white in the hole. Every other pixel stays as it is (save as .png, .tif or .webp: JPEG compresses the whole picture again),
and so do EXIF, colour profile, alpha and 16 bits. Holes larger than the training images are filled in overlapping tiles.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from strdiffusion.app import StrDiffusion
from strdiffusion.app.model import BATCH_SIZE
from strdiffusion.app.reading import open_picture
from strdiffusion.app.windows import LayoutOptions
from strdiffusion.app.writing import FORMATS, require_format
from strdiffusion.config.common import Device
from strdiffusion.data.listing import find_images
from strdiffusion.data.masks import Polarity
from strdiffusion.data.pairing import pair_masks
from strdiffusion.denoiser import Precision
from strdiffusion.methods import METHODS
from strdiffusion.methods.folders import open_by_name
from strdiffusion.methods.strdiffusion import StrDiffusionMethod
from strdiffusion.samplers.options import Resampling
from strdiffusion.samplers.prior import PriorSolver
from strdiffusion.samplers.solvers import Solver
from strdiffusion.sde import MeanFill
from strdiffusion.system.cli import DEFAULT_MODEL, OneLineParser, default_model, exit_on_user_error
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="a photograph, or a folder of them")
    parser.add_argument("mask", type=Path, help="its mask; or a folder of masks of the same names (x.png or x_mask.png for x.jpg)")
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"the file to write ({' '.join(FORMATS)}), or a folder")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help=f"a model folder, a folder of training runs or of checkpoints, or a test configuration ({DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--method", choices=METHODS, help="the method: one that needs no model, such as telea, or what the model must be of (the model's)"
    )
    parser.add_argument("--T", type=int, help="the T of released checkpoints, which do not record it")
    parser.add_argument(
        "--mean-fill", choices=get_args(MeanFill), help="what released checkpoints of IR-SDE have as their mean in the hole"
    )
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
    solvers = (*get_args(Solver), *get_args(PriorSolver))
    parser.add_argument("--sampler", choices=solvers, help="how a step is taken (the model's default); ddpm and ddim are RePaint's")
    parser.add_argument("--steps", type=int, help="how many steps (the model's default; T if that has none)")
    parser.add_argument("--resampling", choices=get_args(Resampling), help="how the structure is redone (the model's default)")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="what to compute on (auto)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the networks (fp32)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="windows or tiles at a time; less needs less memory (8)")
    parser.add_argument(
        "--context",
        type=float,
        default=LayoutOptions.context,
        help="by how much a window is larger than its hole, at least, as a share of the hole (0.6)",
    )
    parser.add_argument(
        "--structure",
        type=Path,
        metavar="FILE",
        help="also write the structure of the first sample: the last state that guided, with its noise",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    jobs = plan_jobs(options)
    model = open_model(options)
    if options.structure is not None and "structure" not in model.method.Options.pictures:
        raise UserError(f"the method {model.method.name} has no structure to write: leave out --structure")
    problems = []
    for image, mask, output in jobs:
        try:
            inpaint(model, image, mask, output, options)
        except UserError as error:
            if len(jobs) == 1:
                raise
            log.warning("left out: %s", error)
            problems.append(error)
    if problems:
        raise UserError(f"{len(problems)} of {len(jobs)} photographs were left out, the first because: {problems[0]}")


def open_model(options: argparse.Namespace) -> StrDiffusion:
    """The model or method that the options name. Raises UserError if they do not fit each other."""
    if options.model is None and options.method not in (None, StrDiffusionMethod.name):
        precision = None if options.precision == "fp32" else options.precision
        return StrDiffusion(open_by_name(options.method, choose_device(options.device)).varied(T=options.T, precision=precision))
    source = options.model or default_model()
    model = StrDiffusion.load(source, T=options.T, mean_fill=options.mean_fill, device=options.device, precision=options.precision)
    if options.method not in (None, model.method.name):
        raise UserError(f"{source} is a model of the method {model.method.name}, not of {options.method}: leave --method out")
    return model


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
    for file in files:
        require_format(file)
        require_place(file)
        if file.exists() and not options.overwrite:
            raise UserError(f"{file} exists, and nothing is overwritten: choose another place, or give --overwrite")
    twice = next((file for i, file in enumerate(files) if file in files[:i]), None)
    if twice is not None:
        raise UserError(f"{twice} would be written twice: give each picture, and the structure, a name of its own")
    return list(zip(images, masks, outputs))


def require_place(file: Path) -> None:
    """Raise UserError if one of the folders above `file` is a file."""
    above = next((folder for folder in file.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{file} cannot be written, since {above} is a file: choose another place")


def sample_names(output: Path, samples: int) -> list[Path]:
    """The files of the samples: the output itself, or numbered if there are several."""
    return [output] if samples == 1 else [output.with_stem(f"{output.stem}_{i}") for i in range(samples)]


def inpaint(model: StrDiffusion, image: Path, mask: Path, output: Path, options: argparse.Namespace) -> None:
    """Inpaint one photograph and write it."""
    picture = open_picture(image)
    for name in sample_names(output, options.samples):
        picture.format_for(name)
    result = model(
        picture,
        mask,
        seed=options.seed,
        num_samples=options.samples,
        hints=options.hints,
        feather=options.feather,
        polarity=options.polarity,
        sampler=options.sampler,
        steps=options.steps,
        resampling=options.resampling,
        batch_size=options.batch_size,
        context=options.context,
        progress=True,
    )
    for sample, name in zip(result.images, sample_names(output, options.samples), strict=True):
        sample.save(name)
        print(name)
    if options.structure is not None:
        result.structure[0].save(options.structure)
        print(options.structure)
