"""The methods that a figure of the sampling compares: test configurations with overrides, and the images they share."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch

from strdiffusion.config import TestConfig, load_config
from strdiffusion.data import TestItem
from strdiffusion.evaluation.folder import batches, test_dataset
from strdiffusion.figures.style import check_labels
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range

log = logging.getLogger(__name__)

Network = Literal["texture", "structure"]
Of = Literal["state", "estimate"]
Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]


@dataclass
class MethodConfig:
    """A method: its name in the figure, a test configuration, and key=value overrides of it."""

    label: str
    opt: str
    options: list[str] = field(default_factory=list)


@dataclass
class ProcessConfig:
    """The strip: which image (null: the first), and at which t (none: six, evenly spaced)."""

    image: str | None = None
    t: list[Count] = field(default_factory=list)


@dataclass
class DiscrepancyConfig:
    """The curves: averaged over the first so many images; of which process; of its state, or of the x0 that its network
    predicts from the state.
    """

    images: Positive = 8
    network: Network = "texture"
    of: Of = "state"


@dataclass
class FiguresConfig:
    """configs/*/figures.yml"""

    methods: list[MethodConfig]
    process: ProcessConfig = field(default_factory=ProcessConfig)
    discrepancy: DiscrepancyConfig = field(default_factory=DiscrepancyConfig)

    def check(self) -> None:
        """What one key alone cannot tell."""
        check_labels([method.label for method in self.methods])
        if len(set(self.process.t)) < len(self.process.t):
            raise UserError("process.t names a step twice")


@dataclass(frozen=True)
class Method:
    """A method with its resolved configuration."""

    label: str
    config: TestConfig


def load_methods(config: FiguresConfig) -> list[Method]:
    """Resolve the test configurations of all methods before anything is computed."""
    return [Method(method.label, load_config(TestConfig, method.opt, method.options)) for method in config.methods]


def chosen_item(method: Method, name: str | None) -> TestItem:
    """The image of this name, or the first."""
    dataset = test_dataset(method.config)
    if name is not None and name not in dataset.names:
        raise UserError(f"{method.label} has no image {name}: the first is {dataset.names[0]}")
    return dataset[0 if name is None else dataset.names.index(name)]


def first_items(method: Method, count: int) -> Iterator[list[TestItem]]:
    """The first `count` images in batches; one that cannot be used is reported and left out. Raises UserError if all are."""
    dataset = test_dataset(method.config)
    numbers = list(range(min(count, len(dataset))))
    problems: list[str] = []
    yield from batches(dataset, numbers, method.config, problems)
    if len(problems) == len(numbers):
        raise UserError(problems[0])
    if problems:
        log.warning("left out: %s", problems[0])


class SameImages:
    """Checks that every method is given the same pixels: the first method's images are what the others must have."""

    def __init__(self) -> None:
        self.first: dict[str, TestItem] = {}
        self.label: str | None = None

    def require(self, method: Method, item: TestItem) -> None:
        """Raise UserError where this image or its mask is another than the first method's of this name."""
        if self.label in (None, method.label):
            self.label = method.label
            self.first[item.name] = item
            return
        reference = self.first.get(item.name)
        if reference is None:
            raise UserError(f"{method.label} has an image {item.name}, {self.label} has none: give both the same data.images")
        for what in ("mask", "texture"):
            one, two = getattr(reference, what), getattr(item, what)
            if not torch.equal(one, two):
                raise UserError(
                    f"{method.label} and {self.label} differ in the {'mask' if what == 'mask' else 'pixels'} of {item.name}, "
                    "and cannot be compared: give both the same data and seed"
                )
