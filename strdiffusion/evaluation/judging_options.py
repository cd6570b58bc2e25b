"""The options of scripts/evaluate.py, which compares images with their truths."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_args

from strdiffusion.config.common import Device
from strdiffusion.data.masks import Polarity
from strdiffusion.data.pairing import Pairing
from strdiffusion.data.testset import SIZED, Fit
from strdiffusion.evaluation.columns import ComparedMetric, JudgeMetric, UsualMetric
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Positive, Range, Seed, build, load_config, set_override

Percent = Annotated[float, Range(0, 100)]
COMMAND_LINE = "the command line"


@dataclass
class EvaluateMaskConfig:
    """Where the holes are: a folder of mask files, each paired with its truth. polarity null: that of the run of `csv`, or white_hole."""

    folder: str | None = None
    polarity: Polarity | None = None
    pairing: Pairing = "name"


@dataclass
class PretrainedConfig:
    """Files with pretrained weights: AlexNet and VGG-16 for LPIPS, Inception for FID and KID; null: the file in the libraries' caches."""

    alex: str | None = None
    vgg: str | None = None
    inception: str | None = None


@dataclass
class EvaluateConfig:
    """Compare the images in `outputs` with those in `truths`, and write the tables to `output`.

    csv: a results.csv of scripts/test.py, which records the pairs and their masks. It also gives the truths if `truths` is not
    given, and the config.yml beside it gives `fit`, `size` and polarity if they are not given here.
    fit, size: how truths and masks are brought to the outputs' size, as in a test; null is `none`.
    crop_border: PSNR, SSIM and L1 leave out so many pixels on each side (4 in IR-SDE's program).
    resize: resize outputs that still have another size than their truth, instead of leaving them out.
    buckets: hole shares in %, each above the first and up to the second number.
    judge: the folder of the judge for the metrics that need one. labels: the folder of the truths' labels; null: truths have the classes
    that the judge sees in them.
    """

    outputs: str
    output: str
    truths: str | None = None
    csv: str | None = None
    masks: EvaluateMaskConfig = field(default_factory=EvaluateMaskConfig)
    metrics: list[ComparedMetric] = field(default_factory=lambda: list(get_args(UsualMetric)))
    fit: Fit | None = None
    size: Positive | None = None
    resize: bool = False
    crop_border: Count = 0
    buckets: list[tuple[Percent, Percent]] = field(default_factory=lambda: [(float(low), low + 10.0) for low in range(0, 60, 10)])
    weights: PretrainedConfig = field(default_factory=PretrainedConfig)
    judge: str | None = None
    labels: str | None = None
    device: Device = "auto"
    seed: Seed = 0
    overwrite: bool = False

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        if self.truths is None and self.csv is None:
            raise UserError("the key truths is missing: give truths=FOLDER, or csv=FILE, a results.csv that names them")
        if self.fit in SIZED and self.size is None:
            raise UserError(f"fit={self.fit} needs a size in pixels: give size=256, for example")
        if self.size is not None and self.fit in (None, "none"):
            raise UserError("size is used only with fit: give fit=resize or fit=center_crop with it")
        for low, high in self.buckets:
            if low >= high:
                raise UserError(f"the bucket [{low:g}, {high:g}] is empty: its first number must be below its second")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise UserError(f"metrics must name at least one metric and none twice; known: {', '.join(get_args(ComparedMetric))}")
        if (self.judge or self.labels) is not None and not set(self.metrics) & set(get_args(JudgeMetric)):
            raise UserError(f"judge and labels are used only by some metrics: add one of {', '.join(get_args(JudgeMetric))} to metrics")


def load_evaluation(path: str | Path | None, overrides: Iterable[str]) -> EvaluateConfig:
    """The configuration of an evaluation from a YAML file and overrides, or from overrides alone if path is None."""
    if path is not None:
        return load_config(EvaluateConfig, path, overrides)
    tree: dict = {}
    for override in overrides:
        set_override(tree, override)
    config = build(EvaluateConfig, tree, COMMAND_LINE)
    config.check()
    return config
