"""What makes training fast, or small in memory: each an option, and none changes what is computed but by rounding."""

import torch
from torch import nn

from strdiffusion.config.training import TrainingConfig
from strdiffusion.networks.recompute import recompute_blocks
from strdiffusion.system.compiling import require_compiler
from strdiffusion.system.device import keep_memory, require_precision


def prepare_network(network: nn.Module, options: TrainingConfig, precision: str, device: torch.device) -> None:
    """Move a network to the device, channels last, and set it up as configured. Raises UserError where the device cannot."""
    require_precision(precision, device)
    keep_memory(device)
    network.to(device, memory_format=torch.channels_last)
    if options.checkpoint:
        recompute_blocks(network)
    if options.compile:
        require_compiler(device)
        network.compile()
