"""The training objectives (spec sec. 6, and that of RePaint's prior), each a pure function of networks, data, times and noise.

Shapes: texture states (B,3,H,W), structure states (B,1,H,W), mask (B,1,H,W) with 1 = known, t (B,), noise as its state.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.ddpm import DDPM, Predicted
from strdiffusion.denoiser import Denoiser, GivenX0
from strdiffusion.sde import MeanRevertingSDE

HOLE_WEIGHT = 10.0
Norm = Literal["l1", "l2"]
LossOn = Literal["step", "x0"]


@dataclass(frozen=True)
class MatchingLoss:
    """A matching loss with the two images that it compares, (B,C,H,W)."""

    loss: Tensor
    expectation: Tensor
    optimum: Tensor


@dataclass(frozen=True)
class DiscriminatorLoss:
    """The three terms of the discriminator's loss, and the scores (B,) of the matched and the mismatched pairs."""

    real: Tensor
    fake: Tensor
    triplet: Tensor
    real_scores: Tensor
    fake_scores: Tensor

    @property
    def loss(self) -> Tensor:
        return self.real + self.fake + self.triplet


def weighted_distance(difference: Tensor, mask: Tensor, norm: Norm = "l1", hole_weight: float = HOLE_WEIGHT) -> Tensor:
    """mean|d m| + 10 mean|d (1-m)|, averaged over the batch; squares instead of magnitudes for "l2". hole_weight: the 10."""
    magnitude = difference.abs() if norm == "l1" else difference.square()
    return (magnitude * mask).mean() + hole_weight * (magnitude * (1 - mask)).mean()


def matching_loss(
    denoiser: Denoiser | GivenX0,
    state: Tensor,
    clean: Tensor,
    mean: Tensor,
    mask: Tensor,
    t: Tensor,
    structure: Tensor | None = None,
    norm: Norm = "l1",
    loss_on: LossOn = "step",
    hole_weight: float = HOLE_WEIGHT,
    counted: Tensor | None = None,
) -> MatchingLoss:
    """Compare the predicted reverse mean of a state with the optimum step, or with loss_on="x0" the predicted x0 with the true x0.

    counted: (B,1,H,W), 1 = the truth is known here; elsewhere nothing counts. None: it is known everywhere.
    """
    if loss_on == "x0":
        expectation, optimum = denoiser.x0(state, mean, t, structure), clean
    else:
        score = denoiser.score(state, mean, t, structure)
        expectation = denoiser.sde.reverse_mean(state, mean, score, t)
        optimum = denoiser.sde.optimum_step(state, clean, mean, t)
    difference = expectation - optimum if counted is None else (expectation - optimum) * counted
    return MatchingLoss(weighted_distance(difference, mask, norm, hole_weight), expectation, optimum)


def structure_loss(
    denoiser: Denoiser,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    norm: Norm = "l1",
    loss_on: LossOn = "step",
    hole_weight: float = HOLE_WEIGHT,
) -> MatchingLoss:
    """Objective of the structure network: x_t from (x0, mu_x), target x*_{t-1}. noise (B,1,H,W)."""
    x = denoiser.sde.sample_marginal(batch.structure, batch.structure_mean, t, noise)
    weights = norm, loss_on, hole_weight, batch.counted
    return matching_loss(denoiser, x, batch.structure, batch.structure_mean, batch.mask, t, denoiser.context(batch.texture_mean), *weights)


def structure_guide(sde: MeanRevertingSDE, batch: Batch, t: Tensor, noise: Tensor) -> Tensor:
    """x*_{t-1} of a ground-truth structure state with its own noise (B,1,H,W). It guides texture and discriminator."""
    x = sde.sample_marginal(batch.structure, batch.structure_mean, t, noise)
    return sde.optimum_step(x, batch.structure, batch.structure_mean, t)


def denoised_structure_guide(structure_denoiser: Denoiser, batch: Batch, t: Tensor, noise: Tensor) -> Tensor:
    """The same guide as predicted by the structure network: the reverse mean of the state (the paper's form, spec sec. 10)."""
    sde = structure_denoiser.sde
    x = sde.sample_marginal(batch.structure, batch.structure_mean, t, noise)
    seen = structure_denoiser.context(batch.texture_mean)
    with torch.no_grad():
        return sde.reverse_mean(x, batch.structure_mean, structure_denoiser.score(x, batch.structure_mean, t, seen), t)


def texture_loss(
    denoiser: Denoiser,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    guide: Tensor | None,
    norm: Norm = "l1",
    loss_on: LossOn = "step",
    hole_weight: float = HOLE_WEIGHT,
) -> MatchingLoss:
    """Objective of the texture network: y_t from (y0, mu_y) under the guide S (B,1,H,W), target y*_{t-1}. noise (B,3,H,W)."""
    mean = denoiser.sde.texture_mean(batch.texture_mean, batch.mask)
    y = denoiser.sde.sample_marginal(batch.texture, mean, t, noise)
    return matching_loss(denoiser, y, batch.texture, mean, batch.mask, t, guide, norm, loss_on, hole_weight, batch.counted)


def joint_loss(
    denoiser: Denoiser,
    batch: Batch,
    t: Tensor,
    noise: Tensor,
    structure_noise: Tensor,
    norm: Norm = "l1",
    loss_on: LossOn = "step",
    hole_weight: float = HOLE_WEIGHT,
) -> tuple[MatchingLoss, MatchingLoss]:
    """Objective of the joint network (spec sec. 11): texture and structure, each from its own time, by one evaluation.

    t (B,2): the times of texture and structure. noise (B,3,H,W), structure_noise as the structure (B,C,H,W).
    """
    sde, (t_y, t_x) = denoiser.sde, t.unbind(dim=1)
    mean = sde.texture_mean(batch.texture_mean, batch.mask)
    y = sde.sample_marginal(batch.texture, mean, t_y, noise)
    x = sde.sample_marginal(batch.structure, batch.structure_mean, t_x, structure_noise)
    y0, x0 = denoiser.both_x0(y, mean, t_y, x, batch.structure_mean, t_x)
    weights = norm, loss_on, hole_weight, batch.counted
    return (
        matching_loss(GivenX0(sde, y0), y, batch.texture, mean, batch.mask, t_y, None, *weights),
        matching_loss(GivenX0(sde, x0), x, batch.structure, batch.structure_mean, batch.mask, t_x, None, *weights),
    )


def discriminator_loss(
    discriminator: nn.Module, sde: MeanRevertingSDE, batch: Batch, t: Tensor, noise: Tensor, guide: Tensor
) -> DiscriminatorLoss:
    """Objective of the discriminator: given the structure, tell y*_{t-1} from y_t, with a triplet loss on their blend. noise (B,3,H,W)."""
    mean = sde.texture_mean(batch.texture_mean, batch.mask)
    y = sde.sample_marginal(batch.texture, mean, t, noise)  # lags one step behind the structure
    y_optimum = sde.optimum_step(y, batch.texture, mean, t)
    blend = y_optimum * batch.mask + y * (1 - batch.mask)
    real, fake, anchor = (discriminator(texture, guide, t).float() for texture in (y_optimum, y, blend))
    triplet = F.triplet_margin_loss(anchor[:, None], real[:, None], fake[:, None], margin=1.0)
    return DiscriminatorLoss(F.softplus(-real).mean(), F.softplus(fake).mean(), triplet, real, fake)


@dataclass(frozen=True)
class HybridLoss:
    """The loss of a prior for each image (B,): the squared error of what it predicts, and the variational bound, in bits."""

    mse: Tensor
    vb: Tensor

    @property
    def loss(self) -> Tensor:
        return self.mse + self.vb


def hybrid_loss(
    network: nn.Module,
    process: DDPM,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    prediction: Predicted = "noise",
    rescale: bool = False,
    classes: Tensor | None = None,
) -> HybridLoss:
    """Objective of RePaint's prior (docs/repaint_spec.md sec. 9). The bound trains the variance alone.

    x0, noise: (B,3,H,W), x0 in [-1,1]. t: (B,) indices of the whole trained process. rescale: multiply the bound by S/1000.
    """
    x = process.sample_marginal(x0, t, noise)
    output = network(x, t, classes).to(x.dtype)  # (B,6,H,W)
    predicted, v = output.chunk(2, dim=1)
    mse = (predicted - (noise if prediction == "noise" else x0)).square().mean(dim=(1, 2, 3))

    found = process.reverse(x, torch.cat([predicted.detach(), v], dim=1), t, prediction, clip=False)
    true_mean, true_log_variance = process.posterior_mean(x0, x, t), process.log_variance(torch.full_like(v, -1), t)
    divergence = gaussian_divergence(true_mean, true_log_variance, found.mean, found.log_variance)
    likelihood = level_log_likelihood(x0, found.mean, found.log_variance)
    bits = torch.where(t.to(x.device).view(-1, 1, 1, 1) == 0, -likelihood, divergence).mean(dim=(1, 2, 3)) / math.log(2)
    return HybridLoss(mse, bits * process.steps / 1000 if rescale else bits)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of a Gaussian to another, element by element."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - ratio - 1 + (mean - other_mean).square() * torch.exp(-other_log_variance))


def level_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log probability of the 8-bit level of x0 in [-1,1] under a Gaussian; the darkest and the brightest level are open."""
    deviation = torch.exp(log_variance / 2)
    above, below = (_normal_cdf((x0 - mean + half) / deviation) for half in (1 / 255, -1 / 255))
    p = torch.where(x0 < -0.999, above, torch.where(x0 > 0.999, 1 - below, above - below))
    return p.clamp(min=1e-12).log()


def _normal_cdf(u: Tensor) -> Tensor:
    """The distribution of a normal variable, by the approximation that guided diffusion uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
