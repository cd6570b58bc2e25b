"""The validation of a training: the loss at fixed times and noise, and PSNR and SSIM of samples, of the moving average."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig
from strdiffusion.system import distributed
from strdiffusion.training.shares import step_noise
from strdiffusion.training.task import Task


@dataclass(frozen=True)
class Validated:
    """Means over the held-out images, and pictures (B,3,H,W)."""

    scalars: dict[str, float]
    pictures: dict[str, Tensor]


class Interrupted(Exception):
    """A signal came while a validation ran."""


@torch.no_grad()
def validate(
    task: Task, network: nn.Module, batches: list[Batch], config: TrainConfig, device: torch.device, stopping: Callable[[], bool]
) -> Validated | None:
    """Validate a network on all processes together, with a bar; None where `stopping()` says in one of them that there is no time for it.

    It draws from generators of its own, so that a training goes on as if it had not been validated.
    """
    rank, count, seed = distributed.rank(), distributed.count(), config.seed
    losses: dict[int, dict[str, float]] = {}
    samples: dict[int, tuple[dict[str, float], dict[str, Tensor]]] = {}
    rows = list(range(min(config.validation.samples, len(batches[0]))))[rank::count]
    interrupted = False
    with evaluations(network, len(range(rank, len(batches), count)) + task.evaluations * bool(rows), stopping):
        try:
            for i in range(rank, len(batches), count):
                batch = batches[i].to(device)
                _, draw = step_noise(seed, i, device)
                t = task.times[torch.linspace(0, len(task.times) - 1, len(batch) + 2)[1:-1].round().long()]
                loss, scalars = task.loss(network, batch, t, draw)
                losses[i] = {name: value.item() for name, value in ({"loss": loss} | scalars).items()}
            if rows:
                result = task.sample(network, batches[0].take(rows).to(device), [seed + row for row in rows])
                for i, row in enumerate(rows):
                    pictures = {name: images[i].cpu() for name, images in result.pictures.items()}
                    samples[row] = {name: values[i] for name, values in result.scalars.items()}, pictures
        except Interrupted:
            interrupted = True
    gathered = distributed.gather((interrupted or stopping(), losses, samples))
    if any(stopped for stopped, _, _ in gathered):
        return None
    by_batch = [{k: v for _, found, _ in gathered for k, v in found.items()}[i] for i in range(len(batches))]
    by_row = sorted((row, sample) for _, _, found in gathered for row, sample in found.items())
    scalars = mean_of(by_batch, [len(batch) for batch in batches]) | mean_of([scalars for _, (scalars, _) in by_row], [1] * len(by_row))
    names = by_row[0][1][1] if by_row else {}
    return Validated(scalars, {name: torch.stack([pictures[name] for _, (_, pictures) in by_row]) for name in names})


@contextlib.contextmanager
def evaluations(network: nn.Module, total: int, stopping: Callable[[], bool]) -> Iterator[None]:
    """Show how many of its evaluations a network has done in this context, and raise Interrupted in it soon after `stopping()`."""
    from tqdm import tqdm

    with tqdm(total=total, unit="evaluation", desc="validating", leave=False, mininterval=1, disable=not distributed.is_main()) as bar:

        def evaluated(*_: object) -> None:
            if stopping():
                raise Interrupted
            bar.update(1)

        hook = network.register_forward_hook(evaluated)
        try:
            yield
        finally:
            hook.remove()


def mean_of(rows: list[dict[str, float]], weights: list[int]) -> dict[str, float]:
    """The weighted mean of each number."""
    return {name: sum(w * row[name] for w, row in zip(weights, rows, strict=True)) / sum(weights) for name in (rows[0] if rows else {})}
