"""What a command does before the libraries are imported, which takes seconds. Importing this module first is all that it needs.

Ctrl-C meanwhile is one line in place of a traceback; `exit_on_user_error` gives it back to Python. A terminal is told if it takes long.
And torch's threads are chosen.
"""

import os
import signal
import sys
import threading
from typing import NoReturn, TextIO

from strdiffusion.system import threads

SOON = 1.5  # seconds in which nobody wonders
LOADING = "loading PyTorch (a few seconds; longer on a busy machine)"


def announce(stream: TextIO | None, seconds: float = SOON) -> threading.Timer | None:
    """Say on a terminal that the libraries are being imported, if that takes longer; None if the stream is no terminal."""
    if stream is None or not stream.isatty():
        return None
    timer = threading.Timer(seconds, lambda: print(LOADING, file=stream, flush=True))
    timer.daemon = True
    timer.start()
    return timer


def leave(number: int, frame: object) -> NoReturn:
    """End at once: nothing has begun yet."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def give_back() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again, and the libraries are there."""
    if announced is not None:
        announced.cancel()
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


announced = announce(sys.stderr) if "torch" not in sys.modules else None
usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in a shell's background job, which ignores it
if usual and "torch" not in sys.modules and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, leave)
if "torch" not in sys.modules:
    threads.choose()
