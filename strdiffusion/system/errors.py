"""Errors that a user can act on, and safe text for messages about untrusted values."""

import reprlib
import signal
from collections.abc import Iterable

MAX_NAMED = 3


class UserError(Exception):
    """Something the user gave is wrong: a file, an option, a checkpoint.

    The message is one line: what is wrong, where, and what to do about it. Control characters in it, which names and contents of files
    may hold, are escaped. The command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, *arguments: object):
        super().__init__(*(one_line(part) if isinstance(part, str) else part for part in arguments))


class Stopped(KeyboardInterrupt):
    """A signal ended a run early, and everything is saved. The status is 128 + the signal's number, as in shells."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


def one_line(text: str) -> str:
    """The text with line breaks and other control characters escaped as in a Python literal, so that a terminal does not act on them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clean(text: str) -> str:
    """The text with control characters escaped as by `one_line`, except for line breaks and tabs: for text of several lines."""
    return "".join(c if c in "\n\t" else one_line(c) for c in text) if not text.isprintable() else text


def some(names: Iterable[object]) -> str:
    """The first few names, as text."""
    names = [str(name) for name in names]
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "") if names else "nothing"


def brief(value: object) -> str:
    """A short repr of a value from an untrusted file, however large or nested it is."""
    try:
        return one_line(_BRIEF.repr(value))
    except Exception:  # for example, an integer with more digits than Python converts
        return f"a {type(value).__name__}"


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxtuple = 3, 8, 6, 6
_BRIEF.maxstring = _BRIEF.maxother = 80
