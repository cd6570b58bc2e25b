"""What the page's scripts may say to Gradio: calls of the page's own functions, with values of the forms that its controls send."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from strdiffusion.app.composition import MOST_OBJECTS
from strdiffusion.app.web.composing import Arranged, ArrangedObject
from strdiffusion.app.web.painting import PREFIX, Painted

MOST_BYTES = 4_000_000  # of a call: two layers of strokes as PNG are much smaller
MOST_SYNTAX = 32_768  # bytes outside of texts: what a parser makes of them takes memory
LONGEST = 200  # characters of a text that is no layer
LARGEST = 10**15
KEYS = {"data", "event_data", "fn_index", "trigger_id", "session_hash"}
PARTS = {field.name for cls in (Painted, Arranged, ArrangedObject) for field in fields(cls)}
VISIT = re.compile(r"[a-z0-9]{1,32}")
TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Malformed(Exception):
    """A call that the page's scripts do not make."""


@dataclass(frozen=True)
class Function:
    """A function of the page. inputs: how many values it takes. queued: whether it is called through the queue."""

    inputs: int
    queued: bool


def read_call(body: bytes, functions: Mapping[int, Function], queued: bool) -> dict[str, Any]:
    """A call of one of the functions, checked. Raises Malformed.

    Nothing in it can be one of Gradio's descriptions of a file, which it would look up: dictionaries have the page's own keys alone.
    """
    if len(TEXTS.sub(b"", body)) > MOST_SYNTAX:
        raise Malformed("it holds too much")
    try:
        call = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(call, ensure_ascii=False).encode("utf-8")  # no halves of characters
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        raise Malformed("it is not JSON") from None
    if not isinstance(call, dict) or not call.keys() <= KEYS:
        raise Malformed("it has other keys")
    function = functions.get(call["fn_index"]) if _is_count(call.get("fn_index")) else None
    if function is None or function.queued != queued:
        raise Malformed("there is no such function")
    if not isinstance(visit := call.get("session_hash"), str) or not VISIT.fullmatch(visit):
        raise Malformed("it has no session")
    if call.get("trigger_id") is not None and not _is_count(call["trigger_id"]):
        raise Malformed("its trigger is not a number")
    if not isinstance(data := call.get("data"), list) or len(data) != function.inputs:
        raise Malformed(f"its data are not {function.inputs} values")
    for value in data:
        _require_value(value)
    return {"data": data, "event_data": None, "fn_index": call["fn_index"], "trigger_id": call.get("trigger_id"), "session_hash": visit}


def without_layers(call: dict[str, Any]) -> dict[str, Any]:
    """The call without what was painted and arranged, so that it is small."""
    return call | {"data": [None if isinstance(value, dict) else value for value in call["data"]]}


def _require_value(value: object, depth: int = 0) -> None:
    """Raise Malformed unless a value is a scalar, or a dictionary of scalars and lists of dictionaries of scalars, with known keys."""
    if isinstance(value, str):
        if len(value) > LONGEST and not value.startswith(PREFIX):
            raise Malformed("a text is too long")
    elif isinstance(value, int | float):
        if not -LARGEST <= value <= LARGEST:
            raise Malformed("a number is too large")
    elif isinstance(value, dict) and depth in (0, 2):
        if not value.keys() <= PARTS:
            raise Malformed("a value has other keys")
        for part in value.values():
            _require_value(part, depth + 1)
    elif isinstance(value, list) and depth == 1:
        if len(value) > MOST_OBJECTS + 1:  # one more is answered by what is allowed
            raise Malformed("a list is too long")
        for part in value:
            _require_value(part, depth + 1)
    elif value is not None:
        raise Malformed("a value has an odd form")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
