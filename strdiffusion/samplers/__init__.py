"""The samplers (spec sec. 7 and 8). Each is a dataclass of its options whose `steps` reads like the paper's pseudo-code.

* plain.py: `Unguided` (IR-SDE), `Guided` (StrDiffusion without resampling), `StructureAlone`
* adaptive.py: `Released` and `Paper`, adaptive resampling
* joint.py: `Joint`, texture and structure by one network
* repaint.py: `Repaint` and `Fixed`, resampling without a discriminator
* sampling.py: `Sampling`, the operations they share, and `sample`, which runs one
* solvers.py: how a step is taken; grid.py: the times that are visited
* options.py: `SamplerConfig`, all options together
* state.py, noise.py, trace.py: the states, the noise and the record of a run
"""

from strdiffusion.samplers.adaptive import Paper, Released
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.joint import Joint
from strdiffusion.samplers.noise import NoiseSource, SeededNoise
from strdiffusion.samplers.options import SamplerConfig
from strdiffusion.samplers.plain import Guided, StructureAlone, Unguided
from strdiffusion.samplers.repaint import Fixed, Repaint
from strdiffusion.samplers.sampling import Begin, Networks, Sample, Sampling, Stepping, sample
from strdiffusion.samplers.trace import ImageTrace

__all__ = [
    "Begin",
    "Fixed",
    "Guided",
    "ImageTrace",
    "Joint",
    "Networks",
    "NoiseSource",
    "Paper",
    "Released",
    "Repaint",
    "Sample",
    "SamplerConfig",
    "Sampling",
    "SeededNoise",
    "Stepping",
    "StructureAlone",
    "TimeGrid",
    "Unguided",
    "sample",
]
