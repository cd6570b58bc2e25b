"""IR-SDE: the mean-reverting SDE of the texture alone (spec sec. 2; arXiv 2301.11699). StrDiffusion builds on it."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, get_args

import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.denoiser import Denoiser, Precision
from strdiffusion.methods.counting import count_evaluations
from strdiffusion.methods.finite import Watch
from strdiffusion.methods.loading import CheckpointsConfig, Model, load_for_test
from strdiffusion.methods.method import Choices, Evaluate, Evaluations, Method, Options, Result, Step, register
from strdiffusion.networks import Kind
from strdiffusion.networks.discriminator import SMALLEST_SIDE
from strdiffusion.samplers import Begin, Networks, SamplerConfig, Sampling, SeededNoise
from strdiffusion.samplers.grid import TimeGrid
from strdiffusion.samplers.options import OF_STRUCTURE, SCORED, Resampling
from strdiffusion.samplers.sampling import finished
from strdiffusion.samplers.solvers import Solver
from strdiffusion.samplers.state import Moment
from strdiffusion.samplers.trace import total_evaluations
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import float32_precision
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.parser import convert, to_dict

KEPT = 0.4  # sampling from an estimate begins at the first time with exp(-theta_bar) <= KEPT


@dataclass
class IRSDEOptions(Options):
    """Networks, process and sampling.

    compile: use torch.compile for the networks; needs a compiler, and some minutes for the first image of each size.
    structure: as in the trainings; IR-SDE itself uses no structure.
    """

    guided: ClassVar[bool] = False
    joint: ClassVar[bool] = False

    checkpoints: CheckpointsConfig
    precision: Precision = "fp32"
    compile: bool = False
    sde: SDEConfig = field(default_factory=SDEConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def check(self) -> None:
        self.sampler.check(MeanRevertingSDE(**vars(self.sde)), self.guided, self.joint)
        self.checkpoints.check(self.needed())

    def needed(self) -> dict[Kind, str]:
        """The networks beside the texture network, each with the option that needs it."""
        needed: dict[Kind, str] = {"structure": "method=strdiffusion"} if self.guided else {}
        if self.sampler.scored:
            needed["discriminator"] = f"sampler.resampling={self.sampler.resampling}"
        return needed

    def describe(self) -> str:
        edges = f"edges of the {self.structure.edge_source} image (sigma {self.structure.edge_sigma:g})"
        return f"T={self.sde.T}, {self.structure.pair}, {edges}, {self.checkpoints.weights} weights, {self.precision}, "

    def earlier_form(self, tree: dict) -> dict | None:
        pair, source = self.structure.pair, self.structure.edge_source
        if self.guided and pair.startswith("edge") and source == "known":
            return None  # their known edges were those of the whole image
        if self.revision():
            return None
        rest = {key: value for key, value in tree["sampler"].items() if key != "solver"}
        sampler = rest | {"guidance": self.guided, "method": self.sampler.solver}
        return {"guide": "denoised"} | {key: value for key, value in tree.items() if key != "method"} | {"sampler": sampler}

    def revision(self) -> dict[str, int]:
        if not self.guided or self.sampler.steps in (None, self.sde.T):
            return {}
        return {"fewer_steps": 2}  # 1: known structure, guide and discriminator had the times of the grid (spec sec. 7)

    def files(self) -> list[Path | None]:
        files = self.checkpoints.files()
        if self.checkpoints.folder is not None:
            return files
        named = zip(("texture", "structure", "discriminator"), files, strict=True)
        spare = [kind not in ("texture", *self.needed()) and file is not None and not file.exists() for kind, file in named]
        return [None if unused else file for unused, file in zip(spare, files, strict=True)]  # named, not there, and not needed

    def grid(self) -> TimeGrid:
        """The times that the sampler visits."""
        return self.sampler.grid(MeanRevertingSDE(**vars(self.sde)))


@register("irsde")
class IRSDEMethod(Method):
    """The texture network alone. model: the network, and the configuration recorded with it."""

    Options = IRSDEOptions
    guided: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    tiles = True

    def __init__(
        self, model: Model, device: torch.device, precision: Precision = "fp32", compile: bool = False, sampler: SamplerConfig | None = None
    ):
        self.model, self.device, self.precision, self.compile = model, device, precision, compile
        self.sampler = sampler or model.config.sampler
        self.sde = MeanRevertingSDE(**vars(model.config.sde))
        self.size, self.largest = model.config.size, model.config.largest
        model.networks.to(device)

    @classmethod
    def open(cls, options: IRSDEOptions, device: torch.device) -> "IRSDEMethod":
        model = load_for_test(options.checkpoints, options.sde, options.structure, options.sampler, cls.name)
        return cls(model, device, options.precision, options.compile)

    doors: Mapping[str, str] = {}

    # ---- inpainting -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def inpaint(
        self, known: Known, seeds: Sequence[int], evaluate: Evaluate | None = None, begin: Known | None = None
    ) -> Iterator[Step | Result]:
        known, watch = known.to(self.device), Watch(self.precision)
        run = Sampling(self.predictors(known, watch.around(evaluate)), known, SeededNoise(seeds), self.sampler, self.begin_from(begin))
        for moment in self.sampler.sampler(self.guided, self.joint).steps(run):
            yield self.step(run, moment)
        watch.finish()
        end = finished(run, moment)
        evaluations = [total_evaluations([trace]) for trace in end.traces]
        yield Result(end.texture, self.pictures(end.structure), end.traces, evaluations)

    def step(self, run: Sampling, moment: Moment) -> Step:
        """A moment of the sampler as a Step."""
        pictures, guide = self.pictures(None if moment.x is None else moment.x.x), None if moment.x is None else moment.x.guide
        return Step(run.grid[moment.n], run.grid[moment.to], run.grid.first, moment.n, run.N, moment.y.x, pictures, guide)

    def pictures(self, structure: Tensor | None) -> dict[str, Tensor]:
        """The pictures of a state of the structure."""
        return {} if structure is None else {"structure": structure}

    def predictors(self, known: Known | None = None, evaluate: Evaluate | None = None) -> Networks:
        """The networks in the form in which the sampler calls them."""
        return Networks(texture=self.denoiser("texture", evaluate))

    def denoiser(self, kind: Kind, evaluate: Evaluate | None) -> Denoiser:
        loaded = getattr(self.model.networks, kind)
        sees_known = kind == "structure" and loaded.network.context > 0
        return Denoiser(self.network(kind, evaluate), self.sde, loaded.prediction, clip=self.sampler.clip, sees_known=sees_known)

    def network(self, kind: Kind, evaluate: Evaluate | None = None) -> Callable[..., Tensor]:
        """A network in its inference form (networks/inference.py), or the function by which `evaluate` replaces it."""
        form = getattr(self.model.networks, kind).for_inference(self.precision, self.compile)

        def call(*inputs, **options) -> Tensor:
            with float32_precision(self.precision, self.device):
                return form(*inputs, **options)

        return call if evaluate is None else evaluate(kind, call)

    def begin_from(self, estimate: Known | None) -> Begin | None:
        """Where sampling from an estimate of the clean images begins: late in the early stage."""
        if estimate is None:
            return None
        estimate = estimate.to(self.device)
        return Begin(self.begin_time(), estimate.image, estimate.maps.get("structure"))

    def begin_time(self) -> int:
        """The time at which sampling from an estimate begins: the first of the early stage at which at most the share KEPT of the
        estimate is left in the marginal mean.
        """
        grid = self.sampler.grid(self.sde)
        return next((t for n, t in enumerate(grid.times) if n >= grid.early_end and self.sde.decay[t] <= KEPT), grid.times[-1])

    # ---- limits, cost and settings --------------------------------------------------------------------

    def require_size(self, height: int, width: int) -> None:
        if self.sampler.scored and min(height, width) < SMALLEST_SIDE:
            raise UserError(f"is smaller than {SMALLEST_SIDE} pixels a side, which the discriminator needs: set data.fit=resize")

    def cost(self, late: bool = False) -> dict[str, Evaluations]:
        return count_evaluations(self.sampler, self.sde, self.guided, self.begin_time() if late else None, self.joint)

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        networks = self.predictors(None)
        texture = torch.rand(1, 3, self.size, self.size, device=self.device)
        gray = texture[:, :1]
        calls = {"texture": lambda: networks.texture.noise(texture, texture, 1, gray if self.guided else None)}
        if networks.structure is not None:
            calls["structure"] = lambda: networks.structure.noise(gray, gray, 1, networks.structure.context(texture))
        if networks.discriminator is not None:
            calls["discriminator"] = lambda: networks.discriminator(texture, gray, 1, group=1)
        return calls

    def choices(self) -> Choices:
        return Choices(
            solvers=get_args(Solver),
            solver=self.sampler.solver,
            most_steps=self.sde.T,
            steps=self.sampler.steps or self.sde.T,
            resamplings=tuple(choice for choice in get_args(Resampling) if self.can_resample(choice)),
            resampling=self.sampler.resampling,
        )

    def can_resample(self, resampling: Resampling) -> bool:
        """Whether its networks suffice for a resampling; the number of steps is not checked."""
        if not self.guided and resampling in OF_STRUCTURE or self.joint and resampling != "none":
            return False
        return resampling not in SCORED or self.model.networks.discriminator is not None

    def varied(
        self,
        sampler: str | SamplerConfig | None = None,
        steps: int | None = None,
        resampling: str | None = None,
        precision: Precision | None = None,
    ) -> "IRSDEMethod":
        """The same networks with another sampler, given by its settings or a solver's name. Raises UserError if it does not fit."""
        tree = to_dict(sampler if isinstance(sampler, SamplerConfig) else self.sampler)
        given = {"solver": sampler if isinstance(sampler, str) else None, "steps": steps, "resampling": resampling}
        tree |= {key: value for key, value in given.items() if value is not None}
        chosen: SamplerConfig = convert(SamplerConfig, tree, "the call", "sampler")
        chosen.check(self.sde, self.guided, self.joint)
        if chosen.scored and self.model.networks.discriminator is None:
            needs = Option("resampling", chosen.resampling)
            raise UserError("the model has no discriminator, which ", needs, " needs: use none, fixed or repaint")
        precision = convert(Precision, precision or self.precision, "the call", "precision")
        other = copy.copy(self)
        other.sampler, other.precision = chosen, precision
        return other

    @torch.inference_mode()
    def predict(self, known: Known, before: Step, after: Step) -> Step:
        """The clean texture and structure that the networks predict from the state `before`; at t = 0 the state itself."""
        if before.to == 0:
            return before
        known, watch = known.to(self.device), Watch(self.precision)
        networks, structure, pictures = self.predictors(known, watch.around()), before.pictures.get("structure"), {}
        guide = before.image.mean(dim=1, keepdim=True) if self.guided else None
        mean = self.sde.texture_mean(known.image, known.mask)
        if structure is not None:
            seen = networks.structure.context(known.image)
            pictures["structure"] = networks.structure.x0(structure, known.maps["structure_mean"], before.to, seen)
            if after.pictures["structure"] is not structure:  # not yet in the late stage
                guide = after.pictures["structure"] if after.guide is None else after.guide  # None after a jump back
        image = networks.texture.x0(before.image, mean, before.to, guide)
        watch.finish()
        return replace(before, image=image, pictures=pictures)

    def describe(self) -> str:
        resampling = "no resampling" if self.sampler.resampling == "none" else f"resampling {self.sampler.resampling}"
        return f"{self.sampler.solver}, {self.sampler.steps or self.sde.T} steps, {resampling}"

    def to(self, device: torch.device) -> None:
        self.device = device
        self.model.networks.to(device)
