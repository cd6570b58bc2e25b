"""Networks: sizes, attention, guidance, the minibatch statistic, gradients (spec sec. 4, 5). Values are pinned by test_golden."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL_DGTS

from strdiffusion.networks import CorrelationDiscriminator, UNet, build_network
from strdiffusion.networks.attention import HEAD_WIDTH, HEADS, LinearAttention
from strdiffusion.networks.discriminator import halve, minibatch_deviation
from strdiffusion.networks.embedding import SinusoidalEmbedding
from strdiffusion.networks.shapes import shapes_alone
from strdiffusion.networks.spade import SpadeNorm
from strdiffusion.networks.unet import pad_by_reflection


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_at_full_size():
    with torch.device("meta"):
        texture, structure = UNet(3, 64, 4, "linear", guided=True), UNet(1, 64, 4, "linear")
        assert parameters(texture) == 163_333_763
        assert sum(parameters(level.spade) for level in texture.encoder) == 26_186_240
        assert parameters(structure) == 137_133_825
        assert parameters(CorrelationDiscriminator(64)) == 12_741_377
        assert round(parameters(UNet(3, 64, 4, guided=True)) / 1e6, 2) == 161.32
        assert round(parameters(UNet(1, 64, 4)) / 1e6, 2) == 135.12


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 9), (3, 2), (7, 30), (33, 17)])
@pytest.mark.parametrize(("attention", "guided"), [("none", False), ("linear", True)])
def test_any_image_size(size, attention, guided):
    torch.manual_seed(0)
    net = UNet(3, 4, 3, attention, guided).eval()
    x, S = torch.randn(2, 3, *size), torch.randn(2, 1, *size)
    out = net(x, torch.zeros_like(x), 5, S if guided else None)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_padding_equals_one_reflection_where_that_is_possible():
    x = torch.randn(2, 3, 13, 22)
    assert torch.equal(pad_by_reflection(x, 8), F.pad(x, (0, 2, 0, 3), mode="reflect"))
    assert pad_by_reflection(torch.randn(1, 1, 16, 8), 8).shape == (1, 1, 16, 8)
    narrow = torch.arange(3.0).view(1, 1, 1, 3).expand(1, 1, 8, 3)
    assert pad_by_reflection(narrow, 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_linear_attention_against_explicit_loops():
    torch.manual_seed(0)
    block, h = LinearAttention(8).double(), torch.randn(1, 8, 3, 4, dtype=torch.float64)
    torch.nn.init.normal_(block.norm.gain)
    n = 12
    flat = h.view(8, n)
    mean, var = flat.mean(0), flat.var(0, unbiased=False)
    normed = (flat - mean) / (var + 1e-5).sqrt() * block.norm.gain.view(8, 1)
    qkv = block.qkv.weight.view(3 * HEADS * HEAD_WIDTH, 8) @ normed
    outs = []
    for head in range(HEADS):
        q, k, v = (qkv[(i * HEADS + head) * HEAD_WIDTH :][:HEAD_WIDTH] for i in range(3))
        q, k = torch.softmax(q, 0) * HEAD_WIDTH**-0.5, torch.softmax(k, 1)
        for pixel in range(n):
            outs.append(sum((k[:, j] @ q[:, pixel]) * v[:, j] / n for j in range(n)))
    attended = torch.stack(outs).view(HEADS, n, HEAD_WIDTH).transpose(1, 2).reshape(HEADS * HEAD_WIDTH, n)
    out = block.out.weight.view(8, -1) @ attended + block.out.bias[:, None]
    out = (out - out.mean(0)) / (out.var(0, unbiased=False) + 1e-5).sqrt() * block.out_norm.gain.view(8, 1)
    assert (block(h) - (h + out.view_as(h))).abs().max() < 1e-12


def test_spade_norm_uses_the_unbiased_variance_over_channels():
    norm, h, S = SpadeNorm(6).double(), torch.randn(1, 6, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    for conv in (norm.gamma, norm.beta):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    pixel = h[0, :, 2, 1]
    expected = (pixel - pixel.mean()) / math.sqrt(((pixel - pixel.mean()) ** 2).sum() / 5 + 1e-5)
    assert (norm(h, S)[0, :, 2, 1] - expected).abs().max() < 1e-12


def test_time_embedding_is_sines_then_cosines():
    out = SinusoidalEmbedding(6)(torch.tensor([7]))[0]
    angles = [7 * 1e4 ** (-k / 2) for k in range(3)]
    assert out.tolist() == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)], abs=1e-6)


def test_halving_filters_with_1_3_3_1():
    h = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    padded = F.pad(h, (1, 1, 1, 1))
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8
    expected = torch.einsum("bcij,i,j->bc", padded[:, :, 2:6, 4:8], taps, taps)
    assert (halve(h)[:, :, 1, 2] - expected).abs().max() < 1e-14


def test_groups_of_the_minibatch_statistic():
    h = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    out = minibatch_deviation(h, 4)
    for first in (0, 1):
        group = h[[first, first + 2, first + 4, first + 6]]
        expected = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert (out[[first, first + 2, first + 4, first + 6]] - expected).abs().max() < 1e-14
    for batch, size in ((6, 3), (5, 1), (7, 1), (2, 2), (9, 3)):  # the largest divisor up to 4
        out = minibatch_deviation(h[:1].expand(batch, -1, -1, -1) * torch.arange(batch).square().view(-1, 1, 1, 1), 4)
        assert len(out[:, 0, 0, 0].unique()) == (batch // size if size > 1 else 1)  # images alone all get sqrt(1e-8)


def test_the_discriminator_never_couples_images_in_groups_of_one():
    torch.manual_seed(0)
    net = golden_like(CorrelationDiscriminator(4)).double()
    y, x, t = torch.randn(5, 3, 16, 16).double(), torch.randn(5, 1, 16, 16).double(), 9
    together = net(y, x, t, group=1)
    alone = torch.cat([net(y[i : i + 1], x[i : i + 1], t) for i in range(5)])
    assert (together - alone).abs().max() < 1e-12
    assert (net(y[:4], x[:4], t) - alone[:4]).abs().max() > 1e-6  # in training they are coupled


def test_wrong_inputs_are_refused():
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="needs a structure"):
        UNet(3, 4, 1, guided=True)(x, x, 1)
    with pytest.raises(ValueError, match="takes no structure"):
        UNet(3, 4, 1)(x, x, 1, x[:, :1])
    with pytest.raises(ValueError, match="at least 8 pixels"):
        CorrelationDiscriminator(4)(x[..., :7], x[:, :1, :, :7], 1)
    with pytest.raises(ValueError, match="even"):
        UNet(3, 5, 1)


@pytest.mark.parametrize(("attention", "guided"), [("none", False), ("none", True), ("linear", True)])
def test_gradients_reach_every_parameter_of_a_unet(attention, guided):
    torch.manual_seed(0)
    net = UNet(3, 4, 2, attention, guided)
    x, mu, S = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    net(x, mu, torch.tensor([3, 9]), S if guided else None).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_gradients_reach_every_parameter_of_the_discriminator():
    torch.manual_seed(0)
    net = CorrelationDiscriminator(4)
    net(torch.randn(4, 3, 16, 16), torch.randn(4, 1, 16, 16), torch.tensor([3, 9, 20, 7])).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    # the bias of the last layer too; weights behind the nearly-zero convolutions get tiny, but not zero, gradients
    assert [n for n, p in net.named_parameters() if p.grad.abs().max() == 0] == []


def golden_like(net: torch.nn.Module) -> torch.nn.Module:
    """Give every weight a usual size: the fresh discriminator hardly depends on its input."""
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) / math.sqrt(math.prod(p.shape[1:]) or 1))
    return net


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_do_not_overflow_in_half_precision(dtype):
    """The sum over pixels and the last layer are float32: 500 in each of 16x16 pixels is beyond what float16 holds."""
    torch.manual_seed(0)
    network = CorrelationDiscriminator(4)
    with torch.no_grad():
        network.final_conv.bias.fill_(500)
        network.final_linear.weight.fill_(1)
        exact = network(torch.rand(1, 3, 128, 128), torch.rand(1, 1, 128, 128), 3)
        with torch.autocast("cpu", dtype):
            rough = network(torch.rand(1, 3, 128, 128), torch.rand(1, 1, 128, 128), 3)
    assert exact.item() > 65504 and rough.dtype == torch.float32 and abs(rough / exact - 1).item() < 0.05


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("texture", dict(channels=3, width=4, depth=2, guided=True)),
        ("structure", dict(channels=1, width=4, depth=2, attention="linear")),
        ("discriminator", dict(width=4)),
        ("prior", dict(width=32, channels=[32, 32], blocks=1, attention=[], head_channels=32)),
        ("classifier", dict(size=24, width=32, channels=[32, 32], blocks=1, attention=[2], head_channels=32)),
        ("dgts", SMALL_DGTS),
        ("upsampler", dict(width=4, factor=4, dilations=(1, 2))),
    ],
)
def test_networks_are_described_without_computing_values(kind, architecture, monkeypatch):
    """Names, shapes and types are those of a real network; torch's compiler, which takes seconds to import, is not asked for values."""
    real = build_network(kind, architecture).state_dict()
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import fails
    with shapes_alone():
        described = build_network(kind, architecture).state_dict()
    assert {value.device.type for value in described.values()} == {"meta"}
    assert {name: (value.shape, value.dtype) for name, value in described.items()} == {
        name: (value.shape, value.dtype) for name, value in real.items()
    }
