"""The trainings as the loop sees them: a network, its loss on a batch, and how it is validated."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import LoadedNetwork, load_network, require_same_process
from strdiffusion.config import (
    TrainConfig,
    TrainDiscriminatorConfig,
    TrainJudgeConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
)
from strdiffusion.config.training import FIRST_T
from strdiffusion.data.tensors import structure_picture
from strdiffusion.ddpm import DDPM, Index
from strdiffusion.denoiser import Denoiser, GivenX0, autocast
from strdiffusion.evaluation.metrics import agreement, mean_iou, psnr, ssim
from strdiffusion.networks import CorrelationDiscriminator, GuidedUNet, Kind, Segmenter, UNet
from strdiffusion.objectives import (
    denoised_structure_guide,
    discriminator_loss,
    hybrid_loss,
    joint_loss,
    structure_guide,
    structure_loss,
    texture_loss,
)
from strdiffusion.samplers import Guided, Joint, Networks, Sampling, SeededNoise, Stepping, StructureAlone, Unguided, sample
from strdiffusion.samplers.prior import Prior, count_reverse_steps, repaint
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
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


class StructureTask:
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


class TextureTask:
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


class JointTask:
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


class DiscriminatorTask:
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


class JudgeTask:
    """Train the judge of results: the class of every pixel of a whole image, by cross-entropy. Times and noise are not used."""

    kind: Kind = "judge"
    prediction = "noise"
    evaluations = 1

    def __init__(self, config: TrainJudgeConfig, sde: MeanRevertingSDE):
        self.config, options, self.times = config, config.network, all_times(sde)
        self.network = Segmenter(len(options.classes), options.width, options.depth)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        largest = int(batch.labels.max())
        if largest >= self.network.classes:
            raise UserError(f"the labels hold class {largest}, and network.classes names {self.network.classes}, from 0 on")
        with autocast(batch.mask.device, self.config.precision):
            logits = network(batch.texture)  # (B,classes,H,W)
        accuracy = (logits.argmax(dim=1) == batch.labels).float().mean()
        return F.cross_entropy(logits.float(), batch.labels), {"accuracy": accuracy}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        with autocast(batch.mask.device, self.config.precision):
            found = network(batch.texture).argmax(dim=1)  # (B,H,W)
        pairs = [(a.cpu().numpy(), b.cpu().numpy()) for a, b in zip(found, batch.labels, strict=True)]
        scalars = {"accuracy": [agreement(a, b) for a, b in pairs], "mean_iou": [mean_iou(a, b) for a, b in pairs]}
        gray = [(labels[:, None] / (self.network.classes - 1)).expand(-1, 3, -1, -1) for labels in (found, batch.labels)]
        return Validation(scalars, {"image_result_truth": side_by_side(batch.texture, *gray)})


class PriorTask:
    """Train RePaint's prior (docs/repaint_spec.md sec. 9). It looks at no mask; validation inpaints by short runs of RePaint."""

    kind: Kind = "prior"

    def __init__(self, config: TrainPriorConfig, process: DDPM):
        self.process, self.config, self.prediction = process, config, config.network.prediction
        self.network = GuidedUNet(**config.network.architecture(config.data.size))
        self.times = torch.arange(process.T)
        self.sampled = config.sampling.process(process.steps, process.schedule, "sampling")
        self.visited = config.sampling.times(self.sampled.T)
        self.evaluations = count_reverse_steps(self.visited)

    def evaluate(self, network: nn.Module, x: Tensor, t: Index, classes: None = None) -> Tensor:
        """The network's output in the dtype of x."""
        with autocast(x.device, self.config.precision):
            return network(x, t).to(x.dtype)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        x0, evaluate = 2 * batch.texture - 1, partial(self.evaluate, network)
        found = hybrid_loss(evaluate, self.process, x0, t, draw(x0), self.prediction, self.config.objective.rescale)
        return found.loss.mean(), {"mse": found.mse.mean(), "vb": found.vb.mean()}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        known, options = batch.known(), self.config.sampling
        prior = Prior(partial(self.evaluate, network), self.sampled, self.prediction, options.clip)
        draw = partial(SeededNoise(seeds), range(len(seeds)))
        *_, (_, _, x) = repaint(prior, 2 * known.image - 1, known.mask, self.visited, draw)
        y = (x + 1) / 2
        y = known.put_back(y) if options.put_back else y
        grid = side_by_side(batch.texture_mean, y, batch.texture)
        return Validation(compare(y, batch.texture, batch.mask), {"masked_result_truth": grid})


TASKS = {"structure": StructureTask, "texture": TextureTask, "discriminator": DiscriminatorTask, "judge": JudgeTask, "prior": PriorTask}


def make_process(config: TrainConfig) -> MeanRevertingSDE | DDPM:
    """The process of a training: of a prior the whole diffusion, of other networks the mean-reverting SDE."""
    return DDPM(**vars(config.process)) if isinstance(config, TrainPriorConfig) else MeanRevertingSDE(**vars(config.sde))


def make_task(kind: Kind, config: TrainConfig, process: MeanRevertingSDE | DDPM) -> Task:
    """The training of the network `kind`; of the texture network, that which objective.guidance names."""
    if isinstance(config, TrainTextureConfig) and config.objective.guidance == "joint":
        return JointTask(config, process)
    return TASKS[kind](config, process)


def all_times(sde: MeanRevertingSDE, first: int = FIRST_T) -> Tensor:
    """first..T: the times of a training, each as likely."""
    return torch.arange(first, sde.T + 1)


def joint_times(sde: MeanRevertingSDE, least: int, most: int, first: int = FIRST_T) -> Tensor:
    """The pairs of times (n,2) of texture and structure that sampling visits with the structure `least` to `most` times ahead."""
    pairs = [(min(t, sde.T), max(t - ahead, 1)) for ahead in range(least, most + 1) for t in range(first, sde.T + ahead + 1)]
    return torch.tensor(sorted(pairs))


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
