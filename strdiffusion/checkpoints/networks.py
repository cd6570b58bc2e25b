"""Load networks from checkpoint files, our own or released ones, and export them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from strdiffusion.checkpoints.files import compare_entries, read_checkpoint, write_checkpoint
from strdiffusion.checkpoints.released import PARALLEL, detect, released_names, strip_module
from strdiffusion.checkpoints.released_prior import LARGEST_BLOCKS, LARGEST_LEVELS, Unrecorded, detect_prior
from strdiffusion.data.structure import StructureConfig
from strdiffusion.ddpm import DDPM, ProcessConfig
from strdiffusion.denoiser import Precision, Prediction
from strdiffusion.networks import CLASSES, DGTS_KINDS, PRIOR_KINDS, Kind, build_network
from strdiffusion.networks.dgts import DGTS
from strdiffusion.networks.inference import for_inference
from strdiffusion.networks.shapes import shapes_alone
from strdiffusion.sde import MeanRevertingSDE, SDEConfig
from strdiffusion.system.errors import UserError, brief
from strdiffusion.system.parser import Count, build, convert

FORMAT = "strdiffusion"
VERSION = 1
LARGEST_DEPTH, LARGEST_WIDTH = 8, 4096
LARGEST_NUMBER, MOST_CHANNELS, LONGEST_WORD = 100_000, 256, 80  # of what describes a network
SDE_OPTIONS = ("T", "schedule", "max_sigma", "eps")
LATER_SDE_OPTIONS = {"rounding": "exact", "mean_fill": "black"}  # recorded only if they are not these, as in older checkpoints
CANNOT_BUILD = (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError, AssertionError)  # what networks raise for odd sizes
Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in evaluation mode, with what its checkpoint records. A released file records only weights (sde, structure: None).

    process: the diffusion process of a prior and its classifier, which have neither sde nor structure; of a released file as given. The
        networks of DGTS have none of the three.
    forms: the inference forms built so far, by (precision, compile). Each uses the weights as they were when it was built.
    """

    kind: Kind
    network: nn.Module
    path: Path
    released: bool
    prediction: Prediction = "noise"
    sde: dict | None = None
    structure: dict | None = None
    process: dict | None = None
    step: int | None = None
    forms: dict[tuple[Precision, bool], nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)

    def for_inference(self, precision: Precision = "fp32", compile: bool = False) -> nn.Module:
        """The network's inference form, built at the first call. Raises UserError if the device does not support it."""
        if (precision, compile) not in self.forms:
            self.forms[precision, compile] = for_inference(self.network, precision, compile)
        return self.forms[precision, compile]

    def to(self, device: torch.device) -> None:
        """Move the network, in place. If the device changes, the inference forms are dropped."""
        before = {p.device for p in self.network.parameters()}
        self.network.to(device, memory_format=torch.channels_last)
        if {p.device for p in self.network.parameters()} != before:
            self.forms.clear()


def network_record(
    kind: Kind,
    network: nn.Module,
    process: MeanRevertingSDE | DDPM | None = None,
    structure: dict | None = None,
    prediction: Prediction = "noise",
) -> dict:
    """The part of our checkpoint that describes the network: everything but the weights. process: to which it belongs; None: to none."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "architecture": network.architecture(),
        "prediction": prediction,
        **process_record(process, structure),
    }


def process_record(process: MeanRevertingSDE | DDPM | None, structure: dict | None) -> dict:
    """What a checkpoint records of the process that its network belongs to: of an SDE also its structure; of none, nothing."""
    if process is None:
        return {}
    if isinstance(process, DDPM):
        return {"process": {"steps": process.steps, "schedule": process.schedule}}
    later = {name: getattr(process, name) for name, usual in LATER_SDE_OPTIONS.items() if getattr(process, name) != usual}
    return {"sde": {name: getattr(process, name) for name in SDE_OPTIONS} | later, "structure": structure}


def recorded_process(kind: Kind, content: dict) -> dict:
    """What a checkpoint records of the process, as fields of `LoadedNetwork`. Raises KeyError, TypeError or ValueError if it is damaged."""
    if kind in DGTS_KINDS:
        if any(content.get(name) is not None for name in ("sde", "structure", "process")):
            raise ValueError(f"a {kind} network belongs to no process")
        return {}
    if kind in PRIOR_KINDS:
        return {"process": vars(build(ProcessConfig, content["process"], "it", "process"))}
    sde, structure = content["sde"], content["structure"]
    if not isinstance(sde, dict) or not isinstance(structure, dict) or "pair" not in structure or not set(SDE_OPTIONS) <= set(sde):
        raise ValueError("sde or structure is unknown")
    return {
        "sde": vars(build(SDEConfig, LATER_SDE_OPTIONS | sde, "it", "sde")),
        "structure": vars(build(StructureConfig, structure, "it", "structure")),
    }


def load_network(
    path: str | Path, kind: Kind | None = None, weights: Weights = "ema", unrecorded: Unrecorded | None = None
) -> LoadedNetwork:
    """Load a network from our checkpoint or from a released file, on the CPU, in evaluation mode.

    Args:
        kind: which network it must be; None accepts any.
        weights: which weights of our checkpoints, the moving average (if there is one) or the raw weights.
        unrecorded: of a released prior or classifier.

    Raises UserError naming the file if it holds another network, or if entries are missing, unexpected or of another shape.
    """
    path = Path(path).expanduser()
    content = read_checkpoint(path)
    if content.get("format") == FORMAT:
        loaded = _load_ours(path, content, weights)
    else:
        loaded = _load_released(path, content, unrecorded or Unrecorded())
    if kind is not None and loaded.kind != kind:
        raise UserError(f"the checkpoint {path} is of the {loaded.kind} network, not of the {kind} network: give the right file")
    loaded.network.eval().requires_grad_(False)
    return loaded


def require_same_process(loaded: LoadedNetwork, sde, structure) -> None:
    """Raise UserError if a network was trained with another SDE or structure pair than the configuration's sections
    `sde` and `structure` state. Released files record neither, so they pass.
    """
    for key, value in (loaded.sde or {}).items():
        usual = LATER_SDE_OPTIONS.get(key)
        value, wanted = value or usual, getattr(sde, key) or usual
        if value != wanted:
            raise UserError(
                f"the checkpoint {loaded.path} was trained with {key}={value}, the configuration has sde.{key}={wanted}: "
                f"set sde.{key}={value}"
            )
    if loaded.structure is not None and loaded.structure["pair"] != structure.pair:
        key = f"structure.pair={loaded.structure['pair']}"
        raise UserError(f"the checkpoint {loaded.path} was trained with {key}, not {structure.pair}: set {key}")


def export_released(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights as a released file holds them, under their released names; those of a prior are ours."""
    state, prefix = network.state_dict(), PARALLEL if isinstance(network, DGTS) else ""
    return {prefix + released: state[ours].clone() for ours, released in released_names(network).items()}


def save_released(path: Path, network: nn.Module, replace: bool = True) -> None:
    """Write a network as a file in the released format. replace: as of `write_checkpoint`."""
    write_checkpoint(path, export_released(network), replace)


def _load_ours(path: Path, content: dict, weights: Weights) -> LoadedNetwork:
    if content.get("version") != VERSION:
        raise UserError(f"the checkpoint {path} is of version {brief(content.get('version'))}, this program reads version {VERSION}")
    try:
        kind, architecture = content["kind"], content["architecture"]
        state = content["ema"] if weights == "ema" and content.get("ema") is not None else content["network"]
        recorded = {
            "prediction": convert(Prediction, content["prediction"], "it", "prediction"),
            "step": convert(Count | None, content.get("step"), "it", "step"),
        }
        recorded |= recorded_process(kind, content)
    except KeyError as error:
        raise UserError(f"the checkpoint {path} is damaged: it lacks {brief(error)}") from None
    except (ValueError, UserError) as error:
        raise UserError(f"the checkpoint {path} is damaged: its description cannot be used ({brief(error)})") from None
    try:
        network = network_on_meta(kind, architecture)
    except CANNOT_BUILD as error:
        raise UserError(f"the checkpoint {path} is damaged: no {kind} network can be built from its description ({brief(error)})") from None
    fill_network(path, network, state, {name: name for name in network.state_dict()})
    return LoadedNetwork(kind, network, path, released=False, **recorded)


def _load_released(path: Path, content: dict, unrecorded: Unrecorded) -> LoadedNetwork:
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    state = strip_module(tensors)
    try:
        found = (detect(state) or detect_prior(state, unrecorded)) if len(tensors) == len(content) else None
        network = network_on_meta(*found) if found else None
    except (KeyError, *CANNOT_BUILD) as error:  # KeyError: an entry is missing from which a size is read
        if "input_blocks.0.0.weight" in state:
            problem = str(error) if isinstance(error, ValueError) else brief(error)
            advice = ": set unrecorded.head_channels, or null and unrecorded.heads" if "cannot be divided into" in problem else ""
            raise UserError(f"the checkpoint {path} seems to hold a prior, but none can be built from it: {problem}{advice}") from None
        network = None
    if network is None:
        first = ", ".join(map(brief, list(content)[:3]))
        raise UserError(
            f"the checkpoint {path} is not of this method: its entries ({first}, ...) match neither our names nor the release's"
        )
    fill_network(path, network, state, released_names(network))
    process = unrecorded.process() if found[0] in PRIOR_KINDS else None
    return LoadedNetwork(found[0], network, path, released=True, process=process)


def network_on_meta(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network without memory, so that shapes can be compared before anything is allocated."""
    if not isinstance(kind, str) or kind not in CLASSES:
        raise ValueError(f"unknown network {brief(kind)}")
    require_arguments(architecture)
    if "width" not in architecture or kind in PRIOR_KINDS and not {"channels", "blocks"} <= architecture.keys():
        raise ValueError(f"no network can be built with {brief(architecture)}")
    widths, depth = [architecture["width"]], max(architecture.get(name, 1) for name in ("depth", "encoder_layers", "decoder_layers"))
    if kind in PRIOR_KINDS:
        widths, depth = [*widths, *architecture["channels"]], 1
        if not 1 <= architecture["blocks"] <= LARGEST_BLOCKS or not 1 <= len(architecture["channels"]) <= LARGEST_LEVELS:
            raise ValueError(f"no network can be built with {brief(architecture)}")
    if not 1 <= depth <= LARGEST_DEPTH or not all(1 <= width <= LARGEST_WIDTH for width in widths):
        raise ValueError(f"no network can be built with {brief(architecture)}")
    with shapes_alone():
        return build_network(kind, architecture)


def require_arguments(architecture: dict) -> None:
    """Raise ValueError if an architecture holds anything but names with whole numbers, shares, words, and lists of numbers or words."""

    def sound(value: object) -> bool:
        if isinstance(value, list | tuple):
            return len(value) <= MOST_CHANNELS and all(not isinstance(each, list | tuple) and sound(each) for each in value)
        if isinstance(value, int) and not isinstance(value, bool):
            return 0 <= value <= LARGEST_NUMBER
        if isinstance(value, float):
            return 0 <= value <= 1
        return value is None or isinstance(value, bool) or isinstance(value, str) and len(value) <= LONGEST_WORD

    if not isinstance(architecture, dict) or not all(isinstance(name, str) and sound(value) for name, value in architecture.items()):
        raise ValueError(f"no network can be built with {brief(architecture)}")


def is_plain(value: object) -> bool:
    """Whether a value from a file is an ordinary tensor of real numbers."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    return value.device.type == "cpu" and value.dtype.is_floating_point


def are_weights(state: object) -> bool:
    """Whether a value from a file holds ordinary tensors by name: real numbers, and the counters of batch norms."""

    def is_counter(name: object, value: object) -> bool:
        return str(name).endswith("num_batches_tracked") and isinstance(value, Tensor) and value.dtype == torch.int64

    return isinstance(state, dict) and all(is_plain(value) or is_counter(name, value) for name, value in state.items())


def fill_network(path: Path, network: nn.Module, state: dict[str, Tensor], names: dict[str, str]) -> None:
    """Load the weights into the network as float32, and counters as they are. `names` maps its entries to those of `state`."""
    if not are_weights(state):
        raise UserError(f"the checkpoint {path} is damaged: its weights are not tensors of numbers")
    expected = {names[ours]: value for ours, value in network.state_dict().items()}
    difference = compare_entries(expected, state)
    if difference:
        raise UserError(f"the checkpoint {path} does not fit the {type(network).__name__} that it seems to be: {difference}")
    dtypes = {ours: torch.float32 if value.is_floating_point() else value.dtype for ours, value in network.state_dict().items()}
    values = {ours: state[name].to(dtypes[ours]).contiguous() for ours, name in names.items()}
    broken = next((names[ours] for ours, value in values.items() if not value.isfinite().all()), None)
    if broken:
        raise UserError(f"the checkpoint {path} holds values that are not finite (in {broken}): use an older one")
    network.load_state_dict(values, assign=True)
