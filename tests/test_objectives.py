"""The objectives against formulas written out by hand (spec sec. 6); values of real networks are pinned by test_golden."""

import math

import pytest
import torch
from torch import nn

from strdiffusion.batch import Batch
from strdiffusion.denoiser import Denoiser
from strdiffusion.objectives import (
    denoised_structure_guide,
    discriminator_loss,
    structure_guide,
    structure_loss,
    texture_loss,
    weighted_distance,
)
from strdiffusion.sde import MeanRevertingSDE

sde = MeanRevertingSDE(50)
generator = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def batch() -> Batch:
    mask = (draw(3, 1, 8, 8) > 0.3).double()
    return Batch(draw(3, 3, 8, 8), draw(3, 1, 8, 8), draw(3, 1, 8, 8) * mask, mask)


class Constant(nn.Module):
    """A network that answers with what it is told."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer, self.structure = answer, None

    def forward(self, x, mu, t, structure=None):
        self.structure = structure
        return self.answer


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_weighted_distance_per_image(norm, power):
    d, m = draw(3, 2, 4, 4) - 0.5, (draw(3, 1, 4, 4) > 0.4).double()
    per_image = [(d[i].abs() ** power * m[i]).mean() + 10 * (d[i].abs() ** power * (1 - m[i])).mean() for i in range(3)]
    assert torch.isclose(weighted_distance(d, m, norm), sum(per_image) / 3, rtol=1e-12)


def test_the_true_noise_is_nearly_the_optimum_and_the_true_x0_exactly(batch):
    """The Euler step with the true noise differs from the optimum by the size of a step; predicting x0 has no such gap."""
    t, noise = torch.tensor([5, 20, 45]), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    by_noise = structure_loss(Denoiser(Constant(noise), sde), batch, t, noise)
    by_x0 = structure_loss(Denoiser(Constant(batch.structure - batch.structure_mean), sde, "x0"), batch, t, noise)
    assert torch.isclose(by_noise.loss, by_x0.loss, rtol=1e-9)  # two ways to say the same prediction
    assert by_noise.loss < 0.1 * structure_loss(Denoiser(Constant(0 * noise), sde), batch, t, noise).loss
    exact = structure_loss(Denoiser(Constant(batch.structure - batch.structure_mean), sde, "x0"), batch, t, noise, loss_on="x0")
    assert exact.loss < 1e-12
    assert structure_loss(Denoiser(Constant(noise), sde), batch, t, noise, loss_on="x0").loss < 1e-9


def test_structure_loss_by_hand(batch):
    t, noise = torch.tensor([2, 20, 50]), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    predicted = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    result = structure_loss(Denoiser(Constant(predicted), sde), batch, t, noise)
    total = 0.0
    for i, ti in enumerate(t.tolist()):
        x0, mu, m = batch.structure[i], batch.structure_mean[i], batch.mask[i]
        theta, dt = sde.theta[ti], sde.dt
        bar, bar_before = sde.theta_cumsum[ti] * dt, sde.theta_cumsum[ti - 1] * dt
        sigma_bar = sde.lambda_ * torch.sqrt(1 - torch.exp(-2 * bar))
        x = mu + (x0 - mu) * torch.exp(-bar) + sigma_bar * noise[i]
        mean = x - (theta * (mu - x) + 2 * sde.lambda_**2 * theta * predicted[i] / sigma_bar) * dt
        A, B, C = torch.exp(-theta * dt), torch.exp(-bar), torch.exp(-bar_before)
        best = mu + A * (1 - C**2) / (1 - B**2) * (x - mu) + C * (1 - A**2) / (1 - B**2) * (x0 - mu)
        d = mean - best
        total += (d * m).abs().mean() + 10 * (d * (1 - m)).abs().mean()
    assert torch.isclose(result.loss, total / 3, rtol=1e-9)


def test_the_texture_is_guided_by_the_structure_of_the_step_before(batch):
    t, ny, nx = torch.tensor([7, 20, 50]), torch.randn(3, 3, 8, 8).double(), torch.randn(3, 1, 8, 8).double()
    guide = structure_guide(sde, batch, t, nx)
    x = sde.sample_marginal(batch.structure, batch.structure_mean, t, nx)
    assert torch.equal(guide, sde.optimum_step(x, batch.structure, batch.structure_mean, t))
    network = Constant(torch.zeros_like(ny))
    texture_loss(Denoiser(network, sde), batch, t, ny, guide)
    assert network.structure is guide
    # a structure network that knows the noise gives nearly the same guide
    denoised = denoised_structure_guide(Denoiser(Constant(nx), sde), batch, t, nx)
    assert (denoised - guide).abs().max() < 0.02


def test_discriminator_loss_by_hand(batch):
    class Scorer(nn.Module):
        def forward(self, texture, structure, t):
            return texture.mean(dim=(1, 2, 3)) * 3 - structure.mean(dim=(1, 2, 3)) + t

    t, noise, guide = torch.tensor([3, 20, 50]), torch.randn(3, 3, 8, 8).double(), draw(3, 1, 8, 8)
    d = discriminator_loss(Scorer(), sde, batch, t, noise, guide)
    y = sde.sample_marginal(batch.texture, batch.texture * batch.mask, t, noise)
    best = sde.optimum_step(y, batch.texture, batch.texture * batch.mask, t)
    a, p, n = (Scorer()(v, guide, t).float() for v in (best * batch.mask + y * (1 - batch.mask), best, y))
    real = sum(math.log1p(math.exp(-v)) for v in p.tolist()) / 3
    fake = sum(v + math.log1p(math.exp(-v)) for v in n.tolist()) / 3
    triplet = sum(max(abs(ai - pi) - abs(ai - ni) + 1, 0) for ai, pi, ni in zip(a.tolist(), p.tolist(), n.tolist(), strict=True)) / 3
    assert d.real.item() == pytest.approx(real, rel=1e-5)
    assert d.fake.item() == pytest.approx(fake, rel=1e-5)
    assert d.triplet.item() == pytest.approx(triplet, rel=1e-4)
    assert d.loss.item() == pytest.approx(real + fake + triplet, rel=1e-5)


@pytest.mark.parametrize("prediction", ["noise", "x0"])
def test_clipping_keeps_the_predicted_x0_in_range_and_leaves_the_rest_alone(prediction):
    x, mu, answer = draw(2, 3, 8, 8) * 2 - 0.5, draw(2, 3, 8, 8), draw(2, 3, 8, 8) * 3 - 1.5
    free, clipped = (Denoiser(Constant(answer), sde, prediction, clip=clip) for clip in (False, True))
    x0 = free.x0(x, mu, 30)
    assert x0.min() < 0 and x0.max() > 1
    assert torch.equal(clipped.x0(x, mu, 30), x0.clamp(0, 1))
    # the noise that it reports is the one of the clipped x0
    assert (sde.predict_x0(x, mu, clipped.noise(x, mu, 30), 30) - x0.clamp(0, 1)).abs().max() < 1e-9
    inside = (x0 > 0) & (x0 < 1)
    assert (clipped.noise(x, mu, 30) - free.noise(x, mu, 30))[inside].abs().max() < 1e-9
