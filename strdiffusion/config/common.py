"""Options that trainings, tests and evaluations share."""

from dataclasses import dataclass
from typing import Annotated, Literal

from strdiffusion.data.masks import Polarity
from strdiffusion.data.structure import EdgeSource, StructurePair
from strdiffusion.ddpm import NoiseSchedule
from strdiffusion.sde import MeanFill, Rounding, Schedule
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range, Share

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass
class SDEConfig:
    """The mean-reverting SDE (spec sec. 2). Checkpoints record it; released files do not.

    rounding: of the optimum step: "released" cancels in float32 as the release's training does.
    mean_fill: what the texture's mean holds in the hole: the released IR-SDE was trained with "white", all else with "black"; null: black,
        but for a released file of IR-SDE it must be stated.
    """

    T: Annotated[int, Range(2, 10_000)] = 100
    schedule: Schedule = "cosine"
    max_sigma: Annotated[float, Range(0, open_low=True)] = 30.0
    eps: Annotated[float, Range(1e-12, 0.5)] = 0.005
    rounding: Rounding = "exact"
    mean_fill: MeanFill | None = None


@dataclass
class ProcessConfig:
    """The diffusion process of a prior (docs/repaint_spec.md sec. 4): its number of steps S and its variances."""

    steps: Annotated[int, Range(2, 10_000)] = 1000
    schedule: NoiseSchedule = "linear"


@dataclass
class StructureConfig:
    """Structure maps (spec sec. 3), or "labels" of which nothing is known, for the joint form (sec. 11)."""

    pair: StructurePair = "gray2edge"
    edge_source: EdgeSource = "full"
    edge_sigma: Annotated[float, Range(0, open_low=True)] = 2.0


@dataclass
class MaskConfig:
    """Where masks come from: a folder of files, or generated strokes whose share of the image lies in hole_share."""

    folder: str | None = None
    polarity: Polarity = "white_hole"
    hole_share: tuple[Share, Share] = (0.1, 0.5)


def check_hole_share_option(key: str, masks: MaskConfig) -> None:
    low, high = masks.hole_share
    if not 0 < low < high < 1:
        raise UserError(f"{key} must be two shares with 0 < first < second < 1, not [{low:g}, {high:g}]")
