"""Networks without memory: their entries with names and shapes, to compare with those of a file before anything is allocated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FILLS = {"normal_", "uniform_", "fill_", "zero_", "normalize"}  # and all of torch.nn.init


@contextmanager
def shapes_alone() -> Iterator[None]:
    """A context in which networks are built on the meta device, and no initial value is computed: torch would do that in Python even
    there, by a compiler that takes two seconds to import.
    """
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    """Leaves out what only fills tensors, and the products and the quotient of spectral norms."""

    def __torch_function__(self, function: Callable, types: Any, arguments: tuple = (), options: dict | None = None) -> Any:
        options = options or {}
        name = getattr(function, "__name__", "")
        if name in FILLS or getattr(function, "__module__", "") == "torch.nn.init":
            return arguments[0] if arguments else options["tensor"]
        if name == "div" and arguments[0].is_floating_point() and not getattr(arguments[1], "shape", ()):
            return arguments[0]
        if name == "mv":
            return arguments[0].new_empty(arguments[0].shape[0])
        if name == "vdot":
            return arguments[0].new_empty(())
        return function(*arguments, **options)
