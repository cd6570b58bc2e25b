"""Devices do not mix on a GPU, seen without one: torch's fake tensors know their device and compute nothing."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from strdiffusion.bench.networks import Sizes, evaluate, make_inputs, make_network
from strdiffusion.networks import KINDS, GuidedUNet, NoiseClassifier
from strdiffusion.networks.inference import for_inference

CUDA = torch.device("cuda:0")
SIZES = Sizes(size=16, batch=2, width=8, depth=2, discriminator_width=8)


@pytest.fixture(autouse=True)
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def there(make, *arguments, **options):
    """A network on the GPU: fake parameters cannot be moved."""
    with CUDA:
        return make(*arguments, **options)


def test_a_mixture_is_seen():
    with pytest.raises(RuntimeError, match="device"):
        torch.rand(2, device=CUDA) + torch.rand(2)


@pytest.mark.parametrize("form", ["plain", "inference"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks(kind, form):
    call = evaluate(
        there(make_network, kind, SIZES), form, "fp32" if form == "plain" else "fp16", CUDA
    )  # there is no autocast without a GPU
    image, other, _, *rest = make_inputs(kind, SIZES, CUDA)
    for t in (3, torch.tensor([3, 7]), torch.tensor([3, 7], device=CUDA)):
        assert call(image, other, t, *rest).device == CUDA


def test_the_prior_and_its_classifier():
    prior = for_inference(there(GuidedUNet, 32, [32, 32], 1, [2], head_channels=32), "fp16")
    classifier = there(NoiseClassifier, 16, 32, [32, 32], 1, [2], head_channels=32, classes=5)
    x = torch.rand(2, 3, 16, 16, device=CUDA)
    for t in (3, torch.tensor([3, 7])):
        assert prior(x, t).device == CUDA
        assert classifier(x, t).device == CUDA  # no gradient: autograd needs a real GPU
