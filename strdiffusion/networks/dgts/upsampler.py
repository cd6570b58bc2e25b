"""The network that enlarges a filled small image, guided by the known pixels (docs/dgts.md, sec. 7)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.networks.dgts.gated import SLOPE, GatedConv, ResidualBlock, SelfAttention, SpadeBlock

DILATIONS = (1, 1, 2, 4, 8, 16)


def initialise(network: nn.Module) -> None:
    """Draw all weights by Xavier's normal distribution with gain 0.02, as released; biases are zero."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter, gain=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def enlarge(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2, mode="nearest")


def reduced(image: Tensor, side: int) -> Tensor:
    """An image (B,3,S,S) in [-1,1] at the size (side,side), by antialiased bicubic resampling."""
    if image.shape[-1] == side:
        return image
    return F.interpolate(image, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


class Upsampler(nn.Module):
    """y (B,3,H/factor,W/factor) without holes and the known pixels of a large image give the large image (B,3,H,W), all in [-1,1].

    Args:
        width: n, the base number of channels.
        factor: how much smaller y is, 8 (as released) or 4; with 4, y is not doubled first.
        dilations: of the residual blocks. H/4 and W/4 must exceed the largest, and be even.
    """

    def __init__(self, width: int = 64, factor: int = 8, dilations: Sequence[int] = DILATIONS):
        super().__init__()
        n, self.width, self.factor, self.dilations = width, width, factor, tuple(dilations)
        self.small = nn.ModuleList([GatedConv(3, 4 * n, 3, padding=1), GatedConv(4 * n, 4 * n, 3, padding=1)])
        self.encoder = nn.Sequential(
            GatedConv(4, n, 5), GatedConv(n, 2 * n, 3, stride=2, padding=1), GatedConv(2 * n, 4 * n, 3, stride=2, padding=1)
        )
        self.fuse = GatedConv(8 * n, 4 * n, 3, padding=1)
        self.residual = nn.Sequential(*(ResidualBlock(4 * n, d) for d in self.dilations))
        self.attention = SelfAttention(4 * n)
        self.refine = nn.ModuleList([SpadeBlock(4 * n, 4 * n), SpadeBlock(4 * n, 2 * n)])
        self.out = nn.Conv2d(2 * n, 3, 3, padding=1)
        initialise(self)

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        return {"width": self.width, "factor": self.factor, "dilations": list(self.dilations)}

    def forward(self, y: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """y (B,3,H/factor,W/factor), image (B,3,H,W), of which the known pixels are seen, mask (B,1,H,W), 1 = known."""
        return self.unlimited(y, image, mask).tanh()

    def unlimited(self, y: Tensor, image: Tensor, mask: Tensor) -> Tensor:
        """The same before tanh, which would hide values that are absurdly large."""
        Z = torch.cat([image * mask + (1 - mask), 1 - mask], dim=1)  # (B,4,H,W): holes are white, and marked
        h = self.small[0](y)
        h = self.small[1](enlarge(h) if self.factor == 8 else h)  # (B,4n,H/4,W/4)
        known = self.encoder(F.pad(Z, [2] * 4, mode="reflect"))  # (B,4n,H/4,W/4)
        h = self.residual(self.fuse(torch.cat([h, known], dim=1)))
        h = self.attention(h)
        for block in self.refine:
            h = block(enlarge(h), Z)  # (B,4n,H/2,W/2), (B,2n,H,W)
        return self.out(F.leaky_relu(h, SLOPE))
