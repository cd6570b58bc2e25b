"""A comparison grid: rows are images, columns are methods."""

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import find_images, read_image
from strdiffusion.data.testset import Fit, fit_image, item_names
from strdiffusion.evaluation.columns import PAIRED
from strdiffusion.evaluation.options import TestDataConfig
from strdiffusion.evaluation.table import read_rows
from strdiffusion.evaluation.tablecells import image_numbers
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


def disagreements(folders: Sequence[Path], metric: str, count: int) -> dict[str, list[float]]:
    """Where results differ most: the `count` images with the largest range of a metric over result folders, and their numbers.

    folders: of scripts/test.py, or of rows of a table, which also have the judge's numbers. Raises UserError.
    """
    if len(folders) < 2:
        raise UserError("results disagree with each other: give at least two result folders")
    runs = [numbers_of(folder.expanduser(), metric) for folder in folders]
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    if not shared:
        raise UserError(f"no image has {metric} in all of {', '.join(map(str, folders))}")
    found = {name: [run[name] for run in runs] for name in shared}
    most = sorted(found, key=lambda name: min(found[name]) - max(found[name]))
    return {name: found[name] for name in most[:count]}


def numbers_of(folder: Path, metric: str) -> dict[str, float]:
    """A metric by image, of a result folder. Raises UserError if it has none."""
    kept = {name: values.get(metric) for name, values in image_numbers(folder).values.items()}
    if not any(value is not None for value in kept.values()) and metric in PAIRED:
        kept = {row.name: row.number(metric) for row in read_rows(folder / "results.csv")}
    numbers = {name: value for name, value in kept.items() if value is not None and math.isfinite(value)}
    if not numbers:
        raise UserError(
            f"{folder} has no {metric} of its images: a result folder of scripts/test.py has {', '.join(PAIRED)}, "
            "and the folders below `runs` of a table have its metrics"
        )
    return numbers


def grid_figure(columns: Sequence[Column], names: Sequence[str], captions: Mapping[str, Sequence[str]] | None = None) -> "Figure":
    """Draw these images of all columns; captions: by the label of a column, what is written below its pictures.

    A picture that is missing or cannot be read is left blank; one line reports all of them.
    """
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
    below = (
        [[captions[column.label][i] if column.label in captions else "" for column in columns] for i in range(len(names))]
        if captions
        else ()
    )
    return table_figure(cells, [column.label for column in columns], names, captions=below)


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
