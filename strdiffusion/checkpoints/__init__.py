"""Checkpoints: files.py reads and writes them safely, networks.py turns them into networks, released.py knows the release's names."""

from strdiffusion.checkpoints.files import read_checkpoint, write_checkpoint
from strdiffusion.checkpoints.networks import (
    LoadedNetwork,
    export_released,
    load_network,
    network_record,
    require_same_process,
    save_released,
)

__all__ = [
    "LoadedNetwork", "export_released", "load_network", "network_record", "read_checkpoint",
    "require_same_process", "save_released", "write_checkpoint",
]  # fmt: skip
