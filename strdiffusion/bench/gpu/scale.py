"""How large the measurements are: as released, or small, which shows on a CPU that the command works."""

from dataclasses import dataclass
from pathlib import Path

import torch

from strdiffusion.bench.networks import Sizes
from strdiffusion.bench.timing import CONVOLUTIONS, MATRICES
from strdiffusion.denoiser import Precision

ROOT = Path(__file__).parents[3]  # of the checkout


@dataclass(frozen=True)
class Scale:
    """sizes: of the networks. precisions: the most important first. batches: of networks alone; sampled: of samplers. T: of the SDE.
    prior: what `PriorNetworkConfig` takes. trained: the first batch sizes of trainings; largest: the last.
    """

    name: str
    sizes: Sizes
    precisions: tuple[Precision, ...]
    batches: tuple[int, ...]
    sampled: tuple[int, ...]
    T: int
    repeats: int
    prior: dict
    trained: tuple[int, ...]
    largest: int
    workers: int
    convolutions: tuple[tuple[int, int], ...]
    matrices: tuple[int, ...]


def full(device: torch.device, cores: int) -> Scale:
    return Scale(
        name="full",
        sizes=Sizes(),
        precisions=("bf16", "fp32", "fp16", "tf32") if device.type == "cuda" else ("bf16", "fp32"),
        batches=(8, 1, 16, 32, 4),
        sampled=(1, 8),
        T=100,
        repeats=10,
        prior={},
        trained=(16, 4, 8, 32),
        largest=1024,
        workers=max(1, min(12, cores - 2)),
        convolutions=CONVOLUTIONS,
        matrices=MATRICES[device.type],
    )


def quick(device: torch.device, cores: int) -> Scale:
    return Scale(
        name="quick",
        sizes=Sizes(size=32, width=8, depth=2, discriminator_width=8),
        precisions=("bf16", "fp32", "fp16", "tf32") if device.type == "cuda" else ("bf16", "fp32"),
        batches=(1, 2),
        sampled=(1, 2),
        T=10,
        repeats=2,
        prior={"width": 32, "multipliers": [1, 1], "blocks": 1, "attention": [16], "head_channels": 32},
        trained=(2,),
        largest=4,
        workers=min(1, cores),
        convolutions=((16, 32),),
        matrices=(128,),
    )
