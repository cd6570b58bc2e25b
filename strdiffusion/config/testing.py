"""The options of a test: configs/*/test.yml. A YAML file overrides what it names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config.common import Count, Device, MaskConfig, Positive, SDEConfig, Seed, StructureConfig, check_hole_share_option
from strdiffusion.data.pairing import Pairing
from strdiffusion.data.testset import Fit
from strdiffusion.denoiser import Precision
from strdiffusion.samplers.adaptive import Accept
from strdiffusion.samplers.grid import Spacing, TimeGrid
from strdiffusion.samplers.repaint import jump_range
from strdiffusion.samplers.run import Method
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import Range


@dataclass
class CheckpointsConfig:
    """The trained networks: a model folder, or a file for each, our checkpoints or released ones.

    Where width and depth are given, others are refused. `weights` is of our checkpoints; a model folder holds one set.
    """

    folder: str | None = None
    texture: str | None = None
    structure: str | None = None
    discriminator: str | None = None
    weights: Weights = "ema"
    width: Positive | None = None
    depth: Positive | None = None
    discriminator_width: Positive | None = None

    def files(self) -> list[Path | None]:
        """Every file that the networks are read from; None for a network that is not given."""
        if self.folder is not None:
            folder = Path(self.folder).expanduser()
            return [folder / "model.yml", *sorted(folder.glob("*.safetensors"))]
        return [None if path is None else Path(path).expanduser() for path in (self.texture, self.structure, self.discriminator)]


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
    size: Annotated[int, Range(8, 8192)] = 256
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
class FixedConfig:
    """The structure redone a fixed number of times, without a discriminator."""

    times: Positive = 1
    jump: Positive = 2
    re: Count = 2


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

    method: how one step is taken: "ancestral" as released; "posterior"; "mars_ode" or "mars_sde" of `order` (spec sec. 8).
    steps: how many lead from T to 0; null: one for each t, as released.
    spacing: what the times of these steps are evenly spread in, t or the log signal-to-noise ratio.
    clip: keep every predicted x0 within [0,1]; for briefly trained networks, not as released.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"step": "method"}

    guidance: bool = True
    resampling: Literal["none", "released", "paper", "repaint", "fixed"] = "released"
    method: Method = "ancestral"
    order: Literal[1, 2] = 2
    steps: Annotated[int, Range(2)] | None = None
    spacing: Spacing = "t"
    clip: bool = False
    released: ReleasedConfig = field(default_factory=ReleasedConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    repaint: RepaintConfig = field(default_factory=RepaintConfig)
    fixed: FixedConfig = field(default_factory=FixedConfig)

    @property
    def scored(self) -> bool:
        """Whether a discriminator decides."""
        return self.resampling in ("released", "paper")

    def check(self, sde: SDEConfig) -> None:
        """What one key alone cannot tell; UserError where the settings contradict each other, or the SDE."""
        if not self.guidance and self.resampling in ("released", "paper", "fixed"):
            raise UserError(f"sampler.resampling={self.resampling} redoes the structure, so it needs sampler.guidance=true")
        if self.steps is not None and self.steps > sde.T:
            raise UserError(f"sampler.steps must be from 2 to sde.T={sde.T}, not {self.steps}; null visits every t")
        if self.resampling == "repaint":
            _check_repaint(self.repaint, self.grid(sde), self.guidance)

    def grid(self, sde: SDEConfig, begin: int | None = None) -> TimeGrid:
        """The times that a sampler visits."""
        return TimeGrid(MeanRevertingSDE(**vars(sde)), self.steps, self.spacing, begin)


@dataclass
class TestConfig:
    """configs/*/test.yml.

    compile: let torch.compile work on the networks; needs a compiler, and minutes for the first image of a size.
    process: write every process-th step of texture and structure as pictures (0: none).
    guide: "denoised", the method; to find out what the guide is worth, the true structure ("ground_truth"), or what another
        image has in the hole ("other_image").
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    data: TestDataConfig
    checkpoints: CheckpointsConfig
    output: str
    overwrite: bool = False
    seed: Seed = 0
    device: Device = "auto"
    precision: Precision = "fp32"
    compile: bool = False
    batch_size: Annotated[int, Range(1, 65536)] = 8
    process: Count = 0
    guide: Literal["denoised", "ground_truth", "other_image"] = "denoised"
    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def grid(self) -> TimeGrid:
        """The times that the sampler visits."""
        return self.sampler.grid(self.sde)

    def check(self) -> None:
        """What one key alone cannot tell."""
        check_hole_share_option("data.masks.hole_share", self.data.masks)
        sampler, checkpoints = self.sampler, self.checkpoints
        sampler.check(self.sde)
        if checkpoints.folder is not None:
            if (checkpoints.texture, checkpoints.structure, checkpoints.discriminator) != (None, None, None):
                raise UserError(
                    f"checkpoints.folder is given beside separate files: set checkpoints={{folder: {checkpoints.folder}}} to replace them"
                )
        elif checkpoints.texture is None:
            raise UserError("checkpoints.texture is missing: give it, or a model folder as checkpoints.folder")
        elif sampler.guidance and checkpoints.structure is None:
            raise UserError("checkpoints.structure is missing: it is needed with sampler.guidance=true")
        elif sampler.scored and checkpoints.discriminator is None:
            raise UserError(f"checkpoints.discriminator is missing: it is needed with sampler.resampling={sampler.resampling}")
        if self.guide != "denoised" and not (sampler.guidance and sampler.resampling == "none" and self.data.ground_truth):
            raise UserError(f"guide={self.guide} needs sampler.guidance=true, sampler.resampling=none and data.ground_truth=true")
        if not self.data.ground_truth and self.data.masks.folder is None:
            raise UserError("data.masks.folder is missing: it is needed with data.ground_truth=false, to say where the holes are")
        if not self.data.ground_truth and self.structure.edge_source == "full" and "edge" in self.structure.pair:
            raise UserError("structure.edge_source=full needs the truth: set structure.edge_source=known with data.ground_truth=false")


def _check_repaint(repaint: RepaintConfig, grid: TimeGrid, guided: bool) -> None:
    start = grid.T if repaint.start is None else repaint.start
    room = 0
    if max(start, repaint.stop) <= grid.T:
        first, last = jump_range(grid, start, repaint.stop, guided)
        room = first - last
    if room < repaint.jump_length:
        raise UserError(
            f"sampler.repaint leaves no room for a jump: from start {start} down to stop {repaint.stop}"
            f"{' and above the late stage' if guided else ''} there must be at least jump_length={repaint.jump_length} steps"
            f" (there are {max(room, 0)}), and start must not exceed sde.T={grid.T}"
        )
