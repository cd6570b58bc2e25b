"""Which device to compute on."""

import platform

import torch

from strdiffusion.errors import UserError


def set_float32_precision(precision: str) -> None:
    """Let CUDA compute float32 in float32, or in TensorFloat-32 where the option `precision` is `tf32`.

    PyTorch's default, TF32 in convolutions, moves scores by 1e-3, enough to change what adaptive resampling decides.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def device_name(device: torch.device) -> str:
    """What computes: the name of a GPU, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def choose_device(name: str) -> torch.device:
    """The device of an option `auto`, `cuda`, `mps` or `cpu`; auto takes the first of these that is there."""
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there()))
    if not available[name]():
        raise UserError(f"device={name} is not available on this machine: use device=auto or device=cpu")
    return torch.device(name)
