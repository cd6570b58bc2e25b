"""From a configuration to a trained network."""

import contextlib
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from strdiffusion.config import TrainConfig, save_config
from strdiffusion.data import StepSampler, TrainingDataset
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import distributed
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import claim_output_folder
from strdiffusion.system.parser import read_yaml
from strdiffusion.training.data import training_dataset, validation_batches
from strdiffusion.training.faults import FaultCounter, SkippingDataset, collate_samples
from strdiffusion.training.folder import BEST, LATEST, LOCK, CheckpointFolder, only_run
from strdiffusion.training.interrupt import StopRequest, ignore_signals
from strdiffusion.training.journal import Journal, log_file, log_start
from strdiffusion.training.loop import Loop
from strdiffusion.training.shares import Shares
from strdiffusion.training.speed import prepare_network
from strdiffusion.training.state import TrainingState
from strdiffusion.training.tasks import TASKS, Task

WRITTEN = (LATEST, BEST, "config.yml", "metrics.jsonl", "status.txt", "log.txt", "tensorboard")


def train(kind: str, config: TrainConfig) -> Path:
    """Train the network `kind` as configured, alone or as one of the processes of torchrun; returns the newest checkpoint.

    Raises UserError for what the user can mend, and Stopped where a signal ended the run, with everything saved.
    """
    with distributed.processes(config.device) as device, contextlib.ExitStack() as stack:
        set_float32_precision(config.precision)
        torch.manual_seed(config.seed)
        sde = MeanRevertingSDE(**vars(config.sde))
        shares = Shares(config.training, distributed.rank(), distributed.count())
        task: Task = TASKS[kind](config, sde)
        dataset = training_dataset(config)
        validation = validation_batches(config)

        folder = distributed.on_main(lambda: open_folder(config))
        distributed.on_main(lambda: stack.enter_context(only_run(folder)) and None)
        stack.enter_context(log_file(folder, distributed.is_main()))
        stop = stack.enter_context(StopRequest())
        prepare_network(task.network, config.training, config.precision, device)
        files = CheckpointFolder(folder, config.training.keep)
        state = TrainingState(files, task, sde, config, device)
        log_start(kind, config, task.network, len(dataset), sum(map(len, validation)), device)
        state.resume(config.resume)
        distributed.on_main(lambda: prepare(files, config))
        shares.warn(kind)
        journal = Journal(folder, kind, config, state.step, state.progress.validated, distributed.is_main())
        loader = training_loader(config, dataset, shares, state.step, device)
        faults = FaultCounter(len(dataset), config.data.max_bad_share, len(dataset.masks.files))
        Loop(task, config, state, shares, journal, validation, faults, stop, device).run(loader)
        return files.latest


def training_loader(config: TrainConfig, dataset: TrainingDataset, shares: Shares, step: int, device: torch.device) -> DataLoader:
    """This process's parts of the global batches, from iteration `step` on."""
    return DataLoader(
        SkippingDataset(dataset),
        batch_size=shares.size,
        collate_fn=collate_samples,
        sampler=StepSampler(step, shares.batch_size, shares.positions.flatten().tolist()),
        num_workers=config.data.workers,
        worker_init_fn=ignore_signals,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(config.seed),  # else it draws from the state of training
    )


def open_folder(config: TrainConfig) -> Path:
    """Create the output folder, or take up an existing one where the run continues in it. Raises UserError."""
    folder = claim_output_folder(config.output, resumes_here(config), "continue with resume=auto, or set another output=FOLDER")
    check_owner(folder)
    return folder


def check_owner(folder: Path) -> None:
    """Raise UserError where files that a training would write over are not of a training."""
    path = folder / "config.yml"
    config = read_yaml(path) if path.exists() else {}
    if config:
        foreign = "training" not in config
    else:  # a run that was killed early has locked the folder
        foreign = not (folder / LOCK).exists() and any((folder / name).exists() for name in WRITTEN)
    if foreign:
        raise UserError(f"the output folder {folder} holds files that are not of a training: set another output=FOLDER")


def resumes_here(config: TrainConfig) -> bool:
    """Whether the run continues in the folder that it comes from, so that files in it are its own."""
    if config.resume in ("none", "auto"):
        return config.resume == "auto"
    return Path(config.resume).expanduser().resolve().parent == Path(config.output).expanduser().resolve()


def prepare(files: CheckpointFolder, config: TrainConfig) -> None:
    """Tidy the folder up and write the configuration into it."""
    files.remove_unfinished()
    save_config(config, files.path / "config.yml")
