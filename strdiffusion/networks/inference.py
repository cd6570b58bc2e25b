"""Inference forms of the networks: the same functions of the same weights, in fewer and faster operations.

The network keeps its own `forward`; its blocks are replaced. What changes:

* Spectral norm is folded into its weights. All weights are cast and laid out once: channels last, on a CPU in oneDNN's blocked order.
* The modulations of all residual blocks by the time are one matrix product, with one row if the batch shares its t.
* SPADE's two modulation convolutions are one.
* Upsampling by 2 and the convolution after it become one convolution of the small image.
* Linear attention multiplies its context with the output weights before the pixels.
* Element-wise operations are done in place.

Of a prior (guided_unet.py) only the convolutions change: they, and the features between them, have the precision; the rest is float32.
"""

import copy
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from strdiffusion.denoiser import AUTOCAST_DTYPES, Precision
from strdiffusion.networks.attention import HEAD_WIDTH, HEADS, LinearAttention
from strdiffusion.networks.discriminator import CorrelationDiscriminator, DownBlock, halve, lrelu
from strdiffusion.networks.embedding import on_device
from strdiffusion.networks.guided_unet import GuidedUNet
from strdiffusion.networks.spade import EPS, SpadeBlock, SpadeNorm, norm_over_channels, unbiased
from strdiffusion.networks.unet import ResidualBlock, UNet
from strdiffusion.system.compiling import compiled
from strdiffusion.system.device import require_precision

PACKED_WIDTH = 128  # priors at least so wide have their weights packed


def for_inference(network: nn.Module, precision: Precision = "fp32", compile: bool = False) -> nn.Module:
    """Build the inference form of a U-Net, discriminator or prior, on the device of its weights. It is called like the network.

    Args:
        precision: of weights and features. Input and output images keep their dtype, and the embedding of t stays float32.
        compile: let torch.compile fuse the remaining operations; the first call for each image size then takes minutes.

    The form uses the weights as they are now: build a new one after the network is moved or trained. A network of another class
    is returned unchanged. Raises UserError if the device does not support the precision or torch.compile.
    """
    forms = {UNet: InferenceForm, CorrelationDiscriminator: InferenceForm, GuidedUNet: GuidedForm}
    if type(network) not in forms:
        return network
    device = next(network.parameters()).device
    require_precision(precision, device)
    form = forms[type(network)](network, AUTOCAST_DTYPES.get(precision, torch.float32), pack=device.type == "cpu" and not compile)
    if compile:
        form.body = compiled(form.body, device)
    return form


class InferenceForm(nn.Module):
    """See `for_inference`.

    pack: lay weights out in oneDNN's order, which only CPUs support and torch.compile cannot read.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, dtype: torch.dtype, pack: bool):
        super().__init__()
        tensors = (*network.parameters(), *network.buffers())
        body = copy.deepcopy(network, {id(t): t for t in tensors}).eval()  # shares all tensors
        make = Convert(dtype, pack)
        self.body = make.discriminator(body) if isinstance(body, CorrelationDiscriminator) else make.unet(body)

    @torch.no_grad()
    def forward(self, image: Tensor, other: Tensor, t: int | Tensor, *rest, **options) -> Tensor:
        """Call it like the network: (x, mu, t[, structure]) or (texture, structure, t[, group])."""
        if not isinstance(t, Tensor):
            t = torch.full((1,), t, dtype=image.dtype, device=image.device)
        return self.body(image, other, t, *rest, **options).to(image.dtype)


class GuidedForm(nn.Module):
    """The inference form of a prior, see `for_inference`; called as (x, t[, classes])."""

    @torch.no_grad()
    def __init__(self, network: GuidedUNet, dtype: torch.dtype, pack: bool):
        super().__init__()
        tensors = (*network.parameters(), *network.buffers())
        self.body = copy.deepcopy(network, {id(t): t for t in tensors}).eval()  # shares all tensors
        # oneDNN's order suits features of 256x256; convolutions of small priors were slower with it, in float32 up to twice as slow
        self.body.features, make = dtype, Convert(dtype, pack and network.width >= PACKED_WIDTH)
        for part in (self.body.input_blocks, self.body.middle_block, self.body.output_blocks):
            replace(make.convolutions(part), nn.Conv1d, make.conv1d)

    @torch.no_grad()
    def forward(self, x: Tensor, t: int | Tensor, classes: Tensor | None = None) -> Tensor:
        return self.body(x, on_device(t, x.device), classes).to(x.dtype)


class Conv(nn.Module):
    """A convolution in the form that is fastest on its device; input and output are channels last, in the dtype of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int, padding: int, make: "Convert"):
        super().__init__()
        self.stride, self.padding = stride, padding
        weight = weight.detach().to(make.dtype, memory_format=torch.channels_last)
        self.register_buffer("bias", None if bias is None else bias.detach().to(make.dtype), persistent=False)
        self.packed = make.pack and can_pack(make.dtype)
        self.register_buffer("weight", pack(weight, stride, padding) if self.packed else weight, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        conv = packed_conv if self.packed else F.conv2d
        return conv(h, self.weight, self.bias, self.stride, self.padding)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN is available and has fast kernels for the dtype."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(weight: Tensor, stride: int, padding: int) -> Tensor:
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), [padding] * 2, [stride] * 2, [1, 1], 1)


def packed_conv(h: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Convolve with packed weights by the operation that torch.compile uses; torch.mkldnn_convolution returns another memory format."""
    return torch.ops.mkldnn._convolution_pointwise(h, weight, bias, [padding] * 2, [stride] * 2, [1, 1], 1, "none", [], "")


class Convert:
    """Replaces the blocks of a network. The network's own tensors are not changed."""

    def __init__(self, dtype: torch.dtype, pack: bool):
        self.dtype, self.pack = dtype, pack

    def unet(self, net: UNet) -> UNet:
        blocks = [m for m in net.modules() if isinstance(m, ResidualBlock)]
        modulations = AllModulations(net.time, blocks, self.dtype)
        columns = dict(zip(blocks, modulations.columns, strict=True))
        net.stem = Stem(net.stem, self)
        replace(net, ResidualBlock, lambda block: FastResidualBlock(block, columns[block], self))
        net.time = modulations
        replace(net, LinearAttention, lambda block: FastLinearAttention(block, self))
        replace(net, SpadeBlock, lambda block: FastSpadeBlock(block, self))
        for level in net.decoder:
            if isinstance(level.enlarge, nn.Upsample):
                level.up, level.enlarge = EnlargingConv(level.up, self), nn.Identity()
        return self.convolutions(net)

    def discriminator(self, net: CorrelationDiscriminator) -> CorrelationDiscriminator:
        net.stem = Stem(net.stem, self)
        net.embedding = OnceForAll(net.embedding)
        replace(net, DownBlock, lambda block: FastDownBlock(block, self))
        net.final_conv = nn.Sequential(self.conv(net.final_conv), ToFloat32())
        return self.convolutions(net)

    def convolutions(self, net: nn.Module) -> nn.Module:
        replace(net, nn.Conv2d, self.conv)
        return net

    def conv1d(self, layer: nn.Conv1d) -> nn.Conv1d:
        """A convolution of positions of width 1, in the dtype."""
        cast = nn.Conv1d(layer.in_channels, layer.out_channels, 1, device="meta")
        cast.weight, cast.bias = (nn.Parameter(t.detach().to(self.dtype), requires_grad=False) for t in (layer.weight, layer.bias))
        return cast

    def conv(self, layer: nn.Conv2d) -> Conv:
        return Conv(layer.weight, layer.bias, layer.stride[0], layer.padding[0], self)


def replace(parent: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Replace all modules of class `kind` below `parent`."""
    for name, child in list(parent.named_children()):
        if isinstance(child, kind):
            setattr(parent, name, make(child))
        elif not is_parametrized(child):
            replace(child, kind, make)


class Stem(nn.Module):
    """Convert images to the dtype and memory format of features, then apply the first convolution."""

    def __init__(self, layer: nn.Conv2d, make: Convert):
        super().__init__()
        self.conv, self.dtype = make.conv(layer), make.dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images.to(self.dtype, memory_format=torch.channels_last))


class OnceForAll(nn.Module):
    """Embeds a batch of times (B,); gives one row (1,width) if all images share t, which a stride of 0 shows (see batch_of_times)."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding = embedding

    def forward(self, times: Tensor) -> Tensor:
        return self.embedding(times[:1] if times.stride(0) == 0 else times)


class AllModulations(nn.Module):
    """Times to (scale + 1, shift) of all residual blocks, side by side: (rows, all channels). `columns` holds the slice of each block."""

    def __init__(self, embedding: nn.Module, blocks: list[ResidualBlock], dtype: torch.dtype):
        super().__init__()
        self.embedding, self.dtype = OnceForAll(embedding), dtype
        layers = [block.modulation for block in blocks]
        ends = itertools.accumulate(layer.out_features for layer in layers)
        self.columns = [slice(end - layer.out_features, end) for layer, end in zip(layers, ends, strict=True)]
        biases = [half + one for layer in layers for half, one in zip(layer.bias.chunk(2), (1, 0), strict=True)]
        self.register_buffer("weight", torch.cat([layer.weight for layer in layers]), persistent=False)
        self.register_buffer("bias", torch.cat(biases), persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        return F.linear(F.silu(self.embedding(times)), self.weight, self.bias).to(self.dtype)


class FastResidualBlock(nn.Module):
    """A ResidualBlock that takes the modulations of all blocks instead of the time."""

    def __init__(self, block: ResidualBlock, columns: slice, make: Convert):
        super().__init__()
        self.columns = columns
        self.conv1, self.conv2 = make.conv(block.conv1), make.conv(block.conv2)
        self.skip = make.conv(block.skip) if isinstance(block.skip, nn.Conv2d) else None

    def forward(self, h: Tensor, modulations: Tensor) -> Tensor:
        scale, shift = modulations[:, self.columns, None, None].chunk(2, dim=1)  # each (B or 1,c_out,1,1)
        r = self.conv1(h)  # (B,c_out,H,W)
        r = F.silu(r.mul_(scale).add_(shift), inplace=True)
        r = F.silu(self.conv2(r), inplace=True)
        return r.add_(h if self.skip is None else self.skip(h))


class EnlargingConv(nn.Module):
    """Nearest x2, then a 3x3 convolution, as one 2x2 convolution of the small image; (B,C,H,W) to (B,c_out,2H,2W).

    The 3x3 window of an output pixel in an even row covers the input rows y-1, y, y; in an odd row it covers y, y, y+1; the same holds
    for columns. So each of the four kinds of pixels is a 2x2 convolution with sums of the 3x3 weights: 4/9 of the operations.
    """

    def __init__(self, layer: nn.Conv2d, make: Convert):
        super().__init__()
        wide = layer.weight.double()
        kernels = [in_columns for in_rows in halves(wide, 2) for in_columns in halves(in_rows, 3)]  # of (even,even), (even,odd), ...
        self.conv = Conv(torch.cat(kernels).to(layer.weight), layer.bias.repeat(4), 1, 1, make)

    def forward(self, h: Tensor) -> Tensor:
        B, _, H, W = h.shape
        kinds = self.conv(h).permute(0, 2, 3, 1)  # (B,H+1,W+1,4 c_out); the even ones start at 0, the odd ones at 1
        c = kinds.shape[-1] // 4
        out = kinds.new_empty(B, 2 * H, 2 * W, c)
        for row in (0, 1):
            for column in (0, 1):
                first = (2 * row + column) * c
                out[:, row::2, column::2] = kinds[:, row : row + H, column : column + W, first : first + c]
        return out.permute(0, 3, 1, 2)


def halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Turn the three taps along `dim` into two: the kernels for even and for odd pixels."""
    a, b, c = weight.split(1, dim)
    return torch.cat([a, b + c], dim), torch.cat([a + b, c], dim)


class FastSpadeNorm(nn.Module):
    """A SpadeNorm followed by the leaky ReLU. The factor of its unbiased variance is folded into the modulation."""

    def __init__(self, norm: SpadeNorm, make: Convert):
        super().__init__()
        c = unbiased(norm.gamma.out_channels)
        self.eps = c**2 * EPS
        self.shared = make.conv(norm.shared)
        weight = torch.cat([c * norm.gamma.weight, norm.beta.weight])
        bias = torch.cat([c * (1 + norm.gamma.bias), norm.beta.bias])
        self.modulation = Conv(weight, bias, norm.gamma.stride[0], norm.gamma.padding[0], make)

    def forward(self, h: Tensor, resized: Tensor) -> Tensor:
        maps = self.modulation(F.relu_(self.shared(resized)))  # (B,2C,H,W)
        gain, shift = maps.chunk(2, dim=1)
        return F.leaky_relu_(norm_over_channels(h, None, self.eps).mul_(gain).add_(shift), 0.2)


class FastSpadeBlock(nn.Module):
    """A SpadeBlock that resizes the structure once for both norms, with spectral norm folded into the weights."""

    def __init__(self, block: SpadeBlock, make: Convert):
        super().__init__()
        self.norm1, self.norm2 = FastSpadeNorm(block.norm1, make), FastSpadeNorm(block.norm2, make)
        self.conv1, self.conv2 = make.conv(block.conv1), make.conv(block.conv2)
        self.dtype = make.dtype

    def forward(self, h: Tensor, structure: Tensor) -> Tensor:
        resized = F.interpolate(structure, size=h.shape[-2:], mode="nearest")  # (B,1,H,W)
        resized = resized.to(self.dtype).contiguous(memory_format=torch.channels_last)
        r = self.conv1(self.norm1(h, resized))  # (B,C,H,W)
        return self.conv2(self.norm2(r, resized)).add_(h)


class FastLinearAttention(nn.Module):
    """A LinearAttention that multiplies its small context with the weights of the last convolution first, and then with the pixels."""

    def __init__(self, block: LinearAttention, make: Convert):
        super().__init__()
        self.qkv = make.conv(block.qkv)
        self.eps = block.norm.eps
        constants = {
            "gain": block.norm.gain.flatten().to(make.dtype),
            "out_gain": block.out_norm.gain.flatten().to(make.dtype),
            "out_weight": block.out.weight.float().view(-1, HEADS, HEAD_WIDTH).permute(1, 2, 0),  # (heads,width of v,C)
            "out_bias": block.out.bias.to(make.dtype),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.detach(), persistent=False)
        # float16 has too small a range for sums over the pixels
        self.sum_dtype = torch.float32 if make.dtype == torch.float16 else make.dtype

    def forward(self, h: Tensor) -> Tensor:
        B, C, H, W = h.shape
        N = H * W
        qkv = self.qkv(norm_over_channels(h, self.gain, self.eps)).permute(0, 2, 3, 1).reshape(B, N, 3, HEADS, HEAD_WIDTH)
        q, k, v = qkv.unbind(dim=2)  # each (B,pixels,heads,width)
        q = q.softmax(dim=-1).view(B, N, HEADS * HEAD_WIDTH)
        k = k.to(self.sum_dtype).softmax(dim=1)
        context = k.permute(0, 2, 3, 1) @ v.to(self.sum_dtype).permute(0, 2, 1, 3)  # (B,heads,width of k,width of v)
        out = context.float() * (HEAD_WIDTH**-0.5 / N) @ self.out_weight  # (B,heads,width of k,C)
        out = torch.baddbmm(self.out_bias, q, out.view(B, HEADS * HEAD_WIDTH, C).to(q.dtype))  # (B,pixels,C)
        out = out.view(B, H, W, C).permute(0, 3, 1, 2)
        return norm_over_channels(out, self.out_gain, self.eps).add_(h)


class FastDownBlock(nn.Module):
    """A DownBlock that works in place, and adds the bias of its first convolution together with the shift by the time."""

    def __init__(self, block: DownBlock, make: Convert):
        super().__init__()
        self.downsample, self.time, self.dtype = block.downsample, block.time, make.dtype
        self.conv1 = Conv(block.conv1.weight, None, 1, 1, make)
        self.conv2, self.skip = make.conv(block.conv2), make.conv(block.skip)
        self.register_buffer("first_bias", block.conv1.bias.detach().float(), persistent=False)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        shift = (self.first_bias + self.time(time)).to(self.dtype)  # (B or 1,c_out)
        r = self.conv1(lrelu(h)).add_(shift[:, :, None, None])  # (B,c_out,H,W)
        r = F.leaky_relu_(r, 0.2)
        if self.downsample:
            r, h = halve(r), halve(h)  # (B,.,H/2,W/2)
        return self.conv2(r).add_(self.skip(h)).mul_(0.5**0.5)


class ToFloat32(nn.Module):
    """Convert to float32, before sums over many pixels in which small differences matter."""

    def forward(self, h: Tensor) -> Tensor:
        return h.float()
