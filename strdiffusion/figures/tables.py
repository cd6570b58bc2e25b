"""Pictures in rows and columns, with titles. The layout is computed here, so that cells are exactly as wide as the page allows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.figures.style import CM, FONT_SIZE, GRAY, ONE_COLUMN, TWO_COLUMNS, fit_text, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 0.08  # cm between cells
LINE = FONT_SIZE * 1.25 / 72 / CM  # cm, height of a line of text
MOST_COLUMNS_IN_ONE = 5
MARGIN = 0.05  # cm, right and below, so that no frame is cut off
GROUP_GAP = 0.2  # cm between groups of rows

Panel = np.ndarray | str  # a picture (H,W) or (H,W,3) with values in [0,1], or why there is none


@styled
def table_figure(
    cells: Sequence[Sequence[Panel]],
    columns: Sequence[str],
    rows: Sequence[str],
    groups: Sequence[tuple[str, int]] = (),
    captions: Sequence[Sequence[str]] = (),
) -> "Figure":
    """A table of pictures, one Axes per cell, row by row.

    Args:
        cells: rows of cells, each as long as `columns`.
        columns, rows: titles.
        groups: title and number of rows of each group of rows; empty for no groups.
        captions: a line below each cell; empty for none.
    """
    width = ONE_COLUMN if len(columns) <= MOST_COLUMNS_IN_ONE else TWO_COLUMNS
    left = LINE * 1.3 * (2 if groups else 1)
    cell_width = (width - left - MARGIN - GAP * (len(columns) - 1)) / len(columns)
    titles = [fit_text(column, cell_width, lines=2) for column in columns]
    top = LINE * (max(title.count("\n") for title in titles) + 1) + GAP
    below = LINE * 1.1 if captions else 0
    heights = [height + below for height in row_heights(cells, cell_width)]
    first_of_group = set(np.cumsum([count for _, count in groups][:-1]).tolist())
    gaps = [0 if i == 0 else GROUP_GAP if i in first_of_group else GAP for i in range(len(cells))]
    height = top + sum(heights) + sum(gaps) + MARGIN

    figure = new_figure(width, height, layout=None)
    for j, title in enumerate(titles):
        x = left + j * (cell_width + GAP) + cell_width / 2
        figure.text(x / width, 1 - (top - GAP) / height, title, ha="center", va="bottom")
    bottoms = height - top - np.cumsum(heights) - np.cumsum(gaps)
    for i, row in enumerate(cells):
        _side_title(figure, rows[i], left - LINE * 0.65, bottoms[i] + below, heights[i] - below)
        for j, cell in enumerate(row):
            x = left + j * (cell_width + GAP)
            axes = figure.add_axes((x / width, (bottoms[i] + below) / height, cell_width / width, (heights[i] - below) / height))
            _fill(axes, cell, cell_width)
            if captions:
                caption = fit_text(captions[i][j], cell_width)
                figure.text((x + cell_width / 2) / width, (bottoms[i] + below * 0.9) / height, caption, ha="center", va="top")
    last = 0
    for title, count in groups:
        first, last = last, last + count
        _side_title(figure, title, LINE * 0.65, bottoms[last - 1], bottoms[first] + heights[first] - bottoms[last - 1], bold=True)
    return figure


def row_heights(cells: Sequence[Sequence[Panel]], cell_width: float) -> list[float]:
    """The height in cm of each row: that of its first picture; square if there is none."""
    heights = []
    for row in cells:
        shape = next((cell.shape for cell in row if not isinstance(cell, str)), (1, 1))
        heights.append(cell_width * shape[0] / shape[1])
    return heights


def _side_title(figure: "Figure", text: str, x: float, bottom: float, length: float, bold: bool = False) -> None:
    """Write a text vertically, centred on a range of `length` cm that begins at `bottom` cm."""
    width, height = (side / CM for side in figure.get_size_inches())
    weight = "bold" if bold else "normal"
    shown = fit_text(text, length * (0.9 if bold else 1))
    figure.text(x / width, (bottom + length / 2) / height, shown, rotation=90, ha="center", va="center", weight=weight)


def _fill(axes, cell: Panel, cell_width: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(isinstance(cell, str))
        spine.set(color=GRAY, linewidth=0.4, linestyle=(0, (3, 3)))
    if isinstance(cell, str):
        axes.text(0.5, 0.5, fit_text(cell, cell_width, lines=3), transform=axes.transAxes, ha="center", va="center", color=GRAY)
    else:
        axes.set_facecolor("none")
        axes.imshow(np.clip(cell, 0, 1), cmap="gray", vmin=0, vmax=1)
