"""The training of RePaint's prior."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.config import TrainPriorConfig
from strdiffusion.ddpm import DDPM, Index
from strdiffusion.denoiser import autocast
from strdiffusion.networks import GuidedUNet, Kind
from strdiffusion.objectives import hybrid_loss
from strdiffusion.samplers import SeededNoise
from strdiffusion.samplers.prior import Prior, count_reverse_steps, repaint
from strdiffusion.training.shares import Draw
from strdiffusion.training.task import Task, Validation, compare, side_by_side


class PriorTask(Task):
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
        prior = Prior(partial(self.evaluate, network), self.sampled, self.prediction, options.clip, solver=options.solver)
        draw = partial(SeededNoise(seeds), range(len(seeds)))
        *_, (_, _, x) = repaint(prior, 2 * known.image - 1, known.mask, self.visited, draw)
        y = (x + 1) / 2
        y = known.put_back(y) if options.put_back else y
        grid = side_by_side(batch.texture_mean, y, batch.texture)
        return Validation(compare(y, batch.texture, batch.mask), {"masked_result_truth": grid})
