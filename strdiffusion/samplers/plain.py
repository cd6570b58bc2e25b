"""Sampling without resampling: the plain reverse process, and the guided one as it is."""

from collections.abc import Iterator
from dataclasses import dataclass

from strdiffusion.samplers.sampling import Sampling
from strdiffusion.samplers.state import Moment, State


@dataclass
class Unguided:
    """IR-SDE: the texture alone, back from T to 0 (spec sec. 2). One evaluation a step. Draws: the start, then one a step."""

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y = run.start_texture()
        yield Moment(run.N, run.N, y, None)
        for n in run.all_steps():
            y = run.texture_step(y, None, n)
            yield Moment(n, n - 1, y, None)


@dataclass
class Guided:
    """StrDiffusion without resampling (spec sec. 7, `none`): the structure guides the texture, and nothing is redone."""

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.early_stage():
            k = run.known_structure(n)
            x = run.structure_step(k, x, n)
            y, x = run.texture_step(y, x.x, n), run.paste(k, x)
            yield Moment(n, n - 1, y, x)
        yield from late_stage(run, y, x)


@dataclass
class StructureAlone:
    """The structure from T to 0, denoised as the guided process does it; needs no texture network, and leaves the texture as it is known.

    Draws: the start of the structure, then known structure and step.
    """

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = State(run.known.image), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.all_steps():
            k = run.known_structure(n)
            x = run.structure_step(k, x, n)
            yield Moment(n, n - 1, y, x if n > 1 else run.paste(run.known.maps["structure"], x))


def late_stage(run: Sampling, y: State, x: State) -> Iterator[Moment]:
    """From the end of the early stage to 0: the channel mean of the texture itself is the guide (spec sec. 7)."""
    for n in run.late_stage():
        y = run.texture_step(y, y.x.mean(dim=1, keepdim=True), n)
        yield Moment(n, n - 1, y, x)
