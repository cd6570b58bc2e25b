"""A batch of images with their masks: what objectives, samplers and the network-free parts hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and masks. In training everything is ground truth; samplers use of y0 and x0 only the known pixels."""

    texture: Tensor  # y0 (B,3,H,W)
    structure: Tensor  # x0 (B,1,H,W)
    structure_mean: Tensor  # mu_x (B,1,H,W)
    mask: Tensor  # (B,1,H,W), 1 = known

    @property
    def texture_mean(self) -> Tensor:
        """mu_y, the masked image (B,3,H,W)."""
        return self.texture * self.mask

    def __len__(self) -> int:
        return len(self.mask)

    def take(self, rows: Sequence[int]) -> "Batch":
        """The images at these positions."""
        if len(rows) == len(self):
            return self
        index = list(rows)
        return Batch(self.texture[index], self.structure[index], self.structure_mean[index], self.mask[index])

    def to(self, device: torch.device) -> "Batch":
        moved = (v.to(device, non_blocking=True) for v in (self.texture, self.structure, self.structure_mean, self.mask))
        return Batch(*moved)
