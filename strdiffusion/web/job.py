"""One inpainting in a thread of its own, watched and cancelled from outside."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from strdiffusion.pipeline import Cancelled, Step

R = TypeVar("R")

INTERVAL = 0.2  # seconds between two looks at the intermediate states


@dataclass(frozen=True)
class Glimpse:
    """How far a job is. texture (h, w, 3), structure (h, w): uint8, of the window that is worked on; None before the first step."""

    done: float = 0.0
    t: int | None = None
    number: int = 0
    windows: int = 1
    sample: int = 0
    texture: np.ndarray | None = None
    structure: np.ndarray | None = None


class Job(Generic[R]):
    """Runs `work(callback, cancel)`, whose arguments are those of StrDiffusion's call, when `lock` is free."""

    def __init__(self, work: Callable[[Callable[[Step], None], Callable[[], bool]], R], lock: threading.Lock):
        self._work, self._lock = work, lock
        self._cancelled, self._finished = threading.Event(), threading.Event()
        self._glimpse = Glimpse()
        self._looked = 0.0
        self._result: R | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="inpainting")
        self._thread.start()

    def cancel(self) -> None:
        """End the job before its next network evaluation."""
        self._cancelled.set()

    def join(self) -> None:
        self._thread.join()

    def watch(self) -> Iterator[Glimpse]:
        """What has changed, until the job has ended. A watcher that leaves early cancels the job."""
        seen = None
        try:
            while not self._finished.wait(INTERVAL):
                if (glimpse := self._glimpse) is not seen:
                    yield (seen := glimpse)
        finally:
            self.cancel()

    def result(self) -> R:
        """What the work returned, once it has; raises what it raised, Cancelled where it was cancelled."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            with self._lock:
                if self._cancelled.is_set():
                    raise Cancelled
                self._result = self._work(self._after_step, self._cancelled.is_set)
        except BaseException as error:  # for result() to raise, in the thread that asks
            self._error = error
        finally:
            self._finished.set()

    def _after_step(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        structure = step.structure
        self._glimpse = Glimpse(step.done, step.t, step.number, step.windows, step.sample, as_bytes(step.texture),
                                None if structure is None else as_bytes(structure))  # fmt: skip


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as uint8."""
    return np.rint(255 * values).astype(np.uint8)
