"""What every command line shares."""

import argparse
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch

from strdiffusion.errors import UserError


def exit_on_user_error(main: Callable[..., int | None]) -> Callable[..., int]:
    """Turn a UserError into one line on stderr and status 2, Ctrl-C into status 130; show notices on stderr."""

    @functools.wraps(main)
    def wrapped(*arguments, **options) -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        try:
            return main(*arguments, **options) or 0
        except UserError as error:
            # an error in a worker process comes with that process's traceback in its text
            line = str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
            print(f"error: {line}", file=sys.stderr)
            return 2
        except OSError as error:
            print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
            return 2
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "not enough memory" not in str(error):
                raise
            print("error: out of memory: lower batch_size (training.batch_size), data.size or the networks' width", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapped


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def parse_options(description: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """The options every YAML-driven command takes: `-opt FILE` and `key=value` overrides (attributes opt, overrides)."""
    parser = OneLineParser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="YAML configuration, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file, for example training.batch_size=8")
    return parser.parse_intermixed_args(arguments)
