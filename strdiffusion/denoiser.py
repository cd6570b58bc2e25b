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
        sees_known: it is a structure network that takes the known pixels (B,3,H,W) in place of a structure.
    """

    def __init__(
        self,
        network: nn.Module,
        sde: MeanRevertingSDE,
        prediction: Prediction = "noise",
        precision: Precision = "fp32",
        clip: bool = False,
        sees_known: bool = False,
    ):
        self.network = network
        self.sde = sde
        self.prediction = prediction
        self.precision = precision
        self.clip = clip
        self.sees_known = sees_known

    def context(self, known: Tensor) -> Tensor | None:
        """What a structure network sees of the known pixels (B,3,H,W)."""
        return known if self.sees_known else None

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

    def both_x0(self, y: Tensor, mu_y: Tensor, t_y: Time, x: Tensor, mu_x: Tensor, t_x: Time) -> tuple[Tensor, Tensor]:
        """The predicted x0 of texture y (B,3,H,W) and structure x (B,C,H,W), each at its own time, by one evaluation of a joint network."""
        times = torch.stack([torch.as_tensor(t_y).reshape(-1), torch.as_tensor(t_x).reshape(-1)], dim=1)  # (B,2) or (1,2)
        output = self._output(torch.cat([y, x], dim=1), torch.cat([mu_y, mu_x], dim=1), times, None)
        of_y, of_x = output.split([y.shape[1], x.shape[1]], dim=1)
        return self._x0(of_y, y, mu_y, t_y), self._x0(of_x, x, mu_x, t_x)

    def _x0(self, output: Tensor, x: Tensor, mu: Tensor, t: Time) -> Tensor:
        x0 = mu + output if self.prediction == "x0" else self.sde.predict_x0(x, mu, output, t)
        return x0.clamp(0, 1) if self.clip else x0

    def _output(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None) -> Tensor:
        with autocast(x.device, self.precision):
            return self.network(x, mu, t, structure).to(x.dtype)


class GivenX0:
    """A denoiser that predicts a given x0 (B,C,H,W) from any state: the truth, to judge one network, or part of a joint prediction."""

    def __init__(self, sde: MeanRevertingSDE, x0: Tensor):
        self.sde, self.given = sde, x0

    def context(self, known: Tensor) -> None:
        return None

    def noise(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        return self.sde.predict_noise(x, mu, self.given, t)

    def x0(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        return self.given

    def score(self, x: Tensor, mu: Tensor, t: Time, structure: Tensor | None = None) -> Tensor:
        return self.sde.score(self.noise(x, mu, t), t)
