"""The facades and their labels as PNG files: a module of its own, since other processes import it."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from strdiffusion.data.facades import draw_scene
from strdiffusion.data.images import is_whole_png, write_image

LABELS = "labels"  # the folder beside those of the splits


def write_facades(folder: Path, split: str, size: int, count: int, workers: int = 1) -> Iterator[int]:
    """Draw the first `count` images of a split to folder/SPLIT/00000.png and so on, and their labels to folder/labels/SPLIT.

    Yields the number of each as it is done. Whole files that are there stay as they are, so an interrupted run can be gone on with.
    """
    write = partial(write_facade, folder=folder, split=split, size=size)
    if workers == 1:
        yield from map(write, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, range(count), chunksize=16)


def write_facade(number: int, folder: Path, split: str, size: int) -> int:
    paths = [folder / part / f"{number:05d}.png" for part in (split, Path(LABELS, split))]
    missing = [not is_whole_png(path) for path in paths]
    if any(missing):
        for path, plane, wanted in zip(paths, draw_scene(split, number, size), missing, strict=True):
            if wanted:
                write_image(path, plane / 255)
    return number
