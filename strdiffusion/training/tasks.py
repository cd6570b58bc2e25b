"""The three trainings as the loop sees them: a network, its loss on a batch, and how it is validated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork, load_network, require_same_process
from strdiffusion.config import TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.denoiser import Denoiser, OracleStructure, autocast
from strdiffusion.evaluation.metrics import psnr, ssim
from strdiffusion.networks import CorrelationDiscriminator, Kind, UNet
from strdiffusion.objectives import denoised_structure_guide, discriminator_loss, structure_guide, structure_loss, texture_loss
from strdiffusion.samplers import Guided, Networks, Sampling, SeededNoise, Stepping, StructureAlone, Unguided, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.training.shares import Draw

FIRST_T = 2  # as released; at t = 1 the optimum step is x0 itself


@dataclass(frozen=True)
class Validation:
    """Numbers to log, one for each image, and pictures (B,3,H,W) to show."""

    scalars: dict[str, list[float]]
    pictures: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """What the training loop needs. `loss` returns the loss to minimise and further numbers to log."""

    kind: Kind
    network: nn.Module
    prediction: str

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]: ...

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation: ...


class StructureTask:
    """Train the structure network (spec sec. 6.1)."""

    kind: Kind = "structure"

    def __init__(self, config: TrainStructureConfig, sde: MeanRevertingSDE):
        net = config.network
        self.sde, self.config, self.prediction = sde, config, net.prediction
        self.network = UNet(1, net.width, net.depth, net.attention)

    def denoiser(self, network: nn.Module) -> Denoiser:
        return Denoiser(network, self.sde, self.prediction, self.config.precision)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        options = self.config.objective
        result = structure_loss(self.denoiser(network), batch, t, draw(batch.structure), options.norm, options.loss_on)
        return result.loss, {}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        networks = Networks(structure=self.denoiser(network))
        x = sample(StructureAlone(), Sampling(networks, batch.known(), SeededNoise(seeds), Stepping())).structure
        grid = side_by_side(batch.structure_mean, x, batch.structure)
        return Validation(compare(x, batch.structure, batch.mask), {"edges_result_truth": grid.expand(-1, 3, -1, -1)})


class TextureTask:
    """Train the texture network (spec sec. 6.2); with guidance "none" it is plain IR-SDE."""

    kind: Kind = "texture"

    def __init__(self, config: TrainTextureConfig, sde: MeanRevertingSDE):
        net, objective = config.network, config.objective
        self.sde, self.config, self.prediction = sde, config, net.prediction
        self.guided = objective.guidance != "none"
        self.network = UNet(3, net.width, net.depth, net.attention, guided=self.guided)
        self.structure: LoadedNetwork | None = None
        if objective.guidance == "denoised":
            self.structure = load_network(objective.structure_checkpoint, "structure")
            require_same_process(self.structure, config.sde, config.structure)

    def denoiser(self, network: nn.Module) -> Denoiser:
        return Denoiser(network, self.sde, self.prediction, self.config.precision)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        options = self.config.objective
        noise = draw(batch.texture)
        guide = self._guide(batch, t, draw) if self.guided else None
        result = texture_loss(self.denoiser(network), batch, t, noise, guide, options.norm, options.loss_on)
        return result.loss, {}

    def _guide(self, batch: Batch, t: Tensor, draw: Draw) -> Tensor:
        noise = draw(batch.structure)
        if self.structure is None:
            return structure_guide(self.sde, batch, t, noise)
        self.structure.to(batch.mask.device)
        denoiser = Denoiser(self.structure.for_inference(self.config.precision), self.sde, self.structure.prediction)
        return denoised_structure_guide(denoiser, batch, t, noise)

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        networks = Networks(self.denoiser(network), OracleStructure(self.sde, batch.structure) if self.guided else None)
        run = Sampling(networks, batch.known(), SeededNoise(seeds), Stepping())
        y = sample(Guided() if self.guided else Unguided(), run).texture
        grid = side_by_side(batch.texture_mean, y, batch.texture)
        return Validation(compare(y, batch.texture, batch.mask), {"masked_result_truth": grid})


class DiscriminatorTask:
    """Train the correlation discriminator (spec sec. 6.3)."""

    kind: Kind = "discriminator"
    prediction = "noise"

    def __init__(self, config: TrainDiscriminatorConfig, sde: MeanRevertingSDE):
        self.sde, self.config = sde, config
        self.network = CorrelationDiscriminator(config.network.width)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        noise = draw(batch.texture)
        guide = structure_guide(self.sde, batch, t, draw(batch.structure))
        with autocast(batch.mask.device, self.config.precision):
            d = discriminator_loss(network, self.sde, batch, t, noise, guide)
        ranked = (d.real_scores > d.fake_scores).float().mean()
        return d.loss, {"real": d.real, "fake": d.fake, "triplet": d.triplet, "ranked": ranked}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        return Validation({})


TASKS = {"structure": StructureTask, "texture": TextureTask, "discriminator": DiscriminatorTask}


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
