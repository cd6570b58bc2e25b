"""The seam between a method of inpainting and the rest of the program.

A method is a class with typed options, registered under a name: `method: NAME` in a test configuration, a table's row, a model folder,
on the command line and on the page picks it. This is a whole one:

    @register("gray")
    class Gray(Method):
        def inpaint(self, known, seeds, **_):
            yield Result(known.put_back(torch.full_like(known.image, 0.5)))

What a method is given has nothing true in the hole: `Known` cuts it out. A method that wants to see more, to find out what it would be
worth, names the doors it wants opened (`Options.doors`), and every result records them.
"""

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
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import convert

# what may be shown of the hole: the image's own pixels there, or those of another image in their place
Door = Literal["truth", "other_image"]
Evaluate = Callable[[str, Callable], Callable]  # from a network's name and the network to what is called in its place


@dataclass
class Options:
    """The options of a method: keys of a YAML file. Subclasses add theirs."""

    @property
    def doors(self) -> dict[Door, str]:
        """What the method is shown of the hole, each with the options that ask for it. None of them, if a result is to mean anything."""
        return {}

    def check(self) -> None:
        """What one key alone cannot tell; raises UserError."""

    def describe(self) -> str:
        """The options that a table must tell its readers, in a few words that end with a comma and a space."""
        return ""

    def grid(self) -> TimeGrid | None:
        """The times that it visits; None for a method without steps."""
        return None

    def files(self) -> list[Path | None]:
        """The files that results depend on: a finished result is current as long as these and the options are what they were."""
        return []


@dataclass(frozen=True)
class Step:
    """What a method yields after each step; those of a diffusion first yield their start, with t = to.

    t, to: the times that the step led from and to, of T..0. left: steps that were left before it, of `steps` in all.
    image: (B,3,H,W) as it is now, on the method's device, not to be changed. pictures: others by name, such as the structure (B,1,H,W); one
    that the step did not change is the same tensor as before.
    """

    t: int
    to: int
    T: int
    left: int
    steps: int
    image: Tensor
    pictures: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of the way that lies behind it."""
        return 0.0 if self.is_start else 1 - max(self.left - 1, 0) / self.steps

    @property
    def is_start(self) -> bool:
        return self.t == self.to


@dataclass(frozen=True)
class Result:
    """What a method yields last.

    image: (B,3,H,W), inpainted. pictures: others by name. traces: what happened, for each image, if there is something to tell.
    evaluations: for each image, how often each network was evaluated, by the network's name. shown: what the method was shown of the
    hole, as "door (option)".
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
    """The least and the most evaluations of a network; they differ if something decides while sampling."""

    least: int
    most: int

    def __mul__(self, times: int) -> "Evaluations":
        return Evaluations(self.least * times, self.most * times)

    def __add__(self, other: "Evaluations") -> "Evaluations":
        return Evaluations(self.least + other.least, self.most + other.most)


@dataclass(frozen=True)
class Choices:
    """What a user may choose of a method's sampling, by the names that `StrDiffusion` takes, and what is in use."""

    solvers: tuple[str, ...]
    solver: str
    most_steps: int
    steps: int
    resamplings: tuple[str, ...]
    resampling: str


class Method:
    """A method of inpainting, ready to be used. Only `inpaint` must be written.

    name: set by `register`. Options: the class of its options.
    size: side of the images that suit it best, in pixels; None if it does not matter.
    tiles: it can be given `evaluate` and `begin`, so that holes larger than `size` can be filled in overlapping tiles.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Options]] = Options
    size: int | None = None
    tiles: bool = False

    def __init__(self, options: Options, device: torch.device):
        self.options, self.device = options, device

    @classmethod
    def open(cls, options: Options, device: torch.device) -> "Method":
        """The method with these options, its weights loaded, on a device. Raises UserError if they do not fit each other."""
        return cls(options, device)

    @property
    def doors(self) -> Mapping[Door, str]:
        return self.options.doors

    def require_size(self, height: int, width: int) -> None:
        """Raise UserError for images that it cannot take; its text continues "the image X", for example "is too large: ..."."""

    def look(self, image: np.ndarray, known: np.ndarray, shown: Mapping[Door, np.ndarray]) -> dict[str, np.ndarray]:
        """The maps (H,W) it needs beside the pixels, of one image (H,W,3) in [0,1] that is zero in the hole; known (H,W), 1 = known.

        shown: for each of its doors an image (H,W,3) with something in the hole.
        """
        return {}

    def inpaint(
        self, known: Known, seeds: Sequence[int], evaluate: Evaluate | None = None, begin: Known | None = None
    ) -> Iterator[Step | Result]:
        """Inpaint a batch: yields a Step after each step, if it has any, and a Result last.

        Each image has a seed of its own, and gets the same result in any batch. Whoever stops iterating cancels it.

        Args:
            evaluate: replaces each network, for example by its evaluation on overlapping tiles.
            begin: an estimate of all of the images, to be refined instead of beginning from nothing.
        """
        raise NotImplementedError

    def cost(self, late: bool = False) -> dict[str, Evaluations]:
        """The evaluations of each network for one image; `late` if it is given an estimate to begin from."""
        return {}

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        """For each network a call that evaluates it once, at the size that suits it; for estimates of time."""
        return {}

    def choices(self) -> Choices | None:
        """What there is to choose of its sampling; None for nothing."""
        return None

    def varied(self, **settings) -> "Method":
        """The same weights with other settings, by the names that `StrDiffusion` takes. Raises UserError for those it does not have."""
        given = [name for name, value in settings.items() if value is not None]
        if given:
            raise UserError(f"the method {self.name} has no {' and no '.join(given)}: leave it out")
        return self

    def true_pictures(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """What its other pictures would be of a true image (H,W,3), by name, (H,W). Figures compare with them."""
        return {}

    def predict(self, known: Known, before: Step, after: Step) -> Step:
        """`before` with the clean images that its networks predict from it, on the way to `after`. Raises UserError if it has none."""
        raise UserError(f"the method {self.name} predicts no clean image from its states: show the states themselves")

    def close_doors(self) -> None:
        """Show it nothing of the hole from now on, whatever its options ask for."""

    def to(self, device: torch.device) -> None:
        """Move it."""
        self.device = device

    def describe(self) -> str:
        """Its settings in a few words, for people."""
        return self.name


METHODS: dict[str, type[Method]] = {}
M = TypeVar("M", bound=type[Method])


def register(name: str) -> Callable[[M], M]:
    """Make a class known as the method `name`."""

    def known_as(cls: M) -> M:
        cls.name = name
        METHODS[name] = cls
        return cls

    return known_as


def method_class(name: object, where: str = "the call") -> type[Method]:
    """The class of the method that a value in a file names; UserError if there is no such method."""
    return METHODS[convert(Literal[tuple(METHODS)], name, where, "method")]


def see(method: Method, image: np.ndarray, known: np.ndarray, behind: Mapping[Door, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Let a method look at an image (H,W,3), of which it gets no pixel of the hole but through its doors; known (H,W), 1 = known."""
    hidden = np.where(known[..., None] > 0.5, image, np.float32(0))
    return method.look(hidden, known, {door: behind[door] for door in method.doors})


def run(
    method: Method,
    known: Known,
    seeds: Sequence[int],
    watch: Callable[[Step], None] | None = None,
    evaluate: Evaluate | None = None,
    begin: Known | None = None,
) -> Result:
    """Run a method to its end; `watch` is called with every step, and what it raises ends the run."""
    keep_memory(method.device)
    more = {"evaluate": evaluate, "begin": begin} if method.tiles else {}
    for item in method.inpaint(known, seeds, **more):
        if isinstance(item, Result):
            return replace(item, shown=tuple(f"{door} ({option})" for door, option in method.doors.items()))
        if watch is not None:
            watch(item)
    raise RuntimeError(f"the method {method.name} ended without a result")
