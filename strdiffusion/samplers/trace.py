"""The record of a sampler's run: scores, decisions and network evaluations, per image and step."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["accepted", "averaged", "stopped", "rejected"]
SUFFIX = "_evaluations"  # of a network's name, in files


@dataclass
class StepTrace:
    """One step of one image, from t. scores[0] is of the first proposal, scores[i] of the i-th resampling; decisions[i-1] is made on it.

    evaluations: the number of evaluations of each network, by its name.
    """

    t: int
    scores: list[float] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    evaluations: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        counts = {f"{name}{SUFFIX}": count for name, count in self.evaluations.items()}
        return {"t": self.t, "scores": self.scores, "decisions": self.decisions, **counts}

    @classmethod
    def from_dict(cls, content: dict) -> "StepTrace":
        """The inverse of `as_dict`. Raises TypeError for other keys."""
        counts = {name.removesuffix(SUFFIX): count for name, count in content.items() if name.endswith(SUFFIX)}
        return cls(**{name: value for name, value in content.items() if not name.endswith(SUFFIX)}, evaluations=counts)


@dataclass
class ImageTrace:
    """All steps of one image, in the order in which they were taken."""

    steps: list[StepTrace] = field(default_factory=list)

    def evaluations(self, network: str) -> int:
        """Total number of evaluations of a network."""
        return sum(step.evaluations.get(network, 0) for step in self.steps)

    def as_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"steps": [step.as_dict() for step in self.steps]}


def total_evaluations(traces: Iterable[ImageTrace]) -> dict[str, int]:
    """The evaluations of each network, by name, over several traces."""
    total: dict[str, int] = {}
    for step in (step for trace in traces for step in trace.steps):
        for name, count in step.evaluations.items():
            total[name] = total.get(name, 0) + count
    return total
