"""Several processes that train or test together, started by `torchrun`. In a single process the functions here do nothing special."""

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from strdiffusion.system import terminal
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

R = TypeVar("R")
POLL = 0.05  # seconds
GRACE = 5  # seconds
PATIENCE = timedelta(minutes=60)  # enough for a rank that samples validation images or lists a large folder
REACH, POLL_REACH, SAY_AFTER = 60, 3, 5  # seconds
SAID = ("RANK", "WORLD_SIZE")
MEET = timedelta(minutes=5)  # torchrun starts all processes at once
LAUNCHED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # set by torchrun


def launched() -> bool:
    """Whether torchrun started this process."""
    return LAUNCHED <= os.environ.keys()


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the other processes, if torchrun started this one. Yields the device of this process, chosen by the option `device`.

    If a process ends while others wait for it, they raise UserError.
    """
    chosen = choose_device(device)
    if not launched():
        yield chosen
        return
    require_numbers()
    if chosen.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} of this machine has no GPU: start torchrun with --nproc-per-node={torch.cuda.device_count()}")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    with waiting_is_said():
        store, number, total = meet()
        dist.init_process_group(backend, store=fresh_store(store, number, total), rank=number, world_size=total, timeout=PATIENCE)
    try:
        yield chosen
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error):
            raise UserError("another process of this run has ended, so this one ends too: its own message says why") from None
        raise
    except SystemExit as ended:  # see `fail`: the main process reports the error; do not wait for threads of the group
        time.sleep(GRACE)  # torchrun ends the main process as soon as this one ends: let it print its message first
        leave(ended.code if isinstance(ended.code, int) else 1)
    dist.destroy_process_group()  # not after an error: it could wait for a process that has ended


def require_numbers() -> None:
    """Raise UserError if the variables that torchrun sets for its processes hold anything but what it sets."""
    for name, least, most in (("WORLD_SIZE", 1, 65_536), ("RANK", 0, 65_535), ("LOCAL_RANK", 0, 65_535), ("MASTER_PORT", 1, 65_535)):
        text = os.environ[name]
        if not (text.isascii() and text.isdecimal() and len(text) < 7 and least <= int(text) <= most):
            raise UserError(f"the variable {name} of the environment is {text!r}, not a number from {least} to {most}: use torchrun")
    if int(os.environ["RANK"]) >= int(os.environ["WORLD_SIZE"]):
        raise UserError(f"process {os.environ['RANK']} is not one of WORLD_SIZE={os.environ['WORLD_SIZE']} processes: use torchrun")


def meet() -> tuple[dist.Store, int, int]:
    """The store that all processes share, the number of this one, and how many there are. Raises UserError."""
    if os.environ["RANK"] != "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        require_reachable(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    try:
        store, number, total = next(dist.rendezvous("env://", timeout=MEET))
        store.set_timeout(PATIENCE)
        return store, number, total
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the processes cannot meet at {place()}: {' '.join(str(error).split())[:200]}") from None


def require_reachable(host: str, port: int) -> None:
    """Raise UserError if nobody listens at an address within REACH seconds: torch would try longer, and say nothing."""
    deadline = time.monotonic() + REACH
    while True:
        try:
            socket.create_connection((host, port), timeout=POLL_REACH).close()
            return
        except (OSError, UnicodeError) as error:  # UnicodeError: no name that a machine can have
            if time.monotonic() > deadline:
                raise UserError(f"the first process cannot be reached at {place()} ({error}): check MASTER_ADDR and MASTER_PORT") from None
        time.sleep(POLL)


@contextmanager
def waiting_is_said() -> Iterator[None]:
    """A context in which processes wait for each other: if that takes long, a line says so."""
    said = threading.Timer(SAY_AFTER, log.warning, ("process %s of %s waits for the others at %s", *map(os.environ.get, SAID), place()))
    said.daemon = True
    said.start()
    try:
        yield
    finally:
        said.cancel()


def place() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def leave(status: int) -> None:
    """Exit immediately if torchrun started this process: in a normal exit, torch's threads abort one finished process in a hundred."""
    if launched():
        terminal.leave(status)


def fresh_store(store: dist.Store, number: int, total: int) -> dist.Store:
    """A part of the store for the current processes alone: after a restart, the store still holds the addresses of the old ones.

    Process 0 offers a name. The others answer with that name and a name of their own. Process 0 confirms the answers.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    if number == 0:
        store.set("offer", own)
        answers: dict[int, str] = {}
        while len(answers) < total - 1:
            if time.monotonic() > deadline:
                raise UserError(f"only {len(answers) + 1} of {total} processes have started: see the messages of the others")
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
    raise UserError("the first process of this run did not start: see its own message")


def read(store: dist.Store, key: str) -> str:
    """A text from the store, empty if there is none yet."""
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
    """Call `action` in the main process only and return its result in all. If it raises UserError, all processes end."""
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
    """End all processes by an error that each of them has: the main one raises it, the others exit without a message."""
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
    """The maximum of each number over all processes."""
    if count() == 1:
        return numbers
    tensor = torch.tensor(numbers)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()
