"""The SDE against closed forms (spec sec. 2)."""

import math

import pytest
import torch

from strdiffusion.sde import MeanRevertingSDE

SCHEDULES = ("cosine", "linear", "constant")


def image(seed: int, channels: int = 3, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(2, channels, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def largest(x: torch.Tensor) -> float:
    return x.abs().max().item()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("T", [10, 100, 1000])
def test_ends_of_the_process(schedule, T):
    sde = MeanRevertingSDE(T, schedule, max_sigma=30, eps=0.005)
    x0, mu = image(0), image(1)
    assert largest(sde.marginal_mean(x0, mu, 0) - x0) < 1e-12
    assert largest(sde.marginal_mean(x0, mu, T) - (mu + 0.005 * (x0 - mu))) < 1e-6
    assert sde.sigma_bar[0] == 0
    assert math.isclose(sde.sigma_bar[T].item(), 30 / 255 * math.sqrt(1 - 0.005**2), rel_tol=1e-6)


def test_max_sigma_below_one_is_lambda_itself():
    assert MeanRevertingSDE(10, max_sigma=0.25).lambda_ == 0.25
    assert MeanRevertingSDE(10, max_sigma=51).lambda_ == 0.2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("T", [20, 400])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_optimum_step_with_the_true_x0_returns_x0(schedule, T, dtype, tolerance):
    sde = MeanRevertingSDE(T, schedule)
    x0, mu = image(0, dtype=dtype), image(1, dtype=dtype)
    x = sde.terminal_state(mu, torch.randn(x0.shape, dtype=dtype))
    for t in range(T, 0, -1):
        x = sde.optimum_step(x, x0, mu, t)
    assert x.dtype == dtype
    assert largest(x - x0) < tolerance


@pytest.mark.parametrize("t", [1, 2, 37, 100])
def test_optimum_step_is_the_mean_of_the_gaussian_posterior(t):
    """x_{t-1} given x_t and x0, by Bayes' rule from the two Gaussians of the exact process."""
    sde = MeanRevertingSDE(100)
    x, x0, mu = image(0), image(1), image(2)
    theta_bar, lam2 = sde.theta_cumsum * sde.dt, sde.lambda_**2
    a = math.exp(-(theta_bar[t] - theta_bar[t - 1]))  # x_t - mu = a (x_{t-1} - mu) + noise of variance b
    b = lam2 * (1 - a * a)
    prior_mean = mu + math.exp(-theta_bar[t - 1]) * (x0 - mu)
    prior_var = lam2 * (1 - math.exp(-2 * theta_bar[t - 1]))
    gain = prior_var * a / (a * a * prior_var + b)
    mean = prior_mean + gain * (x - mu - a * (prior_mean - mu))
    var = prior_var - gain * a * prior_var
    assert largest(sde.optimum_step(x, x0, mu, t) - mean) < 1e-10
    assert math.isclose(sde.posterior_std[t].item(), math.sqrt(max(var, 0)), rel_tol=1e-6, abs_tol=1e-8)


def test_equation_11_of_the_paper():
    """The texture's optimum step written with the structure's: consistency, balance and semantics terms."""
    sde = MeanRevertingSDE(100)
    x0, mu_x, y0, mu_y = image(0, 1), image(1, 1), image(2), image(3)
    noise = torch.randn(2, 1, 6, 5, dtype=torch.float64)
    for t in range(2, 101):
        x_t = sde.sample_marginal(x0, mu_x, t, noise)
        y_t = sde.sample_marginal(y0, mu_y, t, noise.expand_as(y0))  # the same noise in both processes
        A, B, C = torch.exp(-sde.theta[t] * sde.dt), sde.decay[t], sde.decay[t - 1]
        A_prime = A * (1 - C**2) / (1 - B**2)
        consistency, balance, semantics = A_prime * (x_t - mu_x), -A_prime * B * (x0 - mu_x), C * (y0 - mu_y)
        assert largest(sde.optimum_step(y_t, y0, mu_y, t) - (consistency + balance + semantics + mu_y)) < 1e-10


@pytest.mark.parametrize("T", [100, 400, 1000])
def test_coefficients_do_not_cancel_near_t_1(T):
    """Against 60-digit arithmetic; the released rounding is off there, and is what it is said to be."""
    from mpmath import mp, mpf

    mp.dps = 60
    exact, released = MeanRevertingSDE(T), MeanRevertingSDE(T, rounding="released")
    theta, dt = mpf(exact.theta[2].item()), mpf(exact.dt)
    A, B, C = (mp.exp(-v * dt) for v in (theta, mpf(exact.theta_cumsum[2].item()), mpf(exact.theta_cumsum[1].item())))
    truth = float(A * (1 - C**2) / (1 - B**2))
    assert abs(exact.optimum_x[2].item() / truth - 1) < 1e-12
    assert 1e-5 < abs(released.optimum_x[2].item() / truth - 1) < 0.2


def test_reverse_sde_with_the_exact_score_reaches_the_gaussian_it_started_from():
    T, m, s, mu = 1000, 0.7, 0.15, 0.2
    sde = MeanRevertingSDE(T, "cosine", max_sigma=0.3)
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    noise = torch.randn(1, 1, 1, n, generator=generator, dtype=torch.float64)
    x = sde.terminal_state(torch.full_like(noise, mu), noise)
    for t in range(T, 0, -1):
        mean = mu + (m - mu) * sde.decay[t]
        var = s**2 * sde.decay[t] ** 2 + sde.sigma_bar[t] ** 2
        score = -(x - mean) / var
        x = sde.reverse_sde_step(x, torch.full_like(x, mu), score, t, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    assert abs(x.mean().item() - m) < 5 * s / math.sqrt(n) + 2e-3  # sampling error, and the Euler steps' own
    assert abs(x.std().item() / s - 1) < 0.02


def test_reverse_ode_with_the_exact_score_reaches_the_gaussian_it_started_from():
    T, m, s, mu = 1000, 0.7, 0.15, 0.2
    sde = MeanRevertingSDE(T, "cosine", max_sigma=0.3)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 1, 9)
    start_std = math.sqrt(s**2 * sde.decay[T] ** 2 + sde.sigma_bar[T] ** 2)
    x = mu + (m - mu) * sde.decay[T] + start_std * z
    for t in range(T, 0, -1):
        var = s**2 * sde.decay[t] ** 2 + sde.sigma_bar[t] ** 2
        x = sde.reverse_ode_step(x, torch.full_like(x, mu), -(x - mu - (m - mu) * sde.decay[t]) / var, t)
    assert largest(x - (m + s * z)) < 5e-3  # the exact flow maps z to m + s z


def test_forward_steps_reach_the_marginal():
    T, n = 1000, 20_000
    sde = MeanRevertingSDE(T, "constant")
    generator = torch.Generator().manual_seed(0)
    x0, mu = torch.full((1, 1, 1, n), 0.9, dtype=torch.float64), torch.full((1, 1, 1, n), 0.1, dtype=torch.float64)
    x = x0
    for t in range(1, 501):
        x = sde.forward_step(x, mu, t, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    assert abs(x.mean().item() - sde.marginal_mean(x0, mu, 500).mean().item()) < 3e-3
    assert abs(x.std().item() / sde.sigma_bar[500].item() - 1) < 0.02


def test_reverse_mean_is_what_remains_of_the_reverse_step_without_noise():
    sde = MeanRevertingSDE(100)
    x, mu, eps, z = image(0), image(1), torch.randn(2, 3, 6, 5, dtype=torch.float64), torch.randn(2, 3, 6, 5, dtype=torch.float64)
    score = sde.score(eps, 40)
    difference = sde.reverse_mean(x, mu, score, 40) - sde.reverse_sde_step(x, mu, score, 40, z)
    assert largest(difference - sde.sigma[40] * math.sqrt(sde.dt) * z) < 1e-14


def test_x0_and_noise_are_inverse_to_each_other():
    sde = MeanRevertingSDE(100)
    x, mu, noise = image(0), image(1), torch.randn(2, 3, 6, 5, dtype=torch.float64)
    for t in (1, 50, 100):
        assert largest(sde.predict_noise(x, mu, sde.predict_x0(x, mu, noise, t), t) - noise) < 1e-9


def test_posterior_step_with_the_true_noise_has_the_optimum_as_its_mean():
    sde = MeanRevertingSDE(100)
    x0, mu, noise = image(0), image(1), torch.randn(2, 3, 6, 5, dtype=torch.float64)
    for t in (1, 2, 60, 100):
        x = sde.sample_marginal(x0, mu, t, noise)
        assert largest(sde.posterior_step(x, mu, noise, t, torch.zeros_like(x)) - sde.optimum_step(x, x0, mu, t)) < 1e-10
    assert sde.posterior_std[1] == 0  # the last step adds no noise


# ---- steps to an earlier time than t-1 ----------------------------------------------------------------

GAPS = ((2, 0), (3, 1), (100, 0), (100, 1), (100, 37), (60, 20))


@pytest.mark.parametrize(("t", "to"), GAPS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_over_a_gap_is_what_steps_to_neighbours_compose_to(schedule, t, to):
    """Given x0, mean and variance of x_to from x_t: in one step, by Bayes' rule, and by all steps between."""
    sde = MeanRevertingSDE(100, schedule)
    x, x0, mu, zero = image(0), image(1), image(2), torch.zeros(2, 3, 6, 5, dtype=torch.float64)
    composed, variance = x, 0.0
    for s in range(t, to, -1):
        composed = sde.optimum_step(composed, x0, mu, s)
        variance = sde.optimum_x[s].item() ** 2 * variance + sde.posterior_std[s].item() ** 2
    noise = sde.predict_noise(x, mu, x0, t)
    mean = sde.posterior_step(x, mu, noise, t, zero, to)
    std = sde.posterior_step(x, mu, noise, t, zero + 1, to) - mean
    assert largest(mean - composed) < 1e-12 and largest(std - math.sqrt(variance)) < 1e-12
    assert torch.equal(mean, sde.optimum_step(x, sde.predict_x0(x, mu, noise, t), mu, t, to))

    theta_bar, lam2 = sde.theta_cumsum * sde.dt, sde.lambda_**2
    A = math.exp(theta_bar[to] - theta_bar[t])
    prior_mean, prior_var = mu + math.exp(-theta_bar[to]) * (x0 - mu), lam2 * (1 - math.exp(-2 * theta_bar[to]))
    gain = prior_var * A / (A * A * prior_var + lam2 * (1 - A * A))
    assert largest(mean - (prior_mean + gain * (x - mu - A * (prior_mean - mu)))) < 1e-10
    assert math.isclose(std.mean().item() ** 2, prior_var * (1 - gain * A), rel_tol=1e-9, abs_tol=1e-15)


def test_posterior_weights_over_a_gap_do_not_cancel_near_t_1():
    from mpmath import mp, mpf

    mp.dps = 60
    sde, zero, one = MeanRevertingSDE(1000), torch.zeros(1, 1, 1, 1).double(), torch.ones(1, 1, 1, 1).double()
    for t, to in ((3, 1), (5, 2), (1000, 1), (1000, 998)):
        theta = [mpf(v) for v in sde.theta.tolist()]
        B, C = (mp.exp(-sum(theta[1 : s + 1], mpf(0)) * mpf(sde.dt)) for s in (t, to))
        A = B / C
        found = [sde.optimum_step(one, zero, zero, t, to), sde.optimum_step(zero, one, zero, t, to)]
        for value, truth in zip(found, (A * (1 - C**2) / (1 - B**2), C * (1 - A**2) / (1 - B**2)), strict=True):
            assert abs(value.item() / float(truth) - 1) < 1e-12


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_transition_carries_one_marginal_to_the_other(schedule):
    sde = MeanRevertingSDE(100, schedule)
    x0, mu, zero = image(0), image(1), torch.zeros(2, 3, 6, 5, dtype=torch.float64)
    for to, t in GAPS:
        mean = sde.sample_transition(sde.marginal_mean(x0, mu, t), mu, t, to, zero)
        assert largest(mean - sde.marginal_mean(x0, mu, to)) < 1e-12
        std = sde.sample_transition(mu, mu, t, to, zero + 1) - mu
        decay = largest(sde.sample_transition(mu + 1, mu, t, to, zero) - mu)
        assert abs(decay**2 * sde.sigma_bar[t].item() ** 2 + largest(std) ** 2 - sde.sigma_bar[to].item() ** 2) < 1e-14


def test_an_ancestral_step_over_a_gap_is_one_euler_step_over_the_sum():
    sde = MeanRevertingSDE(100)
    x, mu, score, z = image(0), image(1), image(2), image(3)
    theta = sum(sde.theta[s].item() for s in range(21, 61))
    sigma2 = sum(sde.sigma[s].item() ** 2 for s in range(21, 61))
    expected = x - (theta * (mu - x) - sigma2 * score) * sde.dt - math.sqrt(sigma2 * sde.dt) * z
    assert largest(sde.reverse_sde_step(x, mu, score, 60, z, 20) - expected) < 1e-12


def test_a_named_neighbour_is_the_default():
    sde = MeanRevertingSDE(100)
    x, x0, mu, z = image(0), image(1), image(2), image(3)
    for t in (1, 2, 60):
        assert torch.equal(sde.reverse_sde_step(x, mu, x0, t, z, t - 1), sde.reverse_sde_step(x, mu, x0, t, z))
        assert torch.equal(sde.optimum_step(x, x0, mu, t, t - 1), sde.optimum_step(x, x0, mu, t))
        assert torch.equal(sde.posterior_step(x, mu, z, t, z, t - 1), sde.posterior_step(x, mu, z, t, z))


@pytest.mark.parametrize(("t", "to"), [(5, 5), (5, 6), (5, -1), (11, 3)])
def test_a_gap_that_does_not_lead_back_is_refused(t, to):
    sde, x = MeanRevertingSDE(10), image(0)
    for step in (lambda: sde.optimum_step(x, x, x, t, to), lambda: sde.reverse_sde_step(x, x, x, t, x, to)):
        with pytest.raises(ValueError, match="earlier time"):
            step()


# ---- both ways to say a time --------------------------------------------------------------------------


def test_one_time_per_image_equals_images_one_by_one():
    sde = MeanRevertingSDE(100)
    x, x0, mu, z = image(0), image(1), image(2), torch.randn(2, 3, 6, 5, dtype=torch.float64)
    t = torch.tensor([3, 77])
    calls = {
        "marginal": lambda x, x0, mu, z, t: sde.sample_marginal(x0, mu, t, z),
        "forward": lambda x, x0, mu, z, t: sde.forward_step(x, mu, t, z),
        "reverse": lambda x, x0, mu, z, t: sde.reverse_sde_step(x, mu, sde.score(x0, t), t, z),
        "ode": lambda x, x0, mu, z, t: sde.reverse_ode_step(x, mu, sde.score(x0, t), t),
        "optimum": lambda x, x0, mu, z, t: sde.optimum_step(x, x0, mu, t),
        "posterior": lambda x, x0, mu, z, t: sde.posterior_step(x, mu, x0, t, z),
    }
    for call in calls.values():
        together = call(x, x0, mu, z, t)
        alone = torch.cat([call(*(v[i : i + 1] for v in (x, x0, mu, z)), int(t[i])) for i in range(2)])
        assert largest(together - alone) < 1e-14


def test_a_time_outside_the_process_is_refused():
    sde, x = MeanRevertingSDE(10), image(0)
    for t in (-1, 11, torch.tensor([5, 11])):
        with pytest.raises(ValueError, match="outside"):
            sde.marginal_mean(x, x, t)
    with pytest.raises(ValueError, match="outside"):
        sde.score(x, 0)
    with pytest.raises(ValueError, match="cosine, linear or constant"):
        MeanRevertingSDE(10, "quadratic")
