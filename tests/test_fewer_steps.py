"""Fewer evaluations: grids of times, and the MaRS steps against the specification's formulas and exact solutions (spec sec. 8)."""

import math

import pytest
import torch
from mpmath import mp, mpf

from strdiffusion.samplers import TimeGrid
from strdiffusion.samplers.solvers import log_snr_step, mars_step, slope_weight
from strdiffusion.sde import MeanRevertingSDE

SCHEDULES = ("cosine", "linear", "constant")


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def largest(x: torch.Tensor) -> float:
    return x.abs().max().item()


# ---- grids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["t", "log_snr"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_grid_leads_from_T_to_0_in_as_many_steps_as_asked_for(schedule, spacing):
    for T in (2, 3, 7, 20, 41):
        sde = MeanRevertingSDE(T, schedule)
        for steps in range(2, T + 1):
            grid = TimeGrid(sde, steps, spacing)
            assert grid.N == steps == len(grid.times) - 1
            assert (grid[0], grid[steps]) == (0, T) and all(a < b for a, b in zip(grid.times, grid.times[1:], strict=False))
            assert grid[grid.early_end] >= max(int(0.4 * T), 1) > grid[grid.early_end - 1]
        assert TimeGrid(sde, None, spacing).times == TimeGrid(sde, T, spacing).times == tuple(range(T + 1))


def test_times_evenly_spread():
    sde = MeanRevertingSDE(100)
    assert TimeGrid(sde, 5).times == (0, 20, 40, 60, 80, 100)
    assert TimeGrid(sde, 8).times == (0, 13, 25, 38, 50, 63, 75, 88, 100)  # halves upwards
    # L = ln(alpha/sigma), computed here from theta_bar alone; its neighbours are no nearer to the even spread
    theta_bar = sde.theta.cumsum(0).sub(sde.theta[0]).mul(sde.dt).tolist()
    L = [-b - math.log(30 / 255 * math.sqrt(1 - math.exp(-2 * b))) if b else math.inf for b in theta_bar]
    times = TimeGrid(sde, 10, "log_snr").times
    assert times[1] == 1
    for n, t in enumerate(times[1:], 1):
        wanted = L[1] + (L[100] - L[1]) * (n - 1) / 9
        assert all(abs(L[t] - wanted) <= abs(L[s] - wanted) for s in (max(t - 1, 1), min(t + 1, 100)))
    crowded = TimeGrid(sde, 50, "log_snr").times
    assert crowded[:12] == tuple(range(12)) and crowded[-1] - crowded[-3] > 3  # every t near 0, fewer above


@pytest.mark.parametrize("steps", [-1, 0, 1, 11])
def test_steps_that_cannot_be_are_refused(steps):
    with pytest.raises(ValueError, match=f"from 2 to T=10, not {steps}"):
        TimeGrid(MeanRevertingSDE(10), steps)


def test_where_a_time_lies_on_a_grid():
    grid = TimeGrid(MeanRevertingSDE(100), 5)
    assert [grid.at_or_after(t) for t in (0, 1, 20, 21, 100)] == [0, 1, 1, 2, 5]
    assert [grid.at_or_before(t) for t in (0, 19, 20, 99, 100)] == [0, 0, 1, 4, 5]


# ---- one step -----------------------------------------------------------------------------------------


def spec_step(sde, x, mu, q, t, to, z=None, previous=None):
    """Spec sec. 8 to the letter, in 60 digits, from theta and dt alone."""
    mp.dps = 60
    x, mu, q = mpf(x), mpf(mu), mpf(q)

    def L(time):
        return mp.log(alpha(time) / sigma(time))

    def alpha(time):
        return mp.exp(-sum((mpf(v) for v in sde.theta[1 : time + 1].tolist()), mpf(0)) * mpf(sde.dt))

    def sigma(time):
        return mpf(sde.lambda_) * mp.sqrt(1 - alpha(time) ** 2)

    h = L(to) - L(t)
    D1 = 0
    if previous is not None:
        D1 = (q - mpf(previous[0])) / ((L(t) - L(previous[1])) / h)
    ratio = sigma(to) / sigma(t)
    if z is None:
        result = ratio * x + mu * (1 - ratio + ratio * alpha(t) - alpha(to)) + alpha(to) * (1 - mp.exp(-h)) * q
        return result + alpha(to) * (1 - (1 - mp.exp(-h)) / h) * D1
    e = mp.exp(-2 * h)
    result = ratio * mp.exp(-h) * x + mu * (1 - alpha(to) / alpha(t) * e - alpha(to) * (1 - e)) + alpha(to) * (1 - e) * q
    return result + sigma(to) * mp.sqrt(1 - e) * mpf(z) + alpha(to) * (1 - (1 - e) / (2 * h)) * D1


@pytest.mark.parametrize(
    ("T", "t", "to", "before"),
    [
        (100, 2, 1, 3),
        (100, 100, 99, None),
        (100, 99, 98, 100),
        (100, 60, 20, 80),
        (1000, 3, 2, 4),
        (1000, 1000, 1, None),
        (1000, 500, 499, 501),
    ],
)
@pytest.mark.parametrize("z", [None, 0.7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_step_is_the_specification_s(schedule, T, t, to, before, z):
    """Against 60 digits: the coefficients do not cancel, also between close times."""
    sde = MeanRevertingSDE(T, schedule)
    previous = None if before is None else (0.45, before)
    for x, mu, q in ((0.3, 0.0, 0.8), (0.9, 0.4, 0.41)):
        found = mars_step(
            sde, number(x), number(mu), number(q), t, to, None if z is None else number(z), previous and (number(previous[0]), before)
        )
        assert abs(found.item() - float(spec_step(sde, x, mu, q, t, to, z, previous))) < 2e-15
    # the weight of the slope alone, relative to its own size
    if before is not None:
        zero, one = number(0.0), number(1.0)
        found = mars_step(sde, zero, zero, one, t, to, None if z is None else zero, (zero, before)) - mars_step(
            sde, zero, zero, one, t, to, None if z is None else zero
        )
        truth = spec_step(sde, 0, 0, 1, t, to, z and 0, (0, before)) - spec_step(sde, 0, 0, 1, t, to, z and 0)
        assert abs(found.item() / float(truth) - 1) < 1e-10


@pytest.mark.parametrize("h", [1e-9, 1e-5, 0.01, 0.4, 0.5, 0.5000001, 3.0, 40.0])
def test_the_weight_of_the_slope_does_not_cancel(h):
    mp.dps = 60
    assert abs(slope_weight(h) / float(1 - (1 - mp.exp(-mpf(h))) / mpf(h)) - 1) < 2e-15


def test_steps_in_log_snr_do_not_cancel():
    """The difference of two L of about 3 would be wrong by 1e-12 of the step here."""
    mp.dps = 60
    sde = MeanRevertingSDE(10_000, "linear")
    theta = [mpf(v) for v in sde.theta.tolist()]
    for t, to in ((2, 1), (5000, 4999), (10_000, 9_999), (10_000, 1)):
        alphas = [mp.exp(-sum(theta[1 : s + 1], mpf(0)) * mpf(sde.dt)) for s in (t, to)]
        L_t, L_to = (mp.log(a / mp.sqrt(1 - a * a)) for a in alphas)
        assert abs(log_snr_step(sde, t, to) / float(L_to - L_t) - 1) < 1e-14


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_sde_1_is_the_posterior_step(schedule):
    sde = MeanRevertingSDE(100, schedule)
    generator = torch.Generator().manual_seed(0)
    x, mu, q, z = (torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64) for _ in range(4))
    neighbours = [(t, t - 1) for t in range(2, 101)]
    for t, to in [*neighbours, (100, 1), (80, 60), (5, 2)]:
        posterior = sde.posterior_step(x, mu, sde.predict_noise(x, mu, q, t), t, z, None if (t, to) in neighbours else to)
        assert largest(mars_step(sde, x, mu, q, t, to, z) - posterior) < 1e-12
    # at 0 both are the prediction
    assert torch.equal(mars_step(sde, x, mu, q, 7, 0, z), q) and torch.equal(mars_step(sde, x, mu, q, 7, 0, None, (x, 9)), q)
    assert largest(sde.posterior_step(x, mu, sde.predict_noise(x, mu, q, 7), 7, z, 0) - q) < 1e-12


# ---- order of convergence -----------------------------------------------------------------------------

M, S, MU = 0.7, 0.15, 0.2  # data N(M, S^2) in each pixel, mean MU of the process


class GaussianData:
    """The process from T to 1 with the exact x0_hat = E[x0|x_t], from a start that is off, so that its mean matters too."""

    def __init__(self):
        self.sde = MeanRevertingSDE(4000)
        self.start = (MU, self.sde.lambda_**2)  # mean and variance

    def mean(self, t):
        return MU + (M - MU) * self.sde.decay[t].item()

    def var(self, t):
        return (S * self.sde.decay[t].item()) ** 2 + self.sde.sigma_bar[t].item() ** 2

    def x0_hat(self, x, t):
        return M + self.sde.decay[t].item() * S**2 / self.var(t) * (x - self.mean(t))

    def exact(self, stochastic):
        """Mean and standard deviation at t = 1 when the reverse process is solved exactly.

        The probability flow keeps (x_t - mean_t) / std_t. The reverse SDE is linear: given x_T it has at 1 the mean and
        variance of the joint Gaussian of (x_1, x_T), with covariance A var_1.
        """
        T = self.sde.T
        mean, var = self.start
        gain, spread = math.sqrt(self.var(1) / self.var(T)), 0.0
        if stochastic:
            A = (self.sde.decay[T] / self.sde.decay[1]).item()
            gain = A * self.var(1) / self.var(T)
            spread = self.var(1) - gain * A * self.var(1)
        return self.mean(1) + gain * (mean - self.mean(T)), math.sqrt(gain**2 * var + spread)

    def solved(self, steps, order, stochastic):
        """The same by MaRS: every step is affine in (x, previous prediction, z), so mean and covariance are carried exactly."""
        times = TimeGrid(self.sde, steps, "log_snr").times[:0:-1]  # T .. 1
        (m, v), before = self.start, None
        mean, cov = torch.stack([number(m), number(0.0)]), torch.diag(torch.stack([number(v), number(0.0)]))
        for t, to in zip(times, times[1:], strict=False):

            def step(x, q_before, z, t=t, to=to, before=before):
                q = self.x0_hat(number(x), t)
                previous = (number(q_before), before) if order == 2 and before else None
                return torch.stack([mars_step(self.sde, number(x), number(MU), q, t, to, number(z) if stochastic else None, previous), q])

            shift = step(0.0, 0.0, 0.0)
            J = torch.stack([step(1.0, 0.0, 0.0), step(0.0, 1.0, 0.0), step(0.0, 0.0, 1.0)], 1) - shift[:, None]
            mean, before = shift + J[:, :2] @ mean, t
            cov = J[:, :2] @ cov @ J[:, :2].T + torch.outer(J[:, 2], J[:, 2])
        return mean[0].item(), cov[0, 0].sqrt().item()


@pytest.mark.parametrize("stochastic", [False, True], ids=["ODE", "SDE"])
@pytest.mark.parametrize("order", [1, 2])
def test_order_of_convergence_on_a_gaussian(order, stochastic):
    """Halving the step divides the error by 2^order: strong for the ODE, weak for the SDE.

    The ODE's solution is affine in x_T, and mean and deviation tell all of it. The SDE's mean is exact at any step,
    because x0_hat is a martingale of the reverse process: its order is that of the deviation.
    """
    data = GaussianData()
    exact, errors = data.exact(stochastic), []
    for steps in (41, 81, 161):
        found = data.solved(steps, order, stochastic)
        errors.append([abs(a - b) for a, b in zip(found, exact, strict=True)])
    measured = [[math.log2(a / b) for a, b in zip(*pair, strict=True)] for pair in zip(errors, errors[1:], strict=False)]
    for in_mean, in_deviation in measured:
        assert abs(in_deviation - order) < 0.12, measured
        assert stochastic or abs(in_mean - order) < 0.12, measured
    assert errors[-1][1] < (1e-2 if order == 1 else 1e-3)
    assert not stochastic or max(mean for mean, _ in errors) < 1e-13
