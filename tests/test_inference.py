"""The inference form of the networks is the same function, and what is said where a device cannot do what is asked for."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_checks import golden_weights
from torch import nn

from strdiffusion.checkpoints import LoadedNetwork
from strdiffusion.denoiser import Denoiser
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.networks.inference import Conv, Convert, EnlargingConv, InferenceForm, for_inference
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import compiling
from strdiffusion.system.errors import UserError


def images(channels: int, size: tuple[int, int], batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.rand(batch, channels, *size, generator=generator)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    return ((a - b).abs().max() / b.abs().max()).item()


def unet_inputs(guided: bool, size: tuple[int, int], t) -> tuple:
    x = images(3, size)
    return (x, 0.5 * x.flip(0), t, images(1, size)) if guided else (x, 0.5 * x.flip(0), t)


@pytest.mark.parametrize("t", [5, torch.tensor([3, 77, 20]), torch.tensor([8])], ids=["number", "each its own", "one"])
@pytest.mark.parametrize("size", [(32, 32), (13, 22)])
@pytest.mark.parametrize(("attention", "guided"), [("none", False), ("linear", False), ("none", True), ("linear", True)])
def test_unet(attention, guided, size, t):
    network = golden_weights(UNet(3, 8, 3, attention, guided), 1)
    inputs = unet_inputs(guided, size, t)
    with torch.no_grad():
        expected = network(*inputs)
    assert difference(for_inference(network)(*inputs), expected) < 5e-6
    assert difference(for_inference(network, "bf16")(*inputs), expected) < 0.05
    assert difference(InferenceForm(network, torch.float32, pack=False)(*inputs), expected) < 5e-6


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("t", [5, torch.tensor([3, 77, 20, 50])], ids=["number", "each its own"])
def test_discriminator(t, group):
    network = golden_weights(CorrelationDiscriminator(8), 1)
    texture, structure = images(3, (21, 16), 4), images(1, (21, 16), 4)
    with torch.no_grad():
        expected = network(texture, structure, t, group=group)
    assert difference(for_inference(network)(texture, structure, t, group=group), expected) < 5e-6
    assert difference(for_inference(network, "bf16")(texture, structure, t, group=group), expected) < 0.05


def test_every_convolution_is_in_the_form():
    form = for_inference(UNet(3, 4, 2, "linear", guided=True))
    assert not [m for m in form.modules() if isinstance(m, nn.Conv2d)]
    assert len([m for m in form.modules() if isinstance(m, Conv)]) > 40


def test_a_convolution_of_an_enlarged_image():
    layer = nn.Conv2d(5, 6, 3, padding=1).double()
    h = torch.randn(2, 5, 3, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    fast = EnlargingConv(layer, Convert(torch.float64, pack=False))(h)
    assert difference(fast, layer(F.interpolate(h, scale_factor=2))) < 1e-14
    assert fast.is_contiguous(memory_format=torch.channels_last)


def test_a_time_that_images_share_is_embedded_once(monkeypatch):
    network, rows = UNet(1, 4, 1).eval(), []
    network.time[1].register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    form = for_inference(network)
    x = images(1, (8, 8))
    form(x, x, 5)
    form(x, x, torch.tensor([5, 6, 7]))
    assert rows == [1, 3]


def test_the_network_stays_as_it_is():
    network = UNet(3, 4, 2, guided=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for_inference(network)(*unet_inputs(True, (8, 8), 3))
    assert network.training and all(module.training for module in network.modules())
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_form_is_of_the_weights_as_they_are():
    network = UNet(1, 4, 1).eval()
    x = images(1, (8, 8))
    first = for_inference(network)
    with torch.no_grad():
        network.final_conv.bias.add_(1)
    second = for_inference(network)
    assert second is not first
    with torch.no_grad():
        assert difference(second(x, x, 3), network(x, x, 3)) < 5e-6


def test_a_loaded_network_builds_each_form_once():
    loaded = LoadedNetwork("structure", UNet(1, 4, 1).eval(), Path("x"), False)
    first = loaded.for_inference()
    assert loaded.for_inference() is first
    assert loaded.for_inference("bf16") is not first
    loaded.to(torch.device("cpu"))
    assert loaded.for_inference("fp32", False) is first
    loaded.to(torch.device("meta"))
    assert not loaded.forms
    assert not dataclasses.replace(loaded).forms


def test_images_keep_their_dtype_and_no_gradient_is_kept():
    network = UNet(1, 4, 1)
    x = images(1, (8, 8)).requires_grad_()
    out = Denoiser(for_inference(network, "bf16"), MeanRevertingSDE(10)).noise(x, x, 3)
    assert out.dtype == torch.float32 and not out.requires_grad


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(UserError, match="precision=fp16 needs a GPU"):
        for_inference(UNet(1, 4, 1), "fp16")


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler.*compile=false"):
        for_inference(UNet(1, 4, 1), compile=True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no-such-compiler was not found"):
        for_inference(UNet(1, 4, 1), compile=True)


def test_a_failure_to_compile_is_one_line(monkeypatch):
    def fail(*args):
        raise torch._dynamo.exc.TorchDynamoException("the reason\nand much more")

    monkeypatch.setattr(compiling.torch, "compile", lambda module, options: fail)
    monkeypatch.setattr(compiling, "require_compiler", lambda device: None)
    form = for_inference(UNet(1, 4, 1), compile=True)
    with pytest.raises(UserError, match=r"^compile=true failed on this machine \(the reason\): set compile=false$"):
        form(images(1, (8, 8)), images(1, (8, 8)), 3)
