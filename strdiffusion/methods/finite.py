"""Whether networks predict numbers: what is not finite would fill a hole with black, without a word."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from strdiffusion.denoiser import Precision
from strdiffusion.methods.method import LARGEST, Evaluate
from strdiffusion.system.errors import Option, UserError

LOOK_EVERY = 64  # predictions on a GPU, where looking at a number waits for it
ADVICE = {
    "fp16": ("numbers above 65504 overflow in it: use ", Option("precision", "bf16"), " or fp32"),
    "bf16": ("use ", Option("precision", "fp32"), "; if it stays, the weights are damaged or do not fit the process"),
    "tf32": ("use ", Option("precision", "fp32"), "; if it stays, the weights are damaged or do not fit the process"),
    "fp32": ("the weights are damaged or do not fit the process",),
}


class Look(NamedTuple):
    """The largest magnitude of a prediction, a scalar, and what it is of: see `Watch.look`."""

    kind: str
    t: object
    where: Callable[[], str]
    largest: Tensor


class Watch:
    """Looks at every prediction of a run. A prediction that is not finite, or absurdly large, is a UserError that names the network, the
    time and the precision. On a GPU it is raised some predictions later, or by `finish`.
    """

    def __init__(self, precision: Precision):
        self.precision = precision
        self.waiting: list[Look] = []

    def around(self, evaluate: Evaluate | None = None, time: int = 2) -> Evaluate:
        """`evaluate`, or nothing, with a look at what each network gives. time: which of a network's inputs is the time."""

        def watched(kind: str, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
            function = network if evaluate is None else evaluate(kind, network)

            def call(*inputs, **options) -> Tensor:
                return self.look(kind, function(*inputs, **options), t=inputs[time])

            return call

        return watched

    def look(self, kind: str, values: Tensor, t: object = None, where: Callable[[], str] = str) -> Tensor:
        """The values, which a network predicted: at the time t (None: it has no times). where: more words that say where, if asked."""
        self.waiting.append(Look(kind, t, where, torch.linalg.vector_norm(values.detach(), torch.inf, dtype=torch.float32)))
        if values.device.type == "cpu" or len(self.waiting) == LOOK_EVERY:
            self.finish()
        return values

    def finish(self) -> None:
        """Look at all predictions that nobody has looked at yet."""
        waiting, self.waiting = self.waiting, []
        if waiting and not bool((torch.stack([look.largest for look in waiting]) <= LARGEST).all()):  # false for NaN
            first = next(look for look in waiting if not look.largest.item() <= LARGEST)
            found, advice = in_words(first.largest) + at_time(first.t) + first.where(), ADVICE[self.precision]
            raise UserError(f"the {first.kind} network predicts {found}, with precision {self.precision}: ", *advice)


def in_words(largest: Tensor) -> str:
    """What is wrong with values whose largest magnitude this is."""
    return f"values up to {largest.item():.1e}" if largest.isfinite() else "values that are not finite"


def at_time(t: object) -> str:
    return "" if t is None else f" at t={t if not isinstance(t, Tensor) else t.flatten()[0].item()}"
