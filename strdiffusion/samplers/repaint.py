"""Resampling without a discriminator: RePaint's schedule (arXiv 2201.09865) with Intelligent Painter's stop (arXiv 2210.17106),
and a fixed number of resamplings of the structure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.plain import late_stage
from strdiffusion.samplers.sampling import Back, Sampling, Times
from strdiffusion.samplers.state import Moment, State
from strdiffusion.system.parser import Count, Positive


@dataclass
class Repaint:
    """RePaint's schedule on the mean-reverting SDE: between the times `start` (null: T) and `stop`, each stretch of `jump_length` steps
    is denoised `resamplings` times, with noise added back in between.

    Texture and structure jump together. After every step the known pixels of both are drawn again from the known image. With
    guidance the jumps end with the early stage, because no structure is denoised in the late stage. Noise draws of a step: known
    structure, structure, texture, known texture; of a forward step: texture, structure.
    """

    jump_length: Positive = 10
    resamplings: Times = 10
    start: Positive | None = None
    stop: Count = 0

    def steps(self, run: Sampling) -> Iterator[Moment]:
        grid, guided = run.grid, run.networks.structure is not None
        y, x = run.start_texture(), run.start_structure() if guided else None
        yield Moment(run.N, run.N, y, x)
        first, last = jump_range(grid, self.start, self.stop, guided)
        for n, to in run.follow(timeline(run.N, self.jump_length, self.resamplings, first, last)):
            if to > n:
                y = run.forward_step(y, run.texture_mean, to, grid[to])
                x = run.forward_step(x, run.known.maps["structure_mean"], to, grid[to]) if guided else None
            elif guided and n >= grid.early_end:
                x = run.structure_step(run.known_structure(), x, n)
                y = keep_known(run, run.texture_step(y, x.guide, n), to)
            else:
                y = keep_known(run, run.texture_step(y, y.x.mean(dim=1, keepdim=True) if guided else None, n), to)
            yield Moment(n, to, y, x)


@dataclass
class Fixed:
    """StrDiffusion's resampling without the decisions of a discriminator: the ablation of the adaptive part.

    If the number of steps left (t on the full grid) is a multiple of `jump`, the structure is noised by `re` steps and denoised back,
    `times` times, before the texture takes its step. Noise draws of a step: as in `Released`, but the texture draws once, at the end.
    """

    times: Times = 1
    jump: Positive = 2
    re: Back = 2

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure()
            x = run.structure_step(k, x, n)
            for _ in range(self.times if n % self.jump == 0 else 0):
                x = run.redo_structure(k, x, n, self.re)
            y, x = run.texture_step(y, x.guide, n), run.paste(k.at(run.grid[n - 1]), x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


def keep_known(run: Sampling, y: State, n: int) -> State:
    """Replace the known pixels of the texture at grid[n] by a draw from their marginal."""
    mu = run.texture_mean
    return run.paste(run.sde.sample_marginal(mu, mu, run.grid[n], run.draw(y.x)), y)


def jump_range(grid: TimeGrid, start: int | None, stop: int, guided: bool) -> tuple[int, int]:
    """The range of jumps, in steps left: (at the largest time <= `start` (None: T), at the smallest time >= `stop`).

    With guidance the jumps end with the early stage.
    """
    first = grid.N if start is None else grid.at_or_before(start)
    last = grid.at_or_after(stop)
    return first, max(last, grid.early_end - 1) if guided else last


def timeline(N: int, jump_length: int, resamplings: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The moves (n, n') from N steps left to 0, each by one step, with the jumps back between start and stop."""
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
