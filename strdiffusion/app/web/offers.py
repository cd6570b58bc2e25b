"""The models that the page offers, ways to sample with each, and how long these take."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from strdiffusion.app import Plan, StrDiffusion
from strdiffusion.config.common import Device
from strdiffusion.denoiser import Precision
from strdiffusion.evaluation.options import SamplerConfig
from strdiffusion.networks import Kind
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

CUSTOM = "custom"
MEASUREMENTS, MEASURING = 5, 3.0  # at most so many, and none after so many seconds


@dataclass(frozen=True)
class Preset:
    """A way to sample, by name: arguments of a StrDiffusion's call."""

    label: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


QUICK, CAREFUL, PUBLISHED = "quick", "careful", "model"
PRESETS = {
    QUICK: Preset("Quick: 10 steps, no resampling", {"sampler": "mars_sde", "steps": 10, "resampling": "none"}),
    CAREFUL: Preset("Careful: 20 steps, adaptive resampling", {"sampler": "mars_sde", "steps": 20, "resampling": "released"}),
    PUBLISHED: Preset("The model's own"),
}


@dataclass(frozen=True)
class Offer:
    """A model that can be chosen. seconds: of one evaluation of each network, as measured when it was loaded."""

    name: str
    model: StrDiffusion
    seconds: dict[Kind, float]

    @property
    def T(self) -> int:
        return self.model.config.sde.T

    def arguments(self, choice: str, method: str, steps: int, resampling: str) -> dict:
        """The sampler arguments of a call: those of a preset, or with CUSTOM those given. UserError where they do not fit the model."""
        chosen = {"sampler": method, "steps": int(steps), "resampling": resampling} if choice == CUSTOM else dict(PRESETS[choice].arguments)
        if choice != CUSTOM and "steps" in chosen:
            chosen["steps"] = min(chosen["steps"], self.T)
        self.model.sampler_config(**chosen)
        return chosen

    def presets(self) -> dict[str, str]:
        """The labels of the presets that this model can do, with what its own sampler is, by name."""
        own = self.model.config.sampler
        labels = {}
        for name, preset in PRESETS.items():
            try:
                self.arguments(name, "", 0, "")
            except UserError:
                continue
            labels[name] = preset.label
        labels[PUBLISHED] += f": {describe(own, self.T)}"
        return labels | {CUSTOM: "Custom"}

    def resamplings(self, choices: tuple[str, ...]) -> list[str]:
        """Those of the resamplings that this model's networks can do."""
        usable = []
        for choice in choices:
            try:
                self.model.sampler_config(resampling=choice)
            except UserError as error:
                if "no room" not in str(error):  # too few steps are told of when they are chosen
                    continue
            usable.append(choice)
        return usable

    def duration(self, plan: Plan) -> tuple[float, float]:
        """The least and the most seconds that a plan's network evaluations take."""
        seconds = [(plan.evaluations[kind], each) for kind, each in self.seconds.items()]
        return sum(n.least * each for n, each in seconds), sum(n.most * each for n, each in seconds)


class Offers:
    """What can be chosen, loaded once."""

    def __init__(self, sources: Mapping[str, str | Path], device: Device = "auto", precision: Precision = "fp32", T: int | None = None):
        """Load models from folders (or whatever StrDiffusion.load takes) by the name they are offered under; UserError for what is none."""
        self._by_name: dict[str, Offer] = {}
        for name, source in sources.items():
            model = StrDiffusion.load(source, T=T, device=device, precision=precision)
            self._by_name[name] = Offer(name, model, measure(model))
            log.info(
                "model %s: %s, trained at %dx%d, T=%d, on %s",
                name,
                source,
                model.config.size,
                model.config.size,
                model.config.sde.T,
                model.device.type,
            )

    def __getitem__(self, name: str) -> Offer:
        if name not in self._by_name:
            raise UserError(f"There is no model {name!r} here.")
        return self._by_name[name]

    @property
    def names(self) -> list[str]:
        return list(self._by_name)


def measure(model: StrDiffusion) -> dict[Kind, float]:
    """Seconds of one evaluation of each network: the least of some, for what else the machine does only adds to it."""
    began = time.monotonic()
    seconds = model.time_evaluations()
    for _ in range(MEASUREMENTS - 1):
        if time.monotonic() - began > MEASURING:
            break
        again = model.time_evaluations()
        seconds = {kind: min(each, again[kind]) for kind, each in seconds.items()}
    return seconds


def describe(sampler: SamplerConfig, T: int) -> str:
    """A sampler in a few words."""
    resampling = "no resampling" if sampler.resampling == "none" else f"resampling {sampler.resampling}"
    return f"{sampler.method}, {sampler.steps or T} steps, {resampling}"
