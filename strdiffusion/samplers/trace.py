"""What a sampler tells about its run: scores, decisions and network evaluations, per image and step."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch import Tensor

Decision = Literal["accepted", "averaged", "stopped", "rejected"]


@dataclass(frozen=True)
class State:
    """Images of one process at one time, and what a step of order 2 remembers of each (MaRS).

    x: (B,C,H,W). q: x0 as predicted in the step that led here, (B,C,H,W), and t_q: the time of that step; None for
    other methods, at the start, and after noise was added.
    """

    x: Tensor
    q: Tensor | None = None
    t_q: int | None = None

    def __getitem__(self, rows: Sequence[int]) -> "State":
        """The images at these positions."""
        return self.map(lambda images: images[rows])

    def map(self, change: Callable[..., Tensor], *others: "State") -> "State":
        """Apply `change` to x and q, of this state and of others of the same t_q."""
        q = None if self.q is None else change(self.q, *(other.q for other in others))
        return State(change(self.x, *(other.x for other in others)), q, self.t_q)


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
    """What a callback is given after the step from t, which has n of N steps left: states of the whole batch, not to be changed."""

    t: int
    T: int
    n: int
    N: int
    texture: Tensor
    structure: Tensor | None
    traces: list[ImageTrace]

    @property
    def share(self) -> float:
        """The share of the way from T to 0, in steps, that lies behind these states."""
        return 1 - max(self.n - 1, 0) / self.N


Callback = Callable[[Progress], None]
