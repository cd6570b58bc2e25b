"""Where models come from and how they are kept: model folders, training runs, released files, the checkpoints of a test configuration."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from strdiffusion.checkpoints import LoadedNetwork, StorageType, load_network, network_from_tensors, require_same_process, save_tensors
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config import TestConfig, load_config, save_config
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.config.model import DiscriminatorRecord, ModelConfig, NetworksConfig, UNetRecord
from strdiffusion.config.testing import SamplerConfig
from strdiffusion.methods.inpainting import Networks
from strdiffusion.networks import KINDS, Kind
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import claim_output_folder
from strdiffusion.system.parser import build, read_yaml

log = logging.getLogger(__name__)

DESCRIPTION = "model.yml"
CHECKPOINT_SUFFIXES = {".pt", ".pth"}


class Model(NamedTuple):
    """Networks, and everything about them but their weights."""

    networks: Networks
    config: ModelConfig


def load_model(
    source: str | Path | Mapping[Kind, str | Path], T: int | None = None, size: int | None = None, weights: Weights = "ema"
) -> Model:
    """Load a model from a model folder, a folder of training runs or checkpoint files, a test configuration (YAML), or a mapping from
    kind to checkpoint file.

    T: of released files, which do not record it. size: of the training images, where nothing records it (256).
    weights: of our checkpoints, the moving average or the raw weights. Raises UserError for what is not a model.
    """
    if isinstance(source, Mapping):
        unknown = [kind for kind in source if kind not in KINDS]
        if unknown or "texture" not in source:
            raise UserError(f"the networks to load are texture and possibly structure and discriminator, not {', '.join(map(str, source))}")
        return from_checkpoints((load_network(path, kind, weights) for kind, path in source.items()), T, size)
    folder = Path(source).expanduser()
    if folder.suffix in (".yml", ".yaml") and not folder.is_dir():
        model = load_for_test(load_config(TestConfig, folder))
        require_same_settings(model.config, folder, T, size)
        return model
    if not folder.is_dir():
        given = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the model folder {folder} {given}: give a folder with {DESCRIPTION}, of training runs, or of checkpoints")
    if (folder / DESCRIPTION).exists():
        model = load_folder(folder)
        require_same_settings(model.config, folder, T, size)
        if weights != "ema":
            raise UserError(f"the model folder {folder} holds one set of weights: leave weights={weights} out")
        return model
    return from_checkpoints((load_network(path, None, weights) for path in checkpoint_files(folder)), T, size)


def require_same_settings(config: ModelConfig, source: Path, T: int | None, size: int | None) -> None:
    """Raise UserError where another T or size is asked for than the source records."""
    for name, wanted, recorded in (("T", T, config.sde.T), ("size", size, config.size)):
        if wanted is not None and wanted != recorded:
            raise UserError(f"{source} is a model of {name}={recorded}, not {wanted}: leave {name} out")


def checkpoint_files(folder: Path) -> list[Path]:
    """The newest checkpoints of the runs in a folder, or else the checkpoint files in it; UserError where there is none."""
    files = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_SUFFIXES and path.is_file())
    files = sorted(folder.glob("*/latest.pt")) or files
    if not files:
        raise UserError(f"the folder {folder} holds no model: neither {DESCRIPTION}, nor runs (NAME/latest.pt), nor .pt or .pth files")
    return files


def load_folder(folder: Path, kinds: Iterable[Kind] = KINDS) -> Model:
    """Load a model folder; of the networks that it has, those of `kinds`. The texture network is always loaded."""
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
        prediction = getattr(record, "prediction", "noise")
        path = folder / f"{kind}.safetensors"
        return network_from_tensors(path, kind, architecture, vars(config.sde), vars(config.structure), prediction, record.step)

    return Model(Networks(*map(load, ("texture", "structure", "discriminator"))), config)


def save_folder(model: Model, folder: str | Path, dtype: StorageType = "float32") -> Path:
    """Write a model folder: model.yml, and a safetensors file for each network. A folder that holds files is refused."""
    folder = claim_output_folder(folder, False, "save to another folder")
    for loaded in model.networks:
        save_tensors(folder / f"{loaded.kind}.safetensors", loaded.network.state_dict(), dtype)
    save_config(model.config, folder / DESCRIPTION)  # last: a folder without it is no model
    return folder


def from_checkpoints(loaded: Iterable[LoadedNetwork], T: int | None, size: int | None) -> Model:
    """The model that some checkpoints are, ours or released, one for each network."""
    found: dict[Kind, LoadedNetwork] = {}
    for network in loaded:
        other = found.setdefault(network.kind, network)
        if other is not network and named_for(network) != named_for(other):
            found[network.kind], left = (network, other) if named_for(network) else (other, network)
            log.info("the %s network is %s; %s is left alone", network.kind, found[network.kind].path, left.path)
        elif other is not network:
            raise UserError(
                f"{other.path} and {network.path} are both of the {network.kind} network: say which, for example in Python "
                f"with load({{'{network.kind}': FILE, ...}})"
            )
    if "texture" not in found:
        others = ", ".join(f"{kind} ({network.path})" for kind, network in found.items())
        raise UserError(f"there is no texture network, only {others}: add its checkpoint")
    texture = found["texture"]
    if not texture.network.guided:
        found = {"texture": texture}  # nothing else would be used
    elif "structure" not in found:
        raise UserError(f"there is no structure network, and the texture network {texture.path} needs one: add its checkpoint")
    recorded = next((n for n in found.values() if n.sde is not None), None)
    if recorded is None and T is None:
        raise UserError(f"{texture.path} is a released file, which does not record its T: give the one it was trained with, T=100 or T=400")
    sde = SDEConfig(**recorded.sde) if recorded else build(SDEConfig, {"T": T}, "the call")
    if T is not None and T != sde.T:
        raise UserError(f"the checkpoint {recorded.path} was trained with T={sde.T}, not {T}: leave T out")
    structure = StructureConfig(**recorded.structure) if recorded else StructureConfig()
    for network in found.values():
        require_same_process(network, sde, structure)
    networks = Networks(texture, found.get("structure"), found.get("discriminator"))
    config = ModelConfig(
        networks=describe(networks),
        size=size or recorded_size(texture.path) or 256,
        sde=sde,
        structure=structure,
        sampler=SamplerConfig(guidance=texture.network.guided, resampling="released" if networks.discriminator else "none"),
        provenance=[f"{n.kind}: {'released file' if n.released else 'checkpoint'} {n.path.name}" for n in networks],
    )
    return Model(networks, config)


def named_for(network: LoadedNetwork) -> bool:
    """Whether the folder of a checkpoint has the name of its network, as runs/psv/texture has, and runs/psv/texture_unguided has not."""
    return network.path.parent.name == network.kind


def recorded_size(checkpoint: Path) -> int | None:
    """The size of the training images that the configuration beside a checkpoint states, if there is one."""
    run = checkpoint.parent / "config.yml"
    size = read_yaml(run).get("data", {}).get("size") if run.is_file() else None
    return size if isinstance(size, int) and size >= 8 else None


def describe(networks: Networks) -> NetworksConfig:
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


def load_for_test(config: TestConfig) -> Model:
    """The networks that a test configuration names and its sampler needs; UserError where one does not fit the configuration."""
    sampler, paths = config.sampler, config.checkpoints
    kinds: list[Kind] = ["texture"] + ["structure"] * sampler.guidance + ["discriminator"] * sampler.scored
    provenance = []
    if paths.folder is not None:
        folder = Path(paths.folder).expanduser()
        if not (folder / DESCRIPTION).is_file():
            raise UserError(f"checkpoints.folder={paths.folder} has no {DESCRIPTION}: give a model folder, or checkpoints.texture etc.")
        networks, described = load_folder(folder, kinds)
        provenance = described.provenance
        missing = next((kind for kind in kinds if getattr(networks, kind) is None), None)
        if missing and networks.texture.network.guided == sampler.guidance:
            raise UserError(
                f"the model {folder} has no {missing} network, which sampler.resampling={sampler.resampling} needs: "
                "set sampler.resampling=none"
            )
    else:
        networks = Networks(**{kind: load_network(getattr(paths, kind), kind, paths.weights) for kind in kinds})
    for loaded in networks:
        require_fit(loaded, config)
    texture = networks.texture
    if texture.network.guided != sampler.guidance:
        has, guidance = ("has", "true") if texture.network.guided else ("has no", "false")
        raise UserError(f"the checkpoint {texture.path} {has} SPADE blocks, so sampler.guidance must be {guidance}")
    described = ModelConfig(
        networks=describe(networks),
        size=config.data.size,
        sde=config.sde,
        structure=config.structure,
        sampler=sampler,
        provenance=provenance,
    )
    return Model(networks, described)


def require_fit(loaded: LoadedNetwork, config: TestConfig) -> None:
    """Raise UserError where a checkpoint records other settings than the configuration has. Released files record only widths."""
    require_same_process(loaded, config.sde, config.structure)
    expected = config.checkpoints
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
