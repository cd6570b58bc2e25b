"""Iterations per second of the three trainings, and the share of time in which they wait for data."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from strdiffusion.batch import Batch
from strdiffusion.bench import timing
from strdiffusion.bench.networks import Sizes
from strdiffusion.bench.timing import Timing
from strdiffusion.config import TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.data import StepSampler, write_image
from strdiffusion.data.images import resize_image
from strdiffusion.denoiser import Precision
from strdiffusion.networks import Kind
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.parser import build
from strdiffusion.training.data import training_dataset
from strdiffusion.training.preparation import prepare_network
from strdiffusion.training.tasks import TASKS

CONFIGS = {"structure": TrainStructureConfig, "texture": TrainTextureConfig, "discriminator": TrainDiscriminatorConfig}
PICTURES = 16


def time_training(
    kinds: list[Kind],
    sizes: Sizes,
    precision: Precision,
    device: torch.device,
    repeats: int,
    workers: int,
    checkpoint: bool = False,
    compile: bool = False,
    images: str | None = None,
) -> list[dict]:
    """A row for each network: milliseconds of an iteration (Timing), iterations_per_second, memory_gib (the peak of the GPU, or of the
    process), and waiting: the share of the time spent waiting for a batch. Without `images`, random pictures are used.
    """
    with tempfile.TemporaryDirectory() as folder:
        if images is None:
            make_pictures(Path(folder), 2 * sizes.size)
        tree = {
            "output": folder,
            "precision": precision,
            "data": {"images": images or folder, "size": sizes.size, "index": None},
            "training": {"batch_size": sizes.batch, "checkpoint": checkpoint, "compile": compile},
        }
        return [time_one(kind, tree, sizes, device, repeats, workers) for kind in kinds]


def time_one(kind: Kind, tree: dict, sizes: Sizes, device: torch.device, repeats: int, workers: int) -> dict:
    unet = {"width": sizes.width, "depth": sizes.depth, "attention": sizes.attention}
    network = {"width": sizes.discriminator_width} if kind == "discriminator" else unet
    config = build(CONFIGS[kind], tree | {"network": network}, "benchmark")
    set_float32_precision(config.precision)
    torch.manual_seed(0)
    task = TASKS[kind](config, MeanRevertingSDE(config.sde.T))
    prepare_network(task.network.train(), config.training, config.precision, device)
    optimizer = torch.optim.Adam(task.network.parameters(), fused=True)
    loader = DataLoader(
        training_dataset(config), sizes.batch, sampler=StepSampler(0, sizes.batch), num_workers=workers, pin_memory=device.type == "cuda"
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batches, iterations, waits = iter(loader), [], []
    for _ in range(WARMUP + repeats):
        started = timing.now()
        batch = Batch(**next(batches)).to(device)
        waits.append(timing.now() - started)
        t = torch.randint(2, config.sde.T + 1, (sizes.batch,))
        loss, _ = task.loss(task.network, batch, t, torch.randn_like)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device, like the training loop, which checks that the loss is finite
        iterations.append(timing.now() - started)
    waits, iterations = waits[WARMUP:], iterations[WARMUP:]
    return {
        "network": kind,
        "precision": config.precision,
        **asdict(sizes),
        **tree["training"],
        "workers": workers,
        "milliseconds": asdict(Timing.of([1000 * s for s in iterations])),
        "iterations_per_second": repeats / sum(iterations),
        "memory_gib": peak_memory(device) / 2**30,
        "waiting": sum(waits) / sum(iterations),
    }


WARMUP = 2


def peak_memory(device: torch.device) -> int:
    """The peak memory in bytes: of the GPU, or of this process on other devices."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make_pictures(folder: Path, side: int) -> None:
    """Write pictures of smooth random colours with some edges."""
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        coarse = resize_image(rng.random((8, 8, 3), dtype=np.float32), side, side)
        write_image(folder / f"{i}.png", np.where(coarse > 0.5, coarse, 0.5 * coarse))
