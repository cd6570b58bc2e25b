"""How many network evaluations a sampler will take, found by running it on one pixel with networks that do nothing."""

from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork
from strdiffusion.config.common import SDEConfig
from strdiffusion.config.testing import SamplerConfig
from strdiffusion.methods.inpainting import Inpainter, Networks
from strdiffusion.networks import KINDS, Kind
from strdiffusion.samplers import Begin
from strdiffusion.sde import MeanRevertingSDE


@dataclass(frozen=True)
class Evaluations:
    """The least and the most evaluations of a network; they differ where a discriminator decides."""

    least: int
    most: int

    def __mul__(self, times: int) -> "Evaluations":
        return Evaluations(self.least * times, self.most * times)

    def __add__(self, other: "Evaluations") -> "Evaluations":
        return Evaluations(self.least + other.least, self.most + other.most)


def count_evaluations(sampler: SamplerConfig, sde: SDEConfig, begin: int | None = None) -> dict[Kind, Evaluations]:
    """The evaluations for one image, from T or from the time `begin`. A score that always rises, and one that always falls, are the
    two extremes of every decision.
    """
    runs = [_run(sampler, sde, begin, direction) for direction in (1, -1)]
    return {kind: Evaluations(min(run[kind] for run in runs), max(run[kind] for run in runs)) for kind in KINDS}


def _run(sampler: SamplerConfig, sde: SDEConfig, begin: int | None, direction: int) -> dict[Kind, int]:
    scores = count(1)

    def score(texture: Tensor, structure: Tensor, t: int, group: int = 1) -> Tensor:
        return torch.full((1,), float(direction * (10**6 + next(scores))))

    def evaluate(kind: Kind, _):
        return score if kind == "discriminator" else lambda x, *_: torch.zeros_like(x)

    networks = Networks(*(LoadedNetwork(kind, None, None, False) for kind in ("texture", "structure", "discriminator")))
    pixel = torch.ones(1, 1, 1, 1)
    inpainter = Inpainter(networks, MeanRevertingSDE(**vars(sde)), sampler, torch.device("cpu"), "fp32", evaluate)
    rgb = pixel.expand(1, 3, 1, 1)
    where = None if begin is None else Begin(begin, rgb, pixel)
    trace = inpainter(Batch(rgb, pixel, pixel, pixel), [0], begin=where).traces[0]
    return {kind: trace.evaluations(kind) for kind in KINDS}
