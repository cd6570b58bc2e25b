"""Every option there is, with its type, range and default. A YAML file overrides what it names."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config.parser import Range
from strdiffusion.data.masks import Polarity
from strdiffusion.data.pairing import Pairing
from strdiffusion.data.structure import EdgeSource, StructurePair
from strdiffusion.data.testset import Fit
from strdiffusion.denoiser import Precision, Prediction
from strdiffusion.errors import UserError
from strdiffusion.networks.unet import Attention
from strdiffusion.objectives import LossOn, Norm
from strdiffusion.samplers.adaptive import Accept
from strdiffusion.samplers.run import Step, early_end
from strdiffusion.sde import Schedule

Positive = Annotated[int, Range(1)]
Count = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Device = Literal["auto", "cuda", "mps", "cpu"]
Share = Annotated[float, Range(0, 1)]
Momentum = Annotated[float, Range(0, 0.999999)]


@dataclass
class SDEConfig:
    """The mean-reverting SDE (spec sec. 2)."""

    T: Annotated[int, Range(2, 10_000)] = 100
    schedule: Schedule = "cosine"
    max_sigma: Annotated[float, Range(0, open_low=True)] = 30.0
    eps: Annotated[float, Range(1e-12, 0.5)] = 0.005


@dataclass
class StructureConfig:
    """Structure maps (spec sec. 3)."""

    pair: StructurePair = "gray2edge"
    edge_source: EdgeSource = "full"
    edge_sigma: Annotated[float, Range(0, open_low=True)] = 2.0


@dataclass
class UNetConfig:
    """A U-Net (spec sec. 4)."""

    width: Annotated[int, Range(4)] = 64
    depth: Annotated[int, Range(1, 8)] = 4
    attention: Attention = "none"
    prediction: Prediction = "noise"


@dataclass
class DiscriminatorConfig:
    """The discriminator (spec sec. 5)."""

    width: Positive = 64


@dataclass
class MaskConfig:
    """Where masks come from: a folder of files, or generated strokes whose share of the image lies in hole_share."""

    folder: str | None = None
    polarity: Polarity = "white_hole"
    hole_share: tuple[Share, Share] = (0.1, 0.5)


@dataclass
class TrainDataConfig:
    """Training images. Every folder is searched recursively; `index` remembers what is in it ("auto": in the cache folder)."""

    images: str
    size: Annotated[int, Range(8)] = 256
    crop_from: Positive | None = None
    augment: bool = True
    index: str | None = "auto"
    workers: Count = 4
    masks: MaskConfig = field(default_factory=MaskConfig)


@dataclass
class ValidationConfig:
    """Held-out images (null: no validation): every `every` iterations, the loss on `loss_images` of them (null: all)
    and PSNR/SSIM of `samples` of them, sampled from T to 0; each image has the same mask in every run.
    """

    images: str | None = None
    masks: MaskConfig = field(default_factory=MaskConfig)
    every: Positive = 5000
    loss_images: Positive | None = 64
    samples: Count = 8
    index: str | None = "auto"


@dataclass
class TrainingConfig:
    """The optimisation (spec sec. 6). The rate is multiplied by lr_decay at every milestone (iterations)."""

    iterations: Positive = 700_000
    batch_size: Positive = 16
    learning_rate: Annotated[float, Range(0, open_low=True)] = 1e-4
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)
    milestones: list[Positive] = field(default_factory=list)
    lr_decay: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    lr_schedule: Literal["steps", "cosine"] = "steps"
    warmup: Count = 0
    clip_gradient: Annotated[float, Range(0, open_low=True)] | None = None
    ema_decay: Momentum = 0.995
    max_minutes: Annotated[float, Range(0, open_low=True)] | None = None
    log_every: Positive = 100
    save_every: Positive = 5000
    keep: Positive = 3


@dataclass
class DiscriminatorTrainingConfig(TrainingConfig):
    """The optimisation of the discriminator, with its own betas (spec sec. 6)."""

    betas: tuple[Momentum, Momentum] = (0.5, 0.99)


@dataclass
class StructureObjectiveConfig:
    """How the structure network is trained (spec sec. 6)."""

    norm: Norm = "l1"
    loss_on: LossOn = "step"


@dataclass
class TextureObjectiveConfig(StructureObjectiveConfig):
    """How the texture network is trained: guided by the ground-truth structure state (as released), by what a trained
    structure network makes of it ("denoised", as the paper says; needs structure_checkpoint), or not at all (IR-SDE).
    """

    guidance: Literal["ground_truth", "denoised", "none"] = "ground_truth"
    structure_checkpoint: str | None = None


@dataclass
class TrainConfig:
    """What the three trainings share. `resume`: "none", "auto" (the newest checkpoint in the output folder), or a file."""

    data: TrainDataConfig
    output: str
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "fp32"
    resume: str = "none"
    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def check(self) -> None:
        """What one key alone cannot tell."""
        _check_hole_share("data.masks.hole_share", self.data.masks)
        _check_hole_share("validation.masks.hole_share", self.validation.masks)
        if self.data.crop_from is not None and self.data.crop_from < self.data.size:
            raise UserError(f"data.crop_from ({self.data.crop_from}) must be at least data.size ({self.data.size})")
        if self.training.warmup >= self.training.iterations:
            raise UserError(f"training.warmup ({self.training.warmup}) must be below training.iterations ({self.training.iterations})")


@dataclass
class TrainStructureConfig(TrainConfig):
    """configs/*/structure.yml"""

    network: UNetConfig = field(default_factory=UNetConfig)
    objective: StructureObjectiveConfig = field(default_factory=StructureObjectiveConfig)

    def check(self) -> None:
        super().check()
        _check_width(self.network)


@dataclass
class TrainTextureConfig(TrainConfig):
    """configs/*/texture.yml"""

    network: UNetConfig = field(default_factory=UNetConfig)
    objective: TextureObjectiveConfig = field(default_factory=TextureObjectiveConfig)

    def check(self) -> None:
        super().check()
        _check_width(self.network)
        if (self.objective.guidance == "denoised") != (self.objective.structure_checkpoint is not None):
            raise UserError("objective.structure_checkpoint is needed with objective.guidance=denoised, and only there")


@dataclass
class TrainDiscriminatorConfig(TrainConfig):
    """configs/*/discriminator.yml"""

    network: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    training: DiscriminatorTrainingConfig = field(default_factory=DiscriminatorTrainingConfig)


@dataclass
class CheckpointsConfig:
    """The trained networks: our checkpoints or released files. Where width and depth are given, others are refused."""

    texture: str
    structure: str | None = None
    discriminator: str | None = None
    weights: Weights = "ema"
    width: Positive | None = None
    depth: Positive | None = None
    discriminator_width: Positive | None = None


@dataclass
class TestMaskConfig(MaskConfig):
    """Masks at test, each paired with its image: by name, in order, or by a seeded draw."""

    pairing: Pairing = "name"


@dataclass
class TestDataConfig:
    """Images to inpaint. `fit` brings them to `size` x `size` ("none": their own size).

    ground_truth: false where the holes are real, so that nothing in the hole may be looked at.
    """

    __test__ = False

    images: str
    masks: TestMaskConfig = field(default_factory=TestMaskConfig)
    size: Annotated[int, Range(8)] = 256
    fit: Fit = "resize"
    ground_truth: bool = True
    limit: Positive | None = None
    index: str | None = "auto"


@dataclass
class ReleasedConfig:
    """Adaptive resampling as released (spec sec. 7)."""

    u_max: Positive = 25
    u_min: Positive = 4
    jump: Positive = 2
    re: Count = 2
    accept: Accept = "lower"


@dataclass
class PaperConfig:
    """Adaptive resampling as the paper describes it (spec sec. 7)."""

    threshold: float = 0.0
    u_max: Positive = 5
    jump: Positive = 1
    re: Count = 1
    accept: Accept = "higher"


@dataclass
class RepaintConfig:
    """RePaint's schedule (spec sec. 7)."""

    jump_length: Positive = 10
    resamplings: Positive = 10
    start: Positive | None = None
    stop: Count = 0


@dataclass
class SamplerConfig:
    """How images are sampled. Without guidance this is IR-SDE, and the resampling is `none` or `repaint`.

    clip: keep every predicted x0 within [0,1]; for briefly trained networks, not as released.
    """

    guidance: bool = True
    resampling: Literal["none", "released", "paper", "repaint"] = "released"
    step: Step = "ancestral"
    clip: bool = False
    released: ReleasedConfig = field(default_factory=ReleasedConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    repaint: RepaintConfig = field(default_factory=RepaintConfig)


@dataclass
class TestConfig:
    """configs/*/test.yml. `process`: write every process-th step of texture and structure as pictures (0: none)."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    data: TestDataConfig
    checkpoints: CheckpointsConfig
    output: str
    overwrite: bool = False
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "fp32"
    batch_size: Positive = 8
    process: Count = 0
    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def check(self) -> None:
        """What one key alone cannot tell."""
        _check_hole_share("data.masks.hole_share", self.data.masks)
        sampler, checkpoints = self.sampler, self.checkpoints
        if not sampler.guidance and sampler.resampling in ("released", "paper"):
            raise UserError(f"sampler.resampling={sampler.resampling} redoes the structure, so it needs sampler.guidance=true")
        if sampler.guidance and checkpoints.structure is None:
            raise UserError("checkpoints.structure is missing: it is needed with sampler.guidance=true")
        if sampler.resampling in ("released", "paper") and checkpoints.discriminator is None:
            raise UserError(f"checkpoints.discriminator is missing: it is needed with sampler.resampling={sampler.resampling}")
        if not self.data.ground_truth and self.data.masks.folder is None:
            raise UserError("data.masks.folder is missing: it is needed with data.ground_truth=false, to say where the holes are")
        if not self.data.ground_truth and self.structure.edge_source == "full" and "edge" in self.structure.pair:
            raise UserError("structure.edge_source=full needs the truth: set structure.edge_source=known with data.ground_truth=false")
        if sampler.resampling == "repaint":
            _check_repaint(sampler.repaint, self.sde.T, sampler.guidance)


def _check_repaint(repaint: RepaintConfig, T: int, guided: bool) -> None:
    start = T if repaint.start is None else repaint.start
    stop = max(repaint.stop, early_end(T) - 1) if guided else repaint.stop
    if start > T or start - stop < repaint.jump_length:
        raise UserError(
            f"sampler.repaint leaves no room for a jump: from start {start} down to stop {stop} there must be at least "
            f"jump_length={repaint.jump_length} steps, and start must not exceed sde.T={T}"
        )


def _check_hole_share(key: str, masks: MaskConfig) -> None:
    low, high = masks.hole_share
    if not 0 < low < high < 1:
        raise UserError(f"{key} must be two shares with 0 < first < second < 1, not [{low:g}, {high:g}]")


def _check_width(network: UNetConfig) -> None:
    if network.width % 2:
        raise UserError(f"network.width must be even, not {network.width}")
