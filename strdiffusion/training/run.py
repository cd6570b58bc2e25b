"""From a configuration to a trained network."""

import contextlib
from pathlib import Path

from strdiffusion.config import TrainConfig, save_config
from strdiffusion.networks import Kind
from strdiffusion.system import distributed
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import claim_output_folder
from strdiffusion.system.parser import read_yaml
from strdiffusion.training.folder import BEST, LATEST, LOCK, CheckpointFolder, only_run
from strdiffusion.training.interrupt import StopRequest
from strdiffusion.training.journal import Journal, log_file, log_start
from strdiffusion.training.loading import training_loader
from strdiffusion.training.loop import Loop
from strdiffusion.training.preparation import prepare

WRITTEN = (LATEST, BEST, "config.yml", "metrics.jsonl", "status.txt", "log.txt", "tensorboard")


def train(kind: Kind, config: TrainConfig) -> Path:
    """Train the network `kind` as configured, alone or as one of the processes of torchrun; returns the newest checkpoint.

    Raises UserError for what the user can mend, and Stopped if a signal ended the run, with everything saved.
    """
    with distributed.processes(config.device) as device, contextlib.ExitStack() as stack:
        prepared = prepare(kind, config, device)
        shares, dataset = prepared.shares, prepared.dataset

        folder = distributed.on_main(lambda: open_folder(config))
        distributed.on_main(lambda: stack.enter_context(only_run(folder)) and None)
        stack.enter_context(log_file(folder, distributed.is_main()))
        stop = stack.enter_context(StopRequest())
        files = CheckpointFolder(folder, config.training.keep)
        state = prepared.new_state(files)
        log_start(kind, config, state.task.network, len(dataset), sum(map(len, prepared.validation)), device)
        state.resume(config.resume)
        distributed.on_main(lambda: tidy(files, config))
        shares.warn(kind)
        journal = Journal(folder, kind, config, state.step, state.standing.validated, distributed.is_main())
        loader = training_loader(config, dataset, shares, state.step, device)
        Loop(prepared, state, journal, stop).run(loader)
        return files.latest


def open_folder(config: TrainConfig) -> Path:
    """Create the output folder, or take an existing one if the run continues in it. Raises UserError."""
    folder = claim_output_folder(config.output, resumes_here(config), "continue with resume=auto, or set another output=FOLDER")
    check_owner(folder)
    return folder


def check_owner(folder: Path) -> None:
    """Raise UserError if a training would overwrite files that are not of a training."""
    path = folder / "config.yml"
    config = read_yaml(path) if path.exists() else {}
    if config:
        foreign = "training" not in config
    else:  # a run that was killed early has locked the folder
        foreign = not (folder / LOCK).exists() and any((folder / name).exists() for name in WRITTEN)
    if foreign:
        raise UserError(f"the output folder {folder} holds files that are not of a training: set another output=FOLDER")


def resumes_here(config: TrainConfig) -> bool:
    """Whether the run continues in the folder of its checkpoint, so that the files there are its own."""
    if config.resume in ("none", "auto"):
        return config.resume == "auto"
    return Path(config.resume).expanduser().resolve().parent == Path(config.output).expanduser().resolve()


def tidy(files: CheckpointFolder, config: TrainConfig) -> None:
    """Remove from the folder what a killed run left there, and write the configuration into it."""
    files.remove_unfinished()
    save_config(config, files.path / "config.yml")
