"""The options of the training of RePaint's prior: configs/*/prior.yml. Keys that a YAML file omits have their defaults."""

from dataclasses import dataclass, field
from typing import Annotated

from strdiffusion.config.common import ProcessConfig
from strdiffusion.config.training import TrainConfig, TrainingConfig
from strdiffusion.denoiser import Prediction
from strdiffusion.networks.guided_unet import MULTIPLIERS, GuidedUNet
from strdiffusion.networks.shapes import shapes_alone
from strdiffusion.samplers.prior import RepaintConfig
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Momentum, Positive, Range

Width = Annotated[int, Range(1, 4096)]


@dataclass
class PriorNetworkConfig:
    """RePaint's prior (docs/repaint_spec.md sec. 2); the defaults are the released network.

    multipliers: of `width`, for each level; null: those of guided diffusion for data.size. attention: the sizes in pixels, at data.size,
    at which there is attention. heads: used if head_channels is null; heads_upsample: in the decoder (null: as many).
    """

    width: Annotated[int, Range(1, 4096)] = 256
    multipliers: list[Annotated[float, Range(0, 64, open_low=True)]] | None = None
    blocks: Annotated[int, Range(1, 16)] = 2
    attention: list[Positive] = field(default_factory=lambda: [32, 16, 8])
    head_channels: Width | None = 64
    heads: Width = 4
    heads_upsample: Width | None = None
    scale_shift: bool = True
    resblock_updown: bool = True
    new_order: bool = False
    prediction: Prediction = "noise"

    def architecture(self, size: int) -> dict:
        """The arguments of `GuidedUNet` for images of this size. Raises UserError if there is no such network."""
        multipliers = MULTIPLIERS.get(size) if self.multipliers is None else self.multipliers
        if multipliers is None:
            raise UserError(
                f"network.multipliers has no default for data.size={size}, only for {', '.join(map(str, MULTIPLIERS))}: give them"
            )
        names = ("width", "blocks", "head_channels", "heads", "heads_upsample", "scale_shift", "resblock_updown", "new_order")
        channels = [int(multiplier * self.width) for multiplier in multipliers]
        architecture = {name: getattr(self, name) for name in names} | {"channels": channels}
        architecture["attention"] = [size // pixels for pixels in self.attention if pixels <= size]
        factor = 2 ** (len(channels) - 1)
        if size % factor:
            raise UserError(
                f"data.size={size} cannot be halved {len(channels) - 1} times, as network.multipliers ask: give a multiple of {factor}"
            )
        try:
            with shapes_alone():
                GuidedUNet(**architecture)
        except ValueError as error:
            raise UserError(f"network describes no prior: {error}") from None
        return architecture


@dataclass
class PriorObjectiveConfig:
    """rescale: multiply the variational bound by S/1000, as rescale_learned_sigmas of guided diffusion (sec. 9)."""

    rescale: bool = False


@dataclass
class PriorTrainingConfig(TrainingConfig):
    """The optimisation of a prior, as published for CelebA-HQ."""

    iterations: Positive = 250_000
    batch_size: Annotated[int, Range(1, 65536)] = 12
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    ema_decay: Momentum = 0.9999


@dataclass
class TrainPriorConfig(TrainConfig):
    """configs/*/prior.yml. A prior looks at no masks (data.masks); those of the validation are for its short runs of RePaint.

    sampling: these runs.
    """

    process: ProcessConfig = field(default_factory=ProcessConfig)
    network: PriorNetworkConfig = field(default_factory=PriorNetworkConfig)
    objective: PriorObjectiveConfig = field(default_factory=PriorObjectiveConfig)
    sampling: RepaintConfig = field(default_factory=lambda: RepaintConfig(jump_length=5, jump_n_sample=2, steps=25))
    training: PriorTrainingConfig = field(default_factory=PriorTrainingConfig)

    def check(self) -> None:
        super().check()
        self.network.architecture(self.data.size)
        self.sampling.process(self.process.steps, self.process.schedule, "sampling")
