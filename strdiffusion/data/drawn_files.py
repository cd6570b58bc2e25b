"""Drawn images as PNG files, facades with their labels: a module of its own, since other processes import it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from strdiffusion.data.facades import draw_scene
from strdiffusion.data.images import is_whole_png, write_image
from strdiffusion.data.leaves import draw_leaves

LABELS = "labels"  # the folder beside those of the splits
Drawn = Literal["facades", "leaves"]
DRAW: dict[Drawn, Callable[[str, int, int], tuple[np.ndarray, ...]]] = {
    "facades": draw_scene,  # image and labels
    "leaves": lambda split, number, size: (draw_leaves(split, number, size),),
}


def write_drawn(images: Drawn, folder: Path, split: str, size: int, count: int, workers: int = 1) -> Iterator[int]:
    """Draw the first `count` images of a split to folder/SPLIT/00000.png and so on, and labels, if there are, to folder/labels/SPLIT.

    Yields the number of each as it is done. Whole files that are there stay as they are, so an interrupted run can be gone on with.
    """
    write = partial(write_one, images, folder=folder, split=split, size=size)
    if workers == 1:
        yield from map(write, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, range(count), chunksize=16)


def write_one(images: Drawn, number: int, folder: Path, split: str, size: int) -> int:
    parts = (Path(split), Path(LABELS, split)) if images == "facades" else (Path(split),)
    paths = [folder / part / f"{number:05d}.png" for part in parts]
    missing = [not is_whole_png(path) for path in paths]
    if any(missing):
        for path, plane, wanted in zip(paths, DRAW[images](split, number, size), missing, strict=True):
            if wanted:
                write_image(path, plane / 255)
    return number
