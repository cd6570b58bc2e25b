"""What a sampler tells about its run: scores, decisions and network evaluations, per image and step."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import Tensor

Decision = Literal["accepted", "averaged", "stopped", "rejected"]


@dataclass
class StepTrace:
    """One step of one image. scores[0] judges the first proposal, scores[i] the i-th resampling, decisions[i-1] what came of it."""

    t: int
    scores: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    texture_evaluations: int = 0
    structure_evaluations: int = 0
    discriminator_evaluations: int = 0


@dataclass
class ImageTrace:
    """All steps of one image, in the order in which they were taken."""

    steps: list[StepTrace] = field(default_factory=list)

    def evaluations(self, network: Literal["texture", "structure", "discriminator"]) -> int:
        """Total number of evaluations of a network."""
        return sum(getattr(step, f"{network}_evaluations") for step in self.steps)

    def as_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """What a sampler returns.

    texture: the inpainted images (B,3,H,W), known pixels as given.
    structure: the last structure state (B,1,H,W), or None without guidance.
    traces: one per image.
    """

    texture: Tensor
    structure: Tensor | None
    traces: list[ImageTrace]


@dataclass(frozen=True)
class Progress:
    """What a callback is given after the step from t: states of the whole batch, not to be changed."""

    t: int
    T: int
    texture: Tensor
    structure: Tensor | None
    traces: list[ImageTrace]


Callback = Callable[[Progress], None]
