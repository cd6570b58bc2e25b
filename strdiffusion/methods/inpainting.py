"""The whole method on a batch of images: three networks and a sampler behind one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork
from strdiffusion.config.testing import SamplerConfig
from strdiffusion.denoiser import Denoiser, Precision
from strdiffusion.networks import Kind
from strdiffusion.samplers import (
    Begin,
    Models,
    Sample,
    SeededNoise,
    sample_fixed,
    sample_guided,
    sample_paper,
    sample_released,
    sample_repaint,
    sample_unguided,
)
from strdiffusion.samplers.trace import Callback
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import reuse_memory, set_float32_precision


@dataclass(frozen=True)
class Networks:
    """The networks of a model. Unguided ones (IR-SDE) have the texture alone; without a discriminator nothing is scored."""

    texture: LoadedNetwork
    structure: LoadedNetwork | None = None
    discriminator: LoadedNetwork | None = None

    def __iter__(self):
        return (loaded for loaded in (self.texture, self.structure, self.discriminator) if loaded is not None)

    def to(self, device: torch.device) -> None:
        """Move all networks, in place."""
        for loaded in self:
            loaded.to(device)


class Inpainter:
    """Inpaint batches of one size with networks that are on `device` already.

    The networks are evaluated in their inference form (`networks/inference.py`).

    Args:
        compile: let torch.compile work on them.
        evaluate: replaces a network of a kind by what is evaluated in its place, for example on overlapping tiles.
    """

    def __init__(
        self,
        networks: Networks,
        sde: MeanRevertingSDE,
        sampler: SamplerConfig,
        device: torch.device,
        precision: Precision = "fp32",
        evaluate: Callable[[Kind, nn.Module], Callable] | None = None,
        compile: bool = False,
    ):
        self.sde, self.sampler, self.device = sde, sampler, device
        set_float32_precision(precision)
        reuse_memory(device)

        def network(loaded: LoadedNetwork) -> Callable:
            form = None if loaded.network is None else loaded.for_inference(precision, compile)
            return form if evaluate is None else evaluate(loaded.kind, form)

        def denoiser(loaded: LoadedNetwork) -> Denoiser:
            return Denoiser(network(loaded), sde, loaded.prediction, clip=sampler.clip)

        self.models = Models(
            texture=denoiser(networks.texture),
            structure=denoiser(networks.structure) if sampler.guidance else None,
            discriminator=network(networks.discriminator) if sampler.scored else None,
            method=sampler.method,
            order=sampler.order,
            steps=sampler.steps,
            spacing=sampler.spacing,
        )

    def __call__(self, batch: Batch, seeds: Sequence[int], callback: Callback | None = None, begin: Begin | None = None) -> Sample:
        """Inpaint a batch; each image has its own seed, and gets the same result in any batch. Results are on the device.

        begin: where sampling begins instead of at T, on the device.
        """
        sampler = self.sampler
        samplers = {
            "none": sample_guided if sampler.guidance else sample_unguided,
            "released": sample_released,
            "paper": sample_paper,
            "repaint": sample_repaint,
            "fixed": sample_fixed,
        }
        options = {} if sampler.resampling == "none" else vars(getattr(sampler, sampler.resampling))
        models = replace(self.models, begin=begin)
        return samplers[sampler.resampling](models, batch.to(self.device), SeededNoise(seeds), callback, **options)
