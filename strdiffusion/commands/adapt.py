"""Let a model learn from the known part of a photograph, or of a folder of them that are alike, and save it as a model folder.

    strdiffusion adapt photo.jpg mask.png -o adapted
    strdiffusion inpaint photo.jpg mask.png -o out.png --model adapted
    strdiffusion adapt photos masks -o adapted --for 5min          a time instead of a number of iterations
    strdiffusion adapt photo.jpg next.png -o further --model adapted

`strdiffusion inpaint --adapt` does both in one. The mask is white in the hole, of which nothing is learnt. What a model has learnt from a
place, it may paint: before that place becomes a hole itself, adapt the shipped model anew. Ctrl-C ends the learning and saves the model.
If the command is killed, the same command goes on.
"""

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from strdiffusion.app import StrDiffusion
from strdiffusion.app.adapting import AdaptOptions, adapt
from strdiffusion.app.inputs import Inputs, read_inputs
from strdiffusion.commands.painting import add_model_options, by_options, open_model
from strdiffusion.config.common import Device
from strdiffusion.data.listing import find_images
from strdiffusion.data.masks import Polarity
from strdiffusion.data.pairing import pair_masks
from strdiffusion.denoiser import Precision
from strdiffusion.methods.loading import DESCRIPTION
from strdiffusion.system.cli import PHOTOGRAPHS_MODEL, OneLineParser, default_model, exit_on_user_error
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.folders import Mark, key_of, output_folder

TRAINING = "training"  # the folder of the trainings in that of the model
UNITS = {"s": 1 / 60, "min": 1.0, "h": 60.0}
AMOUNT = f"a number of iterations ({AdaptOptions.iterations}), or a time such as 90s, 5min or 1h"


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="a photograph, or a folder of them")
    parser.add_argument("mask", type=Path, help="its mask; or a folder of masks of the same names (x.png or x_mask.png for x.jpg)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the model folder to write")
    add_model_options(parser, PHOTOGRAPHS_MODEL)
    parser.add_argument("--for", dest="amount", metavar="AMOUNT", help=AMOUNT)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other crops and holes (0)")
    parser.add_argument("--polarity", choices=get_args(Polarity), default="white_hole", help="what white means in the mask (white_hole)")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="what to compute on (auto)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the networks on a GPU (fp32)")
    return parser.parse_args(arguments)


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    with by_options(options):
        learn(options)


def learn(options: argparse.Namespace) -> None:
    """Write the model that has learnt. Raises UserError."""
    how = amount(options.amount, options.seed, "--for")
    take_learning_model(options)
    work = {name: value for name, value in vars(options).items() if name not in ("output", "device")}
    key = key_of("adapt", work | {"image": options.image.resolve(), "mask": options.mask.resolve()})
    text = "its model is learning, or the command that made it was interrupted"
    with output_folder(options.output, lambda folder: Mark(folder, key).is_mine(), "choose another -o FOLDER") as folder:
        mark, pictures = Mark(folder, key, text), read_pictures(options)
        model = open_model(options)
        if not mark.is_mine():
            mark.begin()
        save(adapt(model, pictures, how, folder / TRAINING), folder)
        mark.end()
    print(one_line(str(options.output)))


def take_learning_model(options: argparse.Namespace) -> None:
    """Name the shipped model that learns, if the user names none."""
    if options.model is None and options.method is None:
        options.model = default_model(PHOTOGRAPHS_MODEL)


def amount(text: str | None, seed: int, option: str) -> AdaptOptions:
    """How long to learn, as the user writes it. Raises UserError, which names the option."""
    if text is None:
        return AdaptOptions(seed=seed)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)?", text.strip())
    if found is None or float(found[1]) == 0 or found[2] is None and "." in found[1]:
        raise UserError(f"{option} must be {AMOUNT}, not {text!r}")
    if found[2] is None:
        return AdaptOptions(iterations=int(found[1]), seed=seed)
    return AdaptOptions(iterations=10**6, minutes=float(found[1]) * UNITS[found[2]], seed=seed)


def read_pictures(options: argparse.Namespace) -> list[Inputs]:
    """The photographs to learn from, with their masks. Raises UserError."""
    if not options.image.is_dir():
        if options.mask.is_dir():
            raise UserError(f"{options.mask} is a folder, but {options.image} is one photograph: give its mask")
        return [read_inputs(options.image, options.mask, None, options.polarity, 0)]
    images = find_images(options.image)
    masks = [options.mask] * len(images)
    if options.mask.is_dir():
        masks = pair_masks(images, find_images(options.mask), "name", 0, options.image, options.mask)
    return [read_inputs(image, mask, None, options.polarity, 0) for image, mask in zip(images, masks, strict=True)]


def save(model: StrDiffusion, folder: Path) -> None:
    """Write a model into a folder that holds its trainings; model.yml comes last, because a folder without it is not a model."""
    shutil.rmtree(folder / TRAINING / "model", ignore_errors=True)  # what a killed process left
    written = model.save(folder / TRAINING / "model")
    for file in sorted(written.iterdir(), key=lambda file: file.name == DESCRIPTION):
        file.replace(folder / file.name)
    written.rmdir()
