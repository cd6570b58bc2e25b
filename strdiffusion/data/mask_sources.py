"""Where training masks come from: a folder of mask files, or a generator."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from strdiffusion.data.listing import find_images
from strdiffusion.data.mask_families import BOXES, DEFAULT_SHARE, Phase, TrainingFamily, draw_mask
from strdiffusion.data.masks import (
    Polarity,
    check_hole_share,
    irregular_mask,
    read_mask,
    resize_mask,
    sampled_hole_shares,
    warn_if_inverted,
)
from strdiffusion.system.errors import UserError


class MaskError(UserError):
    """A mask file cannot be used."""


class MaskSource(Protocol):
    """Anything that draws a mask known (height, width), 1 = known, determined by `rng` only.

    files: those it draws from, none if it generates them. `draw` raises MaskError if one of them cannot be used.
    """

    files: list[Path]

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray: ...


class MaskFolder:
    """Draws a random mask file of a folder, resized and randomly flipped.

    Warns once if the masks look inverted. `index` as in `find_images`, whose errors are raised.
    """

    def __init__(self, folder: str | os.PathLike, polarity: Polarity = "white_hole", index: str | os.PathLike | None = None):
        self.files = find_images(Path(folder).expanduser(), index)
        self.polarity = polarity
        warn_if_inverted(sampled_hole_shares(self.files, polarity), polarity)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        try:
            known = read_mask(self.files[rng.integers(len(self.files))], self.polarity)
        except UserError as error:
            raise MaskError(str(error)) from None
        known = resize_mask(known, height, width)
        flip_rows, flip_columns = rng.integers(0, 2, 2)
        return np.ascontiguousarray(known[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


class GeneratedMasks:
    """Draws masks of a family. The share of free-form masks and of boxes lies in the closed range `hole_share`."""

    def __init__(self, hole_share: tuple[float, float] = DEFAULT_SHARE, family: TrainingFamily = "irregular", phase: Phase = 0):
        check_hole_share(hole_share)
        self.files: list[Path] = []
        self.hole_share, self.family, self.phase = hole_share, family, phase

    def draw(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        family = self.family
        if family == "mixed":
            family = "random_box" if rng.integers(2) else "irregular"
        if family == "irregular":
            return irregular_mask(rng, height, width, self.hole_share)
        return draw_mask(family, rng, height, width, self.hole_share if family in BOXES else None, phase=self.phase)
