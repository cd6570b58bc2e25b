"""The moving average of a network's weights."""

import copy

import torch
from torch import nn


class EMA:
    """Exponential moving average of parameters; buffers are copied.

    The decay grows with the number n of updates, min(decay, (1+n)/(10+n)), so that the average of a short run forgets its start.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.network.parameters()), [p.detach() for p in network.parameters()], 1 - decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1
