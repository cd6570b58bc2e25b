"""What a training and its rehearsal (--dry-run) prepare alike, from a configuration."""

from dataclasses import dataclass

import torch
from torch import nn

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig
from strdiffusion.config.training import TrainingConfig
from strdiffusion.data import TrainingDataset
from strdiffusion.data.listing import require_folders
from strdiffusion.ddpm import DDPM
from strdiffusion.networks import GuidedUNet, Kind
from strdiffusion.networks.recompute import recompute_blocks
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import distributed, threads
from strdiffusion.system.compiling import require_compiler
from strdiffusion.system.device import keep_memory, require_precision, set_float32_precision
from strdiffusion.training.data import training_dataset, validation_batches
from strdiffusion.training.faults import FaultCounter
from strdiffusion.training.folder import CheckpointFolder
from strdiffusion.training.shares import Shares
from strdiffusion.training.state import TrainingState
from strdiffusion.training.task import Task
from strdiffusion.training.tasks import make_process, make_task


@dataclass(frozen=True)
class Prepared:
    """The parts of a training that stay the same while it runs, and the count of bad files."""

    config: TrainConfig
    device: torch.device
    process: MeanRevertingSDE | DDPM | None
    shares: Shares
    task: Task
    dataset: TrainingDataset
    validation: list[Batch]
    faults: FaultCounter

    def new_state(self, files: CheckpointFolder) -> TrainingState:
        """Move the network to the device. Returns the state of a training that begins. Raises UserError if the device is not fit for it."""
        prepare_network(self.task.network, self.config.training, self.config.precision, self.device)
        return TrainingState(files, self.task, self.process, self.config, self.device)


def prepare(kind: Kind, config: TrainConfig, device: torch.device) -> Prepared:
    """Seed the generators, make the network `kind` and list the data. Raises UserError for what the user can mend."""
    set_float32_precision(config.precision)
    threads.fit(config.training.batch_size * config.data.size**2)
    torch.manual_seed(config.seed)
    data, validation = config.data, config.validation
    require_folders(
        {
            "data.images": data.images,
            "data.masks.folder": data.masks.folder,
            "data.labels": data.labels,
            "validation.images": validation.images,
            "validation.masks.folder": validation.masks.folder if validation.images else None,
        }
    )
    process = make_process(config)
    shares = Shares(config.training, distributed.rank(), distributed.count())
    task = make_task(kind, config, process)
    dataset = training_dataset(config)
    faults = FaultCounter(len(dataset), config.data.max_bad_share, len(dataset.masks.files))
    return Prepared(config, device, process, shares, task, dataset, validation_batches(config), faults)


def prepare_network(network: nn.Module, options: TrainingConfig, precision: str, device: torch.device) -> None:
    """Move a network to the device, with what makes training fast, or small in memory: none of it changes what is computed but by rounding.

    Raises UserError if the device cannot do it.
    """
    require_precision(precision, device)
    keep_memory(device)
    on_cpu = device.type == "cpu" and isinstance(network, GuidedUNet)  # there the gradient of group norms is slow in channels last
    network.to(device, memory_format=torch.contiguous_format if on_cpu else torch.channels_last)
    if options.checkpoint:
        recompute_blocks(network)
    if options.compile:
        require_compiler(device)
        network.compile()
