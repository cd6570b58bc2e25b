"""Which rows of a table win its columns: the best mean, and all rows that cannot be told from it."""

from collections.abc import Mapping
from pathlib import Path

from strdiffusion.evaluation.columns import column, is_compared, is_of_image
from strdiffusion.evaluation.compare import Cell
from strdiffusion.evaluation.differences import paired_differences
from strdiffusion.evaluation.tablecells import ImageNumbers
from strdiffusion.system.errors import UserError

NOTE = (
    "bold: the best of its column, and all rows whose difference to it, image by image, has a 95% interval around 0; of FID and KID "
    "the best alone; rows with fewer images than others are not compared"
)


def winners(metric: str, cells: Mapping[str, Cell], folders: Mapping[str, Path], numbers: Mapping[Path, ImageNumbers]) -> set[str]:
    """The labels of the rows that win a column; none for costs, and where fewer than two rows have the number.

    cells: by label; folders: of the runs, and the numbers of each. Rows with fewer images than others do not take part, since their
    images may be easier; if rows have different images or masks, none wins.
    """
    found = {label: cell.summary for label, cell in cells.items() if cell.summary is not None}
    most = max((summary.count for summary in found.values()), default=0)
    found = {label: summary for label, summary in found.items() if summary.count == most}
    if not is_compared(metric) and metric not in ("fid", "kid") or len(found) < 2:
        return set()
    best = min(found, key=lambda label: loss(metric, found[label].mean))
    if not is_of_image(metric):
        return {best}
    try:
        against = {label: paired_differences(folders[label], folders[best], [metric], numbers)[metric].summary for label in found}
    except UserError:  # a row has images or masks of its own
        return set()
    return {label for label, difference in against.items() if difference is not None and difference.low <= 0 <= difference.high}


def loss(metric: str, mean: float) -> float:
    """Smaller is better."""
    return {"up": -mean, "down": mean, "one": abs(mean - 1)}[column(metric).better]
