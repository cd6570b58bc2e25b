"""Results as a CSV with a row per image, and their summary by hole share."""

import csv
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from strdiffusion.samplers.trace import SUFFIX
from strdiffusion.system.errors import UserError

COLUMNS = [  # title, field, digits
    ("PSNR", "psnr", 2),
    ("SSIM", "ssim", 3),
    ("hole PSNR", "hole_psnr", 2),
    ("(masked input)", "masked_hole_psnr", 2),
    ("hole SSIM", "hole_ssim", 3),
    ("(masked input)", "masked_hole_ssim", 3),
    ("s/image", "seconds", 2),
]
BUCKETS = [(low / 100, (low + 10) / 100) for low in range(0, 60, 10)] + [(0.6, 1.0)]


@dataclass(frozen=True)
class ResultRow:
    """One image. PSNR in dB, SSIM in [-1,1], of the whole image and of the hole; None without ground truth.

    name: of the pictures, without suffix. masked_hole_*: the same of the masked input, whose hole is black.
    seconds: the batch's time divided by its images. evaluations: of each network, by its name. shown: what the method was shown of the
    hole, and by which option; empty, as it should be, for nothing.
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
    """Read what `write_rows` wrote; nothing where there is no such file."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [_parse_row(line) for line in csv.DictReader(file)]
    except (OSError, TypeError, ValueError, csv.Error, AttributeError) as error:
        raise UserError(f"{path} is not a results.csv of this program ({error}): remove it, or set another output=FOLDER") from None


def write_rows(rows: list[ResultRow], path: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            lines = [row.cells() for row in rows]
            writer = csv.DictWriter(file, list(dict.fromkeys(column for line in lines for column in line)), restval="")
            writer.writeheader()
            writer.writerows({column: _cell(value) for column, value in line.items()} for line in lines)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def summary_table(rows: list[ResultRow]) -> str:
    """A Markdown table with a line per hole share that occurs, and one for all images."""
    lines = [["holes", "images", *(title for title, _, _ in COLUMNS)]]
    networks = list(dict.fromkeys(name for row in rows for name in row.evaluations))
    if networks:
        lines[0].append(f"evaluations {'/'.join(name[0].upper() for name in networks)}")
    for low, high in BUCKETS:
        inside = [row for row in rows if low < row.hole_share <= high]
        if inside:
            lines.append([f"{low * 100:.0f}-{high * 100:.0f} %", *_averages(inside, networks)])
    lines.append(["all", *_averages(rows, networks)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)


def _averages(rows: list[ResultRow], networks: list[str]) -> list[str]:
    cells = [_mean_text([row.number(name) for row in rows], digits) for _, name, digits in COLUMNS]
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
        elif name in ("name", "image", "mask", "shown"):
            plain[name] = text
        else:
            plain[name] = float(text) if text else None
    return ResultRow(**plain, evaluations=evaluations)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
