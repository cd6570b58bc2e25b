"""SPADE: how the structure guides the texture network (spec sec. 4)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

HIDDEN = 16
EPS = 1e-5


def norm_over_channels(h: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """(h - mean)/sqrt(var + eps) over channels at each pixel of h (B,C,H,W), with the biased variance, times a gain (C,)."""
    return F.layer_norm(h.permute(0, 2, 3, 1), h.shape[1:2], gain, None, eps).permute(0, 3, 1, 2)


def unbiased(C: int) -> float:
    """c = sqrt((C-1)/C). With the unbiased variance, C/(C-1) times the biased one, x/sqrt(var + eps) = c x/sqrt(biased var + c^2 eps)."""
    return ((C - 1) / C) ** 0.5


class SpadeNorm(nn.Module):
    """Normalise features over channels at each pixel, then scale and shift them by maps computed from the structure.

    h (B,C,H,W) and structure (B,1,H',W') give (B,C,H,W).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.shared = nn.Conv2d(1, HIDDEN, 3, padding=1)
        self.gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, h: Tensor, structure: Tensor) -> Tensor:
        c = unbiased(h.shape[1])
        normalised = norm_over_channels(h, None, c**2 * EPS).to(h.dtype)  # (B,C,H,W)
        resized = F.interpolate(structure, size=h.shape[-2:], mode="nearest")  # (B,1,H,W)
        maps = F.relu(self.shared(resized))  # (B,16,H,W)
        return torch.addcmul(self.beta(maps), normalised, 1 + self.gamma(maps), value=c)


class SpadeBlock(nn.Module):
    """Residual block whose two normalisations are guided by the structure; h (B,C,H,W) keeps its shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = SpadeNorm(channels)
        self.norm2 = SpadeNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, 0.0, 0.02)
                nn.init.zeros_(conv.bias)
        spectral_norm(self.conv1)
        spectral_norm(self.conv2)

    def forward(self, h: Tensor, structure: Tensor) -> Tensor:
        r = self.conv1(F.leaky_relu(self.norm1(h, structure), 0.2))  # (B,C,H,W)
        r = self.conv2(F.leaky_relu(self.norm2(r, structure), 0.2))  # (B,C,H,W)
        return h + r
