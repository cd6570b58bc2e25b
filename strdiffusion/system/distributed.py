"""Several processes that train or test together, as `torchrun` starts them. Alone, every function here does nothing."""

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError

R = TypeVar("R")
POLL = 0.05  # seconds
GRACE = 5  # seconds
PATIENCE = timedelta(minutes=60)  # for a rank that samples validation images, or that lists a large folder
LAUNCHED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # what torchrun sets


def launched() -> bool:
    """Whether torchrun started this process."""
    return LAUNCHED <= os.environ.keys()


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; yields this process's device of the option `device`.

    A process that ends while the others wait for it is reported to them as a UserError.
    """
    chosen = choose_device(device)
    if not launched():
        yield chosen
        return
    if chosen.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} of this machine has no GPU: start torchrun with --nproc-per-node={torch.cuda.device_count()}")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    store, number, total = next(dist.rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group(backend, store=fresh_store(store, number, total), rank=number, world_size=total, timeout=PATIENCE)
    try:
        yield chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error):
            raise UserError("another process of this run has ended, so this one ends too: its own message says why") from None
        raise
    except SystemExit as ended:  # of a process that leaves the message to another: threads of the group must not be waited for
        time.sleep(GRACE)  # torchrun ends the main process as soon as this one is gone, and it has the message to say
        leave(ended.code if isinstance(ended.code, int) else 1)
    dist.destroy_process_group()  # not after an error: it could wait for a process that is gone


def leave(status: int) -> None:
    """End a process that torchrun started here and now: while Python exits, threads of torch abort one in a hundred, its work done."""
    if launched():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fresh_store(store: dist.Store, number: int, total: int) -> dist.Store:
    """A part of the store that only the processes alive now use: after a restart it still holds where the dead ones could be reached.

    Process 0 offers a name, the others answer with it and one of their own, and process 0 confirms the answers to its name.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    if number == 0:
        store.set("offer", own)
        answers: dict[int, str] = {}
        while len(answers) < total - 1:
            if time.monotonic() > deadline:
                raise UserError(f"only {len(answers) + 1} of {total} processes have come: look at the messages of the others")
            for other in range(1, total):
                answer = read(store, f"answer {other}").split()
                if answer[:1] == [own]:
                    answers[other] = answer[1]
            time.sleep(POLL)
        store.set(f"confirmed {own}", " ".join(answers.values()))
        return dist.PrefixStore(own, store)
    while time.monotonic() < deadline:
        offer = read(store, "offer")
        store.set(f"answer {number}", f"{offer} {own}")
        if own in read(store, f"confirmed {offer}").split():
            return dist.PrefixStore(offer, store)
        time.sleep(POLL)
    raise UserError("the first process of this run did not come: its own message says why")


def read(store: dist.Store, key: str) -> str:
    """A text of the store, empty where there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def on_main(action: Callable[[], R]) -> R:
    """Do something in the main process only and return its result in all. Where it raises UserError, all processes end."""
    if count() == 1:
        return action()
    outcome: list = [None, None]
    try:
        if is_main():
            outcome[0] = action()
    except UserError as error:
        outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        fail(outcome[1])
    return outcome[0]


def fail(error: UserError) -> NoReturn:
    """Raise an error that all processes have: in the main process, which says it; the others end without a word."""
    if is_main():
        raise error
    sys.exit(2)


def gather(value: R) -> list[R]:
    """The values of all processes, by rank."""
    if count() == 1:
        return [value]
    values: list = [None] * count()
    dist.all_gather_object(values, value)
    return values


def average(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if count() > 1:
        dist.all_reduce(values)
        values /= count()
    return values


def largest(numbers: list[int]) -> list[int]:
    """The largest of each number over all processes."""
    if count() == 1:
        return numbers
    tensor = torch.tensor(numbers)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()
