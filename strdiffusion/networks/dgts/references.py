"""Texture references M: a backbone over the masked image, and a transformer encoder over its map (docs/dgts.md, sec. 4)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Backbone = Literal["resnet50", "small"]
SMALL_WIDTHS = (32, 64, 96)


def position_code(width: int, side: int) -> Tensor:
    """The fixed code (1,width,side,side): the row in the first half of the channels, the column in the second, counted from 1."""
    v = 2 * math.pi * torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6)  # (side,)
    j = torch.arange(width // 2)
    f = 10_000.0 ** (-2 * (j // 2) / (width / 2))  # (width/2,)
    angles = f[:, None] * v  # (width/2,side)
    waves = torch.where((j % 2 == 0)[:, None], angles.sin(), angles.cos())
    rows, columns = waves[:, :, None].expand(-1, -1, side), waves[:, None, :].expand(-1, side, -1)
    return torch.cat([rows, columns])[None]


class ResNet(nn.Module):
    """torchvision's ResNet-50 without pooling and classifier, layer4 dilated; (B,3,H,W) to (B,2048,H/16,W/16).

    Batch norms are frozen. Only layer2 to layer4 are trained.
    """

    stride, channels = 16, 2048

    def __init__(self):
        super().__init__()
        from torchvision.models import resnet50
        from torchvision.ops.misc import FrozenBatchNorm2d

        body = resnet50(weights=None, replace_stride_with_dilation=[False, False, True], norm_layer=FrozenBatchNorm2d)
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(body, name))
        for part in (self.conv1, self.bn1, self.layer1):
            part.requires_grad_(False)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)  # (B,64,H/4,W/4)
        return self.layer4(self.layer3(self.layer2(self.layer1(h))))


class SmallBackbone(nn.Module):
    """A few convolutions that see image and mask, to be trained from nothing; (B,3,H,W) to (B,96,H/stride,W/stride)."""

    channels = SMALL_WIDTHS[-1]

    def __init__(self, stride: int):
        super().__init__()
        a, b, c = SMALL_WIDTHS
        self.layers = nn.Sequential(
            nn.Conv2d(4, a, 3, stride=stride // 4, padding=1),
            nn.GELU(),
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(b, c, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1),
            nn.GELU(),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):  # torch's own start shrinks the signal until the biases are all that is left
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.layers(torch.cat([image, mask], dim=1))


class EncoderLayer(nn.Module):
    """Self-attention whose queries and keys, not values, know their positions; (B,R,width) keeps its shape."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, s: Tensor, code: Tensor) -> Tensor:
        placed = s + code
        attended, _ = self.attention(placed, placed, s, need_weights=False)
        s = self.norm1(s + self.drop(attended))
        return self.norm2(s + self.drop(self.linear2(self.drop(F.relu(self.linear1(s))))))


class TextureReferences(nn.Module):
    """M (B,R,width), R = side^2, of masked images of `size` pixels; every position of the backbone's map is a reference, also in holes."""

    def __init__(self, backbone: Backbone, size: int, side: int, width: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.width, self.side = width, side
        self.backbone = ResNet() if backbone == "resnet50" else SmallBackbone(size // side)
        self.project = nn.Conv2d(self.backbone.channels, width, 1)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))

    def position(self) -> Tensor:
        """The code of the references' positions, (1,width,side,side)."""
        return position_code(self.width, self.side)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (B,3,H,W) in [-1,1], mask (B,1,H,W)."""
        s = self.project(self.backbone(image * mask, mask)).flatten(2).transpose(1, 2)  # (B,R,width)
        code = self.position().to(s).flatten(2).transpose(1, 2)  # (1,R,width)
        for layer in self.layers:
            s = layer(s, code)
        return s
