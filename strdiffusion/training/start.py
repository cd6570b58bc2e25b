"""The network that a training begins with, if it is not a new one."""

import logging
from pathlib import Path

from strdiffusion.checkpoints import LoadedNetwork, load_network, require_same_process
from strdiffusion.config import TrainConfig, TrainSDEConfig
from strdiffusion.methods.loading import DESCRIPTION, load_folder
from strdiffusion.networks import Kind
from strdiffusion.system.errors import UserError, brief
from strdiffusion.training.state import TrainingState

log = logging.getLogger(__name__)


def begin(state: TrainingState, config: TrainConfig) -> None:
    """Begin with the network that the configuration names, unless the training is resumed. Raises UserError if it does not fit."""
    if config.start is None or state.step > 0:
        return
    loaded = network_at(Path(config.start).expanduser(), state.task.kind)
    wanted, found = state.task.network.architecture(), loaded.network.architecture()
    differences = [f"{name} {brief(found.get(name))}, not {brief(value)}" for name, value in wanted.items() if found.get(name) != value]
    if loaded.prediction != state.task.prediction:
        differences.append(f"predicts {loaded.prediction}, not {state.task.prediction}")
    if differences:
        raise UserError(f"start={config.start} does not fit: its network has {', '.join(differences)}; set the options of `network` alike")
    if isinstance(config, TrainSDEConfig):
        require_same_process(loaded, config.sde, config.structure)
    state.begin(loaded.network)
    log.info("it starts from the weights of %s", config.start)


def network_at(path: Path, kind: Kind) -> LoadedNetwork:
    """The network of a kind in a model folder or a checkpoint. Raises UserError if there is none."""
    if not path.is_dir():
        return load_network(path, kind)
    if not (path / DESCRIPTION).is_file():
        raise UserError(f"start={path} is a folder without {DESCRIPTION}: give a model folder, or a checkpoint")
    loaded = getattr(load_folder(path).networks, kind, None)
    if loaded is None:
        raise UserError(f"start={path} has no {kind} network: give another model folder, or a checkpoint")
    return loaded
