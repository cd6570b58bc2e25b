"""Whether networks predict numbers: what is not finite would fill a hole with black, without a word."""

from collections.abc import Callable

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


class Watch:
    """Looks at every prediction of a run. A prediction that is not finite, or absurdly large, is a UserError that names the network, the
    time and the precision. On a GPU it is raised some predictions later, or by `finish`.
    """

    def __init__(self, precision: Precision):
        self.precision = precision
        self.waiting: list[tuple[str, object, Tensor]] = []

    def around(self, evaluate: Evaluate | None = None, time: int = 2) -> Evaluate:
        """`evaluate`, or nothing, with a look at what each network gives. time: which of a network's inputs is the time."""

        def watched(kind: str, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
            function = network if evaluate is None else evaluate(kind, network)

            def call(*inputs, **options) -> Tensor:
                return self.look(kind, inputs[time], function(*inputs, **options))

            return call

        return watched

    def look(self, kind: str, t: object, values: Tensor) -> Tensor:
        """The values, which a network predicted at the time t (None: it has no times; a function: gives the words that say where)."""
        self.waiting.append((kind, t, torch.linalg.vector_norm(values.detach(), torch.inf, dtype=torch.float32)))
        if values.device.type == "cpu" or len(self.waiting) == LOOK_EVERY:
            self.finish()
        return values

    def finish(self) -> None:
        """Look at all predictions that nobody has looked at yet."""
        waiting, self.waiting = self.waiting, []
        if waiting and not bool((torch.stack([largest for _, _, largest in waiting]) <= LARGEST).all()):  # false for NaN
            kind, t, largest = next(each for each in waiting if not each[2].item() <= LARGEST)
            found, advice = in_words(largest) + at_time(t), ADVICE[self.precision]
            raise UserError(f"the {kind} network predicts {found}, with precision {self.precision}: ", *advice)


def in_words(largest: Tensor) -> str:
    """What is wrong with values whose largest magnitude this is."""
    return f"values up to {largest.item():.1e}" if largest.isfinite() else "values that are not finite"


def at_time(t: object) -> str:
    if t is None or callable(t):
        return "" if t is None else t()
    return f" at t={t if not isinstance(t, Tensor) else t.flatten()[0].item()}"
