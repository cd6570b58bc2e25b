"""A training as the loop sees it: a network, its loss on a batch, and how it is validated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.config.training import FIRST_T
from strdiffusion.evaluation.metrics import psnr, ssim
from strdiffusion.networks import Kind
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.training.optimizer import RateGroup
from strdiffusion.training.shares import Draw


@dataclass(frozen=True)
class Validation:
    """Numbers to log, one for each image, and pictures (B,3,H,W) to show."""

    scalars: dict[str, list[float]]
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """What the training loop needs. `loss` returns the loss to minimise and further numbers to log.

    times: the equally likely times of a training image, (n,), or (n,2) with a time for each part of a joint network.
    evaluations: of the network that `sample` takes for an image.
    """

    kind: Kind
    network: nn.Module
    prediction: str
    times: Tensor
    evaluations: int

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]: ...

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation: ...

    def set_mode(self, model: nn.Module, first: bool) -> None:
        """Prepare the model for a part of a batch, the first or a later one. In training mode a spectral norm takes a power iteration: one
        in each iteration, not in each part.
        """
        model.train(first)

    def groups(self) -> list[RateGroup]:
        """The parameters, in groups of one learning rate."""
        return [RateGroup(list(self.network.parameters()))]


def all_times(sde: MeanRevertingSDE, first: int = FIRST_T) -> Tensor:
    """first..T: the times of a training, each as likely."""
    return torch.arange(first, sde.T + 1)


def compare(result: Tensor, truth: Tensor, mask: Tensor) -> dict[str, list[float]]:
    """PSNR and SSIM of the whole images and of the holes, for each of a batch (B,C,H,W)."""
    rows = []
    for image, reference, known in zip(result, truth, mask, strict=True):
        a, b = (v.clamp(0, 1).permute(1, 2, 0).cpu().numpy() for v in (image, reference))
        hole = known[0].cpu().numpy() < 0.5
        rows.append([psnr(a, b), ssim(a, b), psnr(a, b, hole), ssim(a, b, hole)])
    return dict(zip(("psnr", "ssim", "hole_psnr", "hole_ssim"), map(list, zip(*rows, strict=True)), strict=True))


def side_by_side(*images: Tensor) -> Tensor:
    """Images (B,C,H,W) next to each other, clipped to [0,1]."""
    return torch.cat(images, dim=3).clamp(0, 1)
