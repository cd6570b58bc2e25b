"""The options of a test: configs/*/test.yml. Keys that a YAML file omits have their defaults."""

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from strdiffusion.config.common import Device, MaskConfig
from strdiffusion.data.pairing import Pairing
from strdiffusion.data.testset import Fit
from strdiffusion.methods import METHODS, Options, method_class
from strdiffusion.samplers.options import with_method
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Positive, Range, Seed, build, fill, read_yaml, require_known_keys

log = logging.getLogger(__name__)

DEFAULT_METHOD = "strdiffusion"


@dataclass
class TestMaskConfig(MaskConfig):
    """Masks of a test, each paired with its image: by name, in order, or by a seeded draw."""

    pairing: Pairing = "name"


@dataclass
class TestDataConfig:
    """Images to inpaint. `fit` brings them to `size` x `size` ("none": their own size).

    ground_truth: false if the holes are real: then there is no truth in them, and no metrics are computed.
    """

    __test__ = False  # not a test, despite its name

    images: str
    masks: TestMaskConfig = field(default_factory=TestMaskConfig)
    size: Annotated[int, Range(8, 8192)] = 256
    fit: Fit = "resize"
    ground_truth: bool = True
    limit: Positive | None = None
    index: str | None = "auto"


@dataclass
class TestConfig:
    """configs/*/test.yml: the common keys and, at the same level, the options of the chosen `method`.

    Options of other methods are ignored, so that method=telea works with any of these files.
    process: write every process-th step as pictures (0: none).
    sample: which of many results of each image: every number has other noise, and the same images and masks.
    crop_border: PSNR and SSIM leave out so many pixels on each side (4 in IR-SDE's program).
    """

    __test__ = False

    data: TestDataConfig
    output: str
    options: Options
    method: str = DEFAULT_METHOD
    overwrite: bool = False
    seed: Seed = 0
    device: Device = "auto"
    batch_size: Annotated[int, Range(1, 65536)] = 8
    process: Count = 0
    sample: Count = 0
    crop_border: Count = 0

    @classmethod
    def from_tree(cls, tree: dict, where: str) -> "TestConfig":
        """Split the keys between test and method. Without `method` it is StrDiffusion, or IR-SDE if sampler.guidance=false."""
        tree = with_method(tree, where)
        method = tree.get("method", DEFAULT_METHOD)
        options = method_class(method, where).Options
        own, of_method = _names(cls) - {"options"}, _names(options)
        require_known_keys(tree, sorted(test_options()), where)
        chosen = build(options, {key: value for key, value in tree.items() if key in of_method}, where)
        test = {key: value for key, value in tree.items() if key in own}
        return fill(cls, test | {"method": method}, where, given={"options": chosen})

    def as_tree(self) -> dict:
        """The inverse of `from_tree`."""
        tree = dataclasses.asdict(self)
        return {key: value for key, value in tree.items() if key != "options"} | tree["options"]

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        self.data.masks.check("data.masks")
        self.options.check()
        if self.data.fit != "none" and 2 * self.crop_border >= self.data.size:
            raise UserError(f"crop_border={self.crop_border} leaves nothing of data.size={self.data.size}: give less than half of it")
        if not self.data.ground_truth and self.data.masks.folder is None:
            raise UserError("data.masks.folder is missing: it is needed with data.ground_truth=false, to show where the holes are")
        if not self.data.ground_truth and self.options.doors:
            asked = next(iter(self.options.doors.values()))
            raise UserError(f"{asked} needs the truth: set {self.options.no_doors} with data.ground_truth=false")


def require_used(config: TestConfig, path: str | Path, overrides: Iterable[str]) -> None:
    """Raise UserError if an override is an option of another method, which would have no effect. Those of the file are said in one line."""
    used = _names(TestConfig) | _names(type(config.options))
    idle = next((override for override in overrides if override.partition("=")[0].split(".")[0] not in used), None)
    if idle is not None:
        raise UserError(f"{idle} has no effect on the method {config.method}: leave it out, or choose another method=NAME")
    ignored = [key for key in read_yaml(Path(path)) if key not in used]
    if ignored:
        log.info("the method %s has no use for these options of %s: %s", config.method, path, ", ".join(map(str, ignored)))


def test_options() -> set[str]:
    """The keys of a test configuration, with those of all methods."""
    return (_names(TestConfig) - {"options"}).union(*(_names(known.Options) for known in METHODS.values()))


test_options.__test__ = False  # not a test, despite its name


def _names(cls: type) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}
