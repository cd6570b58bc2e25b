"""The options of DGTS's trainings: configs/*/dgts.yml and configs/*/upsampler.yml. The defaults are the released sizes."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from strdiffusion.config.training import TrainConfig, TrainingConfig
from strdiffusion.networks.dgts.critic import SMALLEST_SIDE
from strdiffusion.networks.dgts.filling import Order
from strdiffusion.networks.dgts.network import RELEASED_ONE_BY_ONE
from strdiffusion.networks.dgts.references import Backbone
from strdiffusion.networks.dgts.structure import Residual
from strdiffusion.networks.dgts.upsampler import DILATIONS
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Momentum, Range, Rate, Share, Weight

RESNET_FILE, VGG_FILE = "resnet50-19c8e357.pth", "vgg19-dcbb9e9d.pth"
Side = Annotated[int, Range(1, 256)]
Width = Annotated[int, Range(4, 4096)]
Layers = Annotated[int, Range(1, 8)]


@dataclass
class DGTSNetworkConfig:
    """The sizes of the network, see `DGTS`. Images have reduction x patch x grid pixels a side."""

    reduction: Side = 4
    patch: Side = 8
    grid: Side = 8
    width: Width = 384
    reference_width: Width = 256
    heads: Annotated[int, Range(1, 4096)] = 8
    encoder_layers: Layers = 4
    decoder_layers: Layers = 4
    backbone: Backbone = "resnet50"
    residual: Residual = "filled"
    bridge: Share = 0.1
    dropout: Momentum = 0.1

    @property
    def size(self) -> int:
        """The side of the images, in pixels."""
        return self.reduction * self.patch * self.grid

    def check(self) -> None:
        """Check the sizes that depend on each other. Raises UserError."""
        for name in ("width", "reference_width"):
            if getattr(self, name) % 4:
                raise UserError(f"network.{name} must be a multiple of 4, not {getattr(self, name)}")
        if self.reference_width % self.heads:
            raise UserError(f"network.reference_width={self.reference_width} must be a multiple of network.heads={self.heads}")
        whole = 16 if self.backbone == "resnet50" else 4
        side = self.size if self.backbone == "resnet50" else self.patch * self.grid
        if side % whole:
            raise UserError(f"network.patch x network.grid must give sides that are multiples of {whole} for the references, not {side}")


@dataclass
class DGTSObjectiveConfig:
    """What is minimised (docs/dgts.md).

    loss: "full" needs weights of VGG-19; "rec" is the distance in the hole alone. vgg: torchvision's file of them.
    order, one_by_one: how patches are filled in training: the first so many one by one, the rest at once.
    """

    loss: Literal["full", "rec"] = "full"
    vgg: str | None = None
    order: Order = "known"
    one_by_one: Count = RELEASED_ONE_BY_ONE


@dataclass
class DGTSTrainingConfig(TrainingConfig):
    """The optimisation as released: constant rate, no moving average. backbone_rate: the rate of a ResNet's, as a factor."""

    batch_size: Annotated[int, Range(1, 65536)] = 32
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    weight_decay: Weight = 1e-4
    backbone_rate: Share = 0.1
    ema_decay: Momentum = 0.0


@dataclass
class TrainDGTSConfig(TrainConfig):
    """configs/*/dgts.yml. backbone: torchvision's file of the ResNet-50 that the training starts from."""

    backbone: str | None = None
    network: DGTSNetworkConfig = field(default_factory=DGTSNetworkConfig)
    objective: DGTSObjectiveConfig = field(default_factory=DGTSObjectiveConfig)
    training: DGTSTrainingConfig = field(default_factory=DGTSTrainingConfig)

    def check(self) -> None:
        super().check()
        self.network.check()
        require_size(self.data.size, self.network.size, "network.reduction x network.patch x network.grid")
        if self.network.backbone == "resnet50" and self.backbone is None:
            raise UserError(f"backbone is missing: give torchvision's {RESNET_FILE} as backbone=FILE, or set network.backbone=small")
        if self.network.backbone == "small" and self.backbone is not None:
            raise UserError("backbone is given, and network.backbone=small starts from nothing: set backbone=null")
        require_vgg(self.objective.loss == "full", self.objective.vgg, VGG_FILE, "objective.loss=rec")


@dataclass
class UpsamplerSizes:
    """The sizes of the enlarging network, see `Upsampler`."""

    width: Width = 64
    factor: Literal[4, 8] = 8
    dilations: list[Side] = field(default_factory=lambda: list(DILATIONS))


@dataclass
class UpsamplerNetworkConfig(UpsamplerSizes):
    """The sizes of the enlarging network. critic_width: of the discriminator that it is trained with."""

    critic_width: Annotated[int, Range(1, 4096)] = 64


@dataclass
class UpsamplerObjectiveConfig:
    """What is minimised (docs/dgts.md).

    loss: "full" needs the weights of VGG-19 that BAT-Fill uses, as the file vgg; "adversarial" has no VGG-19, and "l1" no discriminator
        either.
    colours: a file (.npy) of colours in [-1,1], (n,3); the small image has the nearest of them in place of its own.
    core: a checkpoint of DGTS. core_share: of the batches, how many are enlarged from its filling, the others from the truth.
    """

    loss: Literal["full", "adversarial", "l1"] = "full"
    vgg: str | None = None
    colours: str | None = None
    core: str | None = None
    core_share: Share = 0.5


@dataclass
class UpsamplerTrainingConfig(TrainingConfig):
    """The optimisation as released: half the rate for the enlarging network, twice the rate for its discriminator."""

    batch_size: Annotated[int, Range(1, 65536)] = 10
    learning_rate: Rate = 2e-4
    betas: tuple[Momentum, Momentum] = (0.0, 0.9)
    rate: Rate = 0.5
    critic_rate: Rate = 2.0
    ema_decay: Momentum = 0.0


@dataclass
class TrainUpsamplerConfig(TrainConfig):
    """configs/*/upsampler.yml"""

    network: UpsamplerNetworkConfig = field(default_factory=UpsamplerNetworkConfig)
    objective: UpsamplerObjectiveConfig = field(default_factory=UpsamplerObjectiveConfig)
    training: UpsamplerTrainingConfig = field(default_factory=UpsamplerTrainingConfig)

    def check(self) -> None:
        super().check()
        require_vgg(self.objective.loss == "full", self.objective.vgg, "its VGG-19 (conv1_1 to conv5_4)", "objective.loss=adversarial")
        size, most = self.data.size, max(self.network.dilations, default=0)
        if size % 8 or size // 4 <= most:
            raise UserError(f"data.size={size} must be a multiple of 8, and above {4 * most} for network.dilations")
        if self.objective.loss != "l1" and size < SMALLEST_SIDE:
            raise UserError(f"data.size={size} must be at least {SMALLEST_SIDE} for the discriminator: set objective.loss=l1")


def require_size(given: int, wanted: int, why: str) -> None:
    """Raise UserError if the images are not of the network's size."""
    if given != wanted:
        raise UserError(f"data.size={given} must be {why} = {wanted}: the patches divide no other size")


def require_vgg(needed: bool, path: str | None, file: str, without: str) -> None:
    """Raise UserError if a loss lacks its weights, or has some that it does not use."""
    if needed and path is None:
        raise UserError(f"objective.vgg is missing: give {file} as objective.vgg=FILE, or set {without}")
    if not needed and path is not None:
        raise UserError("objective.vgg is given, and this objective.loss does not use it: set objective.vgg=null, or objective.loss=full")
