"""Results as a CSV with a row per image, and their summary by hole share."""

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from strdiffusion.evaluation.columns import METRICS
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import write_text
from strdiffusion.system.markdown import markdown_table

COLUMNS = {  # the summary's titles, which are shorter than those of a table of runs
    "psnr": "PSNR",
    "ssim": "SSIM",
    "hole_psnr": "hole PSNR",
    "masked_hole_psnr": "(masked input)",
    "hole_ssim": "hole SSIM",
    "masked_hole_ssim": "(masked input)",
    "seconds": "s/image",
}
KINDS_IN_TABLE = ("texture", "structure", "discriminator")
BUCKETS = [(low / 100, (low + 10) / 100) for low in range(0, 60, 10)] + [(0.6, 1.0)]


@dataclass(frozen=True)
class ResultRow:
    """One image. PSNR in dB, SSIM in [-1,1], of the whole image and of the hole; None without ground truth.

    name: of the pictures, without suffix. masked_hole_*: the same of the masked input, whose hole is black.
    seconds: the batch's time divided by its images.
    """

    name: str
    image: str
    mask: str
    hole_share: float
    psnr: float | None = None
    ssim: float | None = None
    hole_psnr: float | None = None
    hole_ssim: float | None = None
    masked_hole_psnr: float | None = None
    masked_hole_ssim: float | None = None
    seconds: float = 0.0
    texture_evaluations: int = 0
    structure_evaluations: int = 0
    discriminator_evaluations: int = 0


def read_rows(path: Path) -> list[ResultRow]:
    """Read what `write_rows` wrote; nothing where there is no such file."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [ResultRow(**{name: _parse(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]
    except (OSError, TypeError, ValueError, csv.Error, AttributeError) as error:
        raise UserError(f"{path} is not a results.csv of this program ({error}): remove it, or set another output=FOLDER") from None


def write_rows(rows: list[ResultRow], path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(ResultRow)])
    writer.writeheader()
    writer.writerows({k: _cell(v) for k, v in asdict(row).items()} for row in rows)
    write_text(path, text.getvalue())


def summary_table(rows: list[ResultRow]) -> str:
    """A Markdown table with a line per hole share that occurs, and one for all images."""
    lines = [["holes", "images", *COLUMNS.values(), "evaluations T/S/D"]]
    for low, high in BUCKETS:
        inside = [row for row in rows if low < row.hole_share <= high]
        if inside:
            lines.append([f"{low * 100:.0f}-{high * 100:.0f} %", *_averages(inside)])
    lines.append(["all", *_averages(rows)])
    return markdown_table(lines, "right")


def _averages(rows: list[ResultRow]) -> list[str]:
    digits = {name: METRICS[name.removeprefix("masked_")].digits for name in COLUMNS}
    cells = [_mean_text([getattr(row, name) for row in rows], digits[name]) for name in COLUMNS]
    evaluations = [_mean_text([getattr(row, f"{network}_evaluations") for row in rows], 0) for network in KINDS_IN_TABLE]
    return [str(len(rows)), *cells, "/".join(evaluations)]


def _mean_text(values: list[float | None], digits: int) -> str:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return f"{sum(known) / len(known):.{digits}f}" if known else "n/a"


def _parse(name: str, text: str) -> str | float | int | None:
    if name in ("name", "image", "mask"):
        return text
    if name.endswith("_evaluations"):
        return int(text)
    return float(text) if text else None


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
