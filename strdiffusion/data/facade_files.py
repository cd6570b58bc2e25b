"""The facades as PNG files: a module of its own, since other processes import it."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from strdiffusion.data.facades import draw_facade
from strdiffusion.data.images import write_image


def write_facades(folder: Path, split: str, size: int, count: int, workers: int = 1) -> Iterator[int]:
    """Draw the first `count` images of a split to folder/00000.png and so on; yields the number of each as it is done.

    Files that are there stay as they are, so an interrupted run can be gone on with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(write_facade, folder=folder, split=split, size=size)
    if workers == 1:
        yield from map(write, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, range(count), chunksize=16)


def write_facade(number: int, folder: Path, split: str, size: int) -> int:
    path = folder / f"{number:05d}.png"
    if not path.exists():
        write_image(path, draw_facade(split, number, size) / 255)
    return number
