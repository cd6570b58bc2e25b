"""Write an evaluation: per_image.csv, table.csv and table.md. The footer of table.md states exactly how the numbers were computed."""

import csv
import io
import logging
import math
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from strdiffusion.config import save_config, to_dict
from strdiffusion.evaluation.columns import METRICS
from strdiffusion.evaluation.compare import JUDGE_METRICS, SET_METRICS, Cell, Comparison, Measures, Row, compare_pairs, load_measures
from strdiffusion.evaluation.judging_options import EvaluateConfig
from strdiffusion.evaluation.metrics import SSIM_WINDOW
from strdiffusion.evaluation.pairs import find_pairs, reading, size_text
from strdiffusion.evaluation.perceptual import FEATURES, KID_SUBSET, KID_SUBSETS, LPIPS_VERSION
from strdiffusion.evaluation.statistics import LEVEL, RESAMPLES
from strdiffusion.system.errors import UserError, some
from strdiffusion.system.files import Together, write_text
from strdiffusion.system.folders import Mark, key_of, output_folder
from strdiffusion.system.markdown import markdown_table

log = logging.getLogger(__name__)

PACKAGES = ("numpy", "scikit-image", "opencv-python-headless", "torch", "lpips", "torch-fidelity")


def evaluate(config: EvaluateConfig) -> Path:
    """Compare the folders of a configuration and write the tables. Returns their folder.

    Nothing is written before all is computed, so the same command after an interruption starts from the beginning.
    Raises UserError if nothing could be compared, or, after writing, if something was left out.
    """
    pairs, measures = find_pairs(config), load_measures(config)
    key = key_of("evaluate", {name: value for name, value in to_dict(config).items() if name not in ("output", "overwrite")})
    how_to = "set another output=FOLDER, or overwrite=true"
    with output_folder(config.output, lambda folder: config.overwrite or Mark(folder, key).is_mine(), how_to) as folder:
        comparison = compare_pairs(pairs, reading(config), measures)
        if not comparison.images:
            raise UserError(f"none of {len(comparison.problems)} pairs could be compared, the first because: {comparison.problems[0]}")
        rows = comparison.rows(config.buckets, config.seed)
        table = "\n".join([results_table(comparison, rows), "", *(f"* {line}" for line in protocol(comparison, config))])
        mark = Mark(folder, key)
        mark.begin()
        with Together() as files:
            write_text(folder / "per_image.csv", per_image_csv(comparison), files)
            write_text(folder / "table.csv", table_csv(rows), files)
            write_text(folder / "table.md", table + "\n", files)
        save_config(config, folder / "config.yml")
        mark.end()
    print(table)
    print(f"per_image.csv, table.csv and table.md are in {folder}")
    left_out = what_was_left_out(comparison)
    if left_out:
        raise UserError(left_out)
    return folder


def per_image_csv(comparison: Comparison) -> str:
    """A line per image, with nine digits; empty if a metric does not exist."""
    columns = [column for column in comparison.columns if column not in SET_METRICS and column not in comparison.measures.unavailable]
    lines: list[list[object]] = [["name", "output", "truth", "mask", "hole_share", *columns]]
    for image in comparison.images:
        pair = image.pair
        paths = ["", "", ""] if pair is None else [pair.output, pair.truth, pair.mask or ""]
        values = [_number(image.values.get(column, math.nan)) for column in columns]
        lines.append([image.name, *paths, "" if image.hole_share is None else _number(image.hole_share), *values])
    return _csv(lines)


def table_csv(rows: list[Row]) -> str:
    """A line per bucket and metric: mean, interval, number of images, and the reason if there is no number."""
    lines: list[list[object]] = [["holes", "metric", "mean", "low", "high", "images", "reason"]]
    for row in rows:
        for column, cell in row.cells.items():
            s = cell.summary
            numbers = ["n/a", "", "", 0] if s is None else [_number(s.mean), _number(s.low), _number(s.high), s.count]
            lines.append([bucket_text(row), column, *numbers, cell.reason or ""])
    return _csv(lines)


def results_table(comparison: Comparison, rows: list[Row]) -> str:
    """A Markdown table, mean [low, high], with a numbered footnote for every reason why a number is missing."""
    reasons: list[str] = []
    lines = [["holes", "images", *(title(column, comparison) for column in comparison.columns)]]
    for row in rows:
        cells = [cell_text(cell, METRICS[column].digits, row.images, reasons) for column, cell in row.cells.items()]
        lines.append([bucket_text(row), str(row.images), *cells])
    notes = [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([markdown_table(lines, "right", marked=True), *(["", "  \n".join(notes)] if notes else [])])


def title(column: str, comparison: Comparison) -> str:
    """A column's title, with the weights if they are not the published ones."""
    weights = comparison.measures.weights.get(column.removeprefix("hole_"))
    own = f" [weights {weights.digest}]" if weights is not None and not weights.published else ""
    return METRICS[column].title + own


def cell_text(cell: Cell, digits: int, images: int, reasons: list[str]) -> str:
    """mean [low, high], with the number of images if it differs from the row's; or n/a and the number of the footnote."""
    if cell.summary is None:
        if cell.reason not in reasons:
            reasons.append(cell.reason)
        return f"n/a ({reasons.index(cell.reason) + 1})"
    s = cell.summary
    interval = "" if math.isnan(s.low) else f" [{s.low:.{digits}f}, {s.high:.{digits}f}]"
    return f"{s.mean:.{digits}f}{interval}" + (f" of {s.count}" if s.count != images else "")


def bucket_text(row: Row) -> str:
    return "all" if row.bucket is None else f"{row.bucket[0]:g}-{row.bucket[1]:g} %"


def protocol(comparison: Comparison, config: EvaluateConfig) -> list[str]:
    """How the numbers were computed, line by line."""
    return [*sources(comparison, config), *how_measured(config.metrics, comparison.measures, config.seed, config.labels)]


def how_measured(wanted: Sequence[str], measures: Measures, seed: int, labels: str | None = None) -> list[str]:
    """How each of these metrics and the interval are computed, and the versions of the packages. labels: the folder of true labels."""
    metrics = set(wanted) - set(measures.unavailable)
    lines = [
        "All metrics are of RGB pixels at 8-bit levels, divided by 255 (data range 1), per image and then averaged over images.",
        f"[low, high]: {LEVEL:.0%} percentile bootstrap interval of the mean over images, {RESAMPLES} resamples, seed {seed}.",
    ]
    if "psnr" in metrics:
        lines.append("PSNR: from the squared error over all pixels and channels, or those of the hole; inf where images are equal.")
    if "ssim" in metrics:
        lines.append(
            f"SSIM: scikit-image, Gaussian weights with sigma 1.5 ({SSIM_WINDOW}x{SSIM_WINDOW} window), no sample covariance, "
            f"K1 0.01, K2 0.03, mean over channels; whole: without the outer {SSIM_WINDOW // 2} pixels; "
            "hole: mean of the map over the hole's pixels."
        )
    if "l1" in metrics:
        lines.append("L1: mean absolute difference over pixels and channels.")
    weights = measures.weights
    for net in ("alex", "vgg"):
        if f"lpips_{net}" in metrics:
            lines.append(
                f"LPIPS {net}: package lpips, version {LPIPS_VERSION} heads, backbone {weights[f'lpips_{net}']}; "
                "hole: the package's spatial map averaged over the hole's pixels."
            )
    if "sharpness" in metrics:
        lines.append("Sharpness: the mean length of the gradient in the hole, divided by the truth's; 1 is best.")
    if metrics & set(JUDGE_METRICS):
        classes = "as the judge sees them in the truths" if labels is None else f"as in {labels}"
        lines.append(
            f"Judge: {measures.judge}; true classes {classes}. Agreement: share of the hole's pixels that show the true class; mean IoU: "
            "over the classes in the hole. Judge distance: of features scaled to length 1, over the hole. Judge FID, KID: of its deepest "
            "features, averaged over each hole, outputs against their own truths; compare only at equal numbers of images."
        )
    of_sets = metrics & {"fid", "kid"}
    if of_sets:
        lines.append(
            f"FID, KID: torch-fidelity's Inception, {FEATURES} features at 299x299, {weights[min(of_sets)]}, of whole images, "
            "outputs against their own truths. Both depend on the number of images: compare only at equal numbers. "
            f"KID: kernel (x.y/{FEATURES} + 1)^3, unbiased, of all images (above {KID_SUBSET}: mean of {KID_SUBSETS} subsets)."
        )
    return [*lines, f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES) + "."]


def sources(comparison: Comparison, config: EvaluateConfig) -> list[str]:
    """The sources of the images, how they were brought to size, and what is missing."""
    images, how = comparison.images, comparison.how
    truths = config.truths or f"as recorded in {config.csv}"
    masks = "none" if not any(image.pair.mask for image in images) else f"as recorded in {config.csv}"
    if config.masks.folder is not None:
        masks = f"{config.masks.folder} (paired by {config.masks.pairing})"
    size_counts = Counter(size_text(image.size) for image in images).most_common()
    sizes = ", ".join(f"{size} ({count})" for size, count in size_counts[:5]) + (", ..." if len(size_counts) > 5 else "")
    fit = "as they are" if how.fit == "none" else f"brought to size by {how.fit}, size {how.size}"
    resized = sum(image.resized for image in images)
    lines = [
        f"Outputs: {config.outputs}; truths: {truths}; masks: {masks}, polarity {how.polarity}.",
        f"{len(images)} images, width x height: {sizes}. Truths are {fit}.",
    ]
    if resized:
        lines.append(f"{resized} outputs of another size were RESIZED to their truth's (area average to shrink, cubic to grow).")
    without = sum(image.hole_share is None for image in images)
    if 0 < without < len(images) or (without and masks != "none"):
        lines.append(f"{without} images without a known hole share are in no bucket, only in all.")
    redrawn = sum(isinstance(image.pair.mask, str) and not image.masked for image in images)
    if redrawn:
        lines.append(f"{redrawn} generated masks could not be drawn again: no metrics of these holes; their shares are as recorded.")
    left_out = what_was_left_out(comparison)
    if left_out:
        lines.append(f"Left out: {left_out}.")
        lines += [f"Left out: {problem}." for problem in comparison.problems[1:]]
    return lines


def what_was_left_out(comparison: Comparison) -> str | None:
    """One line about pairs that could not be compared and images without a partner; None if there are none."""
    pairs = comparison.pairs
    parts = []
    if comparison.problems:
        parts.append(f"{len(comparison.problems)} of {len(pairs.pairs)} pairs were left out, the first because: {comparison.problems[0]}")
    if pairs.truths_alone:
        parts.append(f"truths without output: {len(pairs.truths_alone)} ({some(pairs.truths_alone)})")
    if pairs.outputs_alone:
        parts.append(f"outputs without truth: {len(pairs.outputs_alone)} ({some(pairs.outputs_alone)})")
    return "; ".join(parts) or None


def _csv(lines: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
