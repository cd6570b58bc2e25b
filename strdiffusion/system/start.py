"""What a command does before the libraries are imported, which takes seconds. Importing this module first is all that it needs.

Ctrl-C meanwhile is one line in place of a traceback; `exit_on_user_error` gives it back to Python. And torch's threads are chosen.
"""

import os
import signal
import sys
import threading
from typing import NoReturn

from strdiffusion.system import threads


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
if "torch" not in sys.modules:
    threads.choose()
