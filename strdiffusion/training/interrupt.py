"""Signals: a training that is asked to stop finishes its iteration and saves first."""

import signal
from types import FrameType

from strdiffusion.system.distributed import launched

# Ctrl-C; what schedulers and torchrun send; what Slurm sends before a preemption (not on Windows)
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """While entered, SIGNALS only set `number` to the first one's number (0: none yet).

    A second Ctrl-C acts as usual, except under torchrun. Other signals may come twice, from the cluster's scheduler and from torchrun.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        try:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
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


def ignore_signals(worker: int) -> None:
    """For the loading processes: signals often reach all processes of a job, and the main process decides what to do."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
