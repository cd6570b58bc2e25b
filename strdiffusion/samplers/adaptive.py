"""Adaptive resampling: denoise the structure again, and let the discriminator decide whether the result agrees better with the texture.

Decisions are made for each image on its own. An image whose resampling has stopped is not evaluated further in that step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from strdiffusion.samplers.plain import late_stage
from strdiffusion.samplers.sampling import Back, KnownStructure, Sampling, Times
from strdiffusion.samplers.state import Moment, State
from strdiffusion.system.parser import Positive, Range

Accept = Literal["lower", "higher"]


@dataclass
class Released:
    """Adaptive resampling as released (spec sec. 7), in the release's order of noise draws.

    u_max: at most u_max - 1 resamplings in a step.
    u_min: from the u_min-th resampling on, one that is not accepted ends the step; an earlier one is averaged with the current states.
    jump: resample if the number of steps left (t on the full grid) is a multiple of jump.
    re: the number of grid steps by which noise is added to the structure before it is denoised back.
    accept: which score is better; "lower" as released.
    """

    u_max: Times = 25
    u_min: Times = 4
    jump: Positive = 2
    re: Back = 2
    accept: Accept = "lower"

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure()
            x = run.structure_step(k, x, n)
            y1 = run.texture_step(y, x.guide, n)
            D1 = run.score(y1, x, n)  # all resamplings of this step are compared with it

            rows = list(range(len(run.known))) if self.re and n % self.jump == 0 else []
            for i in range(1, self.u_max):
                if not rows:
                    break
                part = run.at(rows)
                x2, y2, D2 = resample(part, k[rows], x[rows], y[rows], n, self.re)
                better = is_better(D2, D1[rows], self.accept)
                stop = ~better & (i >= self.u_min)
                share = torch.where(better, 1.0, torch.where(stop, 0.0, 0.5))  # the weight of the resampled pair
                x, y1 = x.mix(rows, x2, share), y1.mix(rows, y2, share)
                part.record("accepted" if b else "stopped" if s else "averaged" for b, s in zip(better.tolist(), stop.tolist()))
                rows = [row for row, s in zip(rows, stop.tolist()) if not s]
            y, x = y1, run.paste(k.at(run.grid[n - 1]), x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


@dataclass
class Paper:
    """Adaptive resampling as the paper describes it (spec sec. 7, `paper`).

    While the best score so far is worse than the threshold, and at most u_max times in a step, the best structure is noised by `re`
    steps and denoised back. The best pair is kept. `jump` and `accept` are as in `Released`.
    """

    threshold: Annotated[float, Range(-(10**6), 10**6)] = 0.0
    u_max: Times = 5
    jump: Positive = 1
    re: Back = 1
    accept: Accept = "higher"

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure()
            x = run.structure_step(k, x, n)
            y1 = run.texture_step(y, x.guide, n)
            best = run.score(y1, x, n)

            for _ in range(self.u_max if self.re and n % self.jump == 0 else 0):
                rows = [row for row, score in enumerate(best.tolist()) if is_better(self.threshold, score, self.accept)]
                if not rows:
                    break
                part = run.at(rows)
                x2, y2, D2 = resample(part, k[rows], x[rows], y[rows], n, self.re)
                better = is_better(D2, best[rows], self.accept)
                x, y1 = x.mix(rows, x2, better.float()), y1.mix(rows, y2, better.float())
                best = best.index_put((torch.tensor(rows, device=best.device),), torch.where(better, D2, best[rows]))
                part.record("accepted" if b else "rejected" for b in better.tolist())
            y, x = y1, run.paste(k.at(run.grid[n - 1]), x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


def resample(run: Sampling, k: KnownStructure, x: State, y: State, n: int, re: int) -> tuple[State, State, Tensor]:
    """The structure of step n noised and denoised back, the texture that it guides from y, and the score of this pair."""
    x2 = run.redo_structure(k, x, n, re)
    y2 = run.texture_step(y, x2.guide, n)
    return x2, y2, run.score(y2, x2, n)


def is_better(a: Tensor | float, b: Tensor | float, accept: Accept) -> Tensor | bool:
    """Whether score a is strictly better than b."""
    return a < b if accept == "lower" else a > b
