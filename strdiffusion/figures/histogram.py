"""A histogram of the hole shares of a folder of masks."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import find_images, read_mask
from strdiffusion.data.masks import CONTACT_SHEET, SUSPICIOUS_SHARE, Polarity, count_buckets, hole_share, other_polarity
from strdiffusion.figures.style import BLUE, ONE_COLUMN, new_figure, styled
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def hole_shares(folder: Path, polarity: Polarity) -> list[float]:
    """The hole share in [0,1] of every mask file below `folder`. A file that cannot be read is reported and left out.

    Raises UserError if none can be read.
    """
    files = [path for path in find_images(folder.expanduser()) if path.name != CONTACT_SHEET]
    shares, problems = [], []
    for path in files:
        try:
            shares.append(hole_share(read_mask(path, polarity)))
        except UserError as error:
            problems.append(str(error))
    if not shares:
        raise UserError(f"none of the {len(files)} masks in {folder} can be read, the first because: {problems[0]}")
    for problem in problems:
        log.warning("left out: %s", problem)
    if np.median(shares) > SUSPICIOUS_SHARE:
        log.warning(
            "the masks look inverted: with --polarity %s the hole covers %.0f %% of the median mask; if that is not meant, "
            "give --polarity %s",
            polarity,
            100 * np.median(shares),
            other_polarity(polarity),
        )
    return shares


@styled
def histogram_figure(shares: Sequence[float], title: str) -> "Figure":
    """Draw the buckets of 10 %, with the count on each bar."""
    from matplotlib.ticker import MaxNLocator

    counts = count_buckets(shares)
    figure = new_figure(ONE_COLUMN, 5.5)
    axes = figure.subplots()
    bars = axes.bar(np.arange(10) * 10 + 5, counts, width=9, color=BLUE)
    axes.bar_label(bars, [str(count) if count else "" for count in counts], padding=1)
    axes.margins(y=0.12)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 10))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlabel("hole share of the mask (%)")
    axes.set_ylabel("number of masks")
    axes.set_title(title, loc="left")
    return figure
