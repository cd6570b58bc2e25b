"""The trainings of StrDiffusion's networks, and which task trains which network."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork, load_network, require_same_process
from strdiffusion.config import (
    TrainConfig,
    TrainDiscriminatorConfig,
    TrainPriorConfig,
    TrainSDEConfig,
    TrainStructureConfig,
    TrainTextureConfig,
)
from strdiffusion.config.training import FIRST_T
from strdiffusion.data.tensors import structure_picture
from strdiffusion.ddpm import DDPM
from strdiffusion.denoiser import Denoiser, GivenX0, autocast
from strdiffusion.networks import CorrelationDiscriminator, Kind, UNet
from strdiffusion.objectives import denoised_structure_guide, discriminator_loss, joint_loss, structure_guide, structure_loss, texture_loss
from strdiffusion.samplers import Guided, Joint, Networks, Sampling, SeededNoise, Stepping, StructureAlone, Unguided, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.training.dgts import DGTSTask, UpsamplerTask
from strdiffusion.training.judge import JudgeTask
from strdiffusion.training.prior import PriorTask
from strdiffusion.training.shares import Draw
from strdiffusion.training.task import Task, Validation, all_times, compare, side_by_side


class StructureTask(Task):
    """Train the structure network (spec sec. 6.1)."""

    kind: Kind = "structure"

    def __init__(self, config: TrainStructureConfig, sde: MeanRevertingSDE):
        net = config.network
        self.sde, self.config, self.prediction = sde, config, net.prediction
        self.times, self.evaluations = all_times(sde, config.objective.first_t), sde.T
        self.sees_known = config.objective.sees == "known"
        self.network = UNet(1, net.width, net.depth, net.attention, context=3 if self.sees_known else 0)

    def denoiser(self, network: nn.Module) -> Denoiser:
        return Denoiser(network, self.sde, self.prediction, self.config.precision, sees_known=self.sees_known)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        options = self.config.objective
        result = structure_loss(self.denoiser(network), batch, t, draw(batch.structure), options.norm, options.loss_on, options.hole_weight)
        return result.loss, {}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        networks = Networks(structure=self.denoiser(network))
        x = sample(StructureAlone(), Sampling(networks, batch.known(), SeededNoise(seeds), Stepping())).structure
        grid = side_by_side(batch.structure_mean, x, batch.structure)
        return Validation(compare(x, batch.structure, batch.mask), {"edges_result_truth": grid.expand(-1, 3, -1, -1)})


class TextureTask(Task):
    """Train the texture network (spec sec. 6.2); with guidance "none" it is plain IR-SDE."""

    kind: Kind = "texture"

    def __init__(self, config: TrainTextureConfig, sde: MeanRevertingSDE):
        net, objective = config.network, config.objective
        self.sde, self.config, self.prediction = sde, config, net.prediction
        self.times, self.evaluations = all_times(sde, objective.first_t), sde.T
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
        result = texture_loss(self.denoiser(network), batch, t, noise, guide, options.norm, options.loss_on, options.hole_weight)
        return result.loss, {}

    def _guide(self, batch: Batch, t: Tensor, draw: Draw) -> Tensor:
        noise = draw(batch.structure)
        if self.structure is None:
            return structure_guide(self.sde, batch, t, noise)
        self.structure.to(batch.mask.device)
        form, sees_known = self.structure.for_inference(self.config.precision), self.structure.network.context > 0
        denoiser = Denoiser(form, self.sde, self.structure.prediction, sees_known=sees_known)
        return denoised_structure_guide(denoiser, batch, t, noise)

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        networks = Networks(self.denoiser(network), GivenX0(self.sde, batch.structure) if self.guided else None)
        run = Sampling(networks, batch.known(), SeededNoise(seeds), Stepping())
        y = sample(Guided() if self.guided else Unguided(), run).texture
        grid = side_by_side(batch.texture_mean, y, batch.texture)
        return Validation(compare(y, batch.texture, batch.mask), {"masked_result_truth": grid})


class JointTask(Task):
    """Train a network that denoises texture and structure together (spec sec. 11)."""

    kind: Kind = "texture"

    def __init__(self, config: TrainTextureConfig, sde: MeanRevertingSDE):
        net, objective = config.network, config.objective
        self.sde, self.config, self.prediction = sde, config, net.prediction
        self.times, self.evaluations = joint_times(sde, *objective.ahead, objective.first_t), sde.T
        channels = objective.classes if config.structure.pair == "labels" else 1
        self.network = UNet(3, net.width, net.depth, net.attention, structure_channels=channels)

    def denoiser(self, network: nn.Module) -> Denoiser:
        return Denoiser(network, self.sde, self.prediction, self.config.precision)

    def with_structure(self, batch: Batch) -> Batch:
        """The batch with the structure that is trained: if it is labels, a channel for each class, and nothing known of them."""
        if self.config.structure.pair != "labels":
            return batch
        classes, most = self.config.objective.classes, int(batch.labels.max())
        if most >= classes:
            raise UserError(f"data.labels holds the class {most}, and objective.classes={classes}: classes count from 0, give their number")
        shares = F.one_hot(batch.labels, classes).permute(0, 3, 1, 2).to(batch.texture.dtype)
        return replace(batch, structure=shares, structure_mean=torch.zeros_like(shares))

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        options, batch = self.config.objective, self.with_structure(batch)
        noise, structure_noise = draw(batch.texture), draw(batch.structure)
        texture, structure = joint_loss(
            self.denoiser(network), batch, t, noise, structure_noise, options.norm, options.loss_on, options.hole_weight
        )
        loss = texture.loss + options.structure_weight * structure.loss
        return loss, {"texture_loss": texture.loss, "structure_loss": structure.loss}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        batch = self.with_structure(batch)
        stepping = Stepping(ahead=sum(self.config.objective.ahead) // 2)
        run = Sampling(Networks(self.denoiser(network)), batch.known(), SeededNoise(seeds), stepping)
        result = sample(Joint(), run)
        pictures = {
            "masked_result_truth": side_by_side(batch.texture_mean, result.texture, batch.texture),
            "structure_result_truth": side_by_side(*map(structure_picture, (result.structure, batch.structure))).expand(-1, 3, -1, -1),
        }
        return Validation(compare(result.texture, batch.texture, batch.mask), pictures)


class DiscriminatorTask(Task):
    """Train the correlation discriminator (spec sec. 6.3)."""

    kind: Kind = "discriminator"
    prediction = "noise"
    evaluations = 0

    def __init__(self, config: TrainDiscriminatorConfig, sde: MeanRevertingSDE):
        self.sde, self.config, self.times = sde, config, all_times(sde)
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


TASKS = {
    "structure": StructureTask,
    "texture": TextureTask,
    "discriminator": DiscriminatorTask,
    "judge": JudgeTask,
    "prior": PriorTask,
    "dgts": DGTSTask,
    "upsampler": UpsamplerTask,
}


def make_process(config: TrainConfig) -> MeanRevertingSDE | DDPM | None:
    """The process of a training: of a prior the whole diffusion, of DGTS none, of other networks the mean-reverting SDE."""
    if isinstance(config, TrainPriorConfig):
        return DDPM(**vars(config.process))
    return MeanRevertingSDE(**vars(config.sde)) if isinstance(config, TrainSDEConfig) else None


def make_task(kind: Kind, config: TrainConfig, process: MeanRevertingSDE | DDPM | None) -> Task:
    """The training of the network `kind`; of the texture network, that which objective.guidance names."""
    if isinstance(config, TrainTextureConfig) and config.objective.guidance == "joint":
        return JointTask(config, process)
    return TASKS[kind](config, process)


def joint_times(sde: MeanRevertingSDE, least: int, most: int, first: int = FIRST_T) -> Tensor:
    """The pairs of times (n,2) of texture and structure that sampling visits with the structure `least` to `most` times ahead."""
    pairs = [(min(t, sde.T), max(t - ahead, 1)) for ahead in range(least, most + 1) for t in range(first, sde.T + ahead + 1)]
    return torch.tensor(sorted(pairs))
