"""Ctrl-C while the libraries are still being imported, which takes seconds: one line in place of a traceback.

Importing this module first is all that a command does for it; `exit_on_user_error` gives Ctrl-C back to Python.
"""

import os
import signal
import sys
import threading
from typing import NoReturn


def leave(number: int, frame: object) -> NoReturn:
    """End at once: nothing has begun yet."""
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


def give_back() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in a shell's background job, which ignores it
if usual and "torch" not in sys.modules and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, leave)
