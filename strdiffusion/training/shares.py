"""Which images of a global batch a process takes, and their times and noise. All processes together compute what one would.

Sample numbers, times and noise belong to the global batch of an iteration. It is dealt out in equal shares, one for each process and
each part of an accumulated gradient, so the mean of the shares' losses is the loss of the whole.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from strdiffusion.config.training import TrainingConfig
from strdiffusion.networks.discriminator import GROUP, group_size
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

Draw = Callable[[Tensor], Tensor]  # standard normal noise like a tensor


class Shares:
    """The positions in the global batch that process `rank` of `processes` takes: `parts` tensors of `size` positions.

    The discriminator's minibatch statistic groups image i with i + B/G, i + 2B/G, ... If the share is a multiple of G, it keeps these
    groups together, so that the statistic is the same for any number of processes and parts.
    """

    def __init__(self, options: TrainingConfig, rank: int = 0, processes: int = 1):
        self.batch_size, self.parts = options.batch_size, options.accumulate
        number = processes * self.parts
        if self.batch_size % number:
            raise UserError(
                f"training.batch_size={self.batch_size} is the batch of all processes together and must be a multiple of "
                f"{processes} processes x training.accumulate={self.parts}"
            )
        self.size = self.batch_size // number
        group = group_size(self.batch_size, GROUP)
        self.keeps_groups = self.size % group == 0
        order = torch.arange(self.batch_size)
        if self.keeps_groups:
            dealt = order.view(group, number, -1).transpose(0, 1).reshape(number, self.size)
        else:
            dealt = order.view(number, self.size)
        self.positions = dealt[rank * self.parts : (rank + 1) * self.parts]

    def warn(self, kind: str) -> None:
        """Warn if a discriminator's minibatch statistic cannot be that of one process."""
        if kind == "discriminator" and not self.keeps_groups:
            log.warning(
                "a share of %d images is no multiple of the minibatch statistic's groups: the discriminator trains a little differently "
                "than in one process; choose training.batch_size = 4 x processes x training.accumulate x N",
                self.size,
            )

    def noise(self, seed: int, step: int, part: int, times: Tensor, device: torch.device) -> tuple[Tensor, Draw]:
        """The times (size,...) of a part of an iteration, each a row of `times` with equal chances, and its noise, by (seed, step) and the
        positions.
        """
        chance, draw = step_noise(seed, step, device)
        mine = self.positions[part]
        t = times[torch.randint(len(times), (self.batch_size,), generator=chance)[mine]]
        rows = mine.to(device)

        def draw_mine(like: Tensor) -> Tensor:
            whole = draw(like.new_empty(1).expand(self.batch_size, *like.shape[1:]))
            return whole if self.size == self.batch_size else whole[rows]

        return t, draw_mine


def step_noise(seed: int, step: int, device: torch.device) -> tuple[torch.Generator, Draw]:
    """A generator for the times of a step (CPU) and a function that draws its noise; both depend only on (seed, step)."""
    times = torch.Generator().manual_seed(((seed << 40) + 2 * step) % 2**63)
    noise = torch.Generator(device).manual_seed(((seed << 40) + 2 * step + 1) % 2**63)
    return times, lambda like: torch.randn(like.shape, generator=noise, device=device, dtype=like.dtype)
