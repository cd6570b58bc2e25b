"""Procedural street facades: the images of the benchmark, drawn from their number alone.

`facades:64/train` and the like may stand wherever a folder of images is asked for (`virtual`). `street` draws a scene from
`building`s, `windows` and `materials` on a `sheet`; `dice` is where all chance comes from.
"""

from strdiffusion.data.facades.drawing import SIZES, SPLITS, VERSION, draw_facade
from strdiffusion.data.facades.virtual import is_virtual, list_facades, read_facade

__all__ = ["SIZES", "SPLITS", "VERSION", "draw_facade", "is_virtual", "list_facades", "read_facade"]
