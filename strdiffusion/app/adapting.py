"""Adapting: a method learns from the known part of the pictures that it is to fill, by the trainings of its own networks.

Nothing of a hole is used: it is emptied before anything is written for the training, and the loss counts only what is known.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from strdiffusion.app.inputs import Inputs, read_inputs
from strdiffusion.app.model import StrDiffusion
from strdiffusion.app.reading import Source
from strdiffusion.checkpoints import LoadedNetwork, load_network
from strdiffusion.config import TrainStructureConfig, TrainTextureConfig
from strdiffusion.config.common import StructureConfig
from strdiffusion.config.training import (
    LARGEST_SIZE,
    StructureObjectiveConfig,
    TextureObjectiveConfig,
    TrainDataConfig,
    TrainingConfig,
    TrainMaskConfig,
    UNetConfig,
)
from strdiffusion.data.images import enlarged_size, write_image
from strdiffusion.data.masks import resize_mask
from strdiffusion.methods import method_class
from strdiffusion.methods.irsde import IRSDEMethod
from strdiffusion.methods.loading import DESCRIPTION, WIDE, LoadedNetworks, describe
from strdiffusion.networks import Kind
from strdiffusion.system.errors import Stopped, UserError
from strdiffusion.system.parser import Positive, Range, Rate, Seed, convert
from strdiffusion.training import train
from strdiffusion.training.state import TrainingState

log = logging.getLogger(__name__)

LEAST = 0.5  # a crop with less known than this teaches nothing
STEADY = 1 / 3  # the share of the learning rate that stays where minutes decide
ONE_COLOUR = 1 / 255  # the spread of the known pixels, in each channel, up to which they are one colour
IMAGES, UNKNOWN = "known", "unknown"  # folders beside the trainings


@dataclass(frozen=True)
class AdaptOptions:
    """How long and how fast. minutes: of all trainings together; null: iterations alone decide, and the same seed gives the same weights.

    learning_rate: it falls to zero along a cosine; where minutes decide, a third of it stays, since nobody knows the last iteration.

    crop: the side of the crops in pixels. shrink: they are taken at scales from the picture's own to one so many times smaller, as far
    as the picture is large enough.
    """

    iterations: Positive = 300
    minutes: Annotated[float, Range(0, 10**5, open_low=True)] | None = None
    learning_rate: Rate = 3e-4
    batch_size: Annotated[int, Range(1, 4096)] = 16
    crop: Annotated[int, Range(8, LARGEST_SIZE)] = 64
    shrink: Annotated[float, Range(1, 64)] = 3.0
    seed: Seed = 0

    def __post_init__(self):
        for name, value in vars(self).items():
            convert(AdaptOptions.__annotations__[name], value, "adapting", name)


@dataclass(frozen=True)
class Adapting:
    """What a watcher is told after every iteration: of which network, how many are done, and the share of all work, in [0, 1].

    current() is the model as it is, to look at: the networks change while the training goes on.
    """

    kind: Kind
    step: int
    done: float
    current: Callable[[], StrDiffusion]


def adapt(
    model: StrDiffusion,
    pictures: Sequence[Inputs | tuple[Source, Source]],
    options: AdaptOptions | None = None,
    folder: str | Path | None = None,
    watch: Callable[[Adapting], bool | None] | None = None,
    progress: bool = True,
) -> StrDiffusion:
    """The model after it has learnt from the known part of some pictures, for them and for others like them.

    pictures: pairs of an image and its mask, white = hole, as `StrDiffusion` takes them; or inputs that are read already.

    The structure network of a guided method learns first, then the texture network. A training that Ctrl-C stops keeps what was learnt.
    folder: keeps the trainings, and goes on with those that it holds (None: a temporary one). watch: called after every iteration; if it
    returns False, learning ends there. progress: whether bars on the terminal show how far it is. Raises UserError if the method cannot
    learn, or nothing can be learnt from the pictures.
    """
    options = options or AdaptOptions()
    require_networks(model)
    pictures = [given if isinstance(given, Inputs) else read_inputs(*given, None, "white_hole", 0) for given in pictures]
    for inputs in pictures:
        require_enough(inputs, options.crop)
    with contextlib.nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory() as place, quietly():
        place = Path(place)
        write_known(pictures, place)
        start = place / "start"
        if not (start / DESCRIPTION).exists():
            shutil.rmtree(start, ignore_errors=True)  # what a killed process left
            model.save(start)
        for number, kind in enumerate(kinds := learning(model)):
            config = configure(kind, model, options, place, start, len(kinds))
            try:
                train(kind, config, watcher(watch, model, kind, (number, len(kinds)), pictures, options), progress)
            except Stopped as stopped:
                if stopped.status != 130:
                    raise
                log.warning("%s: it goes on with what was learnt until then", stopped)
                model = with_network(model, load_network(place / kind / "latest.pt", kind), pictures, options)
                break
            model = with_network(model, load_network(place / kind / "latest.pt", kind), pictures, options)
    return model


def require_networks(model: StrDiffusion) -> None:
    """Raise UserError if the method of a model has no networks that can learn from a picture alone."""
    method = model.method
    if not isinstance(method, IRSDEMethod):
        raise UserError(f"the method {method.name} cannot learn from a picture: adapting needs a model of strdiffusion, irsde or joint")
    if method.model.config.structure.pair == "labels":
        raise UserError("a joint network whose structure is labels cannot learn from a picture, which has none: choose another model")


def require_enough(inputs: Inputs, size: int) -> None:
    """Raise UserError if nothing can be learnt from a picture. size: of the crops, in pixels."""
    name, known = inputs.picture.name, inputs.seen
    spread = np.ptp(inputs.picture.rgb()[known], axis=0)
    if spread.max() <= ONE_COLOUR:
        raise UserError(f"the known part of {name} has one colour, so there is nothing to learn: fill it without adapting")
    known = resize_mask(known.astype(np.float32), *enlarged_size(*known.shape, size))
    best = largest_known_share(known, size)
    if best < LEAST:
        raise UserError(
            f"too little of {name} is known to learn from: of no part of {size}x{size} pixels more than {100 * best:.0f} %; "
            "fill it without adapting, or give a larger picture"
        )


def largest_known_share(known: np.ndarray, size: int) -> float:
    """The largest share of known pixels (H, W) in any part of size x size."""
    sums = np.pad(known.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    parts = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    return float(parts.max()) / size**2


def write_known(pictures: Sequence[Inputs], folder: Path) -> None:
    """Write the known part of the pictures, and the masks of what is unknown, for the trainings. The hole is black."""
    for number, inputs in enumerate(pictures):
        name = f"{number:06d}.png"
        write_image(folder / IMAGES / name, np.where(inputs.seen[..., None], inputs.picture.rgb(), np.float32(0)))
        write_image(folder / UNKNOWN / name, ~inputs.seen)


def learning(model: StrDiffusion) -> list[Kind]:
    """The networks that learn, in their order."""
    return ["structure", "texture"] if model.method.guided else ["texture"]


def configure(
    kind: Kind, model: StrDiffusion, options: AdaptOptions, folder: Path, start: Path, trainings: int
) -> TrainStructureConfig | TrainTextureConfig:
    """The training of a network on the known part of the pictures that `write_known` has written to the folder."""
    recorded, loaded = model.method.model.config, getattr(model.method.model.networks, kind)
    common = dict(loss_on="x0" if loaded.prediction == "x0" else "step")
    if kind == "structure":
        config, objective = TrainStructureConfig, StructureObjectiveConfig(**common, sees="known" if loaded.network.context else "edges")
    else:
        guidance = "joint" if model.method.joint else "ground_truth" if model.method.guided else "none"
        ahead = recorded.sampler.ahead
        config, objective = TrainTextureConfig, TextureObjectiveConfig(**common, guidance=guidance, ahead=(ahead, ahead))
    made = config(
        data=TrainDataConfig(
            images=str(folder / IMAGES),
            unknown=str(folder / UNKNOWN),
            size=options.crop,
            shrink=(1.0, options.shrink),
            index=None,
            workers=0,
            masks=TrainMaskConfig(family="mixed", hole_share=(0.05, 0.6)),
        ),
        output=str(folder / kind),
        seed=options.seed,
        device=model.method.device.type,
        precision="bf16" if model.method.device.type == "cpu" else model.method.precision,
        resume="auto",
        start=str(start),
        sde=recorded.sde,
        structure=StructureConfig(recorded.structure.pair, "known", recorded.structure.edge_sigma),
        network=UNetConfig(loaded.network.width, loaded.network.depth, loaded.network.attention, loaded.prediction),
        objective=objective,
        training=TrainingConfig(
            iterations=options.iterations,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate * (1 if options.minutes is None else STEADY),
            lr_schedule="cosine" if options.minutes is None else "steps",
            warmup=min(20, options.iterations - 1),
            clip_gradient=1.0,
            ema_decay=0.99,
            max_minutes=None if options.minutes is None else options.minutes / trainings,
            log_every=50,
            save_every=100,
            keep=1,
        ),
    )
    made.check()
    return made


def watcher(
    watch: Callable[[Adapting], bool | None] | None,
    model: StrDiffusion,
    kind: Kind,
    place: tuple[int, int],
    pictures: Sequence[Inputs],
    options: AdaptOptions,
) -> Callable[[TrainingState, float], bool] | None:
    """What the training calls after every iteration, for `watch`; None if there is none. place: the training's number, of how many."""
    if watch is None:
        return None

    def tell(state: TrainingState, done: float) -> bool:
        def current() -> StrDiffusion:
            before = getattr(model.method.model.networks, kind)
            return with_network(model, replace(before, network=state.ema.network), pictures, options)

        return watch(Adapting(kind, state.step, (place[0] + done) / place[1], current)) is not False

    return tell


def with_network(model: StrDiffusion, network: LoadedNetwork, pictures: Sequence[Inputs], options: AdaptOptions) -> StrDiffusion:
    """The model with another network of a kind that it has, which has learnt from the pictures.

    Networks that learn from crops know nothing of the place in the picture, so they see windows of up to WIDE pixels as a whole.
    """
    method = model.method
    networks = LoadedNetworks(**({loaded.kind: loaded for loaded in method.model.networks} | {network.kind: network}))
    names = ", ".join(inputs.picture.name for inputs in pictures[:3]) + (", ..." if len(pictures) > 3 else "")
    told = f"the {network.kind} network adapted to {names}: {network.step} iterations, seed {options.seed}"
    seen = dict(size=options.crop, largest=max(options.crop, WIDE))
    config = replace(method.model.config, networks=describe(networks), **seen, provenance=[*method.model.config.provenance, told])
    other = method_class(method.name)(method.model._replace(networks=networks, config=config), method.device, method.precision)
    other.sampler = method.sampler
    return StrDiffusion(other)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Of the trainings in this context only warnings are logged."""
    logger = logging.getLogger("strdiffusion.training")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
