"""Load and save the networks of a method: model folders, training runs, released files, single checkpoints."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from strdiffusion.checkpoints import LoadedNetwork, StorageType, load_network, network_from_tensors, require_same_process, save_tensors
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.config.model import DiscriminatorRecord, ModelConfig, NetworksConfig, UNetRecord
from strdiffusion.config.training import LARGEST_SIZE
from strdiffusion.networks import DGTS_KINDS, KINDS, PRIOR_KINDS, Kind
from strdiffusion.samplers import SamplerConfig
from strdiffusion.sde import MeanFill
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.folders import output_folder
from strdiffusion.system.parser import Positive, build, read_yaml, save_config

log = logging.getLogger(__name__)

DESCRIPTION = "model.yml"
CHECKPOINT_SUFFIXES = {".pt", ".pth"}
FAMILIES = (("texture", *KINDS), PRIOR_KINDS, DGTS_KINDS)  # networks that belong together; the first of each is always there
WIDE = 512  # pixels a side that networks see as a whole if they learnt from parts of pictures; more needs more memory


@dataclass
class CheckpointsConfig:
    """The trained networks: a model folder, or a file for each network, one of our checkpoints or a released one.

    If width or depth is given, networks of another size are refused. weights: of our checkpoints; a model folder holds one set.
    """

    folder: str | None = None
    texture: str | None = None
    structure: str | None = None
    discriminator: str | None = None
    weights: Weights = "ema"
    width: Positive | None = None
    depth: Positive | None = None
    discriminator_width: Positive | None = None

    def files(self) -> list[Path | None]:
        """Every file that the networks are read from; None for a network that is not given."""
        if self.folder is not None:
            folder = Path(self.folder).expanduser()
            return [folder / DESCRIPTION, *sorted(folder.glob("*.safetensors"))]
        return [None if path is None else Path(path).expanduser() for path in (self.texture, self.structure, self.discriminator)]

    def check(self, needed: Mapping[Kind, str]) -> None:
        """Raise UserError if a network is missing. needed: the networks, each with the option that needs it."""
        if self.folder is not None:
            if (self.texture, self.structure, self.discriminator) != (None, None, None):
                raise UserError(
                    f"checkpoints.folder is given beside separate files: set checkpoints={{folder: {self.folder}}} to replace them"
                )
            return
        if self.texture is None:
            raise UserError("checkpoints.texture is missing: give it, or a model folder as checkpoints.folder")
        missing = next((kind for kind in needed if getattr(self, kind) is None), None)
        if missing:
            raise UserError(f"checkpoints.{missing} is missing: it is needed with {needed[missing]}")


@dataclass(frozen=True)
class LoadedNetworks:
    """The networks of a model. An unguided model (IR-SDE) has only the texture network. The discriminator is optional."""

    texture: LoadedNetwork
    structure: LoadedNetwork | None = None
    discriminator: LoadedNetwork | None = None

    def __iter__(self):
        return (loaded for loaded in (self.texture, self.structure, self.discriminator) if loaded is not None)

    def to(self, device: torch.device) -> None:
        """Move all networks, in place."""
        for loaded in self:
            loaded.to(device)


class Model(NamedTuple):
    """Networks, with the configuration that describes them."""

    networks: LoadedNetworks
    config: ModelConfig


def load_model(
    folder: Path, T: int | None = None, size: int | None = None, weights: Weights = "ema", mean_fill: MeanFill | None = None
) -> Model:
    """Load the model of a model folder. T, size, weights and mean_fill, if they are given, must be those recorded."""
    model = load_folder(folder)
    require_same_settings(model.config, folder, T, size, mean_fill)
    if weights != "ema":
        raise UserError(f"the model folder {folder} holds one set of weights: leave weights={weights} out")
    return model


def load_networks(source: Path | Mapping[Kind, str | Path], weights: Weights) -> list[LoadedNetwork]:
    """The networks of a folder of training runs or checkpoint files, or of a mapping from kind to file; one of each kind.

    Of a folder only those of one method are taken: StrDiffusion's if it holds a texture network. Those of a mapping must belong together.
    """
    if not isinstance(source, Mapping):
        found = one_of_each(load_network(path, None, weights) for path in checkpoint_files(source))
        family = next((kinds for kinds in FAMILIES if any(loaded.kind == kinds[0] for loaded in found)), None)
        return [loaded for loaded in found if family is None or loaded.kind in family]
    if not any(kinds[0] in source and source.keys() <= set(kinds) for kinds in FAMILIES):
        raise UserError(
            "the networks to load are texture and possibly structure and discriminator, or prior and classifier, or dgts and upsampler, "
            f"not {', '.join(map(str, source))}"
        )
    return [load_network(path, kind, weights) for kind, path in source.items()]


def one_of_each(networks: Iterable[LoadedNetwork]) -> list[LoadedNetwork]:
    """Of several networks of a kind, that whose folder has the kind's name. Raises UserError if there is none, or more than one."""
    found: dict[Kind, LoadedNetwork] = {}
    for network in networks:
        other = found.setdefault(network.kind, network)
        if other is not network and named_for(network) != named_for(other):
            found[network.kind], left = (network, other) if named_for(network) else (other, network)
            log.info("the %s network is %s; %s is not used", network.kind, found[network.kind].path, left.path)
        elif other is not network:
            raise UserError(
                f"{other.path} and {network.path} are both of the {network.kind} network: say which, for example in Python "
                f"with load({{'{network.kind}': FILE, ...}})"
            )
    return list(found.values())


def require_same_settings(config: ModelConfig, source: Path, T: int | None, size: int | None, mean_fill: MeanFill | None) -> None:
    """Raise UserError if T, size or mean_fill is given and differs from the source's record."""
    filled = config.sde.mean_fill or "black"
    for name, wanted, recorded in (("T", T, config.sde.T), ("size", size, config.size), ("mean_fill", mean_fill, filled)):
        if wanted is not None and wanted != recorded:
            raise UserError(f"{source} is a model of {name}={recorded}, not {wanted}: leave ", Option(name), " out")


def checkpoint_files(folder: Path) -> list[Path]:
    """The newest checkpoints of the runs in a folder, or else the checkpoint files in it; of a run's own, the newest.

    Raises UserError if there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_SUFFIXES and path.is_file())
    if folder / "latest.pt" in files:
        files = [path for path in files if path.name != "best.pt" and not path.match("step_*.pt")]
    files = sorted(folder.glob("*/latest.pt")) or files
    if not files:
        raise UserError(f"the folder {folder} holds no model: neither {DESCRIPTION}, nor runs (NAME/latest.pt), nor .pt or .pth files")
    return files


def load_folder(folder: Path, kinds: Iterable[Kind] = KINDS) -> Model:
    """Load the networks of `kinds` from a model folder, as far as it has them. The texture network is always loaded."""
    path = folder / DESCRIPTION
    config = build(ModelConfig, read_yaml(path), str(path))
    try:
        config.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None

    def load(kind: Kind) -> LoadedNetwork | None:
        record = getattr(config.networks, kind)
        if record is None or kind not in kinds and kind != "texture":
            return None
        architecture = {"width": record.width}
        if isinstance(record, UNetRecord):
            channels = 3 if kind == "texture" else 1
            architecture |= {"channels": channels, "depth": record.depth, "attention": record.attention, "guided": record.guided}
            architecture |= {"context": record.context, "structure_channels": record.structure_channels}
        prediction = getattr(record, "prediction", "noise")
        path = folder / f"{kind}.safetensors"
        recorded = {"sde": vars(config.sde), "structure": vars(config.structure), "prediction": prediction, "step": record.step}
        return network_from_tensors(path, kind, architecture, **recorded)

    return Model(LoadedNetworks(*map(load, ("texture", "structure", "discriminator"))), config)


def save_folder(model: Model, folder: str | Path, dtype: StorageType = "float32") -> Path:
    """Write a model folder: model.yml, and a safetensors file for each network. Raises UserError if the folder already holds files."""
    with output_folder(folder, False, "save to another folder") as folder:
        for loaded in model.networks:
            save_tensors(folder / f"{loaded.kind}.safetensors", loaded.network.state_dict(), dtype)
        save_config(model.config, folder / DESCRIPTION)  # written last, because a folder without it is not a model
        return folder


def from_checkpoints(loaded: Iterable[LoadedNetwork], T: int | None, size: int | None, mean_fill: MeanFill | None = None) -> Model:
    """The model made of checkpoints, our own or released, one for each network.

    T, mean_fill: of released files, which do not record them. size: of the training images, if it is not recorded (default 256).
    """
    found = {network.kind: network for network in loaded}
    if "texture" not in found:
        others = ", ".join(f"{kind} ({network.path})" for kind, network in found.items())
        raise UserError(f"there is no texture network, only {others}: add its checkpoint")
    texture = found["texture"]
    if not texture.network.guided:
        found = {"texture": texture}  # the other networks would not be used
    elif "structure" not in found:
        raise UserError(f"there is no structure network, and the texture network {texture.path} needs one: add its checkpoint")
    recorded = next((n for n in found.values() if n.sde is not None), None)
    if recorded is None and T is None:
        advice = "a released file, which does not record its T: give the one it was trained with, "
        raise UserError(f"{texture.path} is {advice}", Option("T", 100), " or ", Option("T", 400))
    sde = SDEConfig(**recorded.sde) if recorded else build(SDEConfig, {"T": T, "mean_fill": mean_fill}, "the call")
    require_mean_fill(texture, sde, "mean_fill")
    if mean_fill is not None and mean_fill != (sde.mean_fill or "black"):
        found = f"the checkpoint {recorded.path} was trained with mean_fill={sde.mean_fill}, not {mean_fill}"
        raise UserError(f"{found}: leave ", Option("mean_fill"), " out")
    if T is not None and T != sde.T:
        raise UserError(f"the checkpoint {recorded.path} was trained with T={sde.T}, not {T}: leave ", Option("T"), " out")
    structure = StructureConfig(**recorded.structure) if recorded else StructureConfig()
    for network in found.values():
        require_same_process(network, sde, structure)
    networks = LoadedNetworks(texture, found.get("structure"), found.get("discriminator"))
    sampler = SamplerConfig(resampling="released" if networks.discriminator else "none")
    provenance = [f"{n.kind}: {'released file' if n.released else 'checkpoint'} {n.path.name}" for n in networks]
    return make_model(networks, size, sde, structure, sampler, provenance)


def named_for(network: LoadedNetwork) -> bool:
    """Whether the folder of a checkpoint has the name of its network, such as runs/psv/texture, but not runs/psv/texture_unguided."""
    return network.path.parent.name == network.kind


def recorded_size(checkpoint: Path) -> int | None:
    """The size of the training images that the configuration beside a checkpoint states, if there is one."""
    size = recorded_data(checkpoint).get("size")
    return size if isinstance(size, int) and 8 <= size <= LARGEST_SIZE else None


def recorded_largest(checkpoint: Path) -> int | None:
    """WIDE, if the configuration beside a checkpoint says that the training images were parts of pictures at several scales."""
    shrink = recorded_data(checkpoint).get("shrink")
    return WIDE if isinstance(shrink, list) and len(shrink) == 2 and isinstance(shrink[1], (int, float)) and shrink[1] > 1 else None


def recorded_data(checkpoint: Path) -> dict:
    """The section `data` of the configuration beside a checkpoint; empty if there is none."""
    run = checkpoint.parent / "config.yml"
    data = read_yaml(run).get("data") if run.is_file() else None
    return data if isinstance(data, dict) else {}


def describe(networks: LoadedNetworks) -> NetworksConfig:
    """The networks as model.yml records them."""

    def unet(loaded: LoadedNetwork | None) -> UNetRecord | None:
        if loaded is None:
            return None
        architecture = {key: value for key, value in loaded.network.architecture().items() if key != "channels"}
        return UNetRecord(**architecture, prediction=loaded.prediction, step=loaded.step)

    scored = networks.discriminator
    return NetworksConfig(
        texture=unet(networks.texture),
        structure=unet(networks.structure),
        discriminator=None if scored is None else DiscriminatorRecord(width=scored.network.width, step=scored.step),
    )


def load_for_test(checkpoints: CheckpointsConfig, sde: SDEConfig, structure: StructureConfig, sampler: SamplerConfig, method: str) -> Model:
    """Load the networks that the sampler needs from `checkpoints`. Raises UserError if one does not fit the configuration or the method."""
    guided = method == "strdiffusion"
    kinds: list[Kind] = ["texture", *["structure"] * guided, *["discriminator"] * sampler.scored]
    provenance: list[str] = []
    size = largest = None
    if checkpoints.folder is not None:
        folder = Path(checkpoints.folder).expanduser()
        if not (folder / DESCRIPTION).is_file():
            raise UserError(
                f"checkpoints.folder={checkpoints.folder} has no {DESCRIPTION}: give a model folder, or checkpoints.texture etc."
            )
        networks, described = load_folder(folder, kinds)
        size, largest, provenance = described.size, described.largest, described.provenance
        missing = next((kind for kind in kinds if getattr(networks, kind) is None), None)
        if missing and networks.texture.network.guided == guided:
            raise UserError(
                f"the model {folder} has no {missing} network, which sampler.resampling={sampler.resampling} needs: "
                "set sampler.resampling=none"
            )
    else:
        networks = LoadedNetworks(**{kind: load_network(getattr(checkpoints, kind), kind, checkpoints.weights) for kind in kinds})
    for loaded in networks:
        require_fit(loaded, checkpoints, sde, structure)
    require_mean_fill(networks.texture, sde, "sde.mean_fill")
    if method_of(networks) != method:
        raise UserError(f"the checkpoint {networks.texture.path} {FORMS[method_of(networks)]}, so method must be {method_of(networks)}")
    return make_model(networks, size, sde, structure, sampler, provenance, largest)


def make_model(
    networks: LoadedNetworks,
    size: int | None,
    sde: SDEConfig,
    structure: StructureConfig,
    sampler: SamplerConfig,
    provenance: list[str],
    largest: int | None = None,
) -> Model:
    """The model of these networks. size, largest: None if they are not given; then they are the recorded ones, size is 256 without."""
    config = ModelConfig(
        networks=describe(networks),
        method=method_of(networks),
        size=size or recorded_size(networks.texture.path) or 256,
        largest=largest or recorded_largest(networks.texture.path),
        sde=sde,
        structure=structure,
        sampler=sampler,
        provenance=provenance,
    )
    return Model(networks, config)


def require_mean_fill(texture: LoadedNetwork, sde: SDEConfig, key: str) -> None:
    """Raise UserError if nothing says what the mean of a released IR-SDE holds in the hole: its file does not."""
    if texture.released and not texture.network.guided and sde.mean_fill is None:
        raise UserError(
            f"the checkpoint {texture.path} is a released file of IR-SDE, which does not record what its mean holds in the hole: set ",
            *(Option(key, "white"), ", as its authors trained theirs, or ", Option(key, "black")),
        )


FORMS = {"strdiffusion": "has SPADE blocks", "irsde": "has no SPADE blocks", "joint": "denoises a structure, too"}


def method_of(networks: LoadedNetworks) -> str:
    """The method to which networks belong."""
    texture = networks.texture.network
    return "joint" if texture.joint else "strdiffusion" if texture.guided else "irsde"


def require_fit(loaded: LoadedNetwork, expected: CheckpointsConfig, sde: SDEConfig, structure: StructureConfig) -> None:
    """Raise UserError if a network was trained otherwise, or has another width or depth, than a configuration expects."""
    require_same_process(loaded, sde, structure)
    if loaded.kind == "discriminator":
        sizes = {"discriminator_width": (expected.discriminator_width, loaded.network.width)}
    else:
        sizes = {"width": (expected.width, loaded.network.width), "depth": (expected.depth, loaded.network.depth)}
    for key, (wanted, found) in sizes.items():
        if wanted is not None and wanted != found:
            raise UserError(
                f"the checkpoint {loaded.path} has {key.removeprefix('discriminator_')} {found}, but checkpoints.{key}={wanted}: "
                f"give another file, or set checkpoints.{key}={found}"
            )
