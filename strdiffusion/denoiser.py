"""What a network's output means: the contract that objectives and samplers rely on, and nothing else."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from strdiffusion.sde import MeanRevertingSDE, Time

Prediction = Literal["noise", "x0"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """The context in which networks are evaluated at a precision; outside of it everything stays float32."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class Denoiser:
    """Predict the noise of a state, whichever way the network was trained.

    Args:
        network: called as network(x, mu, t, structure); structure only if it is guided.
        prediction: "noise" (the paper and the release), or "x0": the output is x0_hat - mu (spec sec. 6).
        precision: of the network's evaluation; what comes back has the dtype of the state.
        clip: keep the predicted x0 within [0,1], at sampling: errors of a briefly trained network cannot run away.
    """

    def __init__(
        self, network: nn.Module, sde: MeanRevertingSDE, prediction: Prediction = "noise", precision: Precision = "fp32", clip: bool = False
    ):
        self.network = network
        self.sde = sde
        self.prediction = prediction
        self.precision = precision
        self.clip = clip

    def noise(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        """The predicted noise of x_t, all of shape (B,C,H,W)."""
        output = self._output(x, mu, t, structure)
        if self.prediction == "noise" and not self.clip:
            return output
        return self.sde.predict_noise(x, mu, self._x0(output, x, mu, t), t)

    def x0(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        """The predicted x0 of x_t, all of shape (B,C,H,W)."""
        output = self._output(x, mu, t, structure)
        return self._x0(output, x, mu, t)

    def score(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        """The predicted score of the marginal at x_t, all of shape (B,C,H,W)."""
        return self.sde.score(self.noise(x, mu, t, structure), t)

    def _x0(self, output: Tensor, x: Tensor, mu: Tensor, t: Time) -> Tensor:
        x0 = mu + output if self.prediction == "x0" else self.sde.predict_x0(x, mu, output, t)
        return x0.clamp(0, 1) if self.clip else x0

    def _output(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None) -> Tensor:
        with autocast(x.device, self.precision):
            return self.network(x, mu, t, structure).to(x.dtype)


class OracleStructure:
    """A structure denoiser that knows x0 (B,1,H,W): its noise is the one that leads there. For judging the texture network alone."""

    def __init__(self, sde: MeanRevertingSDE, x0: Tensor):
        self.sde, self.truth = sde, x0

    def noise(self, x: Tensor, mu: Tensor, t: int, structure: None = None) -> Tensor:
        return self.sde.predict_noise(x, mu, self.truth, t)

    def x0(self, x: Tensor, mu: Tensor, t: int, structure: None = None) -> Tensor:
        return self.truth
