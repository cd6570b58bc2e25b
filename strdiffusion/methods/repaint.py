"""RePaint (docs/repaint_spec.md; arXiv 2201.09865): a DDPM prior that has seen no masks, conditioned on the known pixels at sampling.

`sampler.resampling=repaint` of the other methods is only its schedule, on the mean-reverting SDE.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.checkpoints.released_prior import Unrecorded
from strdiffusion.ddpm import DDPM
from strdiffusion.denoiser import Precision
from strdiffusion.methods.finite import Watch
from strdiffusion.methods.method import Choices, Evaluate, Evaluations, Method, Options, Result, Step, register
from strdiffusion.methods.prior_loading import PriorCheckpointsConfig, PriorModel, load_prior_for_test, vars_of_process
from strdiffusion.networks.guided_unet import CLASSES
from strdiffusion.networks.unet import pad_by_reflection
from strdiffusion.samplers import SeededNoise
from strdiffusion.samplers.prior import Prior, PriorSolver, RepaintConfig, begin_late, count_reverse_steps, repaint, truncated
from strdiffusion.system.device import float32_precision
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.parser import convert, to_dict

ONCE = {"jump_n_sample": 1, "jump2_n_sample": 1, "jump3_n_sample": 1, "n_sample": 1}  # no resampling
KEPT = 0.4  # sampling from an estimate begins at the first time at which at most this share of it is left in the state
RESAMPLINGS = ("none", "repaint", "intelligent_painter")
CLASS_STREAM = 1 << 62  # keeps the draw of an image's class apart from its noise


@dataclass
class RepaintOptions(Options):
    """Networks and sampling.

    unrecorded: what released files do not record. compile: use torch.compile for the prior; it needs a compiler, and minutes at first.
    """

    checkpoints: PriorCheckpointsConfig = field(default_factory=PriorCheckpointsConfig)
    unrecorded: Unrecorded = field(default_factory=Unrecorded)
    precision: Precision = "fp32"
    compile: bool = False
    repaint: RepaintConfig = field(default_factory=RepaintConfig)

    def check(self) -> None:
        self.checkpoints.check()

    def describe(self) -> str:
        chosen = self.repaint
        steps = chosen.steps if chosen.respacing is None else chosen.respacing
        pasted = "put back" if chosen.put_back else "as the network leaves them"
        steps = f"{steps}, {chosen.solver}" if chosen.solver != "ddpm" else steps
        jumps = f"jumps of {chosen.jump_length}, {chosen.jump_n_sample} times"
        jumps += f" down to t={chosen.stop_resampling}" if chosen.stop_resampling else ""
        return f"T={steps}, {jumps}, known pixels {pasted}, {self.checkpoints.weights} weights, {self.precision}, "

    def files(self) -> list[Path | None]:
        return self.checkpoints.files()


@register("repaint")
class RepaintMethod(Method):
    """RePaint's loop with a prior and, if the model has one, a classifier.

    Images of the program are in [0,1], those of the process in [-1,1].
    """

    Options = RepaintOptions

    def __init__(
        self,
        model: PriorModel,
        device: torch.device,
        precision: Precision = "fp32",
        compile: bool = False,
        config: RepaintConfig | None = None,
    ):
        self.model, self.device, self.precision, self.compile = model, device, precision, compile
        self.config = config or model.config.repaint
        if model.classifier is not None and self.config.solver != "ddpm":
            raise UserError(
                f"repaint.solver={self.config.solver} takes no classifier: set repaint.solver=ddpm, or leave the classifier out"
            )
        self.process = self.process_of(self.config)
        self.times = self.config.times(self.process.T)
        self.size = model.config.size
        self.tiles = model.classifier is None  # a classifier takes whole images of one size
        model.to(device)

    doors: Mapping[str, str] = {}

    def process_of(self, config: RepaintConfig) -> DDPM:
        """The process that these settings sample with this model."""
        return config.process(**vars_of_process(self.model.config.process))

    @classmethod
    def open(cls, options: RepaintOptions, device: torch.device) -> "RepaintMethod":
        model = load_prior_for_test(options.checkpoints, options.unrecorded, options.repaint)
        return cls(model, device, options.precision, options.compile)

    # ---- inpainting -----------------------------------------------------------------------------------

    @torch.no_grad()
    def inpaint(
        self, known: Known, seeds: Sequence[int], evaluate: Evaluate | None = None, begin: Known | None = None
    ) -> Iterator[Step | Result]:
        known, late = known.to(self.device), begin is not None
        self.require_classifier_size(*known.image.shape[-2:])
        times, draw, watch = self.visited(late), partial(SeededNoise(seeds), range(len(seeds))), Watch(self.precision)
        prior, last, T = self.prior(seeds, watch, evaluate), len(times) - 1, times[0] + 1
        estimate = 2 * begin.image.to(self.device) - 1 if late else None
        for n, (i, k, x) in enumerate(repaint(prior, 2 * known.image - 1, known.mask, times, draw, estimate)):  # n = 0: the start
            image = truncated(x) if self.config.truncate and k < 0 else (x + 1) / 2
            yield Step(i + 1, k + 1, T, last - max(n - 1, 0), last, image)
        watch.finish()
        evaluations = {name: count.least for name, count in self.cost(late).items()}
        yield Result(known.put_back(image) if self.config.put_back else image, evaluations=[dict(evaluations) for _ in seeds])

    def visited(self, late: bool) -> Sequence[int]:
        """The list of times, of a whole run or of one that begins from an estimate."""
        return begin_late(self.times, self.process.a, KEPT) if late else self.times

    def prior(self, seeds: Sequence[int], watch: Watch | None = None, evaluate: Evaluate | None = None) -> Prior:
        """What the sampler needs, for images with these seeds."""
        watched = (watch or Watch(self.precision)).around(time=1)
        classes = self.classes(seeds) if self.model.prior.network.class_conditional or self.model.classifier else None
        conditional = classes if self.model.prior.network.class_conditional else None
        gradient = None if self.model.classifier is None else watched("classifier", partial(self.gradient, classes))
        network = watched("prior", self.network() if evaluate is None else self.on_tiles(evaluate))
        return Prior(network, self.process, self.model.prior.prediction, self.config.clip, conditional, gradient, self.config.solver)

    def classes(self, seeds: Sequence[int]) -> Tensor:
        """The class of each image (B,): `label`, or drawn from its seed."""
        if self.config.label is not None:
            return torch.full((len(seeds),), self.config.label, device=self.device)
        drawn = [torch.randint(CLASSES, (), generator=torch.Generator().manual_seed((seed ^ CLASS_STREAM) % 2**63)) for seed in seeds]
        return torch.stack(drawn).to(self.device)

    def gradient(self, classes: Tensor, x: Tensor, t: int) -> Tensor:
        """The classifier's gradient towards the classes, with its scale; always in float32, as released."""
        with float32_precision("fp32", self.device):
            return self.config.classifier_scale * self.model.classifier.network.gradient(x, t, classes)

    def network(self) -> Callable[..., Tensor]:
        """The prior in its inference form, for images of any size: they are continued by reflection to what its levels can halve."""
        form, factor = self.model.prior.for_inference(self.precision, self.compile), self.model.prior.network.factor

        def call(x: Tensor, *inputs) -> Tensor:
            with float32_precision(self.precision, self.device):
                return form(pad_by_reflection(x, factor), *inputs)[..., : x.shape[-2], : x.shape[-1]]

        return call

    def on_tiles(self, evaluate: Evaluate) -> Callable[..., Tensor]:
        """The prior, replaced by `evaluate`, which takes two images that it cuts into tiles, and t, and blends outputs like the first
        image. So the state goes in twice, as wide as the output, and the classes as a second image.
        """
        network, channels = self.network(), 6

        def on_tile(doubled: Tensor, classes: Tensor, t: int) -> Tensor:
            chosen = (classes[:, 0, 0, 0].long(),) if self.model.prior.network.class_conditional else ()
            return network(doubled[:, :3], t, *chosen)

        blended = evaluate("prior", on_tile)

        def call(x: Tensor, t: int, classes: Tensor | None) -> Tensor:
            shown = torch.zeros(len(x), device=x.device) if classes is None else classes
            return blended(x.repeat(1, channels // 3, 1, 1), shown.to(x.dtype).view(-1, 1, 1, 1).expand_as(x[:, :1]), t)

        return call

    # ---- limits, cost and settings --------------------------------------------------------------------

    def require_size(self, height: int, width: int) -> None:
        self.require_classifier_size(height, width)
        factor = self.model.prior.network.factor
        if height % factor or width % factor:
            raise UserError(f"is {width}x{height} pixels, and the prior takes multiples of {factor} alone: set data.fit and data.size")

    def require_classifier_size(self, height: int, width: int) -> None:
        """Raise UserError if the classifier cannot take images of this size: it knows one alone."""
        size = self.model.classifier and self.model.classifier.network.size
        if size is not None and (height, width) != (size, size):
            raise UserError(f"is {width}x{height} pixels, and the classifier takes {size}x{size} alone: set data.fit and data.size={size}")

    def cost(self, late: bool = False) -> dict[str, Evaluations]:
        steps = count_reverse_steps(self.visited(late))
        return {loaded.kind: Evaluations(steps, steps) for loaded in self.model.networks()}

    def single_evaluations(self) -> dict[str, Callable[[], Tensor]]:
        side = self.model.prior.network.factor * max(self.size // self.model.prior.network.factor, 1)
        x, prior = torch.rand(1, 3, side, side, device=self.device), self.prior([0])
        calls = {"prior": torch.no_grad()(lambda: prior.network(x, 0, prior.classes))}
        if prior.gradient is not None:
            calls["classifier"] = lambda: prior.gradient(x, 0)
        return calls

    def choices(self) -> Choices:
        return Choices(
            solvers=get_args(PriorSolver),
            solver=self.config.solver,
            most_steps=self.model.config.process.steps,
            steps=self.process.T,
            resamplings=RESAMPLINGS,
            resampling=self.resampling,
        )

    @property
    def resampling(self) -> str:
        """Which of RESAMPLINGS is set."""
        if all(getattr(self.config, name) == 1 for name in ONCE):
            return "none"
        return "intelligent_painter" if self.config.stop_resampling else "repaint"

    def varied(
        self,
        sampler: str | RepaintConfig | None = None,
        steps: int | None = None,
        resampling: str | None = None,
        precision: Precision | None = None,
        **others,
    ) -> "RepaintMethod":
        """The same networks with other settings: a solver's name, or all of them as a RepaintConfig; steps; one of RESAMPLINGS.

        "repaint" resamples down to t = 0, "intelligent_painter" to 0.4 T, or to where the settings stop.
        """
        super().varied(**others)  # it has none of them
        if resampling is not None and resampling not in RESAMPLINGS:
            raise UserError("the method repaint knows ", Option("resampling"), f" {', '.join(RESAMPLINGS)}, not {resampling}")
        tree = to_dict(sampler if isinstance(sampler, RepaintConfig) else self.config)
        tree |= {"solver": sampler} if isinstance(sampler, str) else {}
        if steps is not None:
            before = self.process_of(convert(RepaintConfig, tree, "the call", "sampler")).T
            tree |= {"steps": steps, "respacing": None, "stop_resampling": tree["stop_resampling"] * steps // before}
        if resampling == "none":
            tree |= ONCE
        elif resampling is not None and self.resampling == "none":
            tree["jump_n_sample"] = RepaintConfig.jump_n_sample
        if resampling == "repaint":
            tree["stop_resampling"] = 0
        config = convert(RepaintConfig, tree, "the call", "sampler")
        if resampling == "intelligent_painter" and not config.stop_resampling:
            config.stop_resampling = max(self.process_of(config).T * 2 // 5, 1)  # 100 of 250
        precision = convert(Precision, precision or self.precision, "the call", "precision")
        other = type(self)(self.model, self.device, precision, self.compile, config)
        other.size = self.size
        return other

    def to(self, device: torch.device) -> None:
        self.device = device
        self.model.to(device)

    def describe(self) -> str:
        resampling = "no resampling" if self.resampling == "none" else f"{count_reverse_steps(self.times)} evaluations"
        name = "Intelligent Painter" if self.resampling == "intelligent_painter" else "RePaint"
        return f"{name}, {self.process.T} steps, {resampling}"
