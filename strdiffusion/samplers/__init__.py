"""The samplers (spec sec. 7), each a pure function of models, known pixels and noise.

* plain.py: `sample_unguided` (IR-SDE), `sample_guided` (StrDiffusion without resampling), `sample_structure`
* adaptive.py: `sample_released` and `sample_paper`, adaptive resampling
* repaint.py: `sample_repaint` and `sample_fixed`, resampling without a discriminator
* run.py: the moves they share; grid.py: the times they visit; mars.py: the MaRS steps (spec sec. 8)
* noise.py: where noise comes from; trace.py: what they return
"""

from strdiffusion.samplers.adaptive import sample_paper, sample_released
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.noise import NoiseSource, SeededNoise
from strdiffusion.samplers.plain import sample_guided, sample_structure, sample_unguided
from strdiffusion.samplers.repaint import sample_fixed, sample_repaint
from strdiffusion.samplers.run import Begin, Models
from strdiffusion.samplers.trace import ImageTrace, Progress, Sample

__all__ = [
    "Begin",
    "ImageTrace",
    "Models",
    "NoiseSource",
    "Progress",
    "Sample",
    "SeededNoise",
    "TimeGrid",
    "sample_fixed",
    "sample_guided",
    "sample_paper",
    "sample_released",
    "sample_repaint",
    "sample_structure",
    "sample_unguided",
]
