"""What all command lines share: options, errors and exit status."""

import argparse
import contextlib
import difflib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import torch

from strdiffusion.system import distributed, start
from strdiffusion.system.errors import Stopped, UserError, clean, one_line
from strdiffusion.system.terminal import BROKEN_PIPE, Ended, ReaderGone, ending_signals, enduring_streams

TEXT = (str, os.PathLike, BaseException)  # what names of files, and contents, come in
DEFAULT_MODEL = "weights/benchmark"
PHOTOGRAPHS_MODEL = "weights/photographs"  # for pictures of all kinds; it also learns from a photograph unless the user says otherwise


def default_model(name: str = DEFAULT_MODEL) -> Path:
    """A shipped model: in the current folder, or else in the checkout that contains this package, or else in the installed package."""
    here, package = Path(name), Path(__file__).parents[1]
    found = (path for path in (here, package.parent / name, package / name) if path.exists())
    return next(found, here)


def exit_on_user_error(main: Callable[..., int | None] | None = None, *, go_on: bool = False) -> Callable[..., Any]:
    """Turn a UserError into one line on stderr and status 2, and a run stopped by a signal into status 128 + its number
    (Ctrl-C: 130). Log messages go to stderr; with several processes, only those of the main one.

    A lost terminal ends nothing. go_on: for commands that write files, nor does a lost stdout; others end quietly, with the status of a
    broken pipe.
    """
    if main is None:
        return functools.partial(exit_on_user_error, go_on=go_on)

    @functools.wraps(main)
    def wrapped(*arguments, **options) -> int:
        start.give_back()
        try:
            # under torchrun a process may wait for others, and Python would not hear a signal
            with enduring_streams(go_on), contextlib.nullcontext() if distributed.launched() else ending_signals():
                return called(*arguments, **options)
        except ReaderGone:
            return BROKEN_PIPE

    def called(*arguments, **options) -> int:
        level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(CleanFormatter())
        logging.basicConfig(level=level, handlers=[handler])
        if hasattr(sys.stdout, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads
                sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
        with contextlib.redirect_stdout(CleanStream(sys.stdout)):
            status = status_of(main, *arguments, **options)
        distributed.leave(status)
        return status

    return wrapped


def status_of(main: Callable[..., int | None], *arguments, **options) -> int:
    """Call `main`, print its error if it fails, and return the exit status."""
    try:
        return main(*arguments, **options) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        file = error.filename2 or error.filename or "a file"  # the second one is what a new file was to replace
        print(one_line(f"error: {file}: {error.strerror or error}"), file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if "home directory" in str(error):  # of pathlib
            print("error: a path begins with ~ and names no home directory: write it in full, or begin it with ./", file=sys.stderr)
            return 2
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "not enough memory" not in str(error):
            raise
        print("error: out of memory: lower batch_size (training.batch_size), data.size or the networks' width", file=sys.stderr)
        return 2
    except Stopped as error:
        if isinstance(error, Ended):
            print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class CleanFormatter(logging.Formatter):
    """Messages alone, without control characters: names and contents of files end up in them. What is put into a message has one line."""

    def format(self, record: logging.LogRecord) -> str:
        shown = logging.makeLogRecord(vars(record))
        if isinstance(record.args, tuple):
            shown.args = tuple(one_line(str(part)) if isinstance(part, TEXT) else part for part in record.args)
        return clean(super().format(shown))


class CleanStream:
    """A stream to which control characters are written escaped, except for line breaks and tabs: a terminal would act on them."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(clean(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors. What is missing is said with the description's first example of this command.

    where: where a user finds what is missing, in words.
    """

    MISSING = "the following arguments are required: "

    def __init__(self, *arguments, where: str | None = None, **options):
        super().__init__(*arguments, **options)
        self.where = where
        self.given: list[str] = []

    def parse_known_args(self, args=None, namespace=None):
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if (unknown := self.unknown(message)) is not None:  # said first: it may be what is missing, misspelt
            close = difflib.get_close_matches(unknown.partition("=")[0], self._option_string_actions, n=1)
            message = f"unknown option {unknown}" + (f"; did you mean {close[0]}?" if close else "")
        elif number := re.fullmatch(r"argument (.+): invalid (int|float) value: (.+)", message):
            name, kind, value = number.groups()
            message = f"{name} must be a {'whole number' if kind == 'int' else 'number'}, not {value}"
        elif message.startswith(self.MISSING):
            where = f" ({self.where})" if self.where else ""
            example = self.example()
            message = f"missing: {message.removeprefix(self.MISSING)}{where}" + (f"; for example: {example}" if example else "")
        raise UserError(f"{message} (see --help)")

    def unknown(self, message: str) -> str | None:
        """The first word that looks like an option and is none, if that is why argparse says this; None otherwise."""
        others = "unrecognized arguments: "
        if message.startswith(others):
            words = message.removeprefix(others).split()
        elif message.startswith(self.MISSING) and self._subparsers is None:  # otherwise the words may be options of a part
            words = self.given[: self.given.index("--")] if "--" in self.given else self.given
            words = [word for word in words if not any(known.startswith(word.partition("=")[0]) for known in self._option_string_actions)]
        else:
            words = []
        return next((word for word in words if word.startswith("--")), None)

    def example(self) -> str | None:
        """The first example of this command in the description, without optional parts and what is said about it; None if there is none."""
        lines = [re.split(r"  +| \[|\\\\?$", line.strip())[0] for line in (self.description or "").splitlines() if line.startswith("    ")]
        lines = [line for line in lines if line.startswith(("strdiffusion ", "python "))]
        return next((line for line in lines if line.startswith(f"{self.prog} ")), lines[0] if lines else None)


def parse_options(
    description: str, arguments: Sequence[str] | None = None, prog: str | None = None, dry_run: bool = False
) -> argparse.Namespace:
    """Parse the options of every YAML-driven command: `-opt FILE` and `key=value` overrides (attributes opt, overrides).

    dry_run: also accept the flag `--dry-run` (attribute dry_run).
    """
    parser = OneLineParser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="YAML configuration, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file, for example training.batch_size=8")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="check everything, report what the run would cost, and write nothing")
    return parser.parse_intermixed_args(arguments)
