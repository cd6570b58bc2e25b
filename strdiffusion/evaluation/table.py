"""Results as a CSV with a row per image, and their summary by hole share."""

import csv
import io
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from strdiffusion.evaluation.columns import METRICS
from strdiffusion.samplers.trace import SUFFIX
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import read_table, write_text
from strdiffusion.system.markdown import markdown_table

MOST_EVALUATIONS = 10**9
COLUMNS = {  # titles of the summary, shorter than those of a table of runs
    "psnr": "PSNR",
    "ssim": "SSIM",
    "hole_psnr": "hole PSNR",
    "masked_hole_psnr": "(masked input)",
    "hole_ssim": "hole SSIM",
    "masked_hole_ssim": "(masked input)",
    "seconds": "s/image",
}
BUCKETS = [(low / 100, (low + 10) / 100) for low in range(0, 60, 10)] + [(0.6, 1.0)]


@dataclass(frozen=True)
class ResultRow:
    """One image. PSNR in dB, SSIM in [-1,1], of the whole image and of the hole; None without ground truth.

    name: of the pictures, without suffix. masked_hole_*: the same for the masked input, whose hole is black.
    seconds: the batch's time divided by its images. evaluations: of each network, by its name. shown: what the method was shown of the
    hole, and by which option; empty for nothing, which is the normal case.
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
    evaluations: dict[str, int] = field(default_factory=dict)
    shown: str = ""

    def number(self, column: str) -> float | None:
        """A metric, or a cost: `seconds`, or NETWORK_evaluations."""
        if column.endswith(SUFFIX):
            return self.evaluations.get(column.removesuffix(SUFFIX), 0)
        return getattr(self, column)

    def cells(self) -> dict[str, object]:
        """The row of a CSV: evaluations have a column for each network."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("evaluations", "shown")}
        counts = {f"{name}{SUFFIX}": count for name, count in self.evaluations.items()}
        return plain | counts | ({"shown": self.shown} if self.shown else {})


def read_rows(path: Path) -> list[ResultRow]:
    """Read what `write_rows` wrote; an empty list if there is no such file."""
    if not path.exists():
        return []
    try:
        return [_parse_row(line) for line in csv.DictReader(io.StringIO(read_table(path), newline=""))]
    except (OSError, TypeError, ValueError, csv.Error, AttributeError) as error:
        raise UserError(f"{path} is not a results.csv of this program ({error}): remove it, or set another output=FOLDER") from None


def write_rows(rows: list[ResultRow], path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    lines = [row.cells() for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(column for line in lines for column in line)), restval="")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in line.items()} for line in lines)
    write_text(path, text.getvalue())


def summary_table(rows: list[ResultRow]) -> str:
    """A Markdown table with a line for each bucket of hole shares that has images, and one for all images."""
    networks = list(dict.fromkeys(name for row in rows for name in row.evaluations))
    evaluations = [f"evaluations {'/'.join(name[0].upper() for name in networks)}"] if networks else []
    lines = [["holes", "images", *COLUMNS.values(), *evaluations]]
    for low, high in BUCKETS:
        inside = [row for row in rows if low < row.hole_share <= high]
        if inside:
            lines.append([f"{low * 100:.0f}-{high * 100:.0f} %", *_averages(inside, networks)])
    lines.append(["all", *_averages(rows, networks)])
    return markdown_table(lines, "right")


def _averages(rows: list[ResultRow], networks: list[str]) -> list[str]:
    digits = {name: METRICS[name.removeprefix("masked_")].digits for name in COLUMNS}
    cells = [_mean_text([row.number(name) for row in rows], digits[name]) for name in COLUMNS]
    evaluations = [_mean_text([row.number(f"{network}{SUFFIX}") for row in rows], 0) for network in networks]
    return [str(len(rows)), *cells, *(["/".join(evaluations)] if networks else [])]


def _mean_text(values: list[float | None], digits: int) -> str:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return f"{sum(known) / len(known):.{digits}f}" if known else "n/a"


def _parse_row(line: dict[str, str]) -> ResultRow:
    plain, evaluations = {}, {}
    for name, text in line.items():
        if name.endswith(SUFFIX):
            if text:
                evaluations[name.removesuffix(SUFFIX)] = int(text)
                if not 0 <= evaluations[name.removesuffix(SUFFIX)] <= MOST_EVALUATIONS:
                    raise ValueError(f"{text} evaluations")
        elif name in ("name", "image", "mask", "shown"):
            plain[name] = text
        else:
            plain[name] = float(text) if text else None
    if plain.get("hole_share") is None or plain.get("seconds") is None or not plain.get("name"):
        raise ValueError("a row lacks its name, hole_share or seconds")
    return ResultRow(**plain, evaluations=evaluations)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
