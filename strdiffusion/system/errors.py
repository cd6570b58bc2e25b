"""Errors that a user can act on, and safe text for messages about untrusted values."""

import itertools
import reprlib
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_NAMED = 3
PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Option:
    """An option that a message names, written as in files and in Python: "sampler.steps", "device=cpu", "a.yml: steps".

    name: with dots, as in files. value: that it has or may have; None if the message names none. where: what gave it, a file or "the call".
    """

    name: str
    value: object = None
    where: str = ""

    def __str__(self) -> str:
        return (f"{self.where}: " if self.where else "") + self.name + ("" if self.value is None else f"={self.value}")


class UserError(Exception):
    """Something the user gave is wrong: a file, an option, a checkpoint.

    The message is one line: what is wrong, where, and what to do about it. Control characters in it, which names and contents of files
    may hold, are escaped. The command line prints it without a traceback and exits with status 2.

    parts: of the message, one after the other. An `Option` among them can be written otherwise by who knows what the user typed.
    """

    def __init__(self, *parts: object):
        super().__init__("".join(one_line(str(part)) for part in parts))
        self.parts = parts

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of the traceback: the message, and the user's line that led to it. IPython asks for this."""
        calls = list(itertools.takewhile(lambda call: not call.filename.startswith(PACKAGE), traceback.extract_tb(self.__traceback__)))
        where = f"line {calls[-1].lineno}: {calls[-1].line}" if calls and calls[-1].line else ""
        return [f"{type(self).__name__}: {self}", *([where] if where else [])]

    def spelled(self, spell: Callable[[Option], str]) -> "UserError":
        """The same error with its options as `spell` writes them."""
        return UserError(*(spell(part) if isinstance(part, Option) else part for part in self.parts))


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
