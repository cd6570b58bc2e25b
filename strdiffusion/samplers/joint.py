"""The joint form: one network denoises texture and structure together, and the structure may lead (spec sec. 11)."""

from collections.abc import Iterator
from dataclasses import dataclass

from strdiffusion.samplers.sampling import Sampling
from strdiffusion.samplers.state import Moment


@dataclass
class Joint:
    """Texture and structure side by side, one evaluation a step; `Stepping.ahead` says how far the structure leads.

    Noise draws: the start of the texture, the start of the structure, then in each step the texture and the structure, if they move.
    """

    def steps(self, run: Sampling) -> Iterator[Moment]:
        y, x = run.start_texture(), run.start_structure()
        yield Moment(run.N, run.N, y, x)
        for n in run.all_steps():
            y, x = run.joint_step(y, x, n)
            yield Moment(n, n - 1, y, x)
