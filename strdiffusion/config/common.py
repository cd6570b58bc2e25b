"""Options that trainings, tests and evaluations share."""

from dataclasses import dataclass
from typing import Literal

from strdiffusion.data.mask_families import BOXES, BUCKETED, DEFAULT_SHARE, PHASED, Family, Phase
from strdiffusion.data.masks import Polarity
from strdiffusion.data.structure import StructureConfig
from strdiffusion.ddpm import ProcessConfig
from strdiffusion.sde import SDEConfig
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Share

__all__ = ["Device", "MaskConfig", "ProcessConfig", "SDEConfig", "StructureConfig"]

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass
class MaskConfig:
    """Where masks come from: a folder of files, or a family of masks that are drawn. The share of strokes (irregular) and of boxes lies in
    hole_share. phase: the first row, and column, that the families every_second_line and super_resolution know; RePaint's files have 1.
    """

    folder: str | None = None
    polarity: Polarity = "white_hole"
    hole_share: tuple[Share, Share] = DEFAULT_SHARE
    family: Family = "irregular"
    phase: Phase = 0

    def check(self, key: str) -> None:
        """Check the options, which stand under `key`. Raises UserError."""
        low, high = self.hole_share
        box = self.family in BOXES
        if self.folder is not None and self.family != "irregular":
            raise UserError(f"{key}.folder and {key}.family={self.family} exclude each other: masks are read from files or drawn")
        if not (box or self.family in BUCKETED or self.family == "mixed") and self.hole_share != DEFAULT_SHARE:
            raise UserError(f"{key}.hole_share has no effect on {key}.family={self.family}: remove it, or set it to {list(DEFAULT_SHARE)}")
        if self.phase and self.family not in PHASED:
            raise UserError(f"{key}.phase={self.phase} has no effect on {key}.family={self.family}: only {', '.join(PHASED)} have a phase")
        if not (0 < low < high < 1 or box and 0 < low == high < 1):
            raise UserError(
                f"{key}.hole_share must be two shares with 0 < first {'<=' if box else '<'} second < 1, not [{low:g}, {high:g}]"
            )
