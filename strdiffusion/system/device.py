"""The device to compute on, its precision and its memory."""

import contextlib
import ctypes
import functools
import platform
from collections.abc import Iterator

import torch

from strdiffusion.system.errors import Option, UserError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def set_float32_precision(precision: str) -> None:
    """Make CUDA compute float32 in full precision, or in TensorFloat-32 if the option `precision` is `tf32`. Applies to the whole process.

    PyTorch's default, TF32 in convolutions, changes scores by 1e-3, enough to change the decisions of adaptive resampling.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def require_precision(precision: str, device: torch.device) -> None:
    """Raise UserError if the device has no fast kernels for the option `precision`."""
    if precision == "fp16" and device.type == "cpu":
        raise UserError(Option("precision", "fp16"), " needs a GPU: on a CPU use ", Option("precision", "bf16"), " or fp32")
    if precision == "tf32" and device.type != "cuda":
        advice = " is a way of NVIDIA's GPUs to compute: without one use "
        raise UserError(Option("precision", "tf32"), advice, Option("precision", "fp32"), " or bf16")


@contextlib.contextmanager
def float32_precision(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which a GPU computes float32 as `set_float32_precision` does; the earlier setting is restored afterwards."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    set_float32_precision(precision)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@functools.cache
def keep_memory(device: torch.device) -> None:
    """Make a CPU process keep the memory that it frees, if its C library is glibc; otherwise do nothing.

    glibc returns freed blocks above 32 MiB (a feature map of 128 channels at 256x256) to the system, which clears each new block:
    that takes ten times as long as adding two such maps. The process then holds as much memory as it used at most.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
                mallopt(option, value)


def device_name(device: torch.device) -> str:
    """The device for people: the name of a GPU, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def choose_device(name: str) -> torch.device:
    """The device of the option `auto`, `cuda`, `mps` or `cpu`; `auto` takes the first available of the other three."""
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there()))
    if not available[name]():
        auto, cpu = Option("device", "auto"), Option("device", "cpu")
        raise UserError(Option("device", name), " is not available on this machine: use ", auto, " or ", cpu)
    return torch.device(name)
