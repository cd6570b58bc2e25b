"""Parts of the enlarging network and its discriminator (docs/dgts.md, sec. 7): spectral norm, gated convolutions, self-attention, SPADE."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 128  # channels of SPADE's maps
SLOPE = 0.2
EPS = 1e-5


class SpectralConv2d(nn.Conv2d):
    """A convolution with weight / sigma, sigma = u^T W v. In training, v and then u take one step of the power iteration before each use.

    torch's own spectral norm takes its steps in the other order, and keeps other names.
    """

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        weight = self.weight
        del self.weight
        self.weight_orig = nn.Parameter(weight.data)
        u, v = weight.new_empty(weight.shape[0]), weight.new_empty(weight[0].numel())
        self.register_buffer("weight_u", F.normalize(u.normal_(), dim=0))
        self.register_buffer("weight_v", F.normalize(v.normal_(), dim=0))

    def forward(self, h: Tensor) -> Tensor:
        W = self.weight_orig.flatten(1)  # (out,rest)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(F.normalize(W.t() @ self.weight_u, dim=0))
                self.weight_u.copy_(F.normalize(W @ self.weight_v, dim=0))
        sigma = self.weight_u.clone() @ (W @ self.weight_v.clone())  # clones: a second use in the same step changes the buffers
        return self._conv_forward(h, self.weight_orig / sigma, self.bias)


class GatedConv(nn.Module):
    """Features times a sigmoid gate, two branches of one form; (B,c_in,H,W) to (B,c_out,H',W').

    norm: each branch is convolution and batch norm, without bias, and not the convolution alone. active: features pass a ReLU.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, norm: bool = True, active: bool = True, bias: bool = False, **options):
        super().__init__()
        self.active = active

        def branch() -> nn.Module:
            conv = SpectralConv2d(c_in, c_out, kernel, bias=bias, **options)
            return nn.Sequential(conv, nn.BatchNorm2d(c_out)) if norm else conv

        self.features, self.gate = branch(), branch()

    def forward(self, h: Tensor) -> Tensor:
        features = self.features(h)
        return (F.relu(features) if self.active else features) * self.gate(h).sigmoid()


class ResidualBlock(nn.Module):
    """h + two gated convolutions, the first dilated; (B,C,H,W) keeps its shape. H and W must exceed the dilation."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.first = GatedConv(channels, channels, 3, dilation=dilation)
        self.second = GatedConv(channels, channels, 3, active=False)

    def forward(self, h: Tensor) -> Tensor:
        r = self.first(F.pad(h, [self.dilation] * 4, mode="reflect"))
        return h + self.second(F.pad(r, [1] * 4, mode="reflect"))


class SelfAttention(nn.Module):
    """h + gain out(attention), keys and values pooled by 2; (B,C,H,W) keeps its shape. H and W must be even."""

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.query, self.key, self.value, self.out = (
            SpectralConv2d(a, b, 1, bias=False) for a, b in ((c, c // 8), (c, c // 8), (c, c // 2), (c // 2, c))
        )
        self.gain = nn.Parameter(torch.tensor(0.0))

    def forward(self, h: Tensor) -> Tensor:
        q = self.query(h).flatten(2)  # (B,C/8,HW)
        k = F.max_pool2d(self.key(h), 2).flatten(2)  # (B,C/8,HW/4)
        v = F.max_pool2d(self.value(h), 2).flatten(2)  # (B,C/2,HW/4)
        beta = (q.transpose(1, 2) @ k).softmax(dim=2)  # (B,HW,HW/4)
        attended = (v @ beta.transpose(1, 2)).view(len(h), -1, *h.shape[2:])
        return h + self.gain * self.out(attended)


class SpadeNorm(nn.Module):
    """Normalise features (B,C,H,W) over channels at each pixel; scale and shift them by maps made of Z (B,4,H',W')."""

    def __init__(self, channels: int):
        super().__init__()
        self.shared = nn.Conv2d(4, HIDDEN, 3, padding=1)
        self.gamma = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        self.beta = nn.Conv2d(HIDDEN, channels, 3, padding=1)

    def forward(self, h: Tensor, Z: Tensor) -> Tensor:
        wide = h.to(torch.promote_types(h.dtype, torch.float32))  # squares would overflow in half precision
        var, mean = torch.var_mean(wide, dim=1, keepdim=True)  # (B,1,H,W); the variance is the unbiased one
        normalised = ((wide - mean) / (var + EPS).sqrt()).to(h.dtype)
        maps = F.relu(self.shared(F.interpolate(Z, size=h.shape[2:], mode="nearest")))  # (B,128,H,W)
        return normalised * (1 + self.gamma(maps)) + self.beta(maps)


class SpadeBlock(nn.Module):
    """A residual block guided by Z (B,4,H',W'); (B,c_in,H,W) to (B,c_out,H,W)."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        widths = c_in, min(c_in, c_out), c_out
        self.norms = nn.ModuleList(map(SpadeNorm, widths[:2]))
        self.convs = nn.ModuleList(GatedConv(a, b, 3, norm=False, active=False, bias=True, padding=1) for a, b in pairwise(widths))
        self.skip_norm = SpadeNorm(c_in) if c_in != c_out else None
        self.skip = GatedConv(c_in, c_out, 1, norm=False, active=False) if c_in != c_out else None

    def forward(self, h: Tensor, Z: Tensor) -> Tensor:
        r = h
        for norm, conv in zip(self.norms, self.convs, strict=True):
            r = conv(F.leaky_relu(norm(r, Z), SLOPE))
        return r + (h if self.skip is None else self.skip(self.skip_norm(h, Z)))
