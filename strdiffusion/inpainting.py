"""The whole method on a batch of images: three networks and a sampler behind one call."""

from collections.abc import Sequence

from torch import nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork, load_network, require_same_process
from strdiffusion.config import TestConfig
from strdiffusion.denoiser import Denoiser
from strdiffusion.device import choose_device, reuse_memory, set_float32_precision
from strdiffusion.errors import UserError
from strdiffusion.networks import Kind
from strdiffusion.networks.inference import for_inference
from strdiffusion.samplers import (
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


class Inpainter:
    """Inpaint batches as a test configuration says.

    Loading raises UserError where a checkpoint does not fit the configuration (T, schedule, structure maps, widths, guidance).
    """

    def __init__(self, config: TestConfig):
        self.config = config
        self.device = choose_device(config.device)
        set_float32_precision(config.precision)
        reuse_memory(self.device)
        self.sde = MeanRevertingSDE(**vars(config.sde))
        sampler, paths = config.sampler, config.checkpoints
        texture = self._load(paths.texture, "texture")
        if texture.network.guided != sampler.guidance:
            has = "has" if texture.network.guided else "has no"
            raise UserError(
                f"the checkpoint {texture.path} {has} SPADE blocks, so sampler.guidance must be {str(texture.network.guided).lower()}"
            )
        structure = self._load(paths.structure, "structure") if sampler.guidance else None
        discriminator = self._load(paths.discriminator, "discriminator") if sampler.scored else None
        self.models = Models(
            texture=self._denoiser(texture),
            structure=self._denoiser(structure) if structure else None,
            discriminator=self._fast(discriminator) if discriminator else None,
            method=sampler.method,
            order=sampler.order,
            steps=sampler.steps,
            spacing=sampler.spacing,
        )

    def __call__(self, batch: Batch, seeds: Sequence[int], callback: Callback | None = None) -> Sample:
        """Inpaint a batch; each image has its own seed, and gets the same result in any batch. Results are on the device."""
        sampler = self.config.sampler
        samplers = {
            "none": sample_guided if sampler.guidance else sample_unguided,
            "released": sample_released,
            "paper": sample_paper,
            "repaint": sample_repaint,
            "fixed": sample_fixed,
        }
        options = {} if sampler.resampling == "none" else vars(getattr(sampler, sampler.resampling))
        return samplers[sampler.resampling](self.models, batch.to(self.device), SeededNoise(seeds), callback, **options)

    def _load(self, path: str, kind: Kind) -> LoadedNetwork:
        loaded = load_network(path, kind, self.config.checkpoints.weights)
        require_fit(loaded, self.config)
        loaded.network.to(self.device)
        return loaded

    def _denoiser(self, loaded: LoadedNetwork) -> Denoiser:
        return Denoiser(self._fast(loaded), self.sde, loaded.prediction, clip=self.config.sampler.clip)

    def _fast(self, loaded: LoadedNetwork) -> nn.Module:
        return for_inference(loaded.network, self.config.precision, self.config.compile)


def require_fit(loaded: LoadedNetwork, config: TestConfig) -> None:
    """Raise UserError where a checkpoint records other settings than the configuration has. Released files record only widths."""
    require_same_process(loaded, config.sde, config.structure)
    expected = config.checkpoints
    if loaded.kind == "discriminator":
        sizes = {"discriminator_width": (expected.discriminator_width, loaded.network.width)}
    else:
        sizes = {"width": (expected.width, loaded.network.width), "depth": (expected.depth, loaded.network.depth)}
    for key, (wanted, found) in sizes.items():
        if wanted is not None and wanted != found:
            raise UserError(
                f"the checkpoint {loaded.path} has {key.removeprefix('discriminator_')} {found}, but checkpoints.{key}={wanted}: "
                f"give another file, or set checkpoints.{key}={found}"
            )
