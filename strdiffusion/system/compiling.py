"""torch.compile as an option: its requirements are checked first, and its failures are reported in one line."""

import contextlib
import functools
import importlib.util
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import nn

from strdiffusion.system.errors import UserError

COMPILERS = {"cpu": ("CXX", ("g++", "clang++", "c++", "cl")), "cuda": ("CC", ("gcc", "clang"))}  # of Inductor's code; of Triton's launchers
OFF = "set compile=false"


def require_compiler(device: torch.device) -> None:
    """Raise UserError if torch.compile cannot generate code for the device."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(f"compile=true needs Triton for a GPU, which is not installed: pip install triton, or {OFF}")
    variable, compilers = COMPILERS.get(device.type, COMPILERS["cpu"])
    named = os.environ.get(variable)
    if not any(map(shutil.which, [named] if named else compilers)):
        language = "C" if variable == "CC" else "C++"
        raise UserError(f"compile=true needs a {language} compiler, and {named or compilers[0]} was not found: install one, or {OFF}")


def compiled(module: nn.Module, device: torch.device) -> nn.Module:
    """The module compiled by torch.compile for inference, with CUDA graphs on a GPU.

    Code is generated at the first call with each size; that call raises UserError if this fails. Raises UserError if there is no compiler.
    """
    require_compiler(device)
    options = {"triton.cudagraphs": True} if device.type == "cuda" else {}
    return Explained(torch.compile(module, options=options), copy=device.type == "cuda")


class Explained(nn.Module):
    """A compiled function that raises UserError if it cannot be compiled.

    copy: return a copy of the output, which the next run of a CUDA graph would overwrite.
    """

    def __init__(self, function: Callable, copy: bool):
        super().__init__()
        self.function, self.copy = function, copy

    def forward(self, *args, **options):
        if self.copy:
            share_graphs()
        output = explain(self.function)(*args, **options)
        return output.clone() if self.copy else output


GRAPHS: dict[str, object] = {}


def share_graphs() -> None:
    """Let this thread make and use CUDA graphs. Torch gives only the thread that imports their module what keeps them, and fails by an
    assertion in others, such as those of the page, one for each job. They compute one at a time, so all share it.
    """
    with contextlib.suppress(ImportError, AttributeError):  # it is not public
        from torch._inductor.cudagraph_trees import local

        for name, make in (("tree_manager_containers", dict), ("tree_manager_locks", lambda: defaultdict(threading.Lock))):
            if not hasattr(local, name):
                setattr(local, name, GRAPHS[name] if name in GRAPHS else make())
            GRAPHS.setdefault(name, getattr(local, name))


def explain(function: Callable) -> Callable:
    """The function, with failures of torch.compile raised as UserError."""

    @functools.wraps(function)
    def call(*args, **options):
        try:
            return function(*args, **options)
        except Exception as error:
            compiler = sys.modules.get("torch._dynamo.exc")  # not imported here: the import takes seconds, also for other errors
            if compiler is None or not isinstance(error, compiler.TorchDynamoException):
                raise
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"compile=true failed on this machine ({reason}): {OFF}") from None

    return call
