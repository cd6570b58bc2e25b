"""Resampling without a discriminator: RePaint's schedule (arXiv 2201.09865) with Intelligent Painter's stop (arXiv 2210.17106),
and the structure redone a fixed number of times.
"""

import torch
from torch import Tensor

from strdiffusion.batch import Batch
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.run import Models, Run, early_end, late_stage
from strdiffusion.samplers.trace import Callback, Sample


@torch.inference_mode()
def sample_repaint(
    models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None,
    jump_length: int = 10, resamplings: int = 10, start: int | None = None, stop: int = 0,
) -> Sample:  # fmt: skip
    """Denoise, and jump back `jump_length` steps `resamplings - 1` times at every multiple of it between start and stop.

    Texture and structure jump together, and after every step the known pixels of both are drawn anew from the known
    image. With guidance (models.structure is given) the jumps end with the early stage, because the late stage has no
    structure to carry. Draws per step: known structure, structure, texture, known texture; forward: texture, structure.
    """
    run = Run(models, known, noise, callback)
    T, guided = run.sde.T, models.structure is not None
    boundary = early_end(T) if guided else 1
    y, x = run.start() if guided else (run.sde.terminal_state(known.texture_mean, noise(run.all, known.texture)), None)
    for t, t_next in timeline(T, jump_length, resamplings, T if start is None else start, max(stop, boundary - 1)):
        run.begin_step(t)
        if t_next > t:
            y = run.sde.forward_step(y, known.texture_mean, t_next, noise(run.all, y))
            x = run.sde.forward_step(x, known.structure_mean, t_next, noise(run.all, x)) if guided else None
        elif guided and t >= boundary:
            x = run.structure_step(run.known_structure(t), x, t, run.all)
            y = keep_known(run, run.texture_step(y, x, t, run.all), t_next)
        else:
            guide = y.mean(dim=1, keepdim=True) if guided else None
            y = keep_known(run, run.texture_step(y, guide, t, run.all), t_next)
        run.end_step(t, y, x)
    return run.finish(y, x)


@torch.inference_mode()
def sample_fixed(
    models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None, times: int = 1, jump: int = 2, re: int = 2
) -> Sample:
    """StrDiffusion with its resampling, but without a discriminator that decides: the ablation of the adaptive part.

    Where t is a multiple of `jump`, the structure is carried forward by `re` steps and denoised back, `times` times, before the
    texture takes its step. Draws per step: as `sample_released`, with one for the texture at the end.
    """
    run = Run(models, known, noise, callback)
    T = run.sde.T
    y, x = run.start()
    for t in range(T, early_end(T) - 1, -1):
        run.begin_step(t)
        k = run.known_structure(t)
        x = run.structure_step(k, x, t, run.all)
        for _ in range(times if t % jump == 0 else 0):
            x = run.redo_structure(k, x, t, min(re, T - t + 1), run.all)
        y, x = run.texture_step(y, x, t, run.all), run.paste(k, x, run.all)
        run.end_step(t, y, x)
    return late_stage(run, y, x)


def keep_known(run: Run, y: Tensor, t: int) -> Tensor:
    """Replace the known pixels of the texture at t by a draw from their marginal."""
    drawn = run.sde.sample_marginal(run.known.texture_mean, run.known.texture_mean, t, run.noise(run.all, y))
    return run.paste(drawn, y, run.all)


def timeline(T: int, jump_length: int, resamplings: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The moves (t, t') from T down to 0, each to a neighbour, with the jumps back between start and stop."""
    jumps = {t: resamplings - 1 for t in range(stop, start - jump_length + 1, jump_length)} if resamplings > 1 else {}
    moves, t = [], T
    while t > 0:
        moves.append((t, t - 1))
        t -= 1
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            moves.extend((t + j, t + j + 1) for j in range(jump_length))
            t += jump_length
    return moves
