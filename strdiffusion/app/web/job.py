"""One inpainting in its own thread, which can be watched and cancelled."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from strdiffusion.app import Cancelled, WindowStep
from strdiffusion.system.errors import UserError

R = TypeVar("R")

INTERVAL = 0.2  # seconds between two updates of the progress


@dataclass(frozen=True, eq=False)
class Glimpse:
    """The progress of a job. ahead: how many jobs are before it in the line. learning: the model learns from the picture; done is of that.

    texture (h, w, 3), structure (h, w): uint8, of the current window. Like t, they are None before the first step.
    """

    ahead: int = 0
    done: float = 0.0
    learning: bool = False
    t: int | None = None
    number: int = 0
    windows: int = 1
    sample: int = 0
    texture: np.ndarray | None = None
    structure: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LearningStep:
    """A model learns from the picture. done: the share of its time. preview (h, w, 3) uint8: what it would fill by now, if it was asked."""

    done: float
    preview: np.ndarray | None


class Busy(UserError):
    """Too many wait already."""


class Line:
    """A waiting line of limited length: one member computes at a time, in the order of arrival."""

    def __init__(self, waiting: int):
        self.waiting = waiting
        self._members: list[object] = []
        self._changed = threading.Condition()

    def join(self, member: object) -> None:
        """Take the last place. Raises UserError if the line is full."""
        with self._changed:
            if len(self._members) > self.waiting:
                raise Busy(f"All {self.waiting} places to wait are taken: try again later.")
            self._members.append(member)

    def ahead(self, member: object) -> int:
        """How many members are before this one."""
        with self._changed:
            return self._members.index(member) if member in self._members else 0

    def wait(self, member: object, cancelled: Callable[[], bool]) -> None:
        """Return when it is the member's turn, or when it is cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: cancelled() or self._members[0] is member)

    def wake(self) -> None:
        """Make all waiting members check whether they are cancelled."""
        with self._changed:
            self._changed.notify_all()

    def leave(self, member: object) -> None:
        with self._changed:
            self._members.remove(member)
            self._changed.notify_all()

    @contextlib.contextmanager
    def turn(self, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Wait, and be the one that computes in this context. Raises Busy if the line is full, and Cancelled."""
        member = object()
        self.join(member)
        try:
            self.wait(member, cancelled)
            if cancelled():
                raise Cancelled
            yield
        finally:
            self.leave(member)


class Job(Generic[R]):
    """Runs `work(callback, cancel)` when its turn in the line comes. The arguments are those of the same name of StrDiffusion's call."""

    def __init__(self, work: Callable[[Callable[[WindowStep | LearningStep], None], Callable[[], bool]], R], line: Line):
        self._work, self._line = work, line
        self._cancelled, self._finished = threading.Event(), threading.Event()
        self._glimpse: Glimpse | None = None
        self._looked = 0.0
        self._result: R | None = None
        self._error: BaseException | None = None
        line.join(self)
        self._thread = threading.Thread(target=self._run, daemon=True, name="inpainting")
        self._thread.start()

    def cancel(self) -> None:
        """End the job before its next network evaluation, or while it waits."""
        self._cancelled.set()
        self._line.wake()

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()

    def join(self) -> None:
        self._thread.join()

    def watch(self) -> Iterator[Glimpse]:
        """Yield the progress when it changes, until the job has ended. If the caller stops iterating early, the job is cancelled."""
        seen = None
        try:
            while not self._finished.wait(0 if seen is None else INTERVAL):
                glimpse = self._glimpse or Glimpse(ahead=self._line.ahead(self))
                if glimpse is not seen and (seen is None or glimpse.t is not None or glimpse.learning or glimpse.ahead != seen.ahead):
                    yield (seen := glimpse)
        finally:
            self.cancel()

    def result(self) -> R:
        """Wait for the work and return its result. Raises its error, or Cancelled if it was cancelled."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._line.wait(self, self._cancelled.is_set)
            if self.cancelled:
                raise Cancelled
            self._result = self._work(self._after_step, self._cancelled.is_set)
        except BaseException as error:  # raised by result(), in the caller's thread
            self._error = error
        finally:
            self._line.leave(self)
            self._finished.set()

    def _after_step(self, step: WindowStep | LearningStep) -> None:
        if isinstance(step, LearningStep):
            self._glimpse = Glimpse(done=step.done, learning=True, texture=step.preview)
            return
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        structure = step.structure
        self._glimpse = Glimpse(
            done=step.done,
            t=step.t,
            number=step.number,
            windows=step.windows,
            sample=step.sample,
            texture=as_bytes(step.texture),
            structure=None if structure is None else as_bytes(structure),
        )


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as uint8."""
    return np.rint(255 * values).astype(np.uint8)
