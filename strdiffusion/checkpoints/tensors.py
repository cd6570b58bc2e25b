"""Weights as safetensors files: names and numbers only, stored in float32, float16 or bfloat16, and loaded as float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from strdiffusion.checkpoints.files import compare_entries
from strdiffusion.checkpoints.networks import CANNOT_BUILD, LoadedNetwork, fill_network, network_on_meta
from strdiffusion.networks import Kind
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import require_regular, write_atomically

StorageType = Literal["float32", "float16", "bfloat16"]
STORAGE_TYPES: dict[StorageType, torch.dtype] = {name: getattr(torch, name) for name in get_args(StorageType)}
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def save_tensors(path: Path, state: Mapping[str, Tensor], dtype: StorageType = "float32") -> None:
    """Write a state dict, whole or not at all.

    Vectors (biases, and the stored singular vectors of spectral norm) stay float32: they are small, and rounding them costs accuracy.
    Raises UserError if a value is beyond the range of `dtype`, or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save

    kept = {
        name: value.detach().to("cpu", STORAGE_TYPES[dtype] if value.dim() > 1 else torch.float32).contiguous()
        for name, value in state.items()
    }
    broken = next((name for name, value in kept.items() if not value.isfinite().all()), None)
    if broken:
        raise UserError(f"{path} cannot be written as {dtype}: {broken} holds values beyond its range; use float32 or bfloat16")
    try:
        write_atomically(path, save(kept), durable=True)  # save_file would give a file that other users cannot read
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {reason}; free some space or change the folder") from None


def load_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a safetensors file. Its entries must have the names and shapes of `expected`; they are compared before anything is read.

    Raises UserError naming the file if it is missing or damaged, or has other entries or a type that is not a `StorageType`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            found = {name: file.get_slice(name) for name in names}
            shapes = {name: torch.empty(piece.get_shape(), device="meta") for name, piece in found.items()}
            difference = compare_entries(expected, shapes)
            if difference:
                raise UserError(f"the weights {path} do not fit the network that model.yml describes: {difference}")
            other = next((name for name, piece in found.items() if piece.get_dtype() not in NAMES), None)
            if other:
                raise UserError(f"the weights {path} hold {found[other].get_dtype()} (in {other}): store {', '.join(STORAGE_TYPES)}")
            # copied: the tensor is a view of the file, with any alignment, and would change with the file
            return {name: file.get_tensor(name).to(torch.float32, copy=True) for name in names}
    except FileNotFoundError:
        raise UserError(f"the weights {path} do not exist, but model.yml names them: get the file, or save the model again") from None
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"the weights {path} are truncated or damaged ({' '.join(str(error).split())[:120]}): get the file again") from None


def network_from_tensors(path: Path, kind: Kind, architecture: dict, **recorded) -> LoadedNetwork:
    """Build a network from a safetensors file and its description, in evaluation mode, on the CPU, in float32.

    recorded: the fields of `LoadedNetwork` that model.yml holds: prediction, step, sde, structure, process.
    """
    try:
        network: nn.Module = network_on_meta(kind, architecture)
    except CANNOT_BUILD as error:
        raise UserError(f"{path.parent / 'model.yml'} describes no {kind} network that can be built ({error})") from None
    fill_network(path, network, load_tensors(path, network.state_dict()), {name: name for name in network.state_dict()})
    network.eval().requires_grad_(False)
    return LoadedNetwork(kind, network, path, released=False, **recorded)
