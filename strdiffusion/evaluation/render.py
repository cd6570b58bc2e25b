"""A finished table as CSV, Markdown and LaTeX (booktabs)."""

import csv
import io
import itertools
import math
import re
from dataclasses import dataclass, field

from strdiffusion.evaluation.columns import column
from strdiffusion.evaluation.compare import Cell
from strdiffusion.system.markdown import markdown_table


@dataclass(frozen=True)
class TableRow:
    """One line: its label, its cells by (bucket, metric), and the source if it is a published one."""

    label: str
    cells: dict[tuple[str, str], Cell]
    source: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows, columns, and notes on how the numbers were computed. best: (label, bucket, metric) of the cells that are set in bold."""

    title: str
    buckets: list[str]
    metrics: list[str]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list)
    best: frozenset[tuple[str, str, str]] = frozenset()

    def is_best(self, row: TableRow, bucket: str, metric: str) -> bool:
        """Whether the cell is in bold; published numbers never are."""
        return row.source is None and (row.label, bucket, metric) in self.best

    def footnotes(self) -> list[str]:
        """The sources of published rows, the reasons for missing numbers, then the notes; each once, in order."""
        found = [f"{row.label}: published by {row.source}" for row in self.rows if row.source]
        found += [
            f"{column(m).title} n/a: {cell.reason}" for row in self.rows for (_, m), cell in row.cells.items() if cell.summary is None
        ]
        return list(dict.fromkeys(found + self.notes))


COUNTED = ("fid", "kid", "judge_fid", "judge_kid")  # printed with the number of images, on which they depend


def as_csv(table: Table) -> str:
    """A line per number: row, source, bucket, metric, mean, low, high, images, reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "source", "bucket", "metric", "mean", "low", "high", "images", "reason"])
    for row in table.rows:
        for bucket in table.buckets:
            for metric in table.metrics:
                cell = row.cells.get((bucket, metric), Cell(None, "not published" if row.source else "not run yet"))
                s = cell.summary
                numbers = ["", "", ""] if s is None else ["" if math.isnan(v) else f"{v:.6g}" for v in (s.mean, s.low, s.high)]
                count = "" if s is None else s.count or ""
                writer.writerow([row.label, row.source or "ours", bucket, metric, *numbers, count, cell.reason or ""])
    return out.getvalue()


def as_markdown(table: Table) -> str:
    """Title, table and footnotes, with intervals in brackets."""
    arrows = {"up": "↑", "down": "↓", "one": "→ 1"}
    titles = [f"{bucket_title(bucket)} {column(m).title} {arrows[column(m).better]}" for bucket in table.buckets for m in table.metrics]
    lines = [["", *titles]]
    for row in table.rows:
        cells = []
        for bucket, metric in itertools.product(table.buckets, table.metrics):
            text = _text(row.cells.get((bucket, metric)), metric, with_interval=True)
            cells.append(f"**{text}**" if table.is_best(row, bucket, metric) else text)
        label = f"*{row.label} (published)*" if row.source else row.label
        lines.append([label, *cells])
    notes = [f"* {note}" for note in table.footnotes()]
    return "\n".join([f"# {table.title}", "", markdown_table(lines), "", *notes, ""])


def as_latex(table: Table) -> str:
    """A booktabs table with a column group per bucket, and the footnotes below it."""
    arrows = {"up": r"$\uparrow$", "down": r"$\downarrow$", "one": r"$\to 1$"}
    n = len(table.metrics)
    groups = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{_escape(bucket_title(bucket))}}}" for bucket in table.buckets)
    rules = " ".join(rf"\cmidrule(lr){{{2 + i * n}-{1 + (i + 1) * n}}}" for i in range(len(table.buckets)))
    titles = " & ".join(f"{_escape(column(m).title)} {arrows[column(m).better]}" for _ in table.buckets for m in table.metrics)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_escape(table.title)}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * n * len(table.buckets)}}}",
        r"\toprule",
        rf" & {groups} \\",
        rules,
        rf" & {titles} \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = []
        for bucket, metric in itertools.product(table.buckets, table.metrics):
            text = _escape(_text(row.cells.get((bucket, metric)), metric))
            cells.append(rf"\textbf{{{text}}}" if table.is_best(row, bucket, metric) else text)
        label = rf"\emph{{{_escape(row.label)} (published)}}" if row.source else _escape(row.label)
        lines.append(f"{{{label}}} & " + " & ".join(cells) + r" \\")  # in braces: a [ after \\ would be read as its option
    notes = [rf"\par\footnotesize {_escape(note.rstrip('.'))}." for note in table.footnotes()]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", *notes, r"\end{table*}", ""])


def bucket_title(bucket: str) -> str:
    """A bucket of hole shares with its unit; other names as they are."""
    return f"{bucket} %" if re.fullmatch(r"[\d.]+-[\d.]+", bucket) else bucket


def _text(cell: Cell | None, metric: str, with_interval: bool = False) -> str:
    if cell is None:
        return "-"
    if cell.summary is None:
        return "n/a"
    s, digits = cell.summary, column(metric).digits
    text = f"{s.mean:.{digits}f}"
    if with_interval and not math.isnan(s.low):
        text += f" [{s.low:.{digits}f}, {s.high:.{digits}f}]"
    if s.count and (with_interval or metric in COUNTED):
        text += f" (n={s.count})"
    return text


def _escape(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, rf"\{character}" if character != "\\" else r"\textbackslash ")
    return text.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ").replace("<", r"$<$").replace(">", r"$>$")
