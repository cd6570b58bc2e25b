"""What the commands that paint share: the options of a model and its sampling, and files that must not exist."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from strdiffusion.app import StrDiffusion
from strdiffusion.app.model import BATCH_SIZE
from strdiffusion.app.outputs import HOW_TO
from strdiffusion.app.writing import require_format
from strdiffusion.config.common import Device
from strdiffusion.denoiser import Precision
from strdiffusion.methods import METHODS
from strdiffusion.methods.folders import open_by_name
from strdiffusion.methods.repaint import RESAMPLINGS
from strdiffusion.methods.strdiffusion import StrDiffusionMethod
from strdiffusion.samplers.options import Resampling
from strdiffusion.samplers.prior import PriorSolver
from strdiffusion.samplers.solvers import Solver
from strdiffusion.sde import MeanFill
from strdiffusion.system import threads
from strdiffusion.system.cli import DEFAULT_MODEL, default_model
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.folders import require_new

IN_CALLS = ("", "the call", "adapting")  # where options are named that the command line may have set
TYPED = {  # the options of the command line that have another name in Python or in files
    "num_samples": "samples",
    "sampler.solver": "sampler",
    "sampler.steps": "steps",
    "sampler.resampling": "resampling",
    "repaint.steps": "steps",
}


def add_model_options(parser: argparse.ArgumentParser, usual: str = DEFAULT_MODEL) -> None:
    """The options of `open_model`. usual: which model is taken if none is named, in words."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help=f"a model folder, a folder of training runs or of checkpoints, or a test configuration ({usual})",
    )
    parser.add_argument(
        "--method", choices=METHODS, help="the method: one that needs no model, such as telea, or what the model must be of (the model's)"
    )
    parser.add_argument("--T", type=int, help="the T of released checkpoints, which do not record it")
    parser.add_argument(
        "--mean-fill", choices=get_args(MeanFill), help="what released checkpoints of IR-SDE have as their mean in the hole"
    )


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How to sample, on what, and how many at a time."""
    solvers = (*get_args(Solver), *get_args(PriorSolver))
    parser.add_argument(
        "--sampler", choices=solvers, help="how a step is taken (the model's default); ddpm, ddim and dpm++2m are RePaint's"
    )
    parser.add_argument("--steps", type=int, help="how many steps (the model's default; T if that has none)")
    known = dict.fromkeys((*get_args(Resampling), *RESAMPLINGS))
    parser.add_argument("--resampling", choices=known, help="what is denoised again, and how often (the model's default)")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="what to compute on (auto)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the networks (fp32)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="windows or tiles at a time; less needs less memory (8)")


@contextlib.contextmanager
def by_options(options: argparse.Namespace) -> Iterator[None]:
    """A context in which errors write the options of the command line as they are typed."""
    try:
        yield
    except UserError as error:
        raise typed(error, options) from None


def typed(error: UserError, options: argparse.Namespace) -> UserError:
    """The error with options as they are typed, `--batch-size 8`; those of a file, and those that the command lacks, stay as they are."""

    def spell(option: Option) -> str:
        name = TYPED.get(option.name, option.name)
        of_a_file = name != option.name and getattr(options, name, None) is None
        if of_a_file or option.where not in IN_CALLS or not hasattr(options, name):
            return str(option)
        return f"--{name.replace('_', '-')}" + ("" if option.value is None else f" {option.value}")

    return error.spelled(spell)


def sampling(options: argparse.Namespace) -> dict:
    """The arguments of a call of the model that `add_sampling_options` added."""
    return {name: getattr(options, name) for name in ("sampler", "steps", "resampling", "batch_size")}


def open_model(options: argparse.Namespace) -> StrDiffusion:
    """The model or method that the options name. Raises UserError if they do not fit each other."""
    if options.model is None and options.method not in (None, StrDiffusionMethod.name):
        precision = None if options.precision == "fp32" else options.precision
        method = open_by_name(options.method, choose_device(options.device))
        return StrDiffusion(method.varied(T=options.T, mean_fill=options.mean_fill, precision=precision))
    source = options.model or default_model()
    model = StrDiffusion.load(source, T=options.T, mean_fill=options.mean_fill, device=options.device, precision=options.precision)
    if model.size is not None:
        threads.fit(max(model.size, model.method.largest or 0) ** 2)
    if options.method not in (None, model.method.name):
        raise UserError(f"{source} is a model of the method {model.method.name}, not of {options.method}: leave ", Option("method"), " out")
    return model


def require_free(files: list[Path], overwrite: bool) -> None:
    """Raise UserError for a picture that cannot be written, exists, or would be written twice."""
    require_places(files)
    require_new(files, overwrite, HOW_TO)


def require_places(files: list[Path]) -> None:
    """Raise UserError for a picture that cannot be written, or would be written twice."""
    for file in files:
        require_format(file)
        require_place(file)
    twice = next((file for i, file in enumerate(files) if file in files[:i]), None)
    if twice is not None:
        raise UserError(f"{twice} would be written twice: give each picture, and the structure, a name of its own")


def require_place(file: Path) -> None:
    """Raise UserError if one of the folders above `file` is a file."""
    above = next((folder for folder in file.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{file} cannot be written, since {above} is a file: choose another place")


def sample_names(output: Path, samples: int) -> list[Path]:
    """The files of the samples: the output itself, or numbered if there are several."""
    return [output] if samples == 1 else [output.with_stem(f"{output.stem}_{i}") for i in range(samples)]
