"""From a configuration to a trained network."""

import contextlib
from pathlib import Path

from strdiffusion.config import TrainConfig, save_config
from strdiffusion.networks import Kind
from strdiffusion.system import distributed
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import LOCK, output_folder
from strdiffusion.system.parser import read_yaml
from strdiffusion.training.folder import BEST, LATEST, CheckpointFolder
from strdiffusion.training.interrupt import StopRequest
from strdiffusion.training.journal import Journal, log_file, log_start
from strdiffusion.training.loading import training_loader
from strdiffusion.training.loop import Loop, Watch
from strdiffusion.training.preparation import prepare
from strdiffusion.training.start import begin

CONFIG = "config.yml"
WRITTEN = (LATEST, BEST, CONFIG, "metrics.jsonl", "status.txt", "log.txt", "tensorboard")


def train(kind: Kind, config: TrainConfig, watch: Watch | None = None, progress: bool = True) -> Path:
    """Train the network `kind` as configured, alone or as one of the processes of torchrun; returns the newest checkpoint.

    watch: called after every iteration with the state and the share that is done; if it returns False, the training is finished there.
    progress: whether a bar on the terminal shows how far it is.
    Raises UserError for what the user can mend, and Stopped if a signal ended the run, with everything saved.
    """
    with distributed.processes(config.device) as device, contextlib.ExitStack() as stack:
        prepared = prepare(kind, config, device)
        shares, dataset = prepared.shares, prepared.dataset

        folder = distributed.on_main(lambda: open_folder(config, stack))
        stack.enter_context(log_file(folder, distributed.is_main()))
        stop = stack.enter_context(StopRequest())
        files = CheckpointFolder(folder, config.training.keep)
        state = prepared.new_state(files)
        log_start(kind, config, state.task.network, len(dataset), sum(map(len, prepared.validation)), device)
        state.resume(config.resume)
        begin(state, config)
        distributed.on_main(lambda: save_config(config, folder / CONFIG))
        shares.warn(kind)
        journal = Journal(folder, kind, config, state.step, state.standing.validated, distributed.is_main())
        loader = training_loader(config, dataset, shares, state.step, device)
        Loop(prepared, state, journal, stop, watch, progress).run(loader)
        return files.latest


def open_folder(config: TrainConfig, stack: contextlib.ExitStack) -> Path:
    """Create the output folder, or take an existing one if the run continues in it, and hold it in `stack`. Raises UserError."""
    how_to = "continue with resume=auto, or set another output=FOLDER" if not resumes_here(config) else "set another output=FOLDER"
    folder = stack.enter_context(output_folder(config.output, lambda path: resumes_here(config) or never_began(path), how_to))
    check_owner(folder)
    if not (folder / CONFIG).exists():  # by it the folder is known as that of a training, however soon the run is killed
        save_config(config, folder / CONFIG)
    return folder


def check_owner(folder: Path) -> None:
    """Raise UserError if a training would overwrite files that are not of a training."""
    path = folder / CONFIG
    config = read_yaml(path) if path.exists() else {}
    foreign = "training" not in config if config else any((folder / name).exists() for name in WRITTEN)
    if foreign:
        raise UserError(f"the output folder {folder} holds files that are not of a training: set another output=FOLDER")


def never_began(folder: Path) -> bool:
    """Whether all that a folder holds is of a training that ended before its first iteration, as one whose data cannot be read does."""
    if not (folder / CONFIG).exists() or any(file.name not in (*WRITTEN, LOCK) for file in folder.iterdir()):
        return False
    numbers = folder / "metrics.jsonl"
    return not (folder / LATEST).exists() and (not numbers.exists() or numbers.stat().st_size == 0)


def resumes_here(config: TrainConfig) -> bool:
    """Whether the run continues in the folder of its checkpoint, so that the files there are its own."""
    if config.resume in ("none", "auto"):
        return config.resume == "auto"
    return Path(config.resume).expanduser().resolve().parent == Path(config.output).expanduser().resolve()
