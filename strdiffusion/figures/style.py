"""The common look of the figures, and saving them. Lengths are in cm on paper; figures are printed without scaling."""

import functools
import io
import logging
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

ONE_COLUMN, TWO_COLUMNS = 8.5, 17.5  # cm
CM = 1 / 2.54  # inches
FONT_SIZE = 7.5  # points
PNG_DPI = 200
# Okabe and Ito's palette without yellow, which is too pale for lines on white
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"
GRAY = "#777777"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GRAY)
DASHED = (0, (3, 1.5))
LOOK = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "figure.titlesize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "legend.title_fontsize": FONT_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "legend.labelspacing": 0.3,
    "legend.borderpad": 0.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "pdf.fonttype": 42,  # TrueType, embedded: text stays text
    "text.parse_math": False,  # a $ in a file name or label is a $
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw in the common look, independent of the user's matplotlibrc."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        with matplotlib.style.context(["default", LOOK]):
            return draw(*args, **kwargs)

    return wrapped


def new_figure(width: float, height: float, layout: str | None = "constrained") -> "Figure":
    """An empty figure of this size in cm, made without pyplot, so that no window system is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width * CM, height * CM), layout=layout)


def text_width(text: str) -> float:
    """The width of a line of text in cm, at the figures' font and size."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=LOOK["font.family"], size=FONT_SIZE)
    return TextPath((0, 0), text, prop=font, usetex=False).get_extents().xmax / CM / 72 if text.strip() else 0.0


@styled
def fit_text(text: str, width: float, lines: int = 1) -> str:
    """Break and shorten a text so that it stays within `width` cm."""
    text = " ".join(text.split())[:500]
    for room in range(max(len(text), 1), 0, -1):
        pieces = textwrap.wrap(text, room) or [""]
        kept = pieces if len(pieces) <= lines else [*pieces[: lines - 1], pieces[lines - 1][: max(room - 1, 1)] + "…"]
        if all(text_width(piece) <= width for piece in kept):
            break
    return "\n".join(kept)


def time_axis(axes, T: int, narrow: bool = False) -> None:
    """Let t run from T on the left to 0 on the right, in the order of sampling."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(T + 0.5, -0.5)
    if narrow:
        axes.set_xticks([T, T // 2, 0])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("step t" if narrow else "step t (sampling runs from left to right)")


def log_scale(axis) -> None:
    """A logarithmic axis with plain numbers: 0.5, 1, 2, 5, 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes) -> None:
    """A legend above the axes, outside of the plot, if anything is labelled."""
    count = len(axes.get_legend_handles_labels()[1])
    if count:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=count if count <= 3 else 2, borderaxespad=0)


def check_labels(labels: list[str]) -> None:
    """Raise UserError unless the labels are different and visible, and at most as many as there are colours."""
    if not 1 <= len(labels) <= len(COLOURS):
        raise UserError(f"a figure compares 1 to {len(COLOURS)} methods, not {len(labels)}")
    for label in labels:
        if not label.strip() or label.startswith("_"):
            raise UserError(f"the label {label!r} cannot be shown: it must not be empty or begin with _")
        if labels.count(label) > 1:
            raise UserError(f"the label {label!r} is given to several methods: give each its own")


def figure_files(out: str | Path) -> list[Path]:
    """The files OUT.png and OUT.pdf (OUT may end in either)."""
    out = Path(out).expanduser()
    if out.suffix in (".png", ".pdf"):
        out = out.with_suffix("")
    return [out.with_name(out.name + suffix) for suffix in (".png", ".pdf")]


@styled
def save_figure(figure: "Figure", paths: list[Path], into: Together) -> None:
    """Write a figure to these files of `into`, in the formats of their suffixes. They hold no date, so the same figure gives the same
    bytes. Raises OSError.
    """
    metadata = {".png": {"Software": "strdiffusion"}, ".pdf": {"Creator": "strdiffusion", "Producer": "matplotlib", "CreationDate": None}}
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every embedded font
    for path in paths:
        for axes in figure.axes:
            for image in axes.images:  # a PDF holds the original pixels
                image.set_interpolation("none" if path.suffix == ".pdf" else "auto")
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], dpi=PNG_DPI, metadata=metadata[path.suffix])
        into.write(path, content.getvalue())
