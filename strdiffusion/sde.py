"""The mean-reverting SDE that carries an image x0 towards its mean mu (spec sec. 2; IR-SDE, arXiv 2301.11699).

    dx = theta_t (mu - x) dt + sigma_t dw,    sigma_t^2 = 2 lambda^2 theta_t

Everything here is a pure function of tensors. The time t is a whole number for the whole batch, or an integer
tensor of shape (B,) with one time per image. Coefficients are tabulated once in float64 and applied in the
dtype and on the device of the state.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["cosine", "linear", "constant"]
Rounding = Literal["exact", "released"]
Time = int | Tensor


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
        eps: share of x0 that is left in the mean at T, exp(-theta_bar_T) = eps.
        rounding: "released" lets the coefficients of the optimum step cancel in float32 as the release does (wrong by
            2e-4 at t = 2 of T = 100, by more for larger T), to reproduce its training losses to the last digits.

    Shapes: states x, x0, mu, noise and score are (B,C,H,W); results have the shape and dtype of x.
    """

    def __init__(
        self, T: int = 100, schedule: Schedule = "cosine", max_sigma: float = 30.0, eps: float = 0.005, rounding: Rounding = "exact"
    ):
        if T < 1:
            raise ValueError(f"T must be at least 1, not {T}")
        self.T = T
        self.schedule = schedule
        self.max_sigma = max_sigma
        self.eps = eps
        self.lambda_ = max_sigma / 255 if max_sigma >= 1 else float(max_sigma)

        # The schedule itself is rounded to float32, as released, so that small t agree with weights trained there;
        # everything that follows from it is computed in float64.
        self.theta = theta_schedule(schedule, T).double()
        self.theta_cumsum = self.theta.cumsum(0) - self.theta[0]
        self.dt = -math.log(eps) / self.theta_cumsum[-1].item()
        self.sigma = self.lambda_ * torch.sqrt(2 * self.theta)
        self.theta_bar = self.theta_cumsum * self.dt
        self.sigma_bar = self.lambda_ * torch.sqrt(-torch.expm1(-2 * self.theta_bar))
        self.decay = torch.exp(-self.theta_bar)
        self._tabulate_optimum(rounding)

    def _tabulate_optimum(self, rounding: Rounding) -> None:
        """Weights of the optimum step at t = 1..T. Entry 0 stands for no step: it leaves the state as it is."""
        theta, theta_bar = self.theta[1:], self.theta_bar
        A, B, C = torch.exp(-theta * self.dt), self.decay[1:], self.decay[:-1]
        if rounding == "released":
            theta_cumsum = self.theta.float().cumsum(0) - self.theta[0].float()
            A = torch.exp(-theta.float() * self.dt)
            B, C = torch.exp(-theta_cumsum[1:] * self.dt), torch.exp(-theta_cumsum[:-1] * self.dt)
            one_minus_A2, one_minus_B2, one_minus_C2 = 1 - A**2, 1 - B**2, 1 - C**2
        else:  # 1 - C^2 cancels near t = 1, hence expm1
            one_minus_A2 = -torch.expm1(-2 * theta * self.dt)
            one_minus_B2, one_minus_C2 = -torch.expm1(-2 * theta_bar[1:]), -torch.expm1(-2 * theta_bar[:-1])

        def table(values: Tensor, at_0: float) -> Tensor:
            return torch.cat([torch.tensor([at_0], dtype=torch.float64), values.double()])

        self.optimum_x = table(A * one_minus_C2 / one_minus_B2, 1.0)  # weight of (x_t - mu)
        self.optimum_x0 = table(C * one_minus_A2 / one_minus_B2, 0.0)  # weight of (x0 - mu)
        self.posterior_std = table(self.lambda_ * torch.sqrt(one_minus_A2 * one_minus_C2 / one_minus_B2), 0.0)

    def _at(self, table: Tensor, t: Time, like: Tensor, first: int = 0) -> float | Tensor:
        """Look a table up at t: a float for a number, else (B,1,1,1) in the dtype and on the device of `like`."""
        if not isinstance(t, Tensor):
            if not first <= t <= self.T:
                raise ValueError(f"t = {t} lies outside {first}..{self.T}")
            return table[int(t)].item()
        times = t.cpu()
        if times.numel() and (times.min() < first or times.max() > self.T):
            raise ValueError(f"t = {times.tolist()} lies outside {first}..{self.T}")
        return table[times].to(like.dtype).to(like.device).view(-1, 1, 1, 1)

    # ---- the forward process -------------------------------------------------------------------------

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
        """Carry x one step towards the mean with the coefficients of t (Euler-Maruyama)."""
        drift = self._at(self.theta, t, x) * (mu - x) * self.dt
        return x + drift + self._at(self.sigma, t, x) * math.sqrt(self.dt) * noise

    # ---- the reverse process -------------------------------------------------------------------------

    def score(self, noise: Tensor, t: Time) -> Tensor:
        """Score of the marginal at t from the (predicted) noise: -noise / sigma_bar_t, for t >= 1."""
        return -noise / self._at(self.sigma_bar, t, noise, first=1)

    def reverse_mean(self, x: Tensor, mu: Tensor, score: Tensor, t: Time) -> Tensor:
        """Mean of x_{t-1} by the reverse SDE."""
        sigma = self._at(self.sigma, t, x, first=1)
        return x - (self._at(self.theta, t, x) * (mu - x) - sigma**2 * score) * self.dt

    def reverse_sde_step(self, x: Tensor, mu: Tensor, score: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Draw x_{t-1} by the reverse SDE."""
        return self.reverse_mean(x, mu, score, t) - self._at(self.sigma, t, x) * math.sqrt(self.dt) * noise

    def reverse_ode_step(self, x: Tensor, mu: Tensor, score: Tensor, t: Time) -> Tensor:
        """x_{t-1} by the probability-flow ODE."""
        sigma = self._at(self.sigma, t, x, first=1)
        return x - (self._at(self.theta, t, x) * (mu - x) - 0.5 * sigma**2 * score) * self.dt

    def optimum_step(self, x: Tensor, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
        """The most likely x_{t-1} given x_t and x0, which training regresses."""
        return mu + self._at(self.optimum_x, t, x, first=1) * (x - mu) + self._at(self.optimum_x0, t, x) * (x0 - mu)

    def posterior_step(self, x: Tensor, mu: Tensor, noise_prediction: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Draw x_{t-1} from the Gaussian posterior at the predicted x0 (arXiv 2404.09732)."""
        x0 = self.predict_x0(x, mu, noise_prediction, t)
        return self.optimum_step(x, x0, mu, t) + self._at(self.posterior_std, t, x) * noise

    # ---- noise and x0 are two ways to say the same ---------------------------------------------------

    def predict_x0(self, x: Tensor, mu: Tensor, noise: Tensor, t: Time) -> Tensor:
        """The x0 that a state and its noise imply."""
        return mu + (x - mu - self._at(self.sigma_bar, t, x, first=1) * noise) / self._at(self.decay, t, x)

    def predict_noise(self, x: Tensor, mu: Tensor, x0: Tensor, t: Time) -> Tensor:
        """The noise that a state and its x0 imply; the inverse of `predict_x0`."""
        return (x - self.marginal_mean(x0, mu, t)) / self._at(self.sigma_bar, t, x, first=1)
