"""A terminal that goes away: a closed pipe, a lost ssh session, a standard stream that was closed from the start. And signals that end a
program: they end it in order.
"""

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO

from strdiffusion.system.errors import Stopped

BROKEN_PIPE = 141  # 128 + SIGPIPE: the status of a program whose reader has gone, as in `program | head`
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # not on Windows


class ReaderGone(BaseException):
    """Nobody reads what a program prints any more, and printing is all that it does."""


class Ended(Stopped):
    """A signal ended a program that cannot save at any moment. What is on the disk is whole."""


class Enduring:
    """A standard stream that may be lost: from then on, what is written to it is dropped. ends: raise ReaderGone once it is lost."""

    def __init__(self, stream: TextIO, ends: bool):
        self.stream, self.ends, self.lost = stream, ends, False

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Any, *arguments: object) -> None:
        try:
            if not self.lost:
                action(*arguments)
        except UnicodeEncodeError as error:  # a stream that is strict about its encoding
            text = [str(argument).encode(error.encoding, "backslashreplace").decode(error.encoding) for argument in arguments]
            self._try(action, *text)
        except (OSError, ValueError):  # EPIPE, EIO of a lost terminal; ValueError: the stream object was closed
            self.lost = True
            self._drop()
            if self.ends:
                raise ReaderGone from None

    def _drop(self) -> None:
        """Let what is still in the buffer, and what libraries print, go nowhere."""
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            descriptor = self.stream.fileno()
            if descriptor in (1, 2):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def leave(status: int) -> NoReturn:
    """End the process at once, when all that it has to do is done: Python's own end waits for threads, and takes down every library."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def enduring_streams(go_on: bool) -> Iterator[None]:
    """In this context a lost terminal ends nothing. go_on: nor does a lost stdout; otherwise ReaderGone is raised when it is written to.

    Streams that were closed from the start go nowhere.
    """
    open_closed_descriptors()
    before = sys.stdout, sys.stderr
    if any(isinstance(stream, Enduring) for stream in before):  # of a command that calls another
        yield
        return
    out, error = [stream if stream is not None else open(os.devnull, "w", encoding="utf-8") for stream in before]
    out, error = Enduring(out, ends=not go_on), Enduring(error, ends=False)
    sys.stdout, sys.stderr = out, error
    try:
        yield
        out.flush()
    finally:
        sys.stdout, sys.stderr = before
        out.ends = False
        for stream in (out, error):
            stream.flush()  # here, where a failure ends nothing, and not at the end of the interpreter


def open_closed_descriptors() -> None:
    """Open the standard descriptors that are closed. Otherwise the next files get these numbers, and what libraries print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """In this context SIGTERM and SIGHUP raise Ended, so that files are closed and locks removed; one that is ignored, as by nohup, stays
    ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in ENDING}
        before = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def duration(seconds: float) -> str:
    """A duration in the two largest units that matter."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
