"""The number of network evaluations of a sampler, counted in a run on one pixel with networks that do nothing."""

from itertools import count

import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.denoiser import Denoiser
from strdiffusion.methods.method import Evaluations
from strdiffusion.samplers import Begin, Networks, SamplerConfig, Sampling, SeededNoise, sample
from strdiffusion.samplers.sampling import NETWORKS
from strdiffusion.sde import MeanRevertingSDE


def count_evaluations(
    config: SamplerConfig, sde: MeanRevertingSDE, guided: bool, begin: int | None = None, joint: bool = False
) -> dict[str, Evaluations]:
    """The evaluations of each network for one image, from T or from the time `begin`. The sampler runs twice, with scores that always
    rise and with scores that always fall: these are the two extremes of its decisions.
    """
    runs = [_run(config, sde, guided, begin, joint, direction) for direction in (1, -1)]
    return {name: Evaluations(min(run[name] for run in runs), max(run[name] for run in runs)) for name in NETWORKS}


def _run(config: SamplerConfig, sde: MeanRevertingSDE, guided: bool, begin: int | None, joint: bool, direction: int) -> dict[str, int]:
    scores = count(1)

    def score(texture: Tensor, structure: Tensor, t: int, group: int = 1) -> Tensor:
        return torch.full((1,), float(direction * (10**6 + next(scores))))

    nothing = Denoiser(lambda x, *_: torch.zeros_like(x), sde)
    pixel = torch.ones(1, 1, 1, 1)
    rgb = pixel.expand(1, 3, 1, 1)
    known = Known(rgb, pixel, {"structure": pixel, "structure_mean": pixel})
    where = None if begin is None else Begin(begin, rgb, pixel)
    run = Sampling(Networks(nothing, nothing if guided else None, score), known, SeededNoise([0]), config, where)
    trace = sample(config.sampler(guided, joint), run).traces[0]
    return {name: trace.evaluations(name) for name in NETWORKS}
