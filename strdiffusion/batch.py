"""Batches of images: `Batch` holds the truth, for the objectives; `Known` holds the known pixels, for everything that inpaints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Known:
    """What is known of a batch of images. Samplers and methods of inpainting see nothing else.

    image: (B,3,H,W), RGB in [0,1]. The hole is set to zero here, whatever it held. This is mu_y of spec sec. 1.
    mask: (B,1,H,W), 1 = known.
    maps: further maps (B,C,H,W) by name, made by a method, see `Method.look`. StrDiffusion has `structure`, the known part of
        x0, and `structure_mean`, mu_x.
    """

    image: Tensor
    mask: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        # selection, not multiplication: a hole may hold NaN
        object.__setattr__(self, "image", torch.where(self.mask > 0.5, self.image, 0.0))

    def __len__(self) -> int:
        return len(self.mask)

    def take(self, rows: Sequence[int]) -> "Known":
        """The images at these positions."""
        return self if len(rows) == len(self) else self._map(lambda images: images[list(rows)])

    def to(self, device: torch.device) -> "Known":
        return self._map(lambda images: images.to(device, non_blocking=True))

    def put_back(self, image: Tensor) -> Tensor:
        """`image` (B,3,H,W) with the given known pixels, bit for bit: y0 m + y (1-m)."""
        return torch.where(self.mask > 0.5, self.image, image)

    def _map(self, change) -> "Known":
        return Known(change(self.image), change(self.mask), {name: change(images) for name, images in self.maps.items()})


@dataclass(frozen=True)
class Batch:
    """Images with masks and structure maps, all ground truth, for training and its validation."""

    texture: Tensor  # y0 (B,3,H,W)
    structure: Tensor  # x0 (B,1,H,W)
    structure_mean: Tensor  # mu_x (B,1,H,W)
    mask: Tensor  # (B,1,H,W), 1 = known
    labels: Tensor | None = None  # (B,H,W) int64, the class of every pixel, if the data have labels
    counted: Tensor | None = None  # (B,1,H,W), 1 = the truth is known here, so the loss counts it; None: everywhere

    @property
    def texture_mean(self) -> Tensor:
        """mu_y, the masked image (B,3,H,W)."""
        return self.texture * self.mask

    def known(self) -> Known:
        """The part that a sampler may see."""
        return Known(self.texture, self.mask, {"structure": self.structure * self.mask, "structure_mean": self.structure_mean})

    def __len__(self) -> int:
        return len(self.mask)

    def take(self, rows: Sequence[int]) -> "Batch":
        """The images at these positions."""
        return self if len(rows) == len(self) else self._map(lambda values: values[list(rows)])

    def to(self, device: torch.device) -> "Batch":
        return self._map(lambda values: values.to(device, non_blocking=True))

    def _map(self, change) -> "Batch":
        return Batch(*(None if values is None else change(values) for values in vars(self).values()))
