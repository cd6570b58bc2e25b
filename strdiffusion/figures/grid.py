"""A comparison grid: rows are images, columns are methods."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import find_images, read_image
from strdiffusion.data.testset import Fit, fit_image, item_names
from strdiffusion.evaluation.options import TestDataConfig
from strdiffusion.figures.tables import Panel, table_figure
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, read_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MOST_COLUMNS, MOST_ROWS = 12, 60


@dataclass(frozen=True)
class Column:
    """One column: the picture files by image name, and how each is brought to the size of the others (None: not resized)."""

    label: str
    pictures: dict[str, Path]
    fit: tuple[int, Fit] | None = None


def open_column(label: str, folder: Path, kind: str = "inpainted", fit: tuple[int, Fit] | None = None) -> Column:
    """The pictures of a result folder of scripts/test.py (from its folder `kind`), or of any folder of pictures.

    Raises UserError if there are none.
    """
    folder = folder.expanduser()
    if (folder / kind).is_dir():
        folder = folder / kind
    files = find_images(folder)
    return Column(label, dict(zip(item_names(files, folder), files, strict=True)), fit)


def fit_of(result_folder: Path) -> tuple[int, Fit] | None:
    """How scripts/test.py brought images to the size of the results in this folder; None if it is not recorded."""
    path = result_folder.expanduser() / "config.yml"
    if not path.is_file():
        return None
    # only this section: an earlier version may have written other keys elsewhere
    data = build(TestDataConfig, read_yaml(path).get("data"), str(path), "data")
    return data.size, data.fit


def choose_images(methods: Sequence[Column], wanted: Sequence[str], first: int) -> list[str]:
    """The images with these names; without names, the first `first` images of all methods, by name.

    Raises UserError for a name that no method has.
    """
    names = sorted({name for column in methods for name in column.pictures})
    for name in wanted:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            raise UserError(f"no method has an image {name}: " + (f"did you mean {close[0]}?" if close else f"the first is {names[0]}"))
    chosen = list(wanted) or names[:first]
    if len(chosen) > MOST_ROWS:
        raise UserError(f"{len(chosen)} images do not fit on a page: take at most {MOST_ROWS}")
    return chosen


def grid_figure(columns: Sequence[Column], names: Sequence[str]) -> "Figure":
    """Draw these images of all columns. A picture that is missing or cannot be read is left blank; one line reports all of them."""
    if not 1 <= len(columns) <= MOST_COLUMNS:
        raise UserError(f"a grid has 1 to {MOST_COLUMNS} columns, not {len(columns)}")
    blank: list[str] = []
    cells = []
    for name in names:
        row = [read_cell(column, name) for column in columns]
        blank.extend(f"{name} of {column.label} ({cell})" for column, cell in zip(columns, row, strict=True) if isinstance(cell, str))
        warn_of_sizes(columns, name, row)
        cells.append(row)
    if blank:
        log.warning("left blank: %s", ", ".join(blank))
    return table_figure(cells, [column.label for column in columns], names)


def read_cell(column: Column, name: str) -> Panel:
    """The picture (H,W,3) of an image, or "missing" or "unreadable"."""
    if name not in column.pictures:
        return "missing"
    try:
        picture = read_image(column.pictures[name])
    except UserError as error:
        log.warning("%s", error)
        return "unreadable"
    return fit_image(picture, *column.fit) if column.fit else picture


def warn_of_sizes(columns: Sequence[Column], name: str, row: Sequence[Panel]) -> None:
    """Say which pictures of a row are not of the size that most have; they are shown scaled."""
    sizes = [cell.shape[:2] if isinstance(cell, np.ndarray) else None for cell in row]
    known = [size for size in sizes if size]
    usual = max(known, key=known.count, default=None)
    for column, size in zip(columns, sizes, strict=True):
        if size and size != usual:
            log.warning(
                "%s of %s is shown scaled: it has %dx%d pixels, the others have %dx%d (height x width)", name, column.label, *size, *usual
            )
