"""The interface between a method of inpainting and the rest of the program.

A method is a class with typed options, registered under a name. `method: NAME` selects it in a test configuration, a table's row, a
model folder, on the command line and on the page. This is a complete method:

    @register("gray")
    class Gray(Method):
        def inpaint(self, known, seeds, **_):
            yield Result(known.put_back(torch.full_like(known.image, 0.5)))

A method sees no true pixel of the hole: `Known` sets the hole to zero. For experiments, a method can be shown more: it names the doors
to open (`Options.doors`), and every result records them.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.trace import ImageTrace
from strdiffusion.system.device import keep_memory
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.parser import convert

log = logging.getLogger(__name__)

LARGEST = 1e6  # no colour, noise or score of a sound network is larger
# what may be shown in the hole: the image's own pixels, or those of another image
Door = Literal["truth", "other_image"]
Evaluate = Callable[[str, Callable], Callable]  # (a network's name, the network) -> the function that is called instead


@dataclass
class Options:
    """The options of a method: keys of a YAML file. Subclasses add their own.

    pictures: the names of the pictures that the method makes besides the image.
    no_doors: the options with which `doors` is empty, for messages.
    """

    pictures: ClassVar[tuple[str, ...]] = ()
    no_doors: ClassVar[str] = "other values"

    @property
    def doors(self) -> dict[Door, str]:
        """What the method is shown of the hole, each with the options that ask for it. For meaningful results it must be empty."""
        return {}

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""

    def describe(self) -> str:
        """The options that a table must state for its readers, in a few words that end with a comma and a space."""
        return ""

    def earlier_form(self, tree: dict) -> dict | None:
        """The tree of a test configuration as it was written before methods had names, so that finished results stay valid; None if the
        method did not exist then, or gave other results.
        """
        return None

    def revision(self) -> dict[str, int]:
        """What results depend on besides the options: the changes of this program after which these options give other results."""
        return {}

    def grid(self) -> TimeGrid | None:
        """The times that sampling visits; None for a method without steps."""
        return None

    def files(self) -> list[Path | None]:
        """The files that results depend on. A finished result stays valid while these files and the options do not change."""
        return []


@dataclass(frozen=True)
class Step:
    """What a method yields after each step. Diffusion methods first yield their start, with t = to.

    t, to: the times from and to which the step led, in T..0. left: the steps left before it, out of `steps`.
    image: (B,3,H,W) after the step, on the method's device; do not change it. pictures: others by name, such as the structure
    (B,1,H,W). A picture that the step did not change is the same tensor as before. guide: what guided the image, if that is not one of
    these, for `predict`.
    """

    t: int
    to: int
    T: int
    left: int
    steps: int
    image: Tensor
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    guide: Tensor | None = None

    @property
    def share(self) -> float:
        """The finished share of the sampling, in [0,1]."""
        return 0.0 if self.is_start else 1 - max(self.left - 1, 0) / self.steps

    @property
    def is_start(self) -> bool:
        return self.t == self.to


@dataclass(frozen=True)
class Result:
    """What a method yields last.

    image: (B,3,H,W), inpainted. pictures: others by name. traces: a trace of each image, if the method records one.
    evaluations: for each image, the number of evaluations of each network, by the network's name. shown: what the method was shown of
    the hole, as "door (option)".
    """

    image: Tensor
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    traces: Sequence[ImageTrace] = ()
    evaluations: Sequence[Mapping[str, int]] = ()
    shown: tuple[str, ...] = ()

    def cpu(self) -> "Result":
        return replace(self, image=self.image.cpu(), pictures={name: picture.cpu() for name, picture in self.pictures.items()})


@dataclass(frozen=True)
class Evaluations:
    """The least and the most evaluations of a network; they differ if decisions in sampling change the number."""

    least: int
    most: int

    def __mul__(self, times: int) -> "Evaluations":
        return Evaluations(self.least * times, self.most * times)

    def __add__(self, other: "Evaluations") -> "Evaluations":
        return Evaluations(self.least + other.least, self.most + other.most)


@dataclass(frozen=True)
class Choices:
    """The choices of a method's sampling, by the names that `StrDiffusion` takes, and the current choice."""

    solvers: tuple[str, ...]
    solver: str
    most_steps: int
    steps: int
    resamplings: tuple[str, ...]
    resampling: str


class Method:
    """A method of inpainting, ready for use. Only `inpaint` must be implemented.

    name: set by `register`. Options: the class of its options.
    size: the preferred side of images, in pixels; None if it does not matter. largest: the longest side that it sees as a whole, if that is
    more: of networks that learnt from parts of pictures.
    draws: whether the seed matters; False for a method that has one result for an image and mask.
    tiles: `inpaint` accepts `evaluate` and `begin`, so that holes larger than `size` can be filled in overlapping tiles.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    size: int | None = None
    largest: int | None = None
    draws: bool = True
    tiles: bool = False
    closed: bool = False

    def __init__(self, options: Options, device: torch.device):
        self.options, self.device = options, device

    @classmethod
    def open(cls, options: Options, device: torch.device) -> "Method":
        """Load the method with these options and its weights on a device. Raises UserError if they do not fit together."""
        return cls(options, device)

    @property
    def doors(self) -> Mapping[Door, str]:
        return {} if self.closed else self.options.doors

    def require_size(self, height: int, width: int) -> None:
        """Raise UserError if it cannot inpaint images of this size. Its text continues "the image X", for example "is too large: ..."."""

    def look(self, image: np.ndarray, known: np.ndarray, shown: Mapping[Door, np.ndarray]) -> dict[str, np.ndarray]:
        """The maps (H,W) that it needs besides the pixels, from one image (H,W,3) in [0,1], zero in the hole; known (H,W), 1 = known.

        shown: for each of its doors an image (H,W,3) whose hole is not empty.
        """
        return {}

    def inpaint(
        self, known: Known, seeds: Sequence[int], evaluate: Evaluate | None = None, begin: Known | None = None
    ) -> Iterator[Step | Result]:
        """Inpaint a batch: yield a Step after each step, if there are steps, and a Result at the end.

        Each image has its own seed, and gets the same result in any batch. To cancel, stop iterating.

        Args:
            evaluate: replaces each network, for example by its evaluation on overlapping tiles.
            begin: an estimate of the whole images, which is refined; None: begin from noise.
        """
        raise NotImplementedError

    def cost(self, late: bool = False) -> dict[str, Evaluations]:
        """The evaluations of each network for one image. late: sampling begins from an estimate."""
        return {}

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        """For each network a function that evaluates it once, at the preferred size, to estimate times."""
        return {}

    def time_evaluations(self) -> dict[str, float]:
        """Seconds of one evaluation of each network at the preferred size, measured once after a warm-up."""
        seconds = {}
        for name, call in self.single_evaluations().items():
            for _ in range(2):
                started = time.perf_counter()
                call().sum().item()  # waits for the device
                seconds[name] = time.perf_counter() - started
        return seconds

    def choices(self) -> Choices | None:
        """The choices of its sampling; None if there are none."""
        return None

    def varied(self, **settings) -> "Method":
        """The same weights with other settings, by the names that `StrDiffusion` takes. Raises UserError for unknown settings."""
        given = [part for name, value in settings.items() if value is not None for part in (" and no ", Option(name))]
        if given:
            raise UserError(f"the method {self.name} has no ", *given[1:], ": leave it out")
        return self

    def true_pictures(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Its other pictures (H,W) computed from a true image (H,W,3), by name. Figures compare states with them."""
        return {}

    def predict(self, known: Known, before: Step, after: Step) -> Step:
        """`before` with its images replaced by the clean images that the networks predict from it; `after` is the next step. Raises
        UserError if the method predicts none.
        """
        raise UserError(f"the method {self.name} predicts no clean image from its states: show the states themselves")

    def close_doors(self) -> None:
        """From now on show it nothing of the hole, even if its options ask for it."""
        self.closed = True

    def to(self, device: torch.device) -> None:
        """Move it to a device."""
        self.device = device

    def describe(self) -> str:
        """Its settings in a few words, for people."""
        return self.name


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Register a class as the method `name`."""

    def known_as(cls: M) -> M:
        cls.name = name
        METHODS[name] = cls
        return cls

    return known_as


def method_class(name: object, where: str = "the call") -> type[Method]:
    """The class of the method that a value in a file names. Raises UserError if there is no such method."""
    return METHODS[convert(Literal[tuple(METHODS)], name, where, "method")]


def see(method: Method, image: np.ndarray, known: np.ndarray, behind: Mapping[Door, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """The maps that a method makes of an image (H,W,3). It sees the hole only through its doors. known (H,W), 1 = known."""
    hidden = np.where(known[..., None] > 0.5, image, np.float32(0))
    return method.look(hidden, known, {door: behind[door] for door in method.doors})


def require_picture(image: Tensor, mask: Tensor, name: str) -> None:
    """Raise UserError if a result (B,3,H,W) is not finite, and warn if it is far from all colours in the hole, where it gets clipped.

    mask: (B,1,H,W), 1 = known. name: of the method.
    """
    image, hole = image.detach().float(), 1 - mask.to(image.device)
    if not torch.linalg.vector_norm(image, torch.inf) <= LARGEST:  # false for NaN
        raise UserError(f"the method {name} gave values that are no colours: its weights are damaged or do not fit its options")
    beyond = ((image - image.clamp(0, 1)).abs() * hole).sum(dim=(1, 2, 3)) / hole.sum(dim=(1, 2, 3)).clamp(min=1) / image.shape[1]
    if beyond.max() > 1:
        log.warning(
            "the result of %s is no picture: its values reach from %.3g to %.3g, and are cut to black and white; its networks are damaged "
            "or barely trained, or its options do not fit them",
            name,
            image.min().item(),
            image.max().item(),
        )


def run(
    method: Method,
    known: Known,
    seeds: Sequence[int],
    watch: Callable[[Step], None] | None = None,
    evaluate: Evaluate | None = None,
    begin: Known | None = None,
) -> Result:
    """Run a method to its end. `watch` is called with every step; an error that it raises ends the run."""
    keep_memory(method.device)
    more = {"evaluate": evaluate, "begin": begin} if method.tiles else {}
    for item in method.inpaint(known, seeds, **more):
        if isinstance(item, Result):
            require_picture(item.image, known.mask, method.name)
            return replace(item, shown=tuple(f"{door} ({option})" for door, option in method.doors.items()))
        if watch is not None:
            watch(item)
    raise RuntimeError(f"the method {method.name} ended without a result")
