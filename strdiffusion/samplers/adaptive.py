"""Adaptive resampling: denoise the structure again, and let the discriminator decide whether the result agrees better with the texture.

Decisions are made for each image on its own. An image whose resampling has stopped is not evaluated further in that step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from strdiffusion.samplers.plain import late_stage
from strdiffusion.samplers.sampling import Sampling
from strdiffusion.samplers.state import Moment
from strdiffusion.system.parser import Count, Positive

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

    u_max: Positive = 25
    u_min: Positive = 4
    jump: Positive = 2
    re: Count = 2
    accept: Accept = "lower"

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure(n)
            x = run.structure_step(k, x, n)
            y1 = run.texture_step(y, x.x, n)
            D1 = run.score(y1, x, n)  # all resamplings of this step are compared with it

            back = min(self.re, run.N - n + 1) if n % self.jump == 0 else 0
            rows = run.rows if back else []
            for i in range(1, self.u_max):
                if not rows:
                    break
                part = run.at(rows)
                x2 = part.redo_structure(k[rows], x[rows], n, back)
                y2 = part.texture_step(y[rows], x2.x, n)
                better = is_better(part.score(y2, x2, n), D1[rows], self.accept)

                decisions = ["accepted" if b else "averaged" if i < self.u_min else "stopped" for b in better.tolist()]
                share = torch.tensor([SHARE[decision] for decision in decisions], device=better.device)
                x, y1 = x.mix(rows, x2, share), y1.mix(rows, y2, share)
                part.record(decisions)
                rows = [row for row, decision in zip(rows, decisions) if decision != "stopped"]
            y, x = y1, run.paste(k, x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


@dataclass
class Paper:
    """Adaptive resampling as the paper describes it (spec sec. 7, `paper`).

    While the best score so far is worse than the threshold, and at most u_max times in a step, the best structure is noised by `re`
    steps and denoised back. The best pair is kept. `jump` and `accept` are as in `Released`.
    """

    threshold: float = 0.0
    u_max: Positive = 5
    jump: Positive = 1
    re: Count = 1
    accept: Accept = "higher"

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure(n)
            x = run.structure_step(k, x, n)
            y1 = run.texture_step(y, x.x, n)
            best = run.score(y1, x, n)

            back = min(self.re, run.N - n + 1) if n % self.jump == 0 else 0
            for _ in range(self.u_max if back else 0):
                rows = [row for row in run.rows if is_better(self.threshold, best[row].item(), self.accept)]
                if not rows:
                    break
                part = run.at(rows)
                x2 = part.redo_structure(k[rows], x[rows], n, back)
                y2 = part.texture_step(y[rows], x2.x, n)
                D2 = part.score(y2, x2, n)
                better = is_better(D2, best[rows], self.accept)

                x, y1 = x.mix(rows, x2, better.float()), y1.mix(rows, y2, better.float())
                best = best.index_put((torch.tensor(rows, device=best.device),), torch.where(better, D2, best[rows]))
                part.record("accepted" if b else "rejected" for b in better.tolist())
            y, x = y1, run.paste(k, x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


SHARE = {"accepted": 1.0, "averaged": 0.5, "stopped": 0.0}  # the weight of the resampled pair


def is_better(a: Tensor | float, b: Tensor | float, accept: Accept) -> Tensor | bool:
    """Whether score a is strictly better than b."""
    return a < b if accept == "lower" else a > b
