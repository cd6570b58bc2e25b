"""The models that the page offers, their ways to sample, and how long these take."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from strdiffusion.app import Plan, StrDiffusion
from strdiffusion.config.common import Device
from strdiffusion.denoiser import Precision
from strdiffusion.methods.method import Choices
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

CUSTOM = "custom"
LEARNING, FARTHEST = 0.5, 50.0
MEASUREMENTS, MEASURING = 5, 3.0  # at most 5 measurements, and no new one after 3 seconds


@dataclass(frozen=True)
class Preset:
    """A named way to sample: arguments for calling StrDiffusion."""

    label: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


PUBLISHED, QUICK, CAREFUL = "model", "quick", "careful"
PRESETS = {  # the first is the default
    PUBLISHED: Preset("Recommended"),
    QUICK: Preset("Faster: 10 steps, no resampling", {"sampler": "mars_sde", "steps": 10, "resampling": "none"}),
    CAREFUL: Preset("Adaptive resampling: 20 steps", {"sampler": "mars_sde", "steps": 20, "resampling": "released"}),
}


class Pace:
    """By what factor runs take longer than the measured evaluations say: the machine may be busy, and not all time is evaluations."""

    def __init__(self):
        self.factor = 1.0

    def learn(self, expected: float, taken: float) -> None:
        """Go half of the way, in ratio, to what the last run took."""
        if expected > 0 and taken > 0:
            self.factor = min(max(self.factor * (taken / expected) ** LEARNING, 1 / FARTHEST), FARTHEST)


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen. seconds: of one evaluation of each network, measured at loading. pace: learned from its runs."""

    name: str
    model: StrDiffusion
    seconds: dict[str, float]
    pace: "Pace" = field(default_factory=lambda: Pace())

    @property
    def seen(self) -> str:
        """On what pictures its model was trained, in a sentence; empty if its folder does not say."""
        trained_on = self.model.trained_on
        return f"Trained on {trained_on}: it fills every picture as if it were one of them." if trained_on else ""

    @property
    def choices(self) -> Choices | None:
        """The choices of its sampling; None if there are none."""
        return self.model.method.choices()

    def arguments(self, choice: str, solver: str, steps: int, resampling: str) -> dict:
        """The sampler arguments of a call: the preset's, or with CUSTOM the given ones. Raises UserError if they do not fit the model."""
        if choice != CUSTOM and choice not in PRESETS:
            raise UserError(f"There is no sampler {choice!r} here.")
        chosen = {"sampler": solver, "steps": int(steps), "resampling": resampling} if choice == CUSTOM else dict(PRESETS[choice].arguments)
        if choice != CUSTOM and "steps" in chosen and self.choices is not None:
            chosen["steps"] = min(chosen["steps"], self.choices.most_steps)
        self.model.method.varied(**chosen)
        return chosen

    def describe(self, arguments: Mapping) -> str:
        """The method with these arguments, in a few words."""
        return self.model.method.varied(**arguments).describe()

    def presets(self) -> dict[str, str]:
        """By name, the labels of the presets that this model supports, with a description of its own sampler.

        The faster one is offered only if it is faster: with as many evaluations, the model's own settings are better.
        """
        labels = {}
        for name, preset in PRESETS.items():
            try:
                arguments = self.arguments(name, "", 0, "")
            except UserError:
                continue
            if name == QUICK and self._most(arguments) >= self._most({}):
                continue
            labels[name] = preset.label
        labels[PUBLISHED] += f": {self.model.method.describe()}"
        return labels | ({CUSTOM: "Custom"} if self.choices else {})

    def _most(self, arguments: Mapping) -> int:
        """The most network evaluations of an image with these arguments."""
        return sum(cost.most for cost in self.model.method.varied(**arguments).cost().values())

    def duration(self, plan: Plan) -> tuple[float, float]:
        """The least and the most seconds for a plan, at the pace of the last runs."""
        seconds = [(plan.evaluations[name], each * plan.area[name]) for name, each in self.seconds.items()]
        return tuple(self.pace.factor * sum(getattr(n, end) * each for n, each in seconds) for end in ("least", "most"))

    def learn(self, plan: Plan, seconds: float) -> None:
        """Take note of what a plan took."""
        least, most = self.duration(plan)
        self.pace.learn(min(max(seconds, least), most), seconds)


class Offers:
    """The models that can be chosen, loaded once."""

    def __init__(self, sources: Mapping[str, str | Path], device: Device = "auto", precision: Precision = "fp32", T: int | None = None):
        """Load models, given by name as folders or other sources of `StrDiffusion.load`. Raises UserError if a source is not a model."""
        self._by_name: dict[str, Offer] = {}
        for name, source in sources.items():
            model = StrDiffusion.load(source, T=T, device=device, precision=precision)
            self._by_name[name] = Offer(name, model, measure(model))
            size = f", trained at {model.size}x{model.size}" if model.size else ""
            log.info("model %s: %s, method %s%s, on %s", name, source, model.method.name, size, model.method.device.type)

    def __getitem__(self, name: str) -> Offer:
        if not isinstance(name, str) or name not in self._by_name:
            raise UserError(f"There is no model {name!r} here.")
        return self._by_name[name]

    @property
    def names(self) -> list[str]:
        return list(self._by_name)


def measure(model: StrDiffusion) -> dict[str, float]:
    """Seconds of one evaluation of each network: the minimum of several, because other load of the machine only adds time."""
    began = time.monotonic()
    seconds = model.time_evaluations()
    for _ in range(MEASUREMENTS - 1):
        if time.monotonic() - began > MEASURING:
            break
        again = model.time_evaluations()
        seconds = {kind: min(each, again[kind]) for kind, each in seconds.items()}
    return seconds
