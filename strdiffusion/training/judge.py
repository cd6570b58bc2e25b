"""The training of the judge of results."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.config import TrainJudgeConfig
from strdiffusion.denoiser import autocast
from strdiffusion.evaluation.metrics import agreement, mean_iou
from strdiffusion.networks import Kind, Segmenter
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.training.shares import Draw
from strdiffusion.training.task import Task, Validation, all_times, side_by_side


class JudgeTask(Task):
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
