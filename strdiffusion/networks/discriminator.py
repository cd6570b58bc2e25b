"""The time-dependent discriminator that scores how well structure and texture agree (spec sec. 5)."""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.networks.embedding import SinusoidalEmbedding, batch_of_times
from strdiffusion.networks.recompute import RecomputedBlock

EMBEDDING_WIDTH = 256
IMAGE_CHANNELS = 3 + 1
SMALLEST_SIDE = 8
GROUP = 4  # images that share a minibatch statistic in training


def lrelu(h: Tensor) -> Tensor:
    return F.leaky_relu(h, 0.2)


def initialise(layer: nn.Conv2d | nn.Linear, scale: float = 1.0):
    """Draw weights uniformly with variance scale/fan_out and set biases to zero. Returns the layer."""
    fan_out = layer.weight.shape[0] * math.prod(layer.weight.shape[2:])
    bound = math.sqrt(3 * scale / fan_out)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def halve(h: Tensor) -> Tensor:
    """Apply the low-pass filter (1,3,3,1) in both directions and keep every second pixel; (B,C,H,W) to (B,C,H/2,W/2)."""
    taps = 4 - (2 * torch.arange(4, dtype=h.dtype, device=h.device) - 3).abs()  # 1, 3, 3, 1; a list would be copied from the CPU
    kernel = (torch.outer(taps, taps) / 64).repeat(h.shape[1], 1, 1, 1)
    return F.conv2d(h, kernel, stride=2, padding=1, groups=h.shape[1])


class DownBlock(RecomputedBlock):
    """Residual block modulated by the time; (B,c_in,H,W) to (B,c_out,H/2,W/2), or (B,c_out,H,W) without downsampling."""

    def __init__(self, c_in: int, c_out: int, downsample: bool):
        super().__init__()
        self.downsample = downsample
        self.conv1 = initialise(nn.Conv2d(c_in, c_out, 3, padding=1))
        self.time = initialise(nn.Linear(EMBEDDING_WIDTH, c_out))
        self.conv2 = initialise(nn.Conv2d(c_out, c_out, 3, padding=1), scale=1e-10)
        self.skip = initialise(nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        r = self.conv1(lrelu(h)) + self.time(time)[:, :, None, None]  # (B,c_out,H,W)
        r = lrelu(r)
        if self.downsample:
            r, h = halve(r), halve(h)  # (B,.,H/2,W/2)
        return (self.conv2(r) + self.skip(h)) / math.sqrt(2)


class CorrelationDiscriminator(nn.Module):
    """Score of (texture, structure) at time t: high if they belong together.

    Args:
        width: base number of channels (ngf).
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.width = width
        n = width
        self.embedding = nn.Sequential(
            SinusoidalEmbedding(EMBEDDING_WIDTH),
            initialise(nn.Linear(EMBEDDING_WIDTH, EMBEDDING_WIDTH)),
            nn.LeakyReLU(0.2),
            initialise(nn.Linear(EMBEDDING_WIDTH, EMBEDDING_WIDTH)),
            nn.LeakyReLU(0.2),
        )
        self.stem = initialise(nn.Conv2d(IMAGE_CHANNELS, 2 * n, 1))
        self.blocks = nn.ModuleList(
            [
                DownBlock(2 * n, 2 * n, downsample=False),
                DownBlock(2 * n, 4 * n, downsample=True),
                DownBlock(4 * n, 8 * n, downsample=True),
                DownBlock(8 * n, 8 * n, downsample=True),
            ]
        )
        self.final_conv = initialise(nn.Conv2d(8 * n + 1, 8 * n, 3, padding=1), scale=1e-10)
        self.final_linear = initialise(nn.Linear(8 * n, 1))

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        return {"width": self.width}

    def forward(self, texture: Tensor, structure: Tensor, t: int | Tensor, group: int = GROUP) -> Tensor:
        """Score texture (B,3,H,W) with structure (B,1,H,W) at t (a number or (B,)), H and W at least 8. Returns (B,).

        `group` is the largest number of images that share a minibatch statistic: 4 in training. With 1, each
        image is scored on its own.
        """
        if min(texture.shape[-2:]) < SMALLEST_SIDE:
            raise ValueError(f"the discriminator needs images of at least {SMALLEST_SIDE} pixels a side, not {tuple(texture.shape[-2:])}")
        time = self.embedding(batch_of_times(t, texture))  # (B,256)
        h = self.stem(torch.cat([texture, structure], dim=1))  # (B,2n,H,W)
        for block in self.blocks:
            h = block(h, time)
        h = torch.cat([h, minibatch_deviation(h, group)], dim=1)  # (B,8n+1,H/8,W/8)
        h = lrelu(self.final_conv(h))  # (B,8n,H/8,W/8)
        # a sum over pixels would overflow in half precision; a meta tensor has no autocast
        with contextlib.nullcontext() if h.is_meta else torch.autocast(h.device.type, enabled=False):
            wide = h.to(self.final_linear.weight.dtype)
            return self.final_linear(wide.sum(dim=(2, 3))).squeeze(1)  # (B,)


def group_size(count: int, group: int) -> int:
    """The largest divisor of `count` that is at most `group`."""
    return max(g for g in range(1, min(group, count) + 1) if count % g == 0)


def minibatch_deviation(h: Tensor, group: int) -> Tensor:
    """One channel that holds how much the images of a group differ; (B,C,H,W) to (B,1,H,W).

    A group has G images, G the largest divisor of B that is at most `group`. Image i is grouped with i + B/G, i + 2B/G, ...
    """
    B, C, H, W = h.shape
    G = group_size(B, group)
    if G == 1:
        return h.new_full((B, 1, H, W), 1e-8**0.5)  # the variance of one image is zero
    wide = h.to(torch.promote_types(h.dtype, torch.float32))  # 1e-8 would be zero in half precision
    var = wide.reshape(G, B // G, C, H, W).var(dim=0, unbiased=False)  # (B/G,C,H,W)
    deviation = (var + 1e-8).sqrt().mean(dim=(1, 2, 3)).to(h.dtype)  # (B/G,)
    return deviation.repeat(G).view(B, 1, 1, 1).expand(B, 1, H, W)
