"""Checkpoints: files.py reads and writes them safely, networks.py turns them into networks, released.py translates the release's
names, tensors.py stores weights as safetensors.
"""

from strdiffusion.checkpoints.files import read_checkpoint, write_checkpoint
from strdiffusion.checkpoints.networks import (
    LoadedNetwork,
    export_released,
    load_network,
    network_record,
    require_same_process,
    save_released,
)
from strdiffusion.checkpoints.tensors import StorageType, network_from_tensors, save_tensors

__all__ = [
    "LoadedNetwork",
    "StorageType",
    "export_released",
    "load_network",
    "network_from_tensors",
    "network_record",
    "read_checkpoint",
    "require_same_process",
    "save_released",
    "save_tensors",
    "write_checkpoint",
]
