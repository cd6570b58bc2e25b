"""The noise of samplers: an argument, with one independent stream per image."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class NoiseSource(Protocol):
    """Called with the positions of some images of the batch and a tensor (len(images),C,H,W). Returns standard
    normal noise like that tensor; row i is the next draw of image images[i].
    """

    def __call__(self, images: Sequence[int], like: Tensor) -> Tensor: ...


class SeededNoise:
    """One generator per image, so that an image gets the same noise in any batch and on any device.

    Args:
        seeds: one seed per image of the batch.
    """

    def __init__(self, seeds: Sequence[int]):
        # drawn on the CPU: generators of other devices give other numbers
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self, images: Sequence[int], like: Tensor) -> Tensor:
        draws = [torch.randn(like.shape[1:], generator=self.generators[i], dtype=torch.float32) for i in images]
        noise = torch.stack(draws).to(like.dtype)
        return noise.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else noise.to(like.device)  # a GPU is not waited for
