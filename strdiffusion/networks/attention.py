"""Residual linear attention, as in the released checkpoints (spec sec. 4)."""

import torch
from torch import Tensor, nn

HEADS = 4
HEAD_WIDTH = 32


class ChannelNorm(nn.Module):
    """Normalise over channels at each pixel, with a gain and no bias; (B,C,H,W) to (B,C,H,W)."""

    eps = 1e-5

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        var, mean = torch.var_mean(h, dim=1, unbiased=False, keepdim=True)
        return (h - mean) * (var + self.eps).rsqrt() * self.gain


class LinearAttention(nn.Module):
    """h + norm(out(attention(norm(h)))), (B,C,H,W) to (B,C,H,W). Time and memory are linear in the number of pixels."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)
        self.out_norm = ChannelNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        B, _, H, W = h.shape
        qkv = self.qkv(self.norm(h)).view(B, 3, HEADS, HEAD_WIDTH, H * W)
        q, k, v = qkv.unbind(dim=1)  # each (B,heads,width,pixels)
        q = q.softmax(dim=-2) * HEAD_WIDTH**-0.5
        k = k.softmax(dim=-1)
        v = v / (H * W)
        context = k @ v.transpose(-1, -2)  # (B,heads,width of k,width of v)
        attended = context.transpose(-1, -2) @ q  # (B,heads,width,pixels)
        return h + self.out_norm(self.out(attended.reshape(B, HEADS * HEAD_WIDTH, H, W)))
