"""The denoising diffusion process of guided diffusion (docs/repaint_spec.md sec. 4; arXiv 2105.05233), on which RePaint samples.

Everything here is a pure function of tensors. Images are in [-1,1]. The time t is the *index* of a step, 0..T-1: the state "at t" has gone
through t+1 noising steps, and the finished image is "at -1". It is an integer for the whole batch, or an integer tensor (B,) with one
index for each image. Coefficients are tabulated once in float64 and applied in the dtype and on the device of the state.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from strdiffusion.system.parser import Range

NoiseSchedule = Literal["linear", "cosine"]
Predicted = Literal["noise", "x0"]
Index = int | Tensor


@dataclass
class ProcessConfig:
    """The diffusion process of a prior (docs/repaint_spec.md sec. 4): its number of steps S and its variances."""

    steps: Annotated[int, Range(2, 10_000)] = 1000
    schedule: NoiseSchedule = "linear"


def beta_schedule(schedule: NoiseSchedule, steps: int) -> Tensor:
    """The variances beta_0 .. beta_{S-1} of the trained process, float64, shape (S,)."""
    if schedule == "linear":
        k = 1000 / steps
        return torch.linspace(1e-4 * k, 0.02 * k, steps, dtype=torch.float64)
    if schedule == "cosine":
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - f[1:] / f[:-1]).clamp(max=0.999)
    raise ValueError(f"schedule must be linear or cosine, not {schedule!r}")


def respace(steps: int, respacing: str) -> list[int]:
    """Choose steps of a process of S `steps`: their indices, ascending.

    respacing: counts such as "250" or "10,5,7": S is cut into as many sections, and so many steps are chosen evenly in each, both ends
        included; "ddim50": every i-th step from 0 on, for the smallest i that gives 50; empty: all.

    Raises ValueError if it is no such text, or asks for more steps than there are.
    """
    if not respacing:
        return list(range(steps))
    if respacing.startswith("ddim"):
        wanted = _whole(respacing.removeprefix("ddim"), respacing)
        for stride in range(1, steps + 1):
            if len(range(0, steps, stride)) == wanted:
                return list(range(0, steps, stride))
        raise ValueError(f"no stride gives {wanted} of {steps} steps")
    counts = [_whole(part, respacing) for part in respacing.split(",")]
    chosen, begin = [], 0
    for number, count in enumerate(counts):
        size = steps // len(counts) + (number < steps % len(counts))
        if count > size:
            part = "the process" if len(counts) == 1 else f"section {number + 1} of it"
            raise ValueError(f"{count} steps cannot be chosen: {part} has {size}")
        stride = (size - 1) / (count - 1) if count > 1 else 1
        position = 0.0
        for _ in range(count):
            chosen.append(begin + round(position))
            position += stride
        begin += size
    return chosen


def _whole(text: str, respacing: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{respacing!r} is no respacing: give counts such as 250 or 10,5,7, or ddim50")
    return int(text)


@dataclass(frozen=True)
class Reverse:
    """The Gaussian of the state at t-1 that a network predicts from the state at t, and its x0_hat; all of the shape of the state."""

    mean: Tensor
    log_variance: Tensor
    x0: Tensor

    def shifted(self, gradient: Tensor) -> "Reverse":
        """The mean moved by variance times `gradient`: guidance by a classifier (sec. 6)."""
        return Reverse(self.mean + self.log_variance.exp() * gradient, self.log_variance, self.x0)


class DDPM:
    """Discrete diffusion with T of the S steps that it was trained with.

    Args:
        steps: S.
        schedule: of the variances beta.
        respacing: which steps are sampled, see `respace`.

    network_times[t] is the index in the trained process that networks are given at t. a[t] is the share of the image's variance at t.
    Raises ValueError if respacing does not fit, or fewer than 2 steps remain.
    """

    def __init__(self, steps: int = 1000, schedule: NoiseSchedule = "linear", respacing: str = ""):
        self.steps, self.schedule, self.respacing = steps, schedule, respacing
        self.network_times = respace(steps, respacing)
        self.T = len(self.network_times)
        if self.T < 2:
            raise ValueError(f"a process needs at least 2 steps, not {self.T}")
        trained = (1 - beta_schedule(schedule, steps)).cumprod(0)[self.network_times]
        self.beta = 1 - trained / torch.cat([torch.ones(1, dtype=torch.float64), trained[:-1]])
        self.a = (1 - self.beta).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.a[:-1]])  # a_{t-1}
        self.posterior_variance = self.beta * (1 - before) / (1 - self.a)
        # the variance of the last step is 0: its logarithm is that of the step before
        self.posterior_log_variance = torch.log(torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]]))
        self.weight_x0 = self.beta * before.sqrt() / (1 - self.a)  # c1
        self.weight_x = (1 - before) * (1 - self.beta).sqrt() / (1 - self.a)  # c2

    # ---- the forward process ---------------------------------------------------------------------------

    def sample_marginal(self, x0: Tensor, t: Index, noise: Tensor) -> Tensor:
        """Draw the state at t given x0: sqrt(a_t) x0 + sqrt(1 - a_t) noise."""
        return _at(self.a.sqrt(), t, x0) * x0 + _at((1 - self.a).sqrt(), t, x0) * noise

    def climb(self, x: Tensor, t: Index, noise: Tensor) -> Tensor:
        """Draw the state at t+1 given that at t, by the beta of t+1."""
        return _at((1 - self.beta[1:]).sqrt(), t, x) * x + _at(self.beta[1:].sqrt(), t, x) * noise

    # ---- the reverse process ---------------------------------------------------------------------------

    def predict_x0(self, x: Tensor, noise: Tensor, t: Index) -> Tensor:
        """The x0 that a state and its noise imply: x / sqrt(a_t) - sqrt(1/a_t - 1) noise."""
        return _at(self.a.rsqrt(), t, x) * x - _at((1 / self.a - 1).sqrt(), t, x) * noise

    def posterior_mean(self, x0: Tensor, x: Tensor, t: Index) -> Tensor:
        """The mean of the state at t-1 given x0 and the state at t."""
        return _at(self.weight_x0, t, x) * x0 + _at(self.weight_x, t, x) * x

    def log_variance(self, v: Tensor, t: Index) -> Tensor:
        """The learned range: v, from -1 to 1 but not clipped, between the posterior's log variance and ln beta_t, element by element."""
        share = (v + 1) / 2
        return share * _at(self.beta.log(), t, v) + (1 - share) * _at(self.posterior_log_variance, t, v)

    def reverse(self, x: Tensor, output: Tensor, t: Index, prediction: Predicted = "noise", clip: bool = True) -> Reverse:
        """The Gaussian of the state at t-1 by the output (B,6,H,W) of a network: what it predicts, then v.

        prediction: what the first three channels are, the noise of x or x0. clip: x0_hat to [-1,1].
        """
        predicted, v = output.chunk(2, dim=1)  # each (B,3,H,W)
        x0 = self.predict_x0(x, predicted, t) if prediction == "noise" else predicted
        if clip:
            x0 = x0.clamp(-1, 1)
        return Reverse(self.posterior_mean(x0, x, t), self.log_variance(v, t), x0)

    def draw(self, reverse: Reverse, t: int, noise: Tensor) -> Tensor:
        """Draw the state at t-1. The step from t = 0 adds no noise: its result is x0_hat itself."""
        return reverse.mean if t == 0 else reverse.mean + (reverse.log_variance / 2).exp() * noise

    def step_without_noise(self, x: Tensor, x0: Tensor, t: int) -> Tensor:
        """The state at t-1 with the predicted x0 and the noise that it implies (DDIM, arXiv 2010.02502, eta 0); at t = 0, x0 itself."""
        if t == 0:
            return x0
        noise = (x - _at(self.a.sqrt(), t, x) * x0) / _at((1 - self.a).sqrt(), t, x)
        return self.sample_marginal(x0, t - 1, noise)

    def extrapolate(self, x0: Tensor, before: Tensor, t: int) -> Tensor:
        """The x0 for a step without noise from t to t-1 of second order, from those predicted at t and, `before`, at t+1: continued along
        the logarithm of signal to noise to the middle of the step (DPM-Solver++(2M), arXiv 2211.01095). At t = 0, where the step
        ends at infinity, x0 itself.
        """
        if t == 0:
            return x0
        low, at, high = (_at((self.a / (1 - self.a)).log() / 2, i, x0) for i in (t + 1, t, t - 1))
        return x0 + (high - at) / (2 * (at - low)) * (x0 - before)


def _at(table: Tensor, t: Index, like: Tensor) -> Tensor:
    """The entry of t, as (1,1,1,1) or (B,1,1,1), in the dtype and on the device of `like`."""
    times = torch.as_tensor(t, device="cpu")
    if times.numel() and (times.min() < 0 or times.max() >= len(table)):
        raise ValueError(f"t = {times.tolist()} lies outside 0..{len(table) - 1}")
    found = table[times].reshape(-1, 1, 1, 1).to(like.dtype)
    return found.to(like.device, non_blocking=like.is_cuda)  # a GPU is not waited for
