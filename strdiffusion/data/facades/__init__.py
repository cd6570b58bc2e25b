"""Procedural street facades: the images of the benchmark, drawn from their number alone.

`street` draws a scene from `building`s, `windows` and `materials` on a `canvas`; `dice` is where all chance comes from.
"""

from strdiffusion.data.facades.drawing import SIZES, SPLITS, VERSION, draw_facade
from strdiffusion.data.facades.files import write_facades

__all__ = ["SIZES", "SPLITS", "VERSION", "draw_facade", "write_facades"]
