"""Load and save RePaint's networks: a prior and, for ImageNet, a classifier; from model folders, training runs and released files."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from strdiffusion.checkpoints import LoadedNetwork, StorageType, load_network, network_from_tensors, save_tensors
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.checkpoints.released_prior import Unrecorded
from strdiffusion.config.common import ProcessConfig
from strdiffusion.config.model import ClassifierRecord, PriorModelConfig, PriorNetworksConfig, PriorRecord
from strdiffusion.methods.loading import DESCRIPTION, recorded_size
from strdiffusion.samplers.prior import RepaintConfig
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import output_folder
from strdiffusion.system.parser import build, read_yaml, save_config


@dataclass
class PriorCheckpointsConfig:
    """The trained networks: a model folder, or a file for each network, one of our checkpoints or a released one.

    classifier: it guides the prior; null: no guidance. weights: of our checkpoints; a model folder holds one set.
    """

    folder: str | None = None
    prior: str | None = None
    classifier: str | None = None
    weights: Weights = "ema"

    def files(self) -> list[Path | None]:
        """Every file that the networks are read from; None for a network that is not given."""
        if self.folder is not None:
            folder = Path(self.folder).expanduser()
            return [folder / DESCRIPTION, *sorted(folder.glob("*.safetensors"))]
        return [None if path is None else Path(path).expanduser() for path in (self.prior, self.classifier)]

    def check(self) -> None:
        """Raise UserError if no prior is named, or two."""
        if self.folder is not None and (self.prior, self.classifier) != (None, None):
            raise UserError(f"checkpoints.folder is given beside separate files: set checkpoints={{folder: {self.folder}}} to replace them")
        if self.folder is None and self.prior is None:
            raise UserError("checkpoints.prior is missing: give it, or a model folder as checkpoints.folder")


class PriorModel(NamedTuple):
    """Prior and classifier (None: no guidance), with the configuration that describes them."""

    prior: LoadedNetwork
    classifier: LoadedNetwork | None
    config: PriorModelConfig

    def networks(self) -> list[LoadedNetwork]:
        return [self.prior] if self.classifier is None else [self.prior, self.classifier]

    def to(self, device: torch.device) -> None:
        """Move the networks, in place."""
        for loaded in self.networks():
            loaded.to(device)


def make_prior_model(networks: Iterable[LoadedNetwork], repaint: RepaintConfig | None = None, size: int | None = None) -> PriorModel:
    """The model of a prior and possibly a classifier. size: of the training images; None: as recorded, or 256.

    Raises UserError if they do not belong together.
    """
    found = {loaded.kind: loaded for loaded in networks}
    if "prior" not in found or not found.keys() <= {"prior", "classifier"}:
        raise UserError(f"RePaint's networks are a prior and possibly a classifier, not {', '.join(found)}")
    prior, classifier = found["prior"], found.get("classifier")
    if not prior.network.learned_sigma:
        raise UserError(f"the prior {prior.path} predicts no variance (3 output channels): RePaint needs one that does (6)")
    if classifier is not None and classifier.process != prior.process:
        raise UserError(f"the classifier {classifier.path} was trained with {classifier.process}, the prior with {prior.process}")
    provenance = [f"{n.kind}: {'released file' if n.released else 'checkpoint'} {n.path.name}" for n in found.values()]
    config = PriorModelConfig(
        networks=describe_prior(prior, classifier),
        size=size or recorded_size(prior.path) or (classifier.network.size if classifier else 256),
        process=ProcessConfig(**prior.process),
        repaint=repaint or RepaintConfig(steps=min(RepaintConfig.steps, prior.process["steps"])),
        provenance=provenance,
    )
    return PriorModel(prior, classifier, config)


def describe_prior(prior: LoadedNetwork, classifier: LoadedNetwork | None) -> PriorNetworksConfig:
    """The networks as model.yml records them."""
    record = PriorRecord(**prior.network.architecture(), prediction=prior.prediction, step=prior.step)
    return PriorNetworksConfig(record, None if classifier is None else ClassifierRecord(**classifier.network.architecture()))


def load_prior_folder(folder: Path) -> PriorModel:
    """Load RePaint's networks from a model folder. Raises UserError if it is none, or is damaged."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"checkpoints.folder={folder} has no {DESCRIPTION}: give a model folder, or checkpoints.prior")
    tree = read_yaml(path)
    if tree.get("method") != "repaint":
        raise UserError(f"{path} describes a model of the method {tree.get('method', 'strdiffusion')}, not of repaint")
    config = build(PriorModelConfig, tree, str(path))
    config.repaint.process(**vars_of_process(config.process))
    process = asdict(config.process)
    architecture = asdict(config.networks.prior)
    recorded = {name: architecture.pop(name) for name in ("prediction", "step")}
    prior = network_from_tensors(folder / "prior.safetensors", "prior", architecture, process=process, **recorded)
    classifier = None
    if config.networks.classifier is not None:
        of_classifier = asdict(config.networks.classifier)
        classifier = network_from_tensors(folder / "classifier.safetensors", "classifier", of_classifier, process=process)
    return PriorModel(prior, classifier, config)


def vars_of_process(process: ProcessConfig) -> dict:
    """The arguments of `RepaintConfig.process`."""
    return {"trained": process.steps, "schedule": process.schedule}


def save_prior_folder(model: PriorModel, folder: str | Path, dtype: StorageType = "float32") -> Path:
    """Write a model folder: model.yml, and a safetensors file for each network. Raises UserError if the folder already holds files."""
    with output_folder(folder, False, "save to another folder") as folder:
        for loaded in model.networks():
            save_tensors(folder / f"{loaded.kind}.safetensors", loaded.network.state_dict(), dtype)
        save_config(model.config, folder / DESCRIPTION)  # written last, because a folder without it is not a model
        return folder


def load_prior_for_test(checkpoints: PriorCheckpointsConfig, unrecorded: Unrecorded, repaint: RepaintConfig) -> PriorModel:
    """Load the networks of a test. Raises UserError if they do not fit together, or not to the options."""
    if checkpoints.folder is not None:
        model = load_prior_folder(Path(checkpoints.folder).expanduser())
        return model._replace(config=replace(model.config, repaint=repaint))
    files = {"prior": checkpoints.prior, "classifier": checkpoints.classifier}
    loaded = [load_network(path, kind, checkpoints.weights, unrecorded) for kind, path in files.items() if path is not None]
    return make_prior_model(loaded, repaint)
