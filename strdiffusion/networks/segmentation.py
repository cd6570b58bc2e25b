"""A small network that says what every pixel of an image shows: the judge of results, no part of the method.

A U-Net of Ronneberger et al. (2015), with padding and group normalisation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strdiffusion.networks.unet import pad_by_reflection

GROUPS = 4


class Convolutions(nn.Sequential):
    """Twice a 3x3 convolution, normalised and rectified; (B,c_in,H,W) to (B,c_out,H,W)."""

    def __init__(self, c_in: int, c_out: int):
        layers = []
        for c in (c_in, c_out):
            layers += [nn.Conv2d(c, c_out, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, c_out), nn.ReLU()]
        super().__init__(*layers)


class Segmenter(nn.Module):
    """The logits of each pixel's class.

    Args:
        classes: how many there are.
        width: channels at full size, a multiple of 4; they double at each level.
        depth: how often the size is halved; sizes are padded to a multiple of 2^depth.
    """

    def __init__(self, classes: int, width: int = 16, depth: int = 3):
        super().__init__()
        self.classes, self.width, self.depth = classes, width, depth
        widths = [width * 2**i for i in range(depth + 1)]
        self.encoder = nn.ModuleList(Convolutions(c_in, c_out) for c_in, c_out in zip([3, *widths], widths))
        self.decoder = nn.ModuleList(Convolutions(3 * c, c) for c in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, 1)

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        return {"classes": self.classes, "width": self.width, "depth": self.depth}

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B,classes,H,W) of an image (B,3,H,W) in [0,1], of any H and W."""
        return self.logits_and_features(image)[0]

    def logits_and_features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and what each level of the encoder saw: (B,width*2^i,H'/2^i,W'/2^i), H' and W' padded."""
        H, W = image.shape[-2:]
        h = pad_by_reflection(2 * image - 1, 2**self.depth)  # (B,3,H',W')
        features: list[Tensor] = []
        for i, level in enumerate(self.encoder):
            h = level(F.max_pool2d(h, 2) if i else h)  # (B,width*2^i,H'/2^i,W'/2^i)
            features.append(h)
        for level, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = level(torch.cat([h, skip], dim=1))
        return self.head(h)[..., :H, :W], features
