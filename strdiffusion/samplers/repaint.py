"""Resampling without a discriminator: RePaint's schedule (arXiv 2201.09865) with Intelligent Painter's stop (arXiv 2210.17106),
and the structure redone a fixed number of times.
"""

import torch

from strdiffusion.batch import Batch
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.run import Models, Run, late_stage
from strdiffusion.samplers.trace import Callback, Sample, State


@torch.inference_mode()
def sample_repaint(
    models: Models,
    known: Batch,
    noise: NoiseSource,
    callback: Callback | None = None,
    jump_length: int = 10,
    resamplings: int = 10,
    start: int | None = None,
    stop: int = 0,
) -> Sample:
    """Denoise, and jump back `jump_length` steps `resamplings - 1` times, again and again between the times start and stop.

    Texture and structure jump together, and after every step the known pixels of both are drawn anew from the known
    image. With guidance (models.structure is given) the jumps end with the early stage, because the late stage has no
    structure to carry. Draws per step: known structure, structure, texture, known texture; forward: texture, structure.
    """
    run = Run(models, known, noise, callback)
    grid, guided = run.grid, models.structure is not None
    y, x = run.start() if guided else (run.start_texture(), None)
    for n, n_next in timeline(grid.N, jump_length, resamplings, *jump_range(grid, start, stop, guided)):
        run.begin_step(n)
        if n_next > n:
            y = run.forward_step(y, known.texture_mean, n_next, run.all, grid[n_next])
            x = run.forward_step(x, known.structure_mean, n_next, run.all, grid[n_next]) if guided else None
        elif guided and n >= grid.early_end:
            x = run.structure_step(run.known_structure(n), x, n, run.all)
            y = keep_known(run, run.texture_step(y, x.x, n, run.all), n_next)
        else:
            guide = y.x.mean(dim=1, keepdim=True) if guided else None
            y = keep_known(run, run.texture_step(y, guide, n, run.all), n_next)
        run.end_step(n, y, x)
    return run.finish(y, x)


@torch.inference_mode()
def sample_fixed(
    models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None, times: int = 1, jump: int = 2, re: int = 2
) -> Sample:
    """StrDiffusion with its resampling, but without a discriminator that decides: the ablation of the adaptive part.

    Where the number of steps left (on the full grid t itself) is a multiple of `jump`, the structure is carried forward by `re`
    steps and denoised back, `times` times, before the texture takes its step. Draws per step: as `sample_released`, with one
    for the texture at the end.
    """
    run = Run(models, known, noise, callback)
    N = run.grid.N
    y, x = run.start()
    for n in range(N, run.grid.early_end - 1, -1):
        run.begin_step(n)
        k = run.known_structure(n)
        x = run.structure_step(k, x, n, run.all)
        for _ in range(times if n % jump == 0 else 0):
            x = run.redo_structure(k, x, n, min(re, N - n + 1), run.all)
        y, x = run.texture_step(y, x.x, n, run.all), run.paste(k, x, run.all)
        run.end_step(n, y, x)
    return late_stage(run, y, x)


def keep_known(run: Run, y: State, n: int) -> State:
    """Replace the known pixels of the texture at grid[n] by a draw from their marginal."""
    mean = run.known.texture_mean
    return run.paste(run.sde.sample_marginal(mean, mean, run.grid[n], run.noise(run.all, y.x)), y, run.all)


def jump_range(grid: TimeGrid, start: int | None, stop: int, guided: bool) -> tuple[int, int]:
    """The steps left at the latest time up to `start` (None: T) and at the earliest from `stop` on, between which jumps lie.

    With guidance they end with the early stage.
    """
    first = grid.N if start is None else grid.at_or_before(start)
    last = grid.at_or_after(stop)
    return first, max(last, grid.early_end - 1) if guided else last


def timeline(N: int, jump_length: int, resamplings: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The moves (n, n') from N down to 0 steps left, each to a neighbour, with the jumps back between start and stop."""
    jumps = dict.fromkeys(range(stop, start - jump_length + 1, jump_length), resamplings - 1) if resamplings > 1 else {}
    moves, n = [], N
    while n > 0:
        moves.append((n, n - 1))
        n -= 1
        if jumps.get(n, 0) > 0:
            jumps[n] -= 1
            moves.extend((n + j, n + j + 1) for j in range(jump_length))
            n += jump_length
    return moves
