"""The U-Net of both branches (spec sec. 4). Structure and texture differ in channels and guidance, not in code."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.networks.attention import LinearAttention
from strdiffusion.networks.embedding import SinusoidalEmbedding, batch_of_times
from strdiffusion.networks.recompute import RecomputedBlock
from strdiffusion.networks.spade import SpadeBlock

Attention = Literal["none", "linear"]


def conv3x3(c_in: int, c_out: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)


class ResidualBlock(RecomputedBlock):
    """Two 3x3 convolutions, the first modulated by the time, plus the input; (B,c_in,H,W) to (B,c_out,H,W)."""

    def __init__(self, c_in: int, c_out: int, time_width: int):
        super().__init__()
        self.modulation = nn.Linear(time_width, 2 * c_out)
        self.conv1 = conv3x3(c_in, c_out, bias=False)
        self.conv2 = conv3x3(c_out, c_out, bias=False)
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(time))[:, :, None, None].chunk(2, dim=1)  # each (B,c_out,1,1)
        r = F.silu(self.conv1(h) * (scale + 1) + shift)  # (B,c_out,H,W)
        r = F.silu(self.conv2(r))  # (B,c_out,H,W)
        return r + self.skip(h)


def attention_block(kind: Attention, channels: int) -> nn.Module:
    return LinearAttention(channels) if kind == "linear" else nn.Identity()


class EncoderLevel(nn.Module):
    """Two residual blocks, whose outputs go to the decoder too, then half the size (except at the last level)."""

    def __init__(self, d: int, time_width: int, attention: Attention, last: bool, guided: bool):
        super().__init__()
        self.block1 = ResidualBlock(d, d, time_width)
        self.block2 = ResidualBlock(d, d, time_width)
        self.attention = attention_block(attention, d)
        self.down = conv3x3(d, 2 * d, bias=False) if last else nn.Conv2d(d, 2 * d, 4, stride=2, padding=1)
        self.spade = SpadeBlock(2 * d) if guided else None

    def forward(self, h: Tensor, time: Tensor, structure: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        skip1 = self.block1(h, time)  # (B,d,H,W)
        skip2 = self.attention(self.block2(skip1, time))  # (B,d,H,W)
        h = self.down(skip2)  # (B,2d,H/2,W/2)
        if self.spade is not None:
            h = self.spade(h, structure)
        return h, skip1, skip2


class DecoderLevel(nn.Module):
    """Two residual blocks that also take the encoder's outputs, then twice the size (except at the outermost level)."""

    def __init__(self, d: int, time_width: int, attention: Attention, outermost: bool):
        super().__init__()
        self.block1 = ResidualBlock(3 * d, 2 * d, time_width)
        self.block2 = ResidualBlock(3 * d, 2 * d, time_width)
        self.attention = attention_block(attention, 2 * d)
        self.enlarge = nn.Identity() if outermost else nn.Upsample(scale_factor=2, mode="nearest")
        self.up = conv3x3(2 * d, d, bias=not outermost)

    def forward(self, h: Tensor, skip1: Tensor, skip2: Tensor, time: Tensor) -> Tensor:
        h = self.block1(torch.cat([h, skip2], dim=1), time)  # (B,2d,H,W)
        h = self.block2(torch.cat([h, skip1], dim=1), time)  # (B,2d,H,W)
        h = self.attention(h)
        return self.up(self.enlarge(h))  # (B,d,2H,2W), at the outermost level (B,d,H,W)


class UNet(nn.Module):
    """Predict the noise (or x0 - mu) of a state of the mean-reverting SDE.

    Args:
        channels: channels of the image, 3 for texture and 1 for structure.
        context: channels of an image that it sees beside the state: 3 for a structure network that sees the known pixels, otherwise 0.
        structure_channels: of a structure that the network denoises together with the texture (the joint form, spec sec. 11); 0: none.
        width: channels after the first convolution (nf); even, at least 4.
        depth: number of levels; sizes are padded to a multiple of 2^depth.
        attention: "none" as in the paper, or "linear" as in the released checkpoints.
        guided: build the SPADE blocks, so that `forward` takes a structure.
    """

    def __init__(
        self,
        channels: int,
        width: int = 64,
        depth: int = 4,
        attention: Attention = "none",
        guided: bool = False,
        context: int = 0,
        structure_channels: int = 0,
    ):
        super().__init__()
        self.channels, self.width, self.depth = channels, width, depth
        self.attention, self.guided, self.context, self.structure_channels = attention, guided, context, structure_channels
        all_channels, times, time_width = channels + structure_channels, 2 if structure_channels else 1, 4 * width
        self.stem = nn.Conv2d(2 * all_channels + context, width, 7, padding=3, bias=False)
        self.time = nn.Sequential(
            SinusoidalEmbedding(width), nn.Linear(times * width, time_width), nn.GELU(), nn.Linear(time_width, time_width)
        )
        widths = [width * 2**i for i in range(depth)]
        self.encoder = nn.ModuleList(
            EncoderLevel(d, time_width, attention, last=i == depth - 1, guided=guided) for i, d in enumerate(widths)
        )
        inner = width * 2**depth
        self.middle_block1 = ResidualBlock(inner, inner, time_width)
        self.middle_attention = attention_block(attention, inner)
        self.middle_block2 = ResidualBlock(inner, inner, time_width)
        self.decoder = nn.ModuleList(DecoderLevel(d, time_width, attention, outermost=i == 0) for i, d in reversed(list(enumerate(widths))))
        self.final_block = ResidualBlock(2 * width, width, time_width)
        self.final_conv = conv3x3(width, all_channels, bias=True)

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        further = [name for name in ("context", "structure_channels") if getattr(self, name)]
        names = ["channels", "width", "depth", "attention", "guided", *further]
        return {name: getattr(self, name) for name in names}

    @property
    def joint(self) -> bool:
        """Whether it denoises texture and structure together."""
        return self.structure_channels > 0

    def forward(self, x: Tensor, mu: Tensor, t: int | Tensor, structure: Tensor | None = None) -> Tensor:
        """Evaluate at the state x (B,C,H,W) with mean mu (B,C,H,W), time t (a number or (B,)) and, if the network is
        guided, structure (B,1,H,W), or, if it has a context, that image (B,context,H,W). Any H and W. Returns (B,C,H,W).

        In the joint form C counts the channels of the texture, then those of the structure, and t is (B,2) or (1,2): the time of each.
        """
        if (self.guided or self.context > 0) != (structure is not None):
            need = "takes no structure (it has no SPADE blocks)" if structure is not None else "needs a structure"
            raise ValueError(f"this U-Net {need}")
        H, W = x.shape[-2:]
        seen = [x - mu, mu, structure] if self.context else [x - mu, mu]
        h = pad_by_reflection(torch.cat(seen, dim=1), 2**self.depth)
        h = r = self.stem(h)  # (B,nf,H',W')
        time = self.time(batch_of_times(t, x))  # (B,4nf)

        skips = []
        for level in self.encoder:
            h, skip1, skip2 = level(h, time, structure)
            skips.append((skip1, skip2))
        h = self.middle_block1(h, time)  # (B,16nf,H'/8,W'/8) at depth 4
        h = self.middle_attention(h)
        h = self.middle_block2(h, time)
        for level in self.decoder:
            h = level(h, *skips.pop(), time)
        h = self.final_block(torch.cat([h, r], dim=1), time)  # (B,nf,H',W')
        return self.final_conv(h)[..., :H, :W]


def pad_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Pad (B,C,H,W) right and below to multiples of `multiple`. Images smaller than the padding are reflected repeatedly."""
    H, W = x.shape[-2:]
    right, below = -W % multiple, -H % multiple
    while right or below:
        step_r = min(right, x.shape[-1] - 1)
        step_b = min(below, x.shape[-2] - 1)
        # a side of one pixel has nothing to reflect
        if (right and not step_r) or (below and not step_b):
            return F.pad(x, (0, right, 0, below), mode="replicate")
        x = F.pad(x, (0, step_r, 0, step_b), mode="reflect")
        right, below = right - step_r, below - step_b
    return x
