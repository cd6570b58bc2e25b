"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Literal

Align = Literal["left", "right"]


def markdown_table(lines: Sequence[Sequence[str]], align: Align | None = None, marked: bool = False) -> str:
    """A table of lines of cells. The first line is the header.

    align: the side to which cells are padded; None leaves cells unpadded.
    marked: mark the columns as right-aligned in the rule below the header, for renderers.
    """
    if align is None:
        rows = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines]
        return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - marked) + ":" * marked for width in widths]
    pad = str.ljust if align == "left" else str.rjust
    padded = [[pad(cell, width) for cell, width in zip(line, widths, strict=True)] for line in (lines[0], rule, *lines[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)
