"""Load and save methods: the method that a model folder's model.yml names, or the one that networks belong to."""

from collections.abc import Mapping
from pathlib import Path

import torch

from strdiffusion.checkpoints.networks import Weights
from strdiffusion.checkpoints.tensors import StorageType
from strdiffusion.config.model import FORMAT
from strdiffusion.methods.dgts import DGTSMethod
from strdiffusion.methods.dgts_loading import load_dgts_folder, make_dgts_model, save_dgts_folder
from strdiffusion.methods.irsde import IRSDEMethod
from strdiffusion.methods.loading import DESCRIPTION, from_checkpoints, load_model, load_networks, save_folder
from strdiffusion.methods.method import METHODS, Method, method_class
from strdiffusion.methods.prior_loading import load_prior_folder, make_prior_model, save_prior_folder
from strdiffusion.methods.repaint import RepaintMethod
from strdiffusion.networks import Kind
from strdiffusion.sde import MeanFill
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import output_folder
from strdiffusion.system.parser import build, read_yaml, save_tree, to_dict

WITH_NETWORKS = IRSDEMethod | DGTSMethod | RepaintMethod


def load_method(
    source: Path | Mapping[Kind, str | Path],
    device: torch.device,
    T: int | None = None,
    size: int | None = None,
    weights: Weights = "ema",
    mean_fill: MeanFill | None = None,
) -> Method:
    """The method of a model folder, a folder of training runs or checkpoint files, a mapping from kind to checkpoint file, or a name.

    T, mean_fill: of released files, which do not record them. size: of the training images, if it is not recorded (default 256).
    weights: which weights of our checkpoints, the moving average or the raw weights. Raises UserError if the source is none of these.
    """
    others = {"T": T, "size": size, "weights": None if weights == "ema" else weights, "mean_fill": mean_fill}  # only for networks
    if isinstance(source, Path) and not source.is_dir():
        if str(source) in METHODS and not source.exists():
            return open_by_name(str(source), device).varied(**others)
        given = "is a file" if source.exists() else "does not exist"
        raise UserError(
            f"the model folder {source} {given}: give a folder with {DESCRIPTION}, of training runs, or of checkpoints, or a method's name"
        )
    if isinstance(source, Path) and (source / DESCRIPTION).exists():
        method = open_without_networks(source / DESCRIPTION, device)
        if method is not None:
            return method.varied(**others)
        cls = method_of_folder(source)
        if cls is DGTSMethod:
            return DGTSMethod(load_dgts_folder(source), device).varied(**others)
        if cls is RepaintMethod:
            return RepaintMethod(load_prior_folder(source), device).varied(**others)
        model = load_model(source, T, size, weights, mean_fill)
    else:
        networks = load_networks(source, weights)
        kinds = {loaded.kind for loaded in networks}
        if "dgts" in kinds:
            return DGTSMethod(make_dgts_model(networks), device).varied(T=T, size=size, mean_fill=mean_fill)
        if "prior" in kinds:
            return RepaintMethod(make_prior_model(networks, size=size), device).varied(T=T, mean_fill=mean_fill)
        model = from_checkpoints(networks, T, size, mean_fill)
    return method_class(model.config.method)(model, device)


def method_of_folder(folder: Path) -> type[Method]:
    """The method that a model folder names; without a name it is one of StrDiffusion's."""
    return method_class(read_yaml(folder / DESCRIPTION).get("method", IRSDEMethod.name), str(folder / DESCRIPTION))


def open_without_networks(description: Path, device: torch.device) -> Method | None:
    """The method of a model.yml that holds only its options; None if the method has networks."""
    tree = read_yaml(description)
    cls = method_of_folder(description.parent)
    if issubclass(cls, WITH_NETWORKS):
        return None
    if tree.get("format", FORMAT) != FORMAT:
        raise UserError(f"{description}: format must be {FORMAT!r}, not {tree['format']!r}")
    rest = {key: value for key, value in tree.items() if key not in ("method", "format")}
    options = build(cls.Options, rest, str(description))
    options.check()
    return cls.open(options, device)


def open_by_name(name: str, device: torch.device) -> Method:
    """A method with its default options, for methods that need no weights."""
    cls = METHODS[name]
    if issubclass(cls, WITH_NETWORKS):
        raise UserError(f"the method {name} needs trained networks: give a model folder that holds them")
    options = build(cls.Options, {}, f"the method {name}")
    options.check()
    return cls.open(options, device)


def save_method(method: Method, folder: str | Path, dtype: StorageType = "float32") -> Path:
    """Write a model folder: model.yml, and the weights if there are any. Raises UserError if the folder already holds files."""
    if isinstance(method, IRSDEMethod):
        return save_folder(method.model, folder, dtype)
    if isinstance(method, DGTSMethod):
        return save_dgts_folder(method.model._replace(settings=method.settings), folder, dtype)
    if isinstance(method, RepaintMethod):
        return save_prior_folder(method.model, folder, dtype)
    with output_folder(folder, False, "save to another folder") as folder:
        save_tree({"format": FORMAT, "method": method.name} | to_dict(method.options), folder / DESCRIPTION)
        return folder
