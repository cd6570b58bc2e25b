"""Solvers: how a state at t becomes a state at an earlier time (spec sec. 2 and 8). To add one, write a function and add it to `SOLVERS`.

A solver evaluates the network and draws noise once, and returns the solution: the state as a function of the earlier time `to`. It is a
function because the structure is needed at two times (`Sampling.structure_step`).

MaRS (arXiv 2502.07856) takes large steps by data prediction. With alpha = exp(-theta_bar), sigma = sigma_bar and L = ln(alpha/sigma),
the exact solution from t to an earlier `to`, h = L_to - L_t, for the data prediction q(L) in between, is

    ODE   x_to - mu = sigma_to/sigma_t (x_t - mu)       + alpha_to int   e^-(L_to-l)  (q(l) - mu) dl
    SDE   x_to - mu = sigma_to/sigma_t e^-h (x_t - mu)  + alpha_to int 2 e^-2(L_to-l) (q(l) - mu) dl + sigma_to sqrt(1-e^-2h) z

both over l from L_t to L_to. Order 1 keeps q constant at q_t; order 2 extrapolates the line through q_t and the prediction before it.
Written as offsets from mu, every coefficient is a single product: the weight of mu in spec sec. 8, a difference of four
terms, does not appear. SDE-1 equals the posterior step of the SDE, from any t to any `to`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from strdiffusion.denoiser import Denoiser
from strdiffusion.samplers.state import State
from strdiffusion.sde import MeanRevertingSDE


@dataclass(frozen=True)
class Transition:
    """One step to solve: from t, with mean mu (B,C,H,W), by a denoiser that is guided by `guide` (B,1,H,W), or unguided (None).

    draw: gives standard normal noise like a tensor. order: of MaRS, 1 or 2. count: called before each evaluation of the network.
    """

    denoiser: Denoiser
    mu: Tensor
    t: int
    guide: Tensor | None
    draw: Callable[[Tensor], Tensor]
    order: int
    count: Callable[[], None] = lambda: None

    @property
    def sde(self) -> MeanRevertingSDE:
        return self.denoiser.sde

    def noise(self, x: Tensor, t: int | None = None) -> Tensor:
        """The noise predicted from x at t, or at another time; evaluates the network once."""
        self.count()
        return self.denoiser.noise(x, self.mu, self.t if t is None else t, self.guide)

    def x0(self, x: Tensor, t: int | None = None) -> Tensor:
        """x0 predicted from x at t, or at another time; evaluates the network once."""
        self.count()
        return self.denoiser.x0(x, self.mu, self.t if t is None else t, self.guide)


Solution = Callable[[int], State]


def ancestral(state: State, step: Transition) -> Solution:
    """The reverse SDE by Euler-Maruyama, as released."""
    score, z = step.sde.score(step.noise(state.x), step.t), step.draw(state.x)
    return lambda to: State(step.sde.reverse_sde_step(state.x, step.mu, score, step.t, z, to))


def ode(state: State, step: Transition) -> Solution:
    """The probability-flow ODE by Euler's method; no noise is drawn."""
    score = step.sde.score(step.noise(state.x), step.t)
    return lambda to: State(step.sde.reverse_ode_step(state.x, step.mu, score, step.t, to))


def posterior(state: State, step: Transition) -> Solution:
    """A draw from the Gaussian posterior at the predicted x0 (arXiv 2404.09732)."""
    noise, z = step.noise(state.x), step.draw(state.x)
    return lambda to: State(step.sde.posterior_step(state.x, step.mu, noise, step.t, z, to))


def mars_ode(state: State, step: Transition) -> Solution:
    """MaRS on the probability flow; no noise is drawn."""
    return _mars(state, step, None)


def mars_sde(state: State, step: Transition) -> Solution:
    """MaRS on the reverse SDE. Like the posterior step, it draws noise in the last step too, where it has no effect."""
    return _mars(state, step, step.draw(state.x))


SOLVERS: dict[str, Callable[[State, Transition], Solution]] = {
    "ancestral": ancestral,
    "ode": ode,
    "posterior": posterior,
    "mars_ode": mars_ode,
    "mars_sde": mars_sde,
}
Solver = Literal[tuple(SOLVERS)]


def _mars(state: State, step: Transition, z: Tensor | None) -> Solution:
    q = step.x0(state.x)
    previous = None if state.q is None else (state.q, state.t_q)

    def solution(to: int) -> State:
        x = mars_step(step.sde, state.x, step.mu, q, step.t, to, z, previous)
        return State(x, q, step.t) if step.order == 2 else State(x)

    return solution


def mars_step(
    sde: MeanRevertingSDE,
    x: Tensor,
    mu: Tensor,
    q: Tensor,
    t: int,
    to: int,
    noise: Tensor | None = None,
    previous: tuple[Tensor, int] | None = None,
) -> Tensor:
    """Move x from t to `to` < t; all tensors (B,C,H,W).

    Args:
        q: x0 predicted from x at t.
        noise: take the step of the SDE with this noise; None: take the step of the ODE.
        previous: the prediction before q and its time > t, for a step of order 2; None for order 1.

    At to = 0 the result is q, without noise: L is infinite at 0, and the last step is of order 1.
    """
    if to == 0:
        return q
    h = log_snr_step(sde, t, to)
    c = 1 if noise is None else 2
    alpha, sigma = sde.decay[to].item(), sde.sigma_bar[to].item()
    result = mu + sigma / sde.sigma_bar[t].item() * math.exp(-(c - 1) * h) * (x - mu) - alpha * math.expm1(-c * h) * (q - mu)
    if previous is not None:
        q_before, t_before = previous
        r = log_snr_step(sde, t_before, t) / h
        result = result + alpha * slope_weight(c * h) / r * (q - q_before)
    return result if noise is None else result + sigma * math.sqrt(-math.expm1(-2 * h)) * noise


def log_snr_step(sde: MeanRevertingSDE, t: int, to: int) -> float:
    """h = L_to - L_t > 0 for 1 <= to < t, as a sum of positive terms, so that close times cause no cancellation.

    h = gap + ln(sigma_t/sigma_to), and sigma_t^2/sigma_to^2 = 1 + alpha_to^2 (1-e^-2gap) / (1-alpha_to^2).
    """
    gap = sde.theta_bar_gap(t, to)
    theta_bar = sde.theta_bar[to].item()
    return gap + 0.5 * math.log1p(math.exp(-2 * theta_bar) * math.expm1(-2 * gap) / math.expm1(-2 * theta_bar))


def slope_weight(h: float) -> float:
    """1 - (1-e^-h)/h for h > 0; for small h, where the difference would cancel, by its series h/2! - h^2/3! + ..."""
    if h > 0.5:
        return 1 + math.expm1(-h) / h
    return sum(-((-h) ** k) / math.factorial(k + 1) for k in range(1, 18))
