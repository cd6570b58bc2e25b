"""model.yml of a model folder: everything about its networks but the weights."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from strdiffusion.config.common import ProcessConfig, SDEConfig, StructureConfig
from strdiffusion.config.training import LARGEST_SIZE, DiscriminatorConfig, UNetConfig
from strdiffusion.denoiser import Prediction
from strdiffusion.samplers.options import SamplerConfig, with_method
from strdiffusion.samplers.prior import RepaintConfig
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Positive, Range, fill

Width = Annotated[int, Range(1, 4096)]
FORMAT = "strdiffusion model 1"


@dataclass
class UNetRecord(UNetConfig):
    """A saved U-Net. guided: it has SPADE blocks. context: channels of the image that it sees beside its state. structure_channels: of the
    structure that a joint network denoises, 0 for other networks. step: iterations of training, if known.
    """

    guided: bool = False
    context: Annotated[int, Range(0, 64)] = 0
    structure_channels: Annotated[int, Range(0, 256)] = 0
    step: Count | None = None


@dataclass
class DiscriminatorRecord(DiscriminatorConfig):
    """A saved discriminator."""

    step: Count | None = None


@dataclass
class NetworksConfig:
    """The networks of the folder; each has a file with its name, such as texture.safetensors."""

    texture: UNetRecord
    structure: UNetRecord | None = None
    discriminator: DiscriminatorRecord | None = None


@dataclass
class ModelConfig:
    """model.yml. size: of the training images, in pixels. sampler: the defaults. provenance: the origin of the weights, for people.

    largest: the longest side of a window that the networks see as a whole, in pixels, if it is more than `size`. Networks that learnt from
    parts of pictures, and know nothing of the place in them, fill better what they see at once.
    """

    networks: NetworksConfig
    method: Literal["strdiffusion", "irsde", "joint"]
    format: Literal["strdiffusion model 1"] = FORMAT
    size: Annotated[int, Range(8, LARGEST_SIZE)] = 256
    largest: Annotated[int, Range(8, LARGEST_SIZE)] | None = None
    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    provenance: list[str] = field(default_factory=list)

    @classmethod
    def from_tree(cls, tree: dict, where: str) -> "ModelConfig":
        """Read a file. Without `method` it is of StrDiffusion, or of IR-SDE if sampler.guidance=false."""
        return fill(cls, {"method": "strdiffusion"} | with_method(tree, where), where)

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        texture, guided, joint = self.networks.texture, self.method == "strdiffusion", self.method == "joint"
        if texture.guided and self.networks.structure is None:
            raise UserError("networks.structure is missing: the texture network is guided, and nothing would guide it")
        if guided != texture.guided:
            raise UserError(f"method={self.method} does not fit networks.texture.guided={str(texture.guided).lower()}")
        if joint != (texture.structure_channels > 0):
            raise UserError(f"method={self.method} does not fit networks.texture.structure_channels={texture.structure_channels}")
        if self.sampler.scored and self.networks.discriminator is None:
            raise UserError(f"networks.discriminator is missing: sampler.resampling={self.sampler.resampling} needs it")
        self.sampler.check(MeanRevertingSDE(**vars(self.sde)), guided, joint)


@dataclass
class PriorRecord:
    """A saved prior: the arguments of `GuidedUNet`, what it predicts, and iterations of training, if known."""

    width: Width
    channels: list[Width]
    blocks: Annotated[int, Range(1, 16)]
    attention: list[Positive]
    heads: Width = 4
    head_channels: Width | None = 64
    scale_shift: bool = True
    resblock_updown: bool = True
    new_order: bool = False
    heads_upsample: Width | None = None
    class_conditional: bool = False
    learned_sigma: bool = True
    prediction: Prediction = "noise"
    step: Count | None = None


@dataclass
class ClassifierRecord:
    """A saved classifier of noisy images: the arguments of `NoiseClassifier`."""

    width: Width
    channels: list[Width]
    blocks: Annotated[int, Range(1, 16)]
    attention: list[Positive]
    size: Annotated[int, Range(8, LARGEST_SIZE)]
    classes: Annotated[int, Range(1, 100_000)] = 1000
    heads: Width = 4
    head_channels: Width | None = 64
    scale_shift: bool = True
    resblock_updown: bool = True
    new_order: bool = False


@dataclass
class PriorNetworksConfig:
    """The networks of RePaint; each has a file with its name, such as prior.safetensors."""

    prior: PriorRecord
    classifier: ClassifierRecord | None = None


@dataclass
class PriorModelConfig:
    """model.yml of RePaint. size: of the training images. process: that of the training. repaint: the defaults of sampling."""

    networks: PriorNetworksConfig
    method: Literal["repaint"] = "repaint"
    format: Literal["strdiffusion model 1"] = FORMAT
    size: Annotated[int, Range(8, LARGEST_SIZE)] = 256
    process: ProcessConfig = field(default_factory=ProcessConfig)
    repaint: RepaintConfig = field(default_factory=RepaintConfig)
    provenance: list[str] = field(default_factory=list)
