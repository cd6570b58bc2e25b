"""The time t as an input of the networks."""

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """Sines, then cosines, of t at geometrically spaced frequencies (spec sec. 4).

    t (B,) to (B,width), or k times for each image (B,k) to (B,k width), in the dtype of t, or float32 if t holds integers; width is
    even and at least 4.
    """

    def __init__(self, width: int):
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"the width of a time embedding must be even and at least 4, not {width}")
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        half = self.width // 2
        dtype = torch.promote_types(t.dtype, torch.float32)
        k = torch.arange(half, device=t.device, dtype=dtype)
        angles = t.to(dtype)[..., None] * torch.exp(-math.log(1e4) / (half - 1) * k)  # (B,[k,]half)
        embedding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (B,width) or (B,k width)
        return embedding.to(t.dtype) if t.is_floating_point() else embedding


def batch_of_times(t: int | Tensor, like: Tensor) -> Tensor:
    """Turn a number or (B,) into times (B,), and (1,k) or (B,k) into (B,k), on the device and in the dtype of the batch `like`."""
    times = on_device(t, like.device).to(like.dtype)
    return times.expand(like.shape[0], *times.shape[1:])


def on_device(t: int | Tensor, device: torch.device) -> Tensor:
    """Times as a tensor on a device, a number as (1,). A copy from the CPU's memory would wait for a GPU, as `as_tensor` makes it."""
    if isinstance(t, Tensor):
        return t.to(device, non_blocking=device.type == "cuda")
    return torch.full((1,), t, device=device)
