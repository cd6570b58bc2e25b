"""Seconds per image of the samplers, and the share spent outside of the networks."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn

from strdiffusion.batch import Known
from strdiffusion.bench import timing
from strdiffusion.bench.networks import Sizes, make_network
from strdiffusion.bench.timing import Stopwatch
from strdiffusion.checkpoints import load_network
from strdiffusion.denoiser import Denoiser, Precision
from strdiffusion.networks import KINDS, Kind
from strdiffusion.networks.inference import for_inference
from strdiffusion.samplers import Fixed, Guided, Networks, Released, Sampling, SeededNoise, Stepping, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import set_float32_precision

# name: sampler, and how it steps; without `steps` it visits every t
SAMPLERS = {
    "released": (Released(), Stepping()),
    "released 10": (Released(), Stepping("mars_sde", steps=10)),
    "fixed": (Fixed(), Stepping()),
    "guided": (Guided(), Stepping()),
    "guided 10": (Guided(), Stepping("mars_ode", steps=10)),
    "posterior 10": (Guided(), Stepping("posterior", steps=10)),
    "posterior 5": (Guided(), Stepping("posterior", steps=5)),
}


def time_samplers(
    names: list[str],
    sizes: Sizes,
    T: int,
    precision: Precision,
    compile: bool,
    device: torch.device,
    checkpoints: dict[Kind, Path] | None = None,
) -> list[dict]:
    """A row for each sampler: seconds_per_image, images_per_hour, evaluations of each network per image, and the share of the time
    outside of networks. Without checkpoints the networks are random, so the decisions of adaptive samplers are arbitrary.
    """
    set_float32_precision(precision)
    sde, networks = MeanRevertingSDE(T), {}
    for kind in KINDS:
        torch.manual_seed(0)
        path = (checkpoints or {}).get(kind)
        network = make_network(kind, sizes) if path is None else load_network(path, kind).network.eval()
        networks[kind] = for_inference(network.to(device), precision, compile)
    return [time_sampler(name, networks, sde, sizes, precision, device) for name in names]


def time_sampler(
    name: str, networks: dict[Kind, nn.Module], sde: MeanRevertingSDE, sizes: Sizes, precision: Precision, device: torch.device
) -> dict:
    watch = Stopwatch(device)

    def watched(network: nn.Module) -> Callable:
        return lambda *inputs, **options: watch.time(partial(network, *inputs, **options))

    sampler, stepping = SAMPLERS[name]
    texture, structure, discriminator = (watched(networks[kind]) for kind in ("texture", "structure", "discriminator"))
    # without clip, states of random networks diverge
    used = Networks(Denoiser(texture, sde, clip=True), Denoiser(structure, sde, clip=True), discriminator)
    known = make_known(sizes, device)
    for _ in range(2):  # the first run is a warm-up
        watch.spans.clear()
        started = timing.now()
        found = sample(sampler, Sampling(used, known, SeededNoise(range(sizes.batch)), stepping))
        found.texture.cpu()  # waits for the device
        seconds = timing.now() - started
        if seconds > WARM_SECONDS:
            break  # so long that the warm-up does not matter
    inside = sum(watch.milliseconds()) / 1000
    evaluations = {kind: sum(trace.evaluations(kind) for trace in found.traces) / sizes.batch for kind in KINDS}
    return {
        "sampler": name,
        "T": sde.T,
        "precision": precision,
        **asdict(sizes),
        "seconds_per_image": seconds / sizes.batch,
        "images_per_hour": 3600 * sizes.batch / seconds,
        "evaluations": evaluations,
        "outside": 1 - inside / seconds,
    }


WARM_SECONDS = 60


def make_known(sizes: Sizes, device: torch.device) -> Known:
    """Random images with a square hole."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(sizes.batch, 3, sizes.size, sizes.size, generator=generator)
    mask = torch.ones(sizes.batch, 1, sizes.size, sizes.size)
    quarter = sizes.size // 4
    mask[:, :, quarter:-quarter, quarter:-quarter] = 0
    structure = texture.mean(dim=1, keepdim=True)
    maps = {"structure": structure * mask, "structure_mean": (structure > 0.6).float() * mask}
    return Known(texture, mask, maps).to(device)
