"""Figures as PNG and PDF, in the size in which they are printed.

style       the common look: sizes, fonts, colours; saving
tables      pictures in rows and columns, for grid and process
grid        results of several methods, image by image
methods     the methods and images that process and discrepancy compare, and their options
states      the states of texture and structure during sampling
process     the denoising process as a strip of pictures
discrepancy PSNR of known and hole region over t, and the gap between them
guide       the distance of the denoised structure to the true one, which guided in training, over t
trace       scores, decisions and evaluations of adaptive resampling over t
histogram   hole shares of a folder of masks
curves      losses and validation over the iterations of trainings
filling     how DGTS fills: the order of patches, and their weights over the references
schedules   t over the moves of RePaint's schedules, with their counts
tradeoff    quality over evaluations and seconds, of a table's rows

Each module collects its data as a dataclass or arrays. A function `*_figure` then draws them and returns a matplotlib Figure.
"""

from strdiffusion.figures.curves import Curves, curves_figure, read_curves
from strdiffusion.figures.discrepancy import Discrepancy, discrepancy_figure, measure_discrepancy
from strdiffusion.figures.filling import FillingPicture, filling_figure, record_filling
from strdiffusion.figures.grid import Column, grid_figure, open_column
from strdiffusion.figures.guide import GuideDistance, guide_figure, measure_guide
from strdiffusion.figures.histogram import histogram_figure, hole_shares
from strdiffusion.figures.methods import FiguresConfig
from strdiffusion.figures.process import Process, process_figure, record_process
from strdiffusion.figures.schedules import Schedule, read_schedules, schedules_figure
from strdiffusion.figures.style import figure_files, save_figure
from strdiffusion.figures.trace import TraceSummary, read_traces, summarise, trace_figure
from strdiffusion.figures.tradeoff import Point, read_points, tradeoff_figure

__all__ = [
    "Column",
    "Curves",
    "Discrepancy",
    "FiguresConfig",
    "FillingPicture",
    "GuideDistance",
    "Point",
    "Process",
    "Schedule",
    "TraceSummary",
    "figure_files",
    "curves_figure",
    "discrepancy_figure",
    "filling_figure",
    "grid_figure",
    "guide_figure",
    "histogram_figure",
    "hole_shares",
    "measure_discrepancy",
    "measure_guide",
    "open_column",
    "process_figure",
    "read_curves",
    "read_points",
    "read_schedules",
    "read_traces",
    "record_filling",
    "record_process",
    "save_figure",
    "schedules_figure",
    "summarise",
    "trace_figure",
    "tradeoff_figure",
]
