"""The trainings of DGTS and of its enlarging network (docs/dgts.md)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import load_network
from strdiffusion.checkpoints.pretrained import load_resnet, load_vgg
from strdiffusion.config.dgts import DGTSTrainingConfig, TrainDGTSConfig, TrainUpsamplerConfig
from strdiffusion.denoiser import autocast
from strdiffusion.networks import Kind
from strdiffusion.networks.dgts import DGTS, AdversarialPair, build_upsampler
from strdiffusion.networks.dgts.losses import critic_loss, deception_loss, enlarging_loss, filling_loss
from strdiffusion.networks.dgts.upsampler import reduced
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import require_regular
from strdiffusion.training.optimizer import RateGroup
from strdiffusion.training.shares import Draw
from strdiffusion.training.task import Task, Validation, compare, side_by_side

NO_TIMES = torch.zeros(1, dtype=torch.long)  # neither network belongs to a process in time


def rate_groups(network: DGTS, options: DGTSTrainingConfig) -> list[RateGroup]:
    """DGTS's parameters, those of a pre-trained backbone at a lower rate."""
    slow = network.slow_parameters
    of_slow = {id(parameter) for parameter in slow}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in of_slow]
    return [RateGroup(rest), RateGroup(slow, options.backbone_rate)] if slow else [RateGroup(rest)]


class AlwaysTraining(Task):
    """A training whose network has dropout or batch norm, which must act in every part of a batch."""

    def set_mode(self, model: nn.Module, first: bool) -> None:
        model.train()


class DGTSTask(AlwaysTraining):
    """Train DGTS: fill images, compare them in the hole (sec. 9)."""

    kind: Kind = "dgts"
    prediction = "x0"
    times = NO_TIMES
    evaluations = 1

    def __init__(self, config: TrainDGTSConfig, process: None = None):
        self.config = config
        self.network = DGTS(**vars(config.network))
        if config.backbone is not None:
            load_resnet(config.backbone, self.network.references.backbone)
        self.vgg = None if config.objective.vgg is None else load_vgg(config.objective.vgg)

    def groups(self) -> list[RateGroup]:
        return rate_groups(self.network, self.config.training)

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        options, mask = self.config.objective, batch.mask
        truth = 2 * batch.texture - 1
        with autocast(mask.device, self.config.precision):
            filled = network(truth, mask, options.order, options.one_by_one).image.float()
            if self.vgg is not None:
                self.vgg.to(mask.device)
            found = filling_loss(filled, self.network.reduced(truth), self.network.reduced(mask), self.vgg)
        terms = {"rec": found.rec, "perceptual": found.perceptual, "style": found.style}
        return found.total, {name: term for name, term in terms.items() if term is not None}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        with autocast(batch.mask.device, self.config.precision):
            filled = network(2 * batch.texture - 1, batch.mask, self.config.objective.order).image.float()
        small = Batch(*map(self.network.reduced, (batch.texture, batch.structure, batch.structure_mean, batch.mask)))
        result = small.known().put_back((filled + 1) / 2)
        pictures = {"masked_result_truth": side_by_side(small.texture_mean, result, small.texture)}
        return Validation(compare(result, small.texture, small.mask), pictures)


class UpsamplerTask(AlwaysTraining):
    """Train the enlarging network, alone or with its discriminator (sec. 11). Both take a step at the same time, by one loss: neither
    is trained through the other's part of it.
    """

    kind: Kind = "upsampler"
    prediction = "x0"
    times = NO_TIMES
    evaluations = 1

    def __init__(self, config: TrainUpsamplerConfig, process: None = None):
        self.config, objective = config, config.objective
        sizes = {"width": config.network.width, "factor": config.network.factor, "dilations": config.network.dilations}
        self.network = build_upsampler(critic_width=0 if objective.loss == "l1" else config.network.critic_width, **sizes)
        self.vgg = None if objective.vgg is None else load_vgg(objective.vgg, caffe=True)
        self.colours = None if objective.colours is None else read_colours(objective.colours)
        self.core = None if objective.core is None else load_core(objective.core, config.data.size)

    def groups(self) -> list[RateGroup]:
        options, network = self.config.training, self.network
        if not isinstance(network, AdversarialPair):
            return [RateGroup(list(network.parameters()), options.rate)]
        return [
            RateGroup(list(network.upsampler.parameters()), options.rate),
            RateGroup(list(network.critic.parameters()), options.critic_rate),
        ]

    def small(self, batch: Batch, from_core: Tensor) -> Tensor:
        """y, the small images in [-1,1]: of images chosen in from_core (B,) the core's filling, of the others the truth."""
        truth = 2 * batch.texture - 1
        side = truth.shape[-1] // self.config.network.factor
        y = reduced(truth, side)
        if self.colours is not None:
            y = nearest_colour(y, self.colours.to(y))
        if from_core.any():
            with torch.no_grad():
                filled = self.core.to(truth.device)(truth[from_core], batch.mask[from_core]).image
            y = y.index_put((from_core,), reduced(filled, side))
        return y

    def loss(self, network: nn.Module, batch: Batch, t: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        truth, mask = 2 * batch.texture - 1, batch.mask
        # drawn from the iteration's noise, as a share of the standard normal distribution: a resumed training draws the same
        chances = torch.special.ndtr(draw(mask[:, :1, :1, :1]).flatten())  # (B,), uniform in 0..1
        share = 0.0 if self.core is None else self.config.objective.core_share
        y = self.small(batch, chances < share)
        with autocast(mask.device, self.config.precision):
            output = network(y, truth, mask)
            fake = output.fake if isinstance(self.network, AdversarialPair) else output
            if self.vgg is not None:
                self.vgg.to(mask.device)
            loss = enlarging_loss(fake.float(), truth, mask, self.vgg)
        if not isinstance(self.network, AdversarialPair):
            return loss, {}
        deception, critic = deception_loss(output.for_upsampler), critic_loss(output.of_real, output.of_fake)
        return loss + deception + critic, {"enlarging": loss, "deception": deception, "critic": critic}

    def sample(self, network: nn.Module, batch: Batch, seeds: Sequence[int]) -> Validation:
        upsampler = network.upsampler if isinstance(network, AdversarialPair) else network
        y = self.small(batch, torch.full((len(batch),), self.core is not None))
        with autocast(batch.mask.device, self.config.precision):
            fake = upsampler(y, 2 * batch.texture - 1, batch.mask).float()
        result = batch.known().put_back((fake + 1) / 2)
        pictures = {"masked_result_truth": side_by_side(batch.texture_mean, result, batch.texture)}
        return Validation(compare(result, batch.texture, batch.mask), pictures)


def load_core(path: str, size: int) -> DGTS:
    """A trained DGTS. Raises UserError if the file is none, or of another size."""
    core = load_network(path, "dgts").network
    if core.size != size:
        raise UserError(f"objective.core={path} is of size {core.size}, and data.size={size}: give a core of that size")
    return core


def read_colours(path: str) -> Tensor:
    """A palette (n,3) in [-1,1]. Raises UserError if the file is none."""
    try:
        require_regular(path)
        colours = np.load(path, mmap_mode="r", allow_pickle=False)  # a mapped file cannot declare more than it holds
    except (OSError, ValueError) as error:
        raise UserError(f"objective.colours={path} cannot be read ({error}): give a .npy file of (n,3) colours") from None
    if colours.ndim != 2 or colours.shape[1] != 3 or not len(colours) or not np.isfinite(colours).all() or np.abs(colours).max() > 1:
        raise UserError(f"objective.colours={path} must hold (n,3) colours in [-1,1]")
    return torch.from_numpy(colours.astype(np.float32))


def nearest_colour(image: Tensor, colours: Tensor) -> Tensor:
    """The image (B,3,H,W) with each pixel replaced by the nearest of colours (n,3)."""
    pixels = image.permute(0, 2, 3, 1)  # (B,H,W,3)
    nearest = torch.cdist(pixels.flatten(0, 2), colours).argmin(dim=1)
    return F.embedding(nearest.view(pixels.shape[:3]), colours).permute(0, 3, 1, 2)
