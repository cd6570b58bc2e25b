"""The mean-reverting SDE that carries an image x0 towards its mean mu (spec sec. 2; IR-SDE, arXiv 2301.11699).

    dx = theta_t (mu - x) dt + sigma_t dw,    sigma_t^2 = 2 lambda^2 theta_t

Everything here is a pure function of tensors. The time t is an integer for the whole batch, or an integer
tensor of shape (B,) with one time per image. Coefficients are tabulated once in float64 and applied in the
dtype and on the device of the state. Steps lead to t-1, or to an earlier time `to` if one is given; both times
are then integers for the whole batch.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from strdiffusion.system.parser import Range

Schedule = Literal["cosine", "linear", "constant"]
Rounding = Literal["exact", "released"]
MeanFill = Literal["black", "white"]
Time = int | Tensor


@dataclass
class SDEConfig:
    """The mean-reverting SDE (spec sec. 2). Checkpoints record it; released files do not.

    rounding: of the optimum step: "released" cancels in float32 as the release's training does.
    mean_fill: what the texture's mean holds in the hole: the released IR-SDE was trained with "white", all else with "black"; null: black,
        but for a released file of IR-SDE it must be stated.
    """

    T: Annotated[int, Range(2, 10_000)] = 100
    schedule: Schedule = "cosine"
    max_sigma: Annotated[float, Range(0.001, 1000)] = 30.0
    eps: Annotated[float, Range(1e-12, 0.5)] = 0.005
    rounding: Rounding = "exact"
    mean_fill: MeanFill | None = None


def theta_schedule(schedule: Schedule, T: int) -> Tensor:
    """Return theta_0 .. theta_T, float32, shape (T+1,) (spec sec. 2)."""
    if schedule == "constant":
        return torch.ones(T + 1)
    if schedule == "linear":
        k = 1000 / (T + 1)
        return torch.linspace(1e-4 * k, 0.02 * k, T + 1)
    if schedule == "cosine":
        s = 0.008
        u = torch.arange(T + 2, dtype=torch.float32) / (T + 2)
        f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
        return 1 - f[1:] / f[0]
    raise ValueError(f"schedule must be cosine, linear or constant, not {schedule!r}")


class MeanRevertingSDE:
    """Discrete mean-reverting SDE with T steps.

    Args:
        T: number of steps; t runs from 0 (clean) to T (the mean plus stationary noise).
        schedule: how theta grows over t.
        max_sigma: stationary standard deviation lambda in 8-bit units (lambda = max_sigma/255); a value below 1 is lambda itself.
        eps: share of x0 - mu that is left in the marginal mean at T: exp(-theta_bar_T) = eps.
        rounding: "released" computes the coefficients of the optimum step in float32 like the release, with its cancellation
            error (2e-4 at t = 2 of T = 100, more for larger T), to reproduce its training losses to the last digits.
        mean_fill: what the mean mu of a texture holds in the hole: "black" as in StrDiffusion, or "white" as in the released IR-SDE;
            None: black.

    Shapes: states x, x0, mu, noise and score are (B,C,H,W); results have the shape and dtype of x.
    """

    def __init__(
        self,
        T: int = 100,
        schedule: Schedule = "cosine",
        max_sigma: float = 30.0,
        eps: float = 0.005,
        rounding: Rounding = "exact",
        mean_fill: MeanFill | None = None,
    ):
        if T < 1:
            raise ValueError(f"T must be at least 1, not {T}")
        self.T = T
        self.schedule = schedule
        self.max_sigma = max_sigma
        self.eps = eps
        self.rounding = rounding
        self.mean_fill = mean_fill or "black"
        self.lambda_ = max_sigma / 255 if max_sigma >= 1 else float(max_sigma)

        # The schedule is rounded to float32, as in the release, so that small t agree with the released weights.
        # Everything derived from it is computed in float64.
        self.theta = theta_schedule(schedule, T).double()
        self.theta_cumsum = self.theta.cumsum(0) - self.theta[0]
        self.dt = -math.log(eps) / self.theta_cumsum[-1].item()
        self.sigma = self.lambda_ * torch.sqrt(2 * self.theta)
        self.theta_bar = self.theta_cumsum * self.dt
        self.sigma_bar = self.lambda_ * torch.sqrt(-torch.expm1(-2 * self.theta_bar))
        self.decay = torch.exp(-self.theta_bar)
        self.log_snr = -self.theta_bar - torch.log(self.sigma_bar)  # L of spec sec. 8, infinite at t = 0
        self._tabulate_optimum(rounding)

    def _tabulate_optimum(self, rounding: Rounding) -> None:
        """Weights of the optimum step at t = 1..T. Entry 0 is no step: it leaves the state unchanged."""
        if rounding == "released":
            theta_cumsum = self.theta.float().cumsum(0) - self.theta[0].float()
            A = torch.exp(-self.theta[1:].float() * self.dt)
            B, C = torch.exp(-theta_cumsum[1:] * self.dt), torch.exp(-theta_cumsum[:-1] * self.dt)
            one_minus_A2, one_minus_B2, one_minus_C2 = 1 - A**2, 1 - B**2, 1 - C**2
            weight_x, weight_x0 = A * one_minus_C2 / one_minus_B2, C * one_minus_A2 / one_minus_B2
            squares = torch.exp(-2 * self.theta[1:].float() * self.dt), torch.exp(-2 * theta_cumsum * self.dt)
            gap, bars = 1 - squares[0], 1 - squares[1]  # IR-SDE forms the variance otherwise than the weights
            std = self.lambda_ * torch.sqrt(gap * bars[:-1] / bars[1:])
        else:
            weight_x, weight_x0, std = self._posterior_weights(self.theta[1:] * self.dt, self.theta_bar[1:], self.theta_bar[:-1])

        def table(values: Tensor, at_0: float) -> Tensor:
            return torch.cat([torch.tensor([at_0], dtype=torch.float64), values.double()])

        self.optimum_x = table(weight_x, 1.0)  # weight of (x_t - mu)
        self.optimum_x0 = table(weight_x0, 0.0)  # weight of (x0 - mu)
        self.posterior_std = table(std, 0.0)

    def _posterior_weights(self, gap: Tensor, theta_bar_t: Tensor, theta_bar_to: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The Gaussian of x_to given x_t and x0: weights of x_t - mu and x0 - mu, and its std. gap = theta_bar_t - theta_bar_to."""
        A, C = torch.exp(-gap), torch.exp(-theta_bar_to)
        # expm1, because 1 - C^2 cancels near t = 1
        one_minus_A2, one_minus_B2, one_minus_C2 = (-torch.expm1(-2 * v) for v in (gap, theta_bar_t, theta_bar_to))
        std = self.lambda_ * torch.sqrt(one_minus_A2 * one_minus_C2 / one_minus_B2)
        return A * one_minus_C2 / one_minus_B2, C * one_minus_A2 / one_minus_B2, std

    def _at(self, table: Tensor, t: Time, like: Tensor, first: int = 0) -> float | Tensor:
        """Look t up in a table: a float if t is a number, otherwise (B,1,1,1) in the dtype and on the device of `like`."""
        if not isinstance(t, Tensor):
            if not first <= t <= self.T:
                raise ValueError(f"t = {t} lies outside {first}..{self.T}")
            return table[int(t)].item()
        times = t.cpu()
        if times.numel() and (times.min() < first or times.max() > self.T):
            raise ValueError(f"t = {times.tolist()} lies outside {first}..{self.T}")
        found = table[times].to(like.dtype)
        return found.to(like.device, non_blocking=like.is_cuda).view(-1, 1, 1, 1)  # a GPU is not waited for

    # ---- steps that may skip times -------------------------------------------------------------------

    def theta_sum(self, t: int, to: int) -> float:
        """theta_{to+1} + ... + theta_t, for 0 <= to < t <= T."""
        if not 0 <= to < t <= self.T:
            raise ValueError(f"a step leads from t in 1..{self.T} to an earlier time >= 0, not from {t} to {to}")
        return self.theta[to + 1 : t + 1].sum().item()

    def theta_bar_gap(self, t: int, to: int) -> float:
        """theta_bar_t - theta_bar_to without cancellation. From `to` to t, x - mu shrinks by exp(-gap)."""
        return self.theta_sum(t, to) * self.dt

    def _euler(self, t: Time, to: int | None, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """theta and sigma of an Euler step. If it skips times, theta and sigma^2 are summed over them."""
        if to is None or t == to + 1:
            return self._at(self.theta, t, like, first=1), self._at(self.sigma, t, like)
        theta = self.theta_sum(t, to)
        return theta, self.lambda_ * math.sqrt(2 * theta)

    def _posterior(self, t: Time, to: int | None, like: Tensor) -> list[float | Tensor]:
        """Weights of x_t - mu and x0 - mu in the mean of x_to, and its standard deviation."""
        if to is None or t == to + 1:
            return [self._at(table, t, like, first=1) for table in (self.optimum_x, self.optimum_x0, self.posterior_std)]
        gap = torch.tensor(self.theta_bar_gap(t, to), dtype=torch.float64)
        return [weight.item() for weight in self._posterior_weights(gap, self.theta_bar[t], self.theta_bar[to])]

    # ---- the forward process -------------------------------------------------------------------------

    def texture_mean(self, known: Tensor, mask: Tensor) -> Tensor:
        """mu_y from the known pixels (B,3,H,W), zero in the hole; mask (B,1,H,W), 1 = known."""
        return known if self.mean_fill == "black" else known + (1 - mask)

    def terminal_state(self, mu: Tensor, noise: Tensor) -> Tensor:
        """Draw the state that sampling starts from: mu + lambda z."""
        return mu + self.lambda_ * noise

    def marginal_mean(self, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
        """Mean of x_t given x0."""
        return mu + (x0 - mu) * self._at(self.decay, t, x0)

    def sample_marginal(self, x0: Tensor, mu: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Draw x_t given x0."""
        return self.marginal_mean(x0, mu, t) + self._at(self.sigma_bar, t, x0) * noise

    def forward_step(self, x: Tensor, mu: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Move x one step towards the mean with the coefficients of t (Euler-Maruyama)."""
        drift = self._at(self.theta, t, x) * (mu - x) * self.dt
        return x + drift + self._at(self.sigma, t, x) * math.sqrt(self.dt) * noise

    def sample_transition(self, x: Tensor, mu: Tensor, t: int, to: int, noise: Tensor) -> Tensor:
        """Move x from t to a later time `to` by the exact transition of the SDE, over any number of times."""
        gap = self.theta_bar_gap(to, t)
        return mu + math.exp(-gap) * (x - mu) + self.lambda_ * math.sqrt(-math.expm1(-2 * gap)) * noise

    # ---- the reverse process -------------------------------------------------------------------------

    def score(self, noise: Tensor, t: Time) -> Tensor:
        """Score of the marginal at t from the (predicted) noise: -noise / sigma_bar_t, for t >= 1."""
        return -noise / self._at(self.sigma_bar, t, noise, first=1)

    def reverse_mean(self, x: Tensor, mu: Tensor, score: Tensor, t: Time, to: int | None = None) -> Tensor:
        """Mean of x_{t-1} by the reverse SDE."""
        theta, sigma = self._euler(t, to, x)
        return x - (theta * (mu - x) - sigma**2 * score) * self.dt

    def reverse_sde_step(self, x: Tensor, mu: Tensor, score: Tensor, t: Time, noise: Tensor, to: int | None = None) -> Tensor:
        """Draw x_{t-1} by the reverse SDE (Euler-Maruyama).

        With an earlier time `to` this is naive step-skipping: one Euler step over the sum of the skipped steps. Its error
        grows quickly with the gap. It serves for comparison; the release has no such step.
        """
        _, sigma = self._euler(t, to, x)
        return self.reverse_mean(x, mu, score, t, to) - sigma * math.sqrt(self.dt) * noise

    def reverse_ode_step(self, x: Tensor, mu: Tensor, score: Tensor, t: Time, to: int | None = None) -> Tensor:
        """x_{t-1} (or x_to, as `reverse_sde_step`) by the probability-flow ODE."""
        theta, sigma = self._euler(t, to, x)
        return x - (theta * (mu - x) - 0.5 * sigma**2 * score) * self.dt

    def optimum_step(self, x: Tensor, x0: Tensor, mu: Tensor, t: Time, to: int | None = None) -> Tensor:
        """The most likely x_{t-1} (or x_to) given x_t and x0. Training regresses x_{t-1}."""
        weight_x, weight_x0, _ = self._posterior(t, to, x)
        return mu + weight_x * (x - mu) + weight_x0 * (x0 - mu)

    def posterior_step(self, x: Tensor, mu: Tensor, noise_prediction: Tensor, t: Time, noise: Tensor, to: int | None = None) -> Tensor:
        """Draw x_{t-1} (or x_to) from the Gaussian posterior at the predicted x0 (arXiv 2404.09732)."""
        x0 = self.predict_x0(x, mu, noise_prediction, t)
        _, _, std = self._posterior(t, to, x)
        return self.optimum_step(x, x0, mu, t, to) + std * noise

    # ---- conversion between noise and x0 -------------------------------------------------------------

    def predict_x0(self, x: Tensor, mu: Tensor, noise: Tensor, t: Time) -> Tensor:
        """The x0 that a state and its noise imply."""
        return mu + (x - mu - self._at(self.sigma_bar, t, x, first=1) * noise) / self._at(self.decay, t, x)

    def predict_noise(self, x: Tensor, mu: Tensor, x0: Tensor, t: Time) -> Tensor:
        """The noise that a state and its x0 imply; the inverse of `predict_x0`."""
        return (x - self.marginal_mean(x0, mu, t)) / self._at(self.sigma_bar, t, x, first=1)
