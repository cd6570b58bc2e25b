"""The methods that a figure of the sampling compares: test configurations with overrides, and their common images."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from strdiffusion.config import load_config
from strdiffusion.data import TestItem
from strdiffusion.data.tensors import as_tensor
from strdiffusion.evaluation.folder import batches, look_at, open_method, test_dataset
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.figures.style import check_labels
from strdiffusion.methods import Method
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Positive

log = logging.getLogger(__name__)

Network = Literal["texture", "structure"]
Of = Literal["state", "estimate"]


@dataclass
class EntryConfig:
    """A method to compare: its name in the figure, a test configuration, and key=value overrides of it."""

    label: str
    opt: str
    options: list[str] = field(default_factory=list)


@dataclass
class ProcessConfig:
    """The strip: which image (null: the first), and at which t (empty: six, evenly spaced)."""

    image: str | None = None
    t: list[Count] = field(default_factory=list)


@dataclass
class DiscrepancyConfig:
    """The curves: averaged over the first `images` images, of the process of `network`. of: its state, or the x0 that its network
    predicts from the state ("estimate").
    """

    images: Positive = 8
    network: Network = "texture"
    of: Of = "state"


@dataclass
class FiguresConfig:
    """configs/*/figures.yml"""

    methods: list[EntryConfig]
    process: ProcessConfig = field(default_factory=ProcessConfig)
    discrepancy: DiscrepancyConfig = field(default_factory=DiscrepancyConfig)

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        check_labels([method.label for method in self.methods])
        if len(set(self.process.t)) < len(self.process.t):
            raise UserError("process.t names a step twice")


@dataclass(frozen=True)
class Entry:
    """A method to compare, with its resolved configuration."""

    label: str
    config: TestConfig

    def open(self) -> Method:
        """Load the method with its weights."""
        return open_method(self.config)


def load_entries(config: FiguresConfig) -> list[Entry]:
    """Resolve all test configurations before anything is computed."""
    return [Entry(entry.label, load_config(TestConfig, entry.opt, entry.options)) for entry in config.methods]


def chosen_item(entry: Entry, method: Method, name: str | None) -> TestItem:
    """The image with this name, or the first one."""
    dataset = test_dataset(entry.config)
    if name is not None and name not in dataset.names:
        raise UserError(f"{entry.label} has no image {name}: the first is {dataset.names[0]}")
    return look_at(dataset, 0 if name is None else dataset.names.index(name), method)


def first_items(entry: Entry, method: Method, count: int) -> Iterator[list[TestItem]]:
    """The first `count` images in batches. An image that cannot be used is reported and left out. Raises UserError if none is left."""
    dataset = test_dataset(entry.config)
    numbers = list(range(min(count, len(dataset))))
    problems: list[str] = []
    yield from batches(dataset, numbers, method, entry.config.batch_size, problems)
    if len(problems) == len(numbers):
        raise UserError(problems[0])
    if problems:
        log.warning("left out: %s", problems[0])


def truths(method: Method, items: list[TestItem]) -> dict[str, Tensor]:
    """The true images (B,3,H,W) as `texture`, and by name the true values of the method's other pictures (B,1,H,W)."""
    pictures = [method.true_pictures(item.for_maps()) for item in items]
    stacked = {name: torch.stack([as_tensor(picture[name]) for picture in pictures]) for name in pictures[0]}
    return {"texture": torch.stack([item.texture for item in items])} | stacked


class SameImages:
    """Checks that all methods have the same images and masks as the first one."""

    def __init__(self) -> None:
        self.first: dict[str, TestItem] = {}
        self.label: str | None = None

    def require(self, entry: Entry, item: TestItem) -> None:
        """Raise UserError if this image or its mask differs from the first method's with the same name."""
        if self.label in (None, entry.label):
            self.label = entry.label
            self.first[item.name] = item
            return
        reference = self.first.get(item.name)
        if reference is None:
            raise UserError(f"{entry.label} has an image {item.name}, {self.label} has none: give both the same data.images")
        for what in ("mask", "texture"):
            one, two = getattr(reference, what), getattr(item, what)
            if not torch.equal(one, two):
                raise UserError(
                    f"{entry.label} and {self.label} differ in the {'mask' if what == 'mask' else 'pixels'} of {item.name}, "
                    "and cannot be compared: give both the same data and seed"
                )
