"""Sampling without resampling: the reverse process of the texture, unguided or guided, or of the structure alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from strdiffusion.samplers.sampling import Sampling
from strdiffusion.samplers.state import Moment, State


@dataclass
class Unguided:
    """IR-SDE: the texture alone, from T to 0 (spec sec. 2), one evaluation a step. Noise draws: the start, then one in each step."""

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y = run.start_texture()
        yield Moment(run.N, run.N, y, None)
        for n in run.all_steps():
            y = run.texture_step(y, None, n)
            yield Moment(n, n - 1, y, None)


@dataclass
class Guided:
    """StrDiffusion without resampling (spec sec. 7, `none`): the structure guides the texture, and each step is taken once."""

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure()
            x = run.structure_step(k, x, n)
            y, x = run.texture_step(y, x.guide, n), run.paste(k.at(run.grid[n - 1]), x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


@dataclass
class StructureAlone:
    """The structure alone, from T to 0, denoised as in the guided process. It needs no texture network; the texture stays as given.

    Noise draws: the start of the structure, then known structure and structure in each step.
    """

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = State(run.known.image), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.all_steps():
            k = run.known_structure()
            x = run.structure_step(k, x, n)
            yield Moment(n, n - 1, y, x if n > 1 else run.paste(run.known.maps["structure"], x))


def late_stage(run: Sampling, y: State, x: State) -> Iterator[Moment]:
    """From the end of the early stage to 0, the guide is the channel mean of the texture itself (spec sec. 7)."""
    for n in run.late_stage():
        y = run.texture_step(y, y.x.mean(dim=1, keepdim=True), n)
        yield Moment(n, n - 1, y, x)
