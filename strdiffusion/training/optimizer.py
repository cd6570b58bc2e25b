"""The optimizer of a training: Adam, with decoupled weight decay if there is any, and a rate for each group of parameters."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from strdiffusion.config.training import TrainingConfig


class RateGroup(NamedTuple):
    """Parameters whose learning rate is the training's, times a factor."""

    parameters: list[nn.Parameter]
    factor: float = 1.0


def make_optimizer(groups: Iterable[RateGroup], options: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of those parameters that are trained."""
    trained = [{"params": [p for p in group.parameters if p.requires_grad], "factor": group.factor} for group in groups]
    optimizer = torch.optim.AdamW(trained, betas=options.betas, weight_decay=options.weight_decay, fused=True)
    set_rate(optimizer, options.learning_rate)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that an optimizer trains, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
