"""Processes of tests, forked from this one: to import torch and the rest anew takes seconds each time."""

import contextlib
import importlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import torch

from strdiffusion.commands.main import main as run_command

# what a training imports late
HEAVY = ("torch._dynamo", "torch.utils.tensorboard", "skimage.color", "strdiffusion.training")


def fork(words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a process of its own; returns its number. before: is called in it first."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    status = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        torch.set_num_threads(1)
        before()
        sys.stdin, sys.stdout, sys.stderr = map(opened, (0, 1, 2))
        status = run_command(words) or 0
    except SystemExit as ended:  # --help
        status = ended.code or 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def opened(descriptor: int) -> TextIO | None:
    """A standard stream, as the interpreter makes it at its start: None if it is closed."""
    try:
        return open(descriptor, "w" if descriptor else "r", closefd=False, errors="backslashreplace")
    except OSError:
        return None


def forked(
    line: list[str], *, env: Mapping[str, str] = os.environ, before: Callable[[], None] = lambda: None, **options
) -> subprocess.Popen:
    """subprocess.Popen of a Python program, in a fork of this process: to import torch and the rest anew takes five seconds.

    line: the interpreter, the path of a script or -m and the name of a module, and arguments. before: is called first.
    """
    for name in HEAVY:
        importlib.import_module(name)
    inherited = open_files()

    def run():
        status = 70
        try:
            for number in open_files() - inherited:  # by which Popen would hear of an error of exec
                os.close(number)
            os.environ.clear()
            os.environ.update(env)
            for number in signal.valid_signals():  # as exec does
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            logging.getLogger().handlers.clear()
            sys.stdin, sys.stdout, sys.stderr = (open(number, mode, closefd=False) for number, mode in enumerate("rww"))
            before()
            program, *sys.argv = [word for word in line[1:] if word != "-u"]
            if program == "-m":
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            else:
                sys.argv.insert(0, program)
                runpy.run_path(program, run_name="__main__")
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    return subprocess.Popen(line, preexec_fn=run, restore_signals=False, **options)  # else writing to a full disk would kill it


def open_files():
    """The numbers of this process's open files, without those of the standard streams."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            os.fstat(int(name))
            found.add(int(name))
    return found - {0, 1, 2}
