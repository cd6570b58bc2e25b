"""The facades as a folder that need not exist: `facades:64/train` lists `facades:64/train/00000.png` and so on, drawn when read."""

import os
from pathlib import Path

import numpy as np

from strdiffusion.data.facades.drawing import SPLITS, draw_facade, draw_labels, require_size, require_split
from strdiffusion.system.errors import UserError

PREFIX = "facades:"


def is_virtual(path: str | os.PathLike) -> bool:
    """Whether a folder or file is of the drawn facades, and not on the disk."""
    return os.fspath(path).startswith(PREFIX)


def list_facades(folder: Path) -> list[Path]:
    """The images of a virtual folder. Raises UserError for one that there is not."""
    parts = folder.parts
    if len(parts) != 2 or not parts[0].removeprefix(PREFIX).isdecimal():
        raise UserError(f"{folder} is no set of facades: write {PREFIX}SIZE/SPLIT, for example {PREFIX}64/train")
    require_size(int(parts[0].removeprefix(PREFIX)))
    require_split(parts[1])
    return [folder / f"{number:05d}.png" for number in range(SPLITS[parts[1]])]


def read_facade(path: Path) -> np.ndarray:
    """Draw a file of `list_facades`, float32 (size, size, 3), RGB in [0, 1]. Raises UserError for any other path."""
    return draw_facade(*_facade(path)).astype(np.float32) / np.float32(255)


def read_facade_labels(path: Path) -> np.ndarray:
    """The classes of the pixels of a file of `list_facades`, uint8 (size, size). Raises UserError for any other path."""
    return draw_labels(*_facade(path))


def _facade(path: Path) -> tuple[str, int, int]:
    """The split, number and size that a path names."""
    if len(path.parts) != 3 or not path.stem.isdecimal():
        raise UserError(f"{path} is no facade: the files of a set are named as {PREFIX}64/train/00000.png")
    list_size, split, _ = path.parts
    size = list_size.removeprefix(PREFIX)
    return split, int(path.stem), int(size) if size.isdecimal() else 0
