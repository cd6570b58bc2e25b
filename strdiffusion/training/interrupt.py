"""Signals: a training that is asked to stop finishes its iteration and saves first."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from strdiffusion.system.distributed import launched

# Ctrl-C; what schedulers and torchrun send; what Slurm sends before a preemption; what a closed terminal sends (not on Windows)
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """While entered, SIGNALS only set `number` to the first one's number (0: none yet).

    A second Ctrl-C acts as usual, except under torchrun. Other signals may come twice, from the cluster's scheduler and from torchrun.
    A SIGHUP that is ignored, as nohup makes it, stays ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        try:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS if not is_ignored(number)}
        except ValueError:  # not in the main thread: signals stay as they are
            self._before = {}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.number and number == signal.SIGINT and not launched()
        self.number = self.number or number
        if again:
            self._restore()
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def is_ignored(number: int) -> bool:
    """Whether it is SIGHUP, and ignored since before the program began. (Shells let programs in the background ignore Ctrl-C.)"""
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def ignore_signals(worker: int) -> None:
    """For the loading processes: signals often reach all processes of a job, and the main process decides what to do."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """A process that is started in this context gets none of SIGNALS before it ignores them; this thread gets them afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
