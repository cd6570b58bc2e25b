"""One iteration of a training (spec sec. 6): the gradient of the loss, a step of Adam, the moving average."""

import contextlib
import logging
import math

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from strdiffusion.batch import Batch
from strdiffusion.system import distributed
from strdiffusion.training.optimizer import set_rate
from strdiffusion.training.shares import Shares
from strdiffusion.training.state import TrainingState

log = logging.getLogger(__name__)


def train_step(model: nn.Module, state: TrainingState, shares: Shares, parts: list[Batch]) -> dict[str, float]:
    """Train on one global batch, of which `parts` are the shares of this process; t is drawn from the times of the task for each image.

    If loss or gradient are not finite, weights and moving average stay as they are. Returns the means over all parts and processes:
    the loss, what else the task reports, and the norm of the gradient.
    """
    config, network, optimizer, scaler = state.config, state.task.network, state.optimizer, state.scaler
    set_rate(optimizer, state.rate)
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for i, batch in enumerate(parts):
        state.task.set_mode(model, first=i == 0)
        t, draw = shares.noise(config.seed, state.step, i, state.task.times, batch.mask.device)
        with exchange(model, now=i == len(parts) - 1):
            loss, more = state.task.loss(model, batch, t, draw)
            scaler.scale(loss / len(parts)).backward()
        for name, value in ({"loss": loss} | more).items():
            sums[name] = sums.get(name, 0) + value.detach() / len(parts)

    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(network.parameters(), config.training.clip_gradient or math.inf)
    means = distributed.average(torch.stack([*sums.values(), norm])).tolist()
    values = dict(zip((*sums, "gradient_norm"), means, strict=True))
    finite = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
    if finite:
        scaler.step(optimizer)
        state.ema.update(network)
    scaler.update()  # lowers the scale of the loss if it was too large
    state.standing.advance(finite)
    if not finite:
        log.warning(
            "iteration %d was skipped: loss %g, gradient norm %g (skipped so far: %d)",
            state.step,
            values["loss"],
            values["gradient_norm"],
            state.standing.skipped,
        )
    return values


def shared_model(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as the loss calls it: if there are several processes, their gradients are averaged."""
    if distributed.count() == 1:
        return network
    # find_unused_parameters keeps the order in which gradients are summed the same before and after a resume
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=True)


def exchange(model: nn.Module, now: bool) -> contextlib.AbstractContextManager:
    """The context of a backward pass: processes exchange their gradients `now`, or only sum them up for a later pass."""
    return contextlib.nullcontext() if now or not isinstance(model, DistributedDataParallel) else model.no_sync()
