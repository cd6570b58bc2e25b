"""Milliseconds and GFLOP/s of the networks, plain and in their inference form."""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from strdiffusion.bench.timing import best_rates, measure
from strdiffusion.config import TrainPriorConfig, load_config
from strdiffusion.denoiser import AUTOCAST_DTYPES, Precision, autocast
from strdiffusion.networks import KINDS, CorrelationDiscriminator, GuidedUNet, Kind, UNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.networks.unet import Attention
from strdiffusion.system.device import require_precision, set_float32_precision

Form = Literal["plain", "channels_last", "inference", "compiled"]
FORMS: tuple[Form, ...] = ("plain", "channels_last", "inference", "compiled")
SOME_T = 37


@dataclass(frozen=True)
class Sizes:
    """What is evaluated: widths and depth of the networks, size and number of the images. prior: the configuration of the training of
    RePaint's prior, which gives its network and the size of its images.
    """

    size: int = 256
    batch: int = 1
    width: int = 64
    depth: int = 4
    discriminator_width: int = 64
    attention: Attention = "linear"
    prior: str = "configs/benchmark/prior.yml"

    def of(self, kind: Kind) -> "Sizes":
        """The sizes with which a network is evaluated."""
        return replace(self, size=load_config(TrainPriorConfig, self.prior).data.size) if kind == "prior" else self


def make_network(kind: Kind, sizes: Sizes) -> nn.Module:
    """A network with random weights, in evaluation mode."""
    if kind in ("discriminator", "prior"):
        network = make_prior(sizes.prior) if kind == "prior" else CorrelationDiscriminator(sizes.discriminator_width).eval()
        for p in network.parameters():  # a new one outputs about 0, which makes relative differences meaningless
            nn.init.normal_(p, std=math.prod(p.shape[1:]) ** -0.5)
        return network
    return UNet(3 if kind == "texture" else 1, sizes.width, sizes.depth, sizes.attention, guided=kind == "texture").eval()


def make_prior(path: str) -> GuidedUNet:
    """The prior that a configuration of a training describes."""
    config = load_config(TrainPriorConfig, path)
    return GuidedUNet(**config.network.architecture(config.data.size)).eval()


def make_inputs(kind: Kind, sizes: Sizes, device: torch.device) -> tuple:
    """Random images and a time, as inputs of the network."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(sizes.batch, 3, sizes.size, sizes.size, generator=generator).to(device)
    structure = texture.mean(dim=1, keepdim=True)
    if kind == "prior":
        return 2 * texture - 1, SOME_T
    if kind == "discriminator":
        return texture, structure, SOME_T
    return (texture, texture * 0.5, SOME_T, structure) if kind == "texture" else (structure, structure * 0.5, SOME_T)


def count_gflop(kind: Kind, sizes: Sizes) -> float:
    """GFLOP of one evaluation of the plain network, 2 FLOP for a multiplication and an addition; counted without computing."""
    meta = torch.device("meta")
    with meta:
        network = make_network(kind, sizes)
    inputs = [v.to(meta) if isinstance(v, Tensor) else v for v in make_inputs(kind, sizes, torch.device("cpu"))]
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / 1e9


def evaluate(network: nn.Module, form: Form, precision: Precision, device: torch.device) -> Callable[..., Tensor]:
    """The network in one of the forms, as a function of its inputs."""
    if form in ("inference", "compiled"):
        return for_inference(network, precision, compile=form == "compiled")
    if form == "channels_last":
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def call(*inputs, **options) -> Tensor:
        with autocast(device, precision):
            return network(*inputs, **options)

    return call


def time_networks(
    sizes: Sizes, precisions: list[Precision], forms: list[Form], device: torch.device, repeats: int, kinds: tuple[Kind, ...] = KINDS
) -> list[dict]:
    """A row for each precision, network and form.

    milliseconds: Timing; gflop: of the plain network; rate: GFLOP/s; of_convolution, of_matrix: the rate as a share of the best rates,
    which are measured once for each precision; difference: max|a-b|/max|b| to the plain network in float32.
    """
    rows = []
    for precision in precisions:
        require_precision(precision, device)
    for precision in precisions:
        set_float32_precision(precision)
        peak = best_rates(device, AUTOCAST_DTYPES.get(precision, torch.float32), repeats)
        for kind in kinds:
            torch.manual_seed(0)
            its = sizes.of(kind)
            network, inputs, gflop = make_network(kind, its).to(device), make_inputs(kind, its, device), count_gflop(kind, its)
            set_float32_precision("fp32")
            expected = evaluate(network, "plain", "fp32", device)(*inputs)
            set_float32_precision(precision)
            for form in forms:
                run = evaluate(network, form, precision, device)
                error = (run(*inputs).float() - expected).abs().max() / expected.abs().max()
                timing = measure(lambda run=run, inputs=inputs: run(*inputs), device, repeats)
                rate = gflop / timing.median * 1000
                rows.append(
                    {
                        "network": kind,
                        "form": form,
                        "precision": precision,
                        **asdict(its),
                        "milliseconds": asdict(timing),
                        "gflop": gflop,
                        "rate": rate,
                        "of_convolution": rate / peak.convolution,
                        "of_matrix": rate / peak.matrix,
                        "difference": error.item(),
                        "peak": asdict(peak),
                    }
                )
    return rows
