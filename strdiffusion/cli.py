"""What every script's command line shares."""

import functools
import logging
import sys
from collections.abc import Callable

from strdiffusion.errors import UserError


def exit_on_user_error(main: Callable[[], int | None]) -> Callable[[], int]:
    """Turn a UserError into one line on stderr and status 2, Ctrl-C into status 130; show notices on stderr."""

    @functools.wraps(main)
    def wrapped() -> int:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        try:
            return main() or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapped
