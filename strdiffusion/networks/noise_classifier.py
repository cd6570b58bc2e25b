"""The classifier of noisy images that guides an ImageNet prior (docs/repaint_spec.md sec. 6). Modules are named as in the released file."""

import math

import torch
from torch import Tensor, nn

from strdiffusion.networks.guided_unet import CLASSES, GroupNorm, GuidedEncoder, attend


class AttentionPool(nn.Module):
    """Pixels to one vector, by the attention of their mean to all of them; (B,C,H,W) to (B,classes), for one size of image alone."""

    def __init__(self, positions: int, channels: int, heads: int, classes: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, positions + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, classes, 1)

    def forward(self, h: Tensor) -> Tensor:
        pixels = h.flatten(2)  # (B,C,P)
        h = torch.cat([pixels.mean(dim=2, keepdim=True), pixels], dim=2) + self.positional_embedding  # (B,C,P+1)
        return self.c_proj(attend(self.qkv_proj(h), self.heads, new_order=True))[:, :, 0]


class NoiseClassifier(GuidedEncoder):
    """Logits (B,classes) of an image x (B,3,size,size) in [-1,1] at time t. The other arguments are those of `GuidedEncoder`."""

    def __init__(self, size: int, *design, classes: int = CLASSES, **more):
        super().__init__(*design, **more)
        self.size, self.classes = size, classes
        c = self.channels[-1]
        pool = AttentionPool((size // self.factor) ** 2, c, c // (self.head_channels or c // self.heads), classes)
        self.out = nn.Sequential(GroupNorm(c), nn.SiLU(), pool)

    def architecture(self) -> dict:
        return super().architecture() | {"size": self.size, "classes": self.classes}

    def forward(self, x: Tensor, t: int | Tensor) -> Tensor:
        e = self.embed(t, x)
        h = self.first_features(x)
        for group in self.input_blocks:
            h = group(h, e)
        h = self.middle_block(h, e)  # (B,c,size/factor,size/factor)
        return self.out(h.to(self.out[0].weight.dtype))

    def gradient(self, x: Tensor, t: int | Tensor, classes: Tensor) -> Tensor:
        """The gradient with respect to x of the log probability of each image's class (B,); of the shape of x."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_probability = self(x, t).float().log_softmax(dim=1)[torch.arange(len(x)), classes]
            return torch.autograd.grad(log_probability.sum(), x)[0]


def pooled_size(positions: int, levels: int) -> int:
    """The size of image of a classifier whose pooling knows so many positions, the mean included."""
    return math.isqrt(positions - 1) * 2 ** (levels - 1)
