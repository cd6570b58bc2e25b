"""Procedural street facades: the images of the benchmark, drawn from their number alone.

`facades:64/train` and the like may stand wherever a folder of images is asked for (`virtual`). `street` draws a scene from
`building`s, `windows` and `materials` on a `sheet`, which keeps colours and classes; `dice` is where all chance comes from.
"""

from strdiffusion.data.facades.drawing import SIZES, SPLITS, VERSION, colour_labels, draw_cutout, draw_facade, draw_labels, draw_scene
from strdiffusion.data.facades.sheet import CLASSES
from strdiffusion.data.facades.virtual import is_virtual, list_facades, read_facade, read_facade_labels

__all__ = [
    "CLASSES",
    "SIZES",
    "SPLITS",
    "VERSION",
    "colour_labels",
    "draw_cutout",
    "draw_facade",
    "draw_labels",
    "draw_scene",
    "is_virtual",
    "list_facades",
    "read_facade",
    "read_facade_labels",
]
