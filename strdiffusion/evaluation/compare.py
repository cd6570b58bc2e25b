"""Compare images with their truths: metrics per image, FID and KID of the set, all of them also by hole share.

measures = Measures(["psnr", "lpips_alex", "fid"], device="cpu")   # loads networks once, for any number of comparisons
comparison = compare_arrays(images, measures)                      # or compare_folders(config, measures)
comparison.rows()[-1].cells["fid"]                                 # a Cell: a value with its interval, or why there is none
"""

import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.data.masks import SUSPICIOUS_SHARE, hole_share, other_polarity
from strdiffusion.evaluation.columns import HOLE_ONLY, ComparedMetric, JudgeMetric, UsualMetric
from strdiffusion.evaluation.judge import Judge, features_distance, hole_features
from strdiffusion.evaluation.judging_options import EvaluateConfig, PretrainedConfig
from strdiffusion.evaluation.metrics import agreement, inside, l1, mean_iou, psnr, sharpness, ssim
from strdiffusion.evaluation.pairs import Loaded, Pair, Pairs, Reading, find_pairs, load_pair, reading, to_8_bit
from strdiffusion.evaluation.perceptual import Inception, Lpips, frechet_distance, kernel_distance
from strdiffusion.evaluation.statistics import Summary, summarise
from strdiffusion.evaluation.weights import Unavailable, WeightsFile
from strdiffusion.system.device import choose_device, set_float32_precision
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

PIXEL_METRICS = {"psnr": psnr, "ssim": ssim, "l1": l1}
SET_METRICS = {"fid": frechet_distance, "kid": kernel_distance, "judge_fid": frechet_distance, "judge_kid": kernel_distance}
JUDGE_METRICS = get_args(JudgeMetric)
NO_JUDGE = "no judge is given: judge=FOLDER, for example judge=weights/judge"


@dataclass(frozen=True)
class Cell:
    """A number of a table, or the reason why there is none. FID and KID have no interval."""

    summary: Summary | None
    reason: str | None = None


@dataclass(frozen=True)
class Row:
    """A bucket of hole shares (low, high] in %, or None for all images; its number of images, and a cell per column."""

    bucket: tuple[float, float] | None
    images: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class ImageResult:
    """One image: its size (height, width), hole share in [0,1] if known, and metrics by column; nan if one does not exist.

    masked: its mask is known, not only the share. resized: the output had another size.
    """

    name: str
    size: tuple[int, int]
    hole_share: float | None
    values: dict[str, float]
    pair: Pair | None = None
    masked: bool = False
    resized: bool = False


class Measures:
    """The metrics to compute, with their networks loaded.

    unavailable: why a metric cannot be computed. weights: the file that each metric's network was loaded from. judge: a judge's folder.
    crop_border: pixels on each side that PSNR, SSIM and L1 leave out.
    Raises UserError if a given file of weights or judge is missing or wrong.
    """

    def __init__(
        self,
        metrics: Sequence[ComparedMetric] = get_args(UsualMetric),
        weights: PretrainedConfig | None = None,
        device: torch.device | str = "cpu",
        judge: str | None = None,
        crop_border: int = 0,
    ):
        self.crop_border = crop_border
        weights = weights or PretrainedConfig()
        self.metrics = list(metrics)
        self.unavailable: dict[str, str] = {}
        self.weights: dict[str, WeightsFile] = {}
        self.lpips: dict[str, Lpips] = {}
        self.inception: Inception | None = None
        for net in ("alex", "vgg"):
            if f"lpips_{net}" in metrics:
                loaded = self._load([f"lpips_{net}"], Lpips, net, getattr(weights, net), device)
                self.lpips |= {f"lpips_{net}": loaded} if loaded else {}
        of_inception = [metric for metric in metrics if metric in ("fid", "kid")]
        if of_inception:
            self.inception = self._load(of_inception, Inception, weights.inception, device)
        of_judge = [metric for metric in metrics if metric in JUDGE_METRICS]
        self.judge = Judge(judge, device) if of_judge and judge is not None else None
        if of_judge and self.judge is None:
            self.unavailable |= dict.fromkeys(of_judge, NO_JUDGE)

    def of_image(self, image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None) -> dict[str, float]:
        """Per-image metrics by column, of image (H,W,3) in [0,1] against truth; those of the hole only with a hole (H,W) bool."""
        values = {}
        if "sharpness" in self.metrics and hole is not None:
            values["sharpness"] = sharpness(image, truth, hole)
        judged = [None if part is None else inside(part, self.crop_border) for part in (image, truth, hole)]
        for metric in self.metrics:
            if metric in PIXEL_METRICS:
                values[metric] = PIXEL_METRICS[metric](*judged[:2])
                if hole is not None:
                    values[f"hole_{metric}"] = PIXEL_METRICS[metric](*judged)
            elif metric in self.lpips:
                values[metric], in_hole = self.lpips[metric](image, truth, hole)
                if hole is not None:
                    values[f"hole_{metric}"] = in_hole
        return values

    def of_judge(
        self, image: np.ndarray, truth: np.ndarray, hole: np.ndarray, labels: np.ndarray | None
    ) -> tuple[dict[str, float], tuple[np.ndarray, np.ndarray] | None]:
        """The judge's metrics of a hole, by column, and the features (C,) that it sees there in image and truth (None: there is no hole).

        labels: the true class of every pixel; None: the class that the judge sees in the truth.
        """
        ours, theirs = self.judge(image), self.judge(truth)
        labels = theirs.labels if labels is None else labels
        values = {
            "agreement": agreement(ours.labels, labels, hole),
            "mean_iou": mean_iou(ours.labels, labels, hole),
            "judge_distance": features_distance(ours, theirs, hole),
        }
        return values, (hole_features(ours, hole), hole_features(theirs, hole)) if hole.any() else None

    def columns(self, holes: bool) -> list[str]:
        """The columns of a table: every metric, and its value in the hole if that has a meaning and holes are known."""
        with_hole = set(self.metrics) - {*SET_METRICS, *HOLE_ONLY, *self.unavailable} if holes else set()
        return [column for metric in self.metrics for column in ([metric, f"hole_{metric}"] if metric in with_hole else [metric])]

    def _load(self, metrics: list[str], kind: type, *options):
        try:
            loaded = kind(*options)
        except Unavailable as error:
            self.unavailable |= dict.fromkeys(metrics, str(error))
            return None
        self.weights |= dict.fromkeys(metrics, loaded.weights)
        return loaded


@dataclass
class Comparison:
    """The images compared so far. `add` images, then call `rows`.

    problems: why pairs were left out. pairs, how: their source, if they come from folders.
    """

    measures: Measures
    images: list[ImageResult] = field(default_factory=list)
    features: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # (2048,) of each output and truth
    judged: list[tuple[np.ndarray, np.ndarray] | None] = field(default_factory=list)  # the judge's features (C,) in each hole
    problems: list[str] = field(default_factory=list)
    pairs: Pairs | None = None
    how: Reading | None = None

    def add(self, loaded: Loaded, name: str, pair: Pair | None = None) -> None:
        """Compare one image with its truth. The pair's recorded hole share is used only if there is no mask."""
        image, truth, known = loaded.image, loaded.truth, loaded.known
        share = (pair.hole_share if pair else None) if known is None else hole_share(known)
        hole = None if known is None else known < 0.5
        values = self.measures.of_image(image, truth, hole)
        if self.measures.judge is not None:
            of_judge, features = ({}, None) if hole is None else self.measures.of_judge(image, truth, hole, loaded.labels)
            values |= {name: value for name, value in of_judge.items() if name in self.measures.metrics}
            self.judged.append(features)
        size = truth.shape[:2]
        self.images.append(ImageResult(name, size, share, values, pair, known is not None, loaded.output_size != size))
        if self.measures.inception is not None:
            self.features.append((self.measures.inception(image), self.measures.inception(truth)))

    @property
    def columns(self) -> list[str]:
        """The columns of the table."""
        return self.measures.columns(any(name.startswith("hole_") for image in self.images for name in image.values))

    def rows(self, buckets: Sequence[tuple[float, float]] = (), seed: int = 0) -> list[Row]:
        """A row for every bucket (low, high] in % that has images, and one for all. `seed` is of the bootstrap intervals."""
        rows = []
        for low, high in buckets:
            shares = [(i, image.hole_share) for i, image in enumerate(self.images)]
            inside = [i for i, share in shares if share is not None and low / 100 < share <= high / 100]
            if inside:
                rows.append(self._row((low, high), inside, seed))
        return [*rows, self._row(None, list(range(len(self.images))), seed)]

    def _row(self, bucket: tuple[float, float] | None, numbers: list[int], seed: int) -> Row:
        return Row(bucket, len(numbers), {column: self._cell(column, numbers, seed) for column in self.columns})

    def _cell(self, column: str, numbers: list[int], seed: int) -> Cell:
        if column in self.measures.unavailable:
            return Cell(None, self.measures.unavailable[column])
        if column in SET_METRICS:
            return self._set_cell(column, numbers)
        summary = summarise((self.images[i].values.get(column, math.nan) for i in numbers), seed)
        if summary is not None:
            return Cell(summary)
        of_hole = column.startswith("hole_") or column in HOLE_ONLY
        missing = "no mask with a hole, or images too small" if of_hole else "images too small for it"
        return Cell(None, missing if numbers else "no image")

    def _set_cell(self, column: str, numbers: list[int]) -> Cell:
        features = self.judged if column in JUDGE_METRICS else self.features
        pairs = [features[i] for i in numbers if features[i] is not None]
        outputs, truths = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
        try:
            value = SET_METRICS[column](outputs, truths)
        except Unavailable as error:
            return Cell(None, str(error))
        return Cell(Summary(value, math.nan, math.nan, len(pairs)))


def compare_arrays(images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]], measures: Measures) -> Comparison:
    """Compare (output, truth, known): images (H,W,3) in [0,1], rounded to 8 bits here; known (H,W), 1 = known, or None.

    Images are named by their number. Raises ValueError if the sizes of an output and its truth or mask differ.
    """
    comparison = Comparison(measures)
    for i, (output, truth, known) in enumerate(images):
        if output.shape != truth.shape or (known is not None and known.shape != truth.shape[:2]):
            raise ValueError(f"image {i}: output {output.shape}, truth {truth.shape} and mask {known if known is None else known.shape}")
        comparison.add(Loaded(to_8_bit(output), to_8_bit(truth), known, output.shape[:2]), str(i))
    return comparison


def compare_folders(config: EvaluateConfig, measures: Measures | None = None) -> Comparison:
    """Compare the outputs of a configuration with their truths. Give `measures` to load the networks only once.

    Raises UserError if nothing can be paired. For pairs that cannot be read or differ in size, see `compare_pairs`.
    """
    pairs = find_pairs(config)
    return compare_pairs(pairs, reading(config), measures or load_measures(config))


def load_measures(config: EvaluateConfig) -> Measures:
    """The metrics that a configuration asks for, with their networks on its device."""
    set_float32_precision("fp32")
    return Measures(config.metrics, config.weights, choose_device(config.device), config.judge, config.crop_border)


def compare_pairs(pairs: Pairs, how: Reading, measures: Measures) -> Comparison:
    """Compare files. Pairs that cannot be read or differ in size are left out, reported one by one, and listed in `problems`."""
    comparison = Comparison(measures, pairs=pairs, how=how)
    with logging_redirect_tqdm():
        for pair in tqdm(pairs.pairs, unit="image", desc="evaluating"):
            try:
                comparison.add(load_pair(pair, how), pair.name, pair)
            except UserError as error:
                log.warning("left out: %s", error)
                comparison.problems.append(str(error))
    warn_if_inverted(comparison)
    warn_if_seen(comparison)
    return comparison


def warn_if_seen(comparison: Comparison) -> None:
    """Log one warning if the judge was trained on truths that it now judges by."""
    judge = comparison.measures.judge
    folder = None if judge is None else os.path.abspath(Path(judge.record.images).expanduser())
    seen = [] if judge is None else [pair for pair in comparison.pairs.pairs if Path(os.path.abspath(pair.truth)).is_relative_to(folder)]
    if seen:
        log.warning("the judge %s was trained on %d of these truths: its numbers look better than they are", judge.folder, len(seen))


def warn_if_inverted(comparison: Comparison) -> None:
    """Log one warning if holes are so large that the masks' polarity is probably wrong."""
    shares = [image.hole_share for image in comparison.images if image.hole_share is not None]
    if shares and np.median(shares) > SUSPICIOUS_SHARE:
        other = other_polarity(comparison.how.polarity)
        log.warning("the masks look inverted: the median hole covers %.0f %%; if so, set masks.polarity=%s", 100 * np.median(shares), other)
