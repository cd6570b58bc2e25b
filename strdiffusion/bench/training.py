"""Iterations per second of the three trainings, and the share of time in which they wait for data."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from strdiffusion.batch import Batch
from strdiffusion.bench import timing
from strdiffusion.bench.networks import Sizes
from strdiffusion.bench.timing import Timing
from strdiffusion.config import (
    TrainConfig,
    TrainDGTSConfig,
    TrainDiscriminatorConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
)
from strdiffusion.data import write_image
from strdiffusion.data.images import resize_image
from strdiffusion.denoiser import Precision
from strdiffusion.networks import Kind
from strdiffusion.system.parser import build
from strdiffusion.training.folder import CheckpointFolder
from strdiffusion.training.loading import fetch, training_loader
from strdiffusion.training.preparation import prepare
from strdiffusion.training.step import shared_model, train_step

CONFIGS = {
    "structure": TrainStructureConfig,
    "texture": TrainTextureConfig,
    "discriminator": TrainDiscriminatorConfig,
    "prior": TrainPriorConfig,
    "dgts": TrainDGTSConfig,
}
PICTURES = 16
Loaded = Iterator[tuple[list[Batch], list[str]]]  # as of strdiffusion.training.loading.fetch


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
    config = build(CONFIGS[kind], tree | {"network": network, "data": tree["data"] | {"workers": workers}}, "benchmark")
    return {"network": kind, **asdict(sizes), "workers": workers} | time_steps(kind, config, device, repeats)


def time_steps(kind: Kind, config: TrainConfig, device: torch.device, repeats: int, data: Loaded | None = None) -> dict:
    """Time the iterations of a training as its loop does them, but for logs, validations and checkpoints.

    data: batches in memory, in place of the configuration's images; then `waiting` is None.
    """
    prepared = prepare(kind, config, device)
    state = prepared.new_state(CheckpointFolder(Path(config.output), 1))
    model = shared_model(state.task.network, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    source = fetch(training_loader(config, prepared.dataset, prepared.shares, 0, device), prepared.shares.parts) if data is None else data
    iterations, waits = [], []
    with contextlib.closing(source):
        for _ in range(WARMUP + repeats):
            started = timing.now()
            parts, _ = next(source)
            waits.append(timing.now() - started)
            train_step(model, state, prepared.shares, [part.to(device) for part in parts])  # it waits for the device
            iterations.append(timing.now() - started)
    waits, iterations = waits[WARMUP:], iterations[WARMUP:]
    return {
        "precision": config.precision,
        "batch": config.training.batch_size,
        "checkpoint": config.training.checkpoint,
        "compile": config.training.compile,
        "milliseconds": asdict(Timing.of([1000 * s for s in iterations])),
        "iterations_per_second": repeats / sum(iterations),
        "memory_gib": peak_memory(device) / 2**30,
        "waiting": sum(waits) / sum(iterations) if data is None else None,
    }


def same_batch(config: TrainConfig, device: torch.device) -> Loaded:
    """Random pictures in the memory of the device, again and again: a training without the loading of data."""
    count, side = config.training.batch_size // config.training.accumulate, config.data.size
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(count, 3, side, side, generator=generator)
    mask = torch.ones(count, 1, side, side)
    mask[:, :, side // 4 : side // 2, side // 4 : -(side // 4)] = 0
    structure = texture.mean(dim=1, keepdim=True)
    batch = Batch(texture, structure, (structure > 0.6).float() * mask, mask).to(device)
    while True:
        yield [batch] * config.training.accumulate, []


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
