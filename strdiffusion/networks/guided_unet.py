"""The U-Net of guided diffusion (docs/repaint_spec.md sec. 2; arXiv 2105.05233), which RePaint takes as its prior.

Its modules have the names of the released files (sec. 3), so these load and export without a translation. A *group* is one entry of
`input_blocks` or `output_blocks`: a residual block, attention if its level has it, and at the end of a level of the decoder the doubling.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.networks.embedding import on_device
from strdiffusion.networks.recompute import RecomputedBlock

GROUPS = 32  # of the group norms; all channel counts are multiples of it
FEW_PIXELS, LANES = 1024, 16  # of torch's group norm for a CPU
CLASSES = 1000  # of ImageNet
MULTIPLIERS = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}  # as released, by size

Resize = Literal["none", "up", "down"]


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of t (B,) at `width` // 2 frequencies exp(-ln(10000) k / half); (B,width) float32, a zero column if odd."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies  # (B,half)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class GroupNorm(nn.GroupNorm):
    """Group norm of 32 groups, computed in float32."""

    def __init__(self, channels: int):
        super().__init__(GROUPS, channels)

    def forward(self, h: Tensor) -> Tensor:
        if h.device.type == "cpu" and h.shape[2] * h.shape[3] < FEW_PIXELS and self.num_channels // GROUPS % LANES:
            h = h.contiguous()  # torch has no vector code for such groups in channels last: up to 14 times as slow
        if h.dtype == torch.bfloat16 and h.device.type == "cpu":
            return super().forward(h)  # torch's kernel for a CPU sums bfloat16 in float32 itself, which saves two copies
        return super().forward(h.to(self.weight.dtype)).to(h.dtype)


def zeroed(layer: nn.Module) -> nn.Module:
    """Set weights and biases to zero. Returns the layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def resized(h: Tensor, resize: Resize) -> Tensor:
    """(B,C,H,W) at twice the size by nearest neighbour, at half of it by the mean of 2x2 pixels, or unchanged."""
    if resize == "none":
        return h
    return F.interpolate(h, scale_factor=2, mode="nearest") if resize == "up" else F.avg_pool2d(h, 2)


class ResBlock(RecomputedBlock):
    """Residual block that is given the embedding of the time; (B,c_in,H,W) to (B,c_out,H',W'). It may resize, before its convolutions.

    Args:
        embedding: the width of the embedding.
        scale_shift: the embedding scales and shifts the normed features; otherwise it is added to them before the norm.
    """

    def __init__(self, c_in: int, c_out: int, embedding: int, scale_shift: bool, dropout: float = 0.0, resize: Resize = "none"):
        super().__init__()
        self.scale_shift, self.resize = scale_shift, resize
        self.in_layers = nn.Sequential(GroupNorm(c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * c_out if scale_shift else c_out))
        self.out_layers = nn.Sequential(GroupNorm(c_out), nn.SiLU(), nn.Dropout(dropout), zeroed(nn.Conv2d(c_out, c_out, 3, padding=1)))
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.in_layers[:-1](x)  # (B,c_in,H,W)
        h, x = resized(h, self.resize), resized(x, self.resize)  # (B,c_in,H',W')
        h = self.in_layers[-1](h)  # (B,c_out,H',W')
        u = self.emb_layers(e).to(h.dtype)[:, :, None, None]  # (B,c_out or 2c_out,1,1)
        if self.scale_shift:
            scale, shift = u.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + u)
        return self.skip_connection(x) + self.out_layers[1:](h)


def attend(qkv: Tensor, heads: int, new_order: bool) -> Tensor:
    """Attention of all positions to all; qkv (B,3C,P) to (B,C,P).

    new_order: the channels are all q, all k, all v; otherwise, as released, q, k and v head by head.
    """
    B, width, P = qkv.shape
    shape = (B, 3, heads, width // (3 * heads), P) if new_order else (B, heads, 3, width // (3 * heads), P)
    q, k, v = qkv.view(shape).transpose(-1, -2).unbind(dim=1 if new_order else 2)  # each (B,heads,P,d)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # as fused kernels need them; others hold all P x P weights in memory
    return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(B, width // 3, P)


class AttentionBlock(RecomputedBlock):
    """Attention of all pixels to all, added to the features; (B,C,H,W) to (B,C,H,W)."""

    def __init__(self, channels: int, heads: int, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x).flatten(2))  # (B,3C,P)
        return x + self.proj_out(attend(qkv, self.heads, self.new_order)).view_as(x)


class Halving(nn.Module):
    """A convolution of stride 2; (B,C,H,W) to (B,C,H/2,W/2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.op(h)


class Doubling(nn.Module):
    """Nearest neighbour x2, then a convolution; (B,C,H,W) to (B,C,2H,2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv(resized(h, "up"))


class Group(nn.ModuleList):
    """Modules one after the other, of which residual blocks are given the embedding."""

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        for module in self:
            h = module(h, e) if isinstance(module, ResBlock) else module(h)
        return h


class GuidedEncoder(nn.Module):
    """Embedding, encoder and middle, which the U-Net and the classifier share.

    Args:
        width: C, of the embedding of the time, whose layers are 4 C wide.
        channels: of each level.
        blocks: R, residual blocks a level.
        attention: the downsampling factors at which there is attention; guided diffusion gives sizes in pixels, size // factor.
        heads: of attention, if head_channels is None; else there are channels / head_channels.
        scale_shift, resblock_updown, new_order: the switches of sec. 2.

    Raises ValueError if channels are no multiple of 32, or heads do not divide them.
    """

    def __init__(
        self,
        width: int,
        channels: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        heads: int = 4,
        head_channels: int | None = 64,
        scale_shift: bool = True,
        resblock_updown: bool = True,
        new_order: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.width, self.channels, self.blocks, self.attention = width, list(channels), blocks, sorted(attention)
        self.heads, self.head_channels = heads, head_channels
        self.scale_shift, self.resblock_updown, self.new_order, self.dropout = scale_shift, resblock_updown, new_order, dropout
        if any(c < GROUPS or c % GROUPS for c in self.channels):
            raise ValueError(f"channels must be multiples of {GROUPS}, not {', '.join(map(str, self.channels))}")
        self.embedding = 4 * width
        self.features: torch.dtype | None = None  # set by the inference form: the dtype between the convolutions; None: that of images
        self.time_embed = nn.Sequential(nn.Linear(width, self.embedding), nn.SiLU(), nn.Linear(self.embedding, self.embedding))

        first, last = self.channels[0], self.channels[-1]
        self.input_blocks = nn.ModuleList([Group([nn.Conv2d(3, first, 3, padding=1)])])
        self.pushed = [first]  # the channels of every group's result
        for level, c in enumerate(self.channels):
            for _ in range(blocks):
                self.input_blocks.append(Group([self.block(self.pushed[-1], c), *self.attention_at(level, c)]))
                self.pushed.append(c)
            if level < len(self.channels) - 1:
                self.input_blocks.append(Group([self.block(c, c, "down") if resblock_updown else Halving(c)]))
                self.pushed.append(c)
        self.middle_block = Group([self.block(last, last), self.attention_block(last, heads), self.block(last, last)])

    @property
    def factor(self) -> int:
        """What height and width of images must be a multiple of."""
        return 2 ** (len(self.channels) - 1)

    def block(self, c_in: int, c_out: int, resize: Resize = "none") -> ResBlock:
        return ResBlock(c_in, c_out, self.embedding, self.scale_shift, self.dropout, resize)

    def attention_at(self, level: int, channels: int, heads: int | None = None) -> list[AttentionBlock]:
        """The attention of a level, as a list: empty if it has none."""
        return [self.attention_block(channels, heads or self.heads)] if 2**level in self.attention else []

    def attention_block(self, channels: int, heads: int) -> AttentionBlock:
        if self.head_channels is not None:
            heads = channels // self.head_channels
        if heads < 1 or channels % heads or (self.head_channels is not None and channels != heads * self.head_channels):
            given = f"{heads} heads" if self.head_channels is None else f"heads of {self.head_channels} channels"
            raise ValueError(f"{channels} channels cannot be divided into {given}")
        return AttentionBlock(channels, heads, self.new_order)

    def architecture(self) -> dict:
        """The arguments that build a network like this one; dropout, which has an effect in training alone, is not among them."""
        names = ("width", "channels", "blocks", "attention", "heads", "head_channels", "scale_shift", "resblock_updown", "new_order")
        return {name: getattr(self, name) for name in names}

    def embed(self, t: int | Tensor, x: Tensor) -> Tensor:
        """The embedding (B,4C) of the time t, a number or (B,)."""
        times = on_device(t, x.device).expand(len(x))
        weight = self.time_embed[0].weight
        return self.time_embed(time_embedding(times, self.width).to(weight.dtype))

    def first_features(self, x: Tensor) -> Tensor:
        """Images in the dtype of the features."""
        return x if self.features is None else x.to(self.features, memory_format=torch.channels_last)


class GuidedUNet(GuidedEncoder):
    """The whole network: x (B,3,H,W) in [-1,1] at time t to (B,6,H,W), what it predicts and the position v of the variance.

    `width` to `new_order` are those of `GuidedEncoder`.

    Args:
        heads_upsample: heads of the decoder if head_channels is None; None: `heads`.
        class_conditional: it is given a class of ImageNet, 0..999, for each image.
        learned_sigma: it predicts v; otherwise the output is (B,3,H,W).
    """

    def __init__(
        self,
        width: int,
        channels: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        *,
        heads_upsample: int | None = None,
        class_conditional: bool = False,
        learned_sigma: bool = True,
        **more,
    ):
        super().__init__(width, channels, blocks, attention, **more)
        self.heads_upsample, self.class_conditional, self.learned_sigma = heads_upsample, class_conditional, learned_sigma
        if class_conditional:
            self.label_emb = nn.Embedding(CLASSES, self.embedding)
        self.output_blocks, pushed, c = nn.ModuleList(), list(self.pushed), self.channels[-1]
        for level in reversed(range(len(self.channels))):
            for number in range(blocks + 1):
                c_out = self.channels[level]
                group = [self.block(c + pushed.pop(), c_out), *self.attention_at(level, c_out, heads_upsample)]
                if level and number == blocks:
                    group.append(self.block(c_out, c_out, "up") if self.resblock_updown else Doubling(c_out))
                self.output_blocks.append(Group(group))
                c = c_out
        self.out = nn.Sequential(GroupNorm(c), nn.SiLU(), zeroed(nn.Conv2d(c, 6 if learned_sigma else 3, 3, padding=1)))

    def architecture(self) -> dict:
        names = ("heads_upsample", "class_conditional", "learned_sigma")
        return super().architecture() | {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor, t: int | Tensor, classes: Tensor | None = None) -> Tensor:
        """classes: (B,) int64, for class-conditional networks. `factor` must divide H and W. The output is float32."""
        e = self.embed(t, x)  # (B,4C)
        if self.class_conditional:
            e = e + self.label_emb(classes)
        h, stack = self.first_features(x), []
        for group in self.input_blocks:
            h = group(h, e)
            stack.append(h)
        h = self.middle_block(h, e)  # (B,c,H/factor,W/factor)
        for group in self.output_blocks:
            h = group(torch.cat([h, stack.pop()], dim=1), e)
        return self.out(h.to(self.out[0].weight.dtype))  # (B,6 or 3,H,W)
