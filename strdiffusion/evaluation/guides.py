"""How much a guide is worth: the texture guided by the true structure, or by a wrong one, in place of the denoised structure."""

from collections.abc import Sequence
from dataclasses import replace

from strdiffusion.batch import Batch
from strdiffusion.denoiser import OracleStructure
from strdiffusion.methods.inpainting import Inpainter
from strdiffusion.samplers import Sample, SeededNoise, sample_guided
from strdiffusion.samplers.trace import Callback


class OracleGuided:
    """Inpaint without resampling, guided by the structure that the batch holds: an upper bound where that is the truth.

    The structure's steps are counted as evaluations, as if a network had taken them.
    """

    def __init__(self, inpainter: Inpainter):
        self.inpainter = inpainter
        self.sde, self.device, self.models = inpainter.sde, inpainter.device, inpainter.models

    def __call__(self, batch: Batch, seeds: Sequence[int], callback: Callback | None = None) -> Sample:
        batch = batch.to(self.inpainter.device)
        models = replace(self.inpainter.models, structure=OracleStructure(self.inpainter.sde, batch.structure))
        return sample_guided(models, batch, SeededNoise(seeds), callback)
