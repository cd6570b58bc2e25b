"""Load and save the networks of DGTS: checkpoints, our own or released, folders of training runs, and model folders."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn

from strdiffusion.checkpoints import LoadedNetwork, StorageType, load_network, network_from_tensors, save_tensors
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config.dgts import DGTSNetworkConfig, UpsamplerSizes
from strdiffusion.config.model import FORMAT
from strdiffusion.methods.loading import DESCRIPTION
from strdiffusion.networks import DGTS_KINDS
from strdiffusion.networks.dgts import DGTS, AdversarialPair, Upsampler
from strdiffusion.networks.dgts.filling import Order
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import output_folder
from strdiffusion.system.parser import Count, Share, build, read_yaml, save_config


@dataclass
class FillingOptions:
    """How DGTS fills (docs/dgts.md).

    order: "given" takes the patches in the order of the list `given`, as many of them as an image lacks; it names every patch once.
    bridge: lambda; null: the network's own (released files do not record it: 0.1 for Places2, 0.3 for CelebA and PSV).
    one_by_one: so many patches are filled one by one, the rest at once; null: all one by one.
    enlarge: false leaves the enlarging network out.
    released: follow the released procedure (contrast stretch, JPEG), which changes known pixels.
    """

    order: Literal["raster", "known", "confidence", "given"] = "known"
    given: list[Count] = field(default_factory=list)
    bridge: Share | None = None
    one_by_one: Count | None = None
    enlarge: bool = True
    released: bool = False

    def check(self) -> None:
        """Check the keys that depend on each other. Raises UserError."""
        if (self.order == "given") != bool(self.given):
            raise UserError("dgts.given, a list of positions, is needed with dgts.order=given, and only there")
        if self.released and not self.enlarge:
            raise UserError("dgts.released=true follows the released procedure, which enlarges: set dgts.enlarge=true")

    def order_for(self, missing: torch.Tensor) -> Order | torch.Tensor:
        """The order of filling of images whose patches `missing` (B,G) are to be filled. Raises UserError if it cannot be followed."""
        if self.order != "given":
            return self.order
        patches = missing.shape[1]
        if sorted(self.given) != list(range(patches)):
            raise UserError(f"dgts.given must name each of the patches 0 to {patches - 1} once")
        rows = [[p for p in self.given if row[p]][: self.one_by_one] for row in missing.tolist()]
        most = max(map(len, rows))
        return torch.tensor([row + [-1] * (most - len(row)) for row in rows], dtype=torch.long).view(len(rows), most)


@dataclass
class DGTSCheckpoints:
    """The trained networks: a model folder, or a file for each, one of our checkpoints or a released one. Without `upsampler` the small
    image is enlarged by bicubic interpolation.
    """

    folder: str | None = None
    dgts: str | None = None
    upsampler: str | None = None
    weights: Weights = "ema"

    def files(self) -> list[Path | None]:
        """Every file that the networks are read from; None for a network that is not given."""
        if self.folder is not None:
            folder = Path(self.folder).expanduser()
            return [folder / DESCRIPTION, *sorted(folder.glob("*.safetensors"))]
        return [None if path is None else Path(path).expanduser() for path in (self.dgts, self.upsampler)]

    def check(self) -> None:
        """Raise UserError unless a folder or a network is given."""
        if self.folder is not None and (self.dgts, self.upsampler) != (None, None):
            raise UserError(f"checkpoints.folder is given beside separate files: set checkpoints={{folder: {self.folder}}} to replace them")
        if self.folder is None and self.dgts is None:
            raise UserError("checkpoints.dgts is missing: give it, or a model folder as checkpoints.folder")


@dataclass
class DGTSModelConfig:
    """model.yml of a folder of DGTS. upsampler: null if it has none. provenance: the origin of the weights, for people."""

    network: DGTSNetworkConfig
    method: Literal["dgts"] = "dgts"
    format: Literal["strdiffusion model 1"] = FORMAT
    upsampler: UpsamplerSizes | None = None
    dgts: FillingOptions = field(default_factory=FillingOptions)
    provenance: list[str] = field(default_factory=list)

    def check(self) -> None:
        self.network.check()
        self.dgts.check()


class DGTSModel(NamedTuple):
    """The networks of DGTS, with what is recorded of them."""

    core: DGTS
    upsampler: Upsampler | None
    settings: FillingOptions
    provenance: list[str]


def load_dgts(checkpoints: DGTSCheckpoints) -> DGTSModel:
    """Load what a configuration names. Raises UserError if a file is missing, or of another network."""
    if checkpoints.folder is not None:
        return load_dgts_folder(Path(checkpoints.folder).expanduser())
    files = {"dgts": checkpoints.dgts, "upsampler": checkpoints.upsampler}
    return make_dgts_model(load_network(path, kind, checkpoints.weights) for kind, path in files.items() if path is not None)


def make_dgts_model(networks: Iterable[LoadedNetwork]) -> DGTSModel:
    """The model of a DGTS and possibly its enlarging network. Raises UserError if there are others."""
    found = {loaded.kind: loaded for loaded in networks}
    if not {"dgts"} <= found.keys() <= set(DGTS_KINDS):
        raise UserError(f"DGTS's networks are dgts and possibly upsampler, not {', '.join(found)}")
    provenance = [f"{n.kind}: {'released file' if n.released else 'checkpoint'} {n.path.name}" for n in found.values()]
    upsampler = upsampler_in(found["upsampler"]) if "upsampler" in found else None
    return DGTSModel(found["dgts"].network, upsampler, FillingOptions(), provenance)


def upsampler_in(loaded: LoadedNetwork) -> Upsampler:
    """The enlarging network of a checkpoint, without the discriminator that may be beside it."""
    return loaded.network.upsampler if isinstance(loaded.network, AdversarialPair) else loaded.network


def load_dgts_folder(folder: Path) -> DGTSModel:
    """Load a model folder. Raises UserError if it is none, or damaged."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"the model folder {folder} has no {DESCRIPTION}: give a model folder, or checkpoints.dgts")
    tree = read_yaml(path)
    if tree.get("method") != "dgts":
        raise UserError(f"the model folder {folder} is of the method {tree.get('method')}, not of dgts: give another folder")
    config = build(DGTSModelConfig, tree, str(path))
    try:
        config.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None

    def load(name: Literal["dgts", "upsampler"], sizes: object) -> nn.Module:
        return network_from_tensors(folder / f"{name}.safetensors", name, vars(sizes), prediction="x0").network

    upsampler = None if config.upsampler is None else load("upsampler", config.upsampler)
    return DGTSModel(load("dgts", config.network), upsampler, config.dgts, config.provenance)


def save_dgts_folder(model: DGTSModel, folder: str | Path, dtype: StorageType = "float32") -> Path:
    """Write a model folder. Raises UserError if it already holds files."""
    sizes = None if model.upsampler is None else UpsamplerSizes(**model.upsampler.architecture())
    config = DGTSModelConfig(
        DGTSNetworkConfig(**model.core.architecture()), upsampler=sizes, dgts=model.settings, provenance=model.provenance
    )
    with output_folder(folder, False, "save to another folder") as folder:
        save_tensors(folder / "dgts.safetensors", model.core.state_dict(), dtype)
        if model.upsampler is not None:
            save_tensors(folder / "upsampler.safetensors", model.upsampler.state_dict(), dtype)
        save_config(config, folder / DESCRIPTION)  # written last, because a folder without it is not a model
        return folder
