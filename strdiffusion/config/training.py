"""The options of trainings: configs/*/{structure,texture,discriminator,judge}.yml; those of a prior are in prior.py, of DGTS in dgts.py.

Keys that a YAML file omits have their defaults.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from strdiffusion.config.common import Device, MaskConfig, SDEConfig, StructureConfig
from strdiffusion.data.mask_families import TrainingFamily
from strdiffusion.denoiser import Precision, Prediction
from strdiffusion.networks.unet import Attention
from strdiffusion.objectives import HOLE_WEIGHT, LossOn, Norm
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Count, Momentum, Positive, Range, Rate, Seed, Share, Weight

LARGEST_SIZE = 2048  # of images, in pixels a side


@dataclass
class UNetConfig:
    """A U-Net (spec sec. 4)."""

    width: Annotated[int, Range(4, 4096)] = 64
    depth: Annotated[int, Range(1, 8)] = 4
    attention: Attention = "none"
    prediction: Prediction = "noise"


@dataclass
class DiscriminatorConfig:
    """The discriminator (spec sec. 5)."""

    width: Annotated[int, Range(1, 4096)] = 64


@dataclass
class SegmenterConfig:
    """The judge: a U-Net that names the class of every pixel. classes: their names, in the order of the labels."""

    classes: list[str]
    width: Annotated[int, Range(4, 4096)] = 16
    depth: Annotated[int, Range(1, 8)] = 3


@dataclass
class TrainMaskConfig(MaskConfig):
    """Where training masks come from. family: also "mixed", strokes or a box, each as often, with a share in hole_share."""

    family: TrainingFamily = "irregular"


@dataclass
class TrainDataConfig:
    """Training images: a folder, or one file. Every folder is searched recursively; `index` is the file for the list of its images
    ("auto": in the cache folder; null: none). Files that cannot be used are replaced by others, unless they are more than the share
    `max_bad_share`.
    labels: a folder with the labels of the images, under the same names; null: the images have no labels.
    unknown: masks of what is unknown in the images, white = unknown: a folder with files of the same names, or one file for all.
        Nothing is learnt of it. null: the images are whole.
    shrink: a crop covers `size` times a factor from this range, which is drawn for each sample, as far as the image is large enough.
    """

    images: str
    labels: str | None = None
    unknown: str | None = None
    shrink: tuple[Annotated[float, Range(1, 64)], Annotated[float, Range(1, 64)]] = (1.0, 1.0)
    size: Annotated[int, Range(8, LARGEST_SIZE)] = 256
    crop_from: Annotated[int, Range(8, LARGEST_SIZE)] | None = None
    augment: bool = True
    index: str | None = "auto"
    workers: Annotated[int, Range(0, 256)] = 4
    max_bad_share: Share = 0.2
    masks: TrainMaskConfig = field(default_factory=TrainMaskConfig)


@dataclass
class ValidationConfig:
    """Held-out images (null: no validation). Every `every` iterations: the loss on `loss_images` of them (null: all), and PSNR and SSIM
    of `samples` of them, sampled from T to 0. Each image has the same mask in every run. best.pt is chosen by the number `best`.
    labels: as data.labels. For a judge, `samples` are images whose accuracy and mean IoU are measured.
    """

    images: str | None = None
    labels: str | None = None
    masks: MaskConfig = field(default_factory=MaskConfig)
    every: Positive = 5000
    loss_images: Positive | None = 64
    samples: Count = 8
    best: Literal["loss", "psnr", "ssim", "hole_psnr", "hole_ssim", "accuracy", "mean_iou"] = "loss"
    index: str | None = "auto"


@dataclass
class TrainingConfig:
    """The optimisation (spec sec. 6). The rate is multiplied by lr_decay at every milestone (iterations).

    batch_size: of all processes together; each computes its share in `accumulate` parts, one after the other.
    max_skipped: the run ends after so many iterations in a row whose loss or gradient is not finite.
    checkpoint: gradient checkpointing of the residual blocks: less memory, more time.
    compile: use torch.compile for the network; it needs a compiler, and minutes at the start.
    """

    iterations: Positive = 700_000
    batch_size: Annotated[int, Range(1, 65536)] = 16
    accumulate: Annotated[int, Range(1, 65536)] = 1
    learning_rate: Rate = 1e-4
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)
    weight_decay: Weight = 0.0
    milestones: list[Positive] = field(default_factory=list)
    lr_decay: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    lr_schedule: Literal["steps", "cosine"] = "steps"
    warmup: Count = 0
    clip_gradient: Annotated[float, Range(0, 10**9, open_low=True)] | None = None
    max_skipped: Positive = 20
    ema_decay: Momentum = 0.995
    checkpoint: bool = False
    compile: bool = False
    max_minutes: Annotated[float, Range(0, 10**7, open_low=True)] | None = None
    log_every: Positive = 100
    save_every: Positive = 5000
    keep: Positive = 3


@dataclass
class DiscriminatorTrainingConfig(TrainingConfig):
    """The optimisation of the discriminator, with its own betas (spec sec. 6), and clipped, since its loss swings (docs/training.md)."""

    betas: tuple[Momentum, Momentum] = (0.5, 0.99)
    clip_gradient: Annotated[float, Range(0, 10**9, open_low=True)] | None = 1.0


FIRST_T = 2  # as released; at t = 1 the optimum step is x0 itself


@dataclass
class ObjectiveConfig:
    """What the trainings of structure and texture share (spec sec. 6). IR-SDE's authors train with hole_weight=1 and first_t=1.

    hole_weight: of the hole in the loss; known pixels have 1. first_t: the first time that is trained.
    """

    norm: Norm = "l1"
    loss_on: LossOn = "step"
    hole_weight: Annotated[float, Range(0, 10**6, open_low=True)] = HOLE_WEIGHT
    first_t: Literal[1, 2] = FIRST_T


@dataclass
class StructureObjectiveConfig(ObjectiveConfig):
    """How the structure network is trained.

    sees: what it sees beside its state and mean: nothing ("edges", as published), or the known pixels ("known", spec sec. 11).
    """

    sees: Literal["edges", "known"] = "edges"


@dataclass
class TextureObjectiveConfig(ObjectiveConfig):
    """How the texture network is trained: guided by the ground-truth structure state (as released), by a trained structure network's
    estimate ("denoised", as in the paper; needs structure_checkpoint), not guided ("none": IR-SDE), or denoising the structure itself
    ("joint", spec sec. 11).

    ahead: of the joint form: the least and the most times by which the structure leads; each is as likely.
    structure_weight: of the joint form: the weight of the structure's loss beside the texture's.
    classes: of the joint form with structure.pair=labels: the number of classes.
    """

    guidance: Literal["ground_truth", "denoised", "none", "joint"] = "ground_truth"
    structure_checkpoint: str | None = None
    ahead: tuple[Count, Count] = (20, 20)
    structure_weight: Weight = 0.5
    classes: Annotated[int, Range(2, 256)] = 7


@dataclass
class TrainConfig:
    """What all trainings share. `resume`: "none", "auto" (the newest checkpoint in the output folder), or a file.
    `start`: the network whose weights it begins with, a model folder or a checkpoint; null: new ones.
    """

    measured: ClassVar[tuple[str, ...]] = ("psnr", "ssim", "hole_psnr", "hole_ssim")  # of samples, besides the loss
    leaves_out: ClassVar[bool] = False  # whether its loss can leave out what is unknown in the images

    data: TrainDataConfig
    output: str
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "fp32"
    resume: str = "none"
    start: str | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    @property
    def maps(self) -> StructureConfig:
        """The structure maps of its data; a training without them gets gray values, which cost least."""
        return StructureConfig("gray2gray", "known")

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        self.data.masks.check("data.masks")
        self.validation.masks.check("validation.masks")
        if self.data.crop_from is not None and self.data.crop_from < self.data.size:
            raise UserError(f"data.crop_from ({self.data.crop_from}) must be at least data.size ({self.data.size})")
        if self.data.shrink[0] > self.data.shrink[1]:
            raise UserError(f"data.shrink must be two factors, first <= second, not [{self.data.shrink[0]:g}, {self.data.shrink[1]:g}]")
        if self.data.labels is not None and (self.data.unknown is not None or self.data.shrink != (1.0, 1.0)):
            raise UserError("data.labels excludes data.unknown and data.shrink: labels are of whole images at their own scale")
        if self.data.unknown is not None and not self.leaves_out:
            raise UserError("data.unknown is for the trainings of structure and texture: the loss of this one counts every pixel")
        best = self.validation.best
        if best != "loss" and (self.validation.samples == 0 or not self.measured):
            raise UserError(f"validation.best={best} needs sampled images, and this training samples none: set validation.best=loss")
        if best not in ("loss", *self.measured):
            raise UserError(f"validation.best={best} is not measured in this training: choose one of loss, {', '.join(self.measured)}")
        if self.training.warmup >= self.training.iterations:
            raise UserError(f"training.warmup ({self.training.warmup}) must be below training.iterations ({self.training.iterations})")


@dataclass
class TrainSDEConfig(TrainConfig):
    """What the trainings of StrDiffusion's networks share, and that of the judge."""

    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)

    @property
    def maps(self) -> StructureConfig:
        return self.structure


@dataclass
class TrainStructureConfig(TrainSDEConfig):
    """configs/*/structure.yml"""

    leaves_out: ClassVar[bool] = True

    network: UNetConfig = field(default_factory=UNetConfig)
    objective: StructureObjectiveConfig = field(default_factory=StructureObjectiveConfig)

    def check(self) -> None:
        super().check()
        _check_width(self.network)


@dataclass
class TrainTextureConfig(TrainSDEConfig):
    """configs/*/texture.yml"""

    leaves_out: ClassVar[bool] = True

    network: UNetConfig = field(default_factory=UNetConfig)
    objective: TextureObjectiveConfig = field(default_factory=TextureObjectiveConfig)

    def check(self) -> None:
        super().check()
        _check_width(self.network)
        if (self.objective.guidance == "denoised") != (self.objective.structure_checkpoint is not None):
            raise UserError("objective.structure_checkpoint is needed with objective.guidance=denoised, and only there")
        if self.objective.guidance == "joint":
            self._check_joint()
        elif self.structure.pair == "labels":
            raise UserError("structure.pair=labels needs objective.guidance=joint: no other network has labels as its structure")

    def _check_joint(self) -> None:
        least, most = self.objective.ahead
        if self.structure.pair == "labels" and self.data.labels is None:
            raise UserError("structure.pair=labels needs the labels of the training images: give their folder as data.labels")
        if self.structure.pair == "labels" and self.validation.images is not None and self.validation.labels is None:
            raise UserError("structure.pair=labels needs the labels of the held-out images: give their folder as validation.labels")
        if not least <= most <= self.sde.T:
            raise UserError(f"objective.ahead must be two numbers of times, first <= second <= sde.T={self.sde.T}, not [{least}, {most}]")
        if self.structure.edge_source == "full" and "edge" in self.structure.pair:
            raise UserError("objective.guidance=joint never shows the network what is in the hole: set structure.edge_source=known")


@dataclass
class TrainDiscriminatorConfig(TrainSDEConfig):
    """configs/*/discriminator.yml"""

    measured: ClassVar[tuple[str, ...]] = ()

    network: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    training: DiscriminatorTrainingConfig = field(default_factory=DiscriminatorTrainingConfig)


@dataclass
class TrainJudgeConfig(TrainSDEConfig):
    """configs/*/judge.yml. A judge sees whole images: `sde`, `structure` and masks change nothing."""

    measured: ClassVar[tuple[str, ...]] = ("accuracy", "mean_iou")

    network: SegmenterConfig = field(kw_only=True)

    def check(self) -> None:
        super().check()
        require_labels(self)
        if self.network.width % 4:
            raise UserError(f"network.width must be a multiple of 4, not {self.network.width}")
        if not 2 <= len(set(self.network.classes)) == len(self.network.classes) <= 256:
            raise UserError("network.classes must name 2 to 256 classes, none twice")


def require_labels(config: TrainConfig) -> None:
    """Raise UserError if the images of a training that needs labels have none."""
    if config.data.labels is None:
        raise UserError("data.labels is missing: this training needs the class of every pixel, in a folder of labels")
    if config.validation.images is not None and config.validation.labels is None:
        raise UserError("validation.labels is missing: give a folder of labels, or set validation.images=null")


def _check_width(network: UNetConfig) -> None:
    if network.width % 2:
        raise UserError(f"network.width must be even, not {network.width}")
