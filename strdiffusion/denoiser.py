"""What a network's output means: the one interface to networks that objectives and samplers use."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from strdiffusion.sde import MeanRevertingSDE, Time

Prediction = Literal["noise", "x0"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """The context in which networks are evaluated at a precision. Everything outside of it stays float32."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class Denoiser:
    """Predict noise, x0 or score of a state, whether the network was trained to predict noise or x0.

    Args:
        network: called as network(x, mu, t, structure); structure only if it is guided.
        prediction: "noise" (the paper and the release), or "x0": the output is x0_hat - mu (spec sec. 6).
        precision: of the network's evaluation; the results have the dtype of the state.
        clip: clamp the predicted x0 to [0,1] in sampling, so that errors of a briefly trained network do not grow.
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
    """A structure denoiser that knows the true x0 (B,1,H,W) and predicts the noise that leads to it, to judge the texture network alone."""

    def __init__(self, sde: MeanRevertingSDE, x0: Tensor):
        self.sde, self.truth = sde, x0

    def noise(self, x: Tensor, mu: Tensor, t: int, structure: None = None) -> Tensor:
        return self.sde.predict_noise(x, mu, self.truth, t)

    def x0(self, x: Tensor, mu: Tensor, t: int, structure: None = None) -> Tensor:
        return self.truth
