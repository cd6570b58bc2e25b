"""How the masks of a test are drawn if there are no files, in a form that results.csv records and that can be drawn again."""

import re
from dataclasses import dataclass

import numpy as np

from strdiffusion.data.mask_families import BOXES, DEFAULT_SHARE, FAMILIES, PHASED, Family, Phase, numbered_mask
from strdiffusion.data.masks import irregular_mask, stable_hash

PREFIX = "generated:"
RULE = re.compile(PREFIX + r"seed=(\d+)(?::family=(\w+):number=(\d+))?(?::phase=([01]))?(?::share=([\d.]+)-([\d.]+))?")


@dataclass(frozen=True)
class MaskRule:
    """The mask of one test image: it depends on these values and on the image's size alone.

    Irregular masks hang on the seed and the image's name, their share lies in hole_share. All other families hang on the seed and the
    image's number, 0, 1, ..., and are those that scripts/make_masks.py numbers so; boxes have a hole_share, see `mask_families.random_box`;
    families of lines and single pixels have a phase, see `mask_families.every_second_line`.
    """

    seed: int
    name: str
    number: int
    family: Family = "irregular"
    hole_share: tuple[float, float] = DEFAULT_SHARE
    phase: Phase = 0

    def draw(self, height: int, width: int) -> np.ndarray:
        """known (height, width), 1 = known. Raises UserError if an image of this size cannot have such a mask."""
        if self.family == "irregular":
            rng = np.random.default_rng(stable_hash(f"{self.seed}:{self.name}"))
            return irregular_mask(rng, height, width, self.hole_share)
        share = self.hole_share if self.family in BOXES else None
        return numbered_mask(self.family, self.seed, self.number, height, width, hole_share=share, phase=self.phase)

    def __str__(self) -> str:
        """The form in results.csv, which leaves out the image's name."""
        family = "" if self.family == "irregular" else f":family={self.family}:number={self.number}"
        share = f":share={self.hole_share[0]}-{self.hole_share[1]}" if self.family in ("irregular", *BOXES) else ""
        phase = f":phase={self.phase}" if self.phase else ""  # 0 is not written, as in older results
        return f"{PREFIX}seed={self.seed}{family}{phase}{share}"

    @classmethod
    def parse(cls, text: str, name: str) -> "MaskRule | None":
        """The rule that results.csv records for the image `name`; None if this is none."""
        found = RULE.fullmatch(text)
        if found is None:
            return None
        seed, family, number, phase, low, high = found.groups()
        if (family or "irregular") not in FAMILIES or (phase is not None and family not in PHASED):
            return None
        share = DEFAULT_SHARE if low is None else (float(low), float(high))
        return cls(int(seed), name, int(number or 0), family or "irregular", share, int(phase or 0))
