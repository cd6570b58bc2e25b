"""What DGTS and its enlarging network are trained with (docs/dgts.md, sec. 9 and 11). Images (B,3,H,W) in [-1,1], masks (B,1,H,W)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from strdiffusion.networks.dgts.vgg import VGG19

PERCEPTUAL = ("1_1", "2_1", "3_1", "4_1", "5_1")
STYLE = ("2_2", "3_4", "4_4", "5_2")
CAFFE_FEATURES = {"1_2": 1 / 32, "2_2": 1 / 16, "3_2": 1 / 8, "4_2": 1 / 4, "5_2": 1.0}


@dataclass(frozen=True)
class FillingLoss:
    """The terms of DGTS's loss. perceptual, style: None without VGG-19."""

    rec: Tensor
    perceptual: Tensor | None = None
    style: Tensor | None = None

    @property
    def total(self) -> Tensor:
        if self.perceptual is None:
            return 10 * self.rec
        return 10 * self.rec + 0.1 * self.perceptual + 250 * self.style


def region_distance(a: Tensor, b: Tensor, region: Tensor) -> Tensor:
    """mean|(a - b) region| / mean(region): the L1 distance in the region (B,1,H,W) of each image, averaged over the images.

    An image whose region is empty counts as 0. The release has one mask for a batch, for which this is the distance of the whole batch.
    """
    share = region.mean(dim=(1, 2, 3))  # (B,)
    distance = ((a - b) * region).abs().mean(dim=(1, 2, 3))  # (B,)
    return (distance / share.clamp(min=torch.finfo(share.dtype).tiny)).mean()


def gram(features: Tensor) -> Tensor:
    """F F^T / (h w c) of features (B,c,h,w): (B,c,c)."""
    flat = features.flatten(2)
    flat = flat * flat[0].numel() ** -0.5  # before the product, which would overflow in half precision
    return flat @ flat.transpose(1, 2)


def perceptual_distance(vgg: VGG19, a: Tensor, b: Tensor) -> Tensor:
    """The sum of the L1 distances of the features relu1_1, ..., relu5_1."""
    of_a, of_b = vgg(a, PERCEPTUAL), vgg(b, PERCEPTUAL)
    return sum(F.l1_loss(of_a[name], of_b[name]) for name in PERCEPTUAL)


def style_distance(vgg: VGG19, a: Tensor, b: Tensor) -> Tensor:
    """The sum of the L1 distances of the Gram matrices of relu2_2, relu3_4, relu4_4, relu5_2."""
    of_a, of_b = vgg(a, STYLE), vgg(b, STYLE)
    return sum(F.l1_loss(gram(of_a[name]), gram(of_b[name])) for name in STYLE)


def filling_loss(filled: Tensor, truth: Tensor, mask: Tensor, vgg: VGG19 | None) -> FillingLoss:
    """DGTS's loss of filled small images (sec. 9); without VGG-19 the distance in the hole alone."""
    hole = 1 - mask
    rec = region_distance(filled, truth, hole)
    if vgg is None:
        return FillingLoss(rec)
    return FillingLoss(rec, perceptual_distance(vgg, filled, truth), style_distance(vgg, filled * hole, truth * hole))


@dataclass(frozen=True)
class CaffeDistances:
    """How two images differ for the VGG-19 of the enlarging network's training, before weights."""

    feature: Tensor
    style: Tensor
    perceptual: Tensor


def caffe_distances(vgg: VGG19, a: Tensor, b: Tensor) -> CaffeDistances:
    """Weighted L1 of five features; L1 of their Gram matrices; squared error of relu4_2 (sec. 11)."""
    of_a, of_b = vgg(a, CAFFE_FEATURES), vgg(b, CAFFE_FEATURES)
    return CaffeDistances(
        feature=sum(weight * F.l1_loss(of_a[name], of_b[name]) for name, weight in CAFFE_FEATURES.items()),
        style=sum(F.l1_loss(gram(of_a[name]), gram(of_b[name])) for name in CAFFE_FEATURES),
        perceptual=F.mse_loss(of_a["4_2"], of_b["4_2"]),
    )


def hinge(scores: Sequence[Tensor], sign: int) -> Tensor:
    """mean max(0, 1 + sign scores), averaged over the scales of a discriminator."""
    return torch.stack([F.relu(1 + sign * of_scale).mean() for of_scale in scores]).mean()


def critic_loss(of_real: Sequence[Tensor], of_fake: Sequence[Tensor]) -> Tensor:
    """The hinge loss of the discriminator."""
    return hinge(of_real, -1) + hinge(of_fake, 1)


def deception_loss(of_fake: Sequence[Tensor]) -> Tensor:
    """The hinge loss of the upsampler: minus the scores of its images."""
    return torch.stack([-fake.mean() for fake in of_fake]).mean()


def enlarging_loss(fake: Tensor, truth: Tensor, mask: Tensor, vgg: VGG19 | None) -> Tensor:
    """The upsampler's loss beside the adversarial one: 6 L1 in the hole + L1 elsewhere, and, with VGG-19, 2 features + 0.001 perceptual."""
    loss = 6 * region_distance(fake, truth, 1 - mask) + region_distance(fake, truth, mask)
    if vgg is None:
        return loss
    seen = caffe_distances(vgg, fake, truth)
    return loss + 2 * seen.feature + 0.001 * seen.perceptual
