"""Adaptive resampling: redo the structure where the discriminator finds that it does not agree with the texture."""

from typing import Literal

import torch
from torch import Tensor

from strdiffusion.batch import Batch
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.run import Models, Run, late_stage
from strdiffusion.samplers.trace import Callback, Sample, State

Accept = Literal["lower", "higher"]


@torch.inference_mode()
def sample_released(
    models: Models,
    known: Batch,
    noise: NoiseSource,
    callback: Callback | None = None,
    u_max: int = 25,
    u_min: int = 4,
    jump: int = 2,
    re: int = 2,
    accept: Accept = "lower",
) -> Sample:
    """StrDiffusion with adaptive resampling, as released (spec sec. 7), in the release's order of noise draws.

    Args:
        u_max: at most u_max - 1 resamplings a step.
        u_min: a resampling that is not accepted ends the step from the u_min-th on; before, it is averaged in.
        jump: resample where the number of steps left, on the full grid t itself, is a multiple of jump.
        re: by how many steps of the grid the structure is carried forward and denoised back.
        accept: which score is better; "lower" as released.

    Every image decides for itself; one that has stopped is not evaluated further.
    """
    run = Run(models, known, noise, callback)
    N = run.grid.N
    y, x = run.start()
    for n in range(N, run.grid.early_end - 1, -1):
        run.begin_step(n)
        k = run.known_structure(n)
        x = run.structure_step(k, x, n, run.all)
        y_next = run.texture_step(y, x.x, n, run.all)
        first_score = run.score(y_next, x, n, run.all)

        steps = min(re, N - n + 1) if n % jump == 0 else 0
        active = run.all
        for i in range(1, u_max):
            if not active or steps == 0:
                break
            x_new = run.redo_structure(k[active], x[active], n, steps, active)
            y_new = run.texture_step(y[active], x_new.x, n, active)
            score = run.score(y_new, x_new, n, active)
            accepted = is_better(score, first_score[active], accept)
            weight = torch.where(accepted, 1.0, 0.5 if i < u_min else 0.0)  # of the resampled pair
            x, y_next = blend(x, x_new, weight, active), blend(y_next, y_new, weight, active)
            otherwise = "averaged" if i < u_min else "stopped"
            run.decide(active, ["accepted" if a else otherwise for a in accepted.tolist()])
            active = [row for row, w in zip(active, weight.tolist(), strict=True) if w > 0]
        y, x = y_next, run.paste(k, x, run.all)
        run.end_step(n, y, x)
    return late_stage(run, y, x)


@torch.inference_mode()
def sample_paper(
    models: Models,
    known: Batch,
    noise: NoiseSource,
    callback: Callback | None = None,
    threshold: float = 0.0,
    u_max: int = 5,
    jump: int = 1,
    re: int = 1,
    accept: Accept = "higher",
) -> Sample:
    """StrDiffusion with adaptive resampling, as the paper describes it (spec sec. 7, `paper`).

    While the best score so far is worse than the threshold, and at most u_max times a step, the best structure is
    carried forward by `re` steps and denoised back; the best pair is kept. `jump` and `accept` as in `sample_released`.
    """
    run = Run(models, known, noise, callback)
    N = run.grid.N
    y, x = run.start()
    for n in range(N, run.grid.early_end - 1, -1):
        run.begin_step(n)
        k = run.known_structure(n)
        x = run.structure_step(k, x, n, run.all)
        y_next = run.texture_step(y, x.x, n, run.all)
        best = run.score(y_next, x, n, run.all)

        steps = min(re, N - n + 1)
        for _ in range(u_max if n % jump == 0 else 0):
            active = [row for row in run.all if is_better(threshold, best[row].item(), accept)]
            if not active or steps == 0:
                break
            x_new = run.redo_structure(k[active], x[active], n, steps, active)
            y_new = run.texture_step(y[active], x_new.x, n, active)
            score = run.score(y_new, x_new, n, active)
            accepted = is_better(score, best[active], accept)
            x, y_next = blend(x, x_new, accepted.float(), active), blend(y_next, y_new, accepted.float(), active)
            best = best.index_put((torch.tensor(active, device=best.device),), torch.where(accepted, score, best[active]))
            run.decide(active, ["accepted" if a else "rejected" for a in accepted.tolist()])
        y, x = y_next, run.paste(k, x, run.all)
        run.end_step(n, y, x)
    return late_stage(run, y, x)


def is_better(a: Tensor | float, b: Tensor | float, accept: Accept) -> Tensor | bool:
    """Whether score a is strictly better than b."""
    return a < b if accept == "lower" else a > b


def blend(state: State, new: State, weight: Tensor, rows: list[int]) -> State:
    """Replace the images at `rows` by (1-w) old + w new; weight (len(rows),) of 0, 1/2 or 1, exact where w is 0 or 1."""
    w = weight.view(-1, 1, 1, 1)

    def mix(images: Tensor, proposed: Tensor) -> Tensor:
        old = images[rows]
        mixed = torch.where(w == 1, proposed, torch.where(w == 0, old, (old + proposed) / 2))
        return images.index_put((torch.tensor(rows, device=images.device),), mixed)

    return state.map(mix, new)
