"""The loading of training data: the data loader, its batches, and the end of its processes."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig
from strdiffusion.data import StepSampler, TrainingDataset
from strdiffusion.system import distributed
from strdiffusion.system.errors import UserError
from strdiffusion.training.faults import DataError, SkippingDataset, collate_samples
from strdiffusion.training.interrupt import ignore_signals, signals_wait
from strdiffusion.training.shares import Shares


def training_loader(config: TrainConfig, dataset: TrainingDataset, shares: Shares, step: int, device: torch.device) -> DataLoader:
    """This process's parts of the global batches, from iteration `step` on."""
    return DataLoader(
        SkippingDataset(dataset),
        batch_size=shares.size,
        collate_fn=collate_samples,
        sampler=StepSampler(step, shares.batch_size, shares.positions.flatten().tolist()),
        num_workers=config.data.workers,
        worker_init_fn=ignore_signals,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(config.seed),  # without it the loader draws from torch's global generator
    )


def fetch(loader: DataLoader, parts: int) -> Iterator[tuple[list[Batch], list[str]]]:
    """The batches of one iteration after another, and what was wrong with files. When it is closed, no process is left.

    Raises UserError if there are no data.
    """
    batches, workers = start(loader)
    error = DataError if distributed.count() == 1 else UserError  # one process alone cannot save the state of all
    try:
        while True:
            found = [next(batches) for _ in range(parts)]
            faults = [fault for _, more in found for fault in more]
            if any(tensors is None for tensors, _ in found):
                raise error(f"no file could be used in place of those that cannot; the last: {faults[-1]}")
            yield [Batch(**tensors) for tensors, _ in found], faults
    finally:
        end(batches, workers)


def start(loader: DataLoader) -> tuple[Iterator, list[BaseProcess]]:
    """A loader's iterator, and the processes that it has started."""
    others = multiprocessing.active_children()
    with signals_wait():
        batches = iter(loader)
    return batches, [child for child in multiprocessing.active_children() if child not in others]


def end(batches: Iterator, workers: list[BaseProcess]) -> None:
    """End a loader's processes now. Python would wait for them when it exits, and they ignore the signal that it sends them then."""
    if workers and all(worker.is_alive() for worker in workers):
        batches._shutdown_workers()  # what deleting the iterator does; but the traceback of an error may keep it
    abandon(batches, workers)


def abandon(batches: Iterator, workers: list[BaseProcess]) -> None:
    """Kill what is left of a loader's processes, and do not wait for them: one that was killed may hold the lock of their queue.

    Torch has no public way to do so. It takes the end of every process that it watches for a failure, and raises an error in the middle of
    whatever runs then: `_remove_worker_pids` ends the watch. And an iterator that is deleted tells its processes to end, for which it
    waits for that lock: `_shutdown` is how it knows that this was done.
    """
    with contextlib.suppress(ValueError):  # not watched any more, or without processes
        signal_handling._remove_worker_pids(id(batches))
    for worker in workers:
        worker.kill()
    batches._shutdown = True
