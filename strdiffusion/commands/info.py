"""Say what a checkpoint or a model folder is: its T, widths, attention, iterations trained, and what else it records.

For example:

    strdiffusion info runs/psv/texture/latest.pt
    strdiffusion info released.pth
    strdiffusion info weights/benchmark
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from strdiffusion.checkpoints import LoadedNetwork, load_network
from strdiffusion.networks import DGTS_KINDS
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import one_line
from strdiffusion.system.parser import to_dict


@exit_on_user_error
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="FILE", type=Path, help="a checkpoint, ours or released; a model folder; a folder of runs")
    path = parser.parse_args(arguments).path.expanduser()
    for name, value in list(describe(path)):  # nothing is printed before an error
        print(f"{name:14s} {one_line(value)}")


def describe(path: Path) -> Iterator[tuple[str, str]]:
    """What a checkpoint, or a folder of them, records, as names and values."""
    from strdiffusion.methods.folders import method_of_folder, open_without_networks
    from strdiffusion.methods.loading import DESCRIPTION, checkpoint_files, load_folder

    if not path.is_dir():
        yield from describe_network(load_network(path))
        return
    if (path / DESCRIPTION).exists():
        method = open_without_networks(path / DESCRIPTION, torch.device("cpu"))
        if method is not None:
            yield "model folder", str(path)
            yield "method", method.name
            yield from ((name, str(value)) for name, value in to_dict(method.options).items())
            return
        of_family = {"dgts": describe_dgts_folder, "repaint": describe_prior_folder}.get(method_of_folder(path).name)
        if of_family is not None:
            yield from of_family(path)
            return
        model = load_folder(path)
        config = model.config
        yield "model folder", str(path)
        yield "trained at", f"{config.size}x{config.size} pixels"
        sampler = config.sampler
        steps = f"{sampler.steps} steps" if sampler.steps else "every t"
        yield "method", config.method
        yield "sampler", f"{sampler.solver}, {steps}, resampling {sampler.resampling}"
        for line in config.provenance:
            yield "provenance", line
        networks = list(model.networks)
    else:
        yield "folder", f"{path}, of checkpoints"
        networks = [load_network(file) for file in checkpoint_files(path)]
    for loaded in networks:
        yield "", ""
        yield from describe_network(loaded)


def describe_dgts_folder(folder: Path) -> Iterator[tuple[str, str]]:
    """What a model folder of DGTS records."""
    from strdiffusion.methods.dgts_loading import load_dgts_folder

    model = load_dgts_folder(folder)
    yield "model folder", str(folder)
    yield "method", "dgts"
    yield from ((name, str(value)) for name, value in to_dict(model.settings).items())
    for line in model.provenance:
        yield "provenance", line
    for name, network in (("dgts", model.core), ("upsampler", model.upsampler)):
        if network is not None:
            count = sum(parameter.numel() for parameter in network.parameters())
            yield name, f"{count:,} parameters, {network.architecture()}"


def describe_prior_folder(path: Path) -> Iterator[tuple[str, str]]:
    """What a model folder of RePaint records."""
    from strdiffusion.methods.prior_loading import load_prior_folder

    model = load_prior_folder(path)
    config = model.config
    yield "model folder", str(path)
    yield "trained at", f"{config.size}x{config.size} pixels"
    yield "method", config.method
    jumps = f"jumps of {config.repaint.jump_length}, {config.repaint.jump_n_sample} times"
    yield "sampler", f"T {config.repaint.respacing or config.repaint.steps}, {jumps}"
    for line in config.provenance:
        yield "provenance", line
    for loaded in model.networks():
        yield "", ""
        yield from describe_network(loaded)


def describe_network(loaded: LoadedNetwork) -> Iterator[tuple[str, str]]:
    """The properties of a network and its record."""
    architecture = loaded.network.architecture()
    count = sum(parameter.numel() for parameter in loaded.network.parameters())
    yield "network", f"{loaded.kind}, {count:,} parameters"
    yield "file", f"{loaded.path} ({'released' if loaded.released else 'ours'}, {loaded.path.stat().st_size / 1e6:.1f} MB)"
    if loaded.kind in DGTS_KINDS:
        yield from ((name, str(value)) for name, value in architecture.items())
        yield "trained", f"{loaded.step:,} iterations" if loaded.step is not None else "for an unknown number of iterations"
        return
    yield "width", str(architecture["width"])
    if loaded.kind == "judge":
        yield "depth", str(architecture["depth"])
        yield "classes", str(architecture["classes"])
        yield "trained", f"{loaded.step:,} iterations"
        return
    if loaded.process is not None:
        yield from describe_prior(loaded, architecture)
        return
    if loaded.kind != "discriminator":
        yield "depth", str(architecture["depth"])
        yield "attention", architecture["attention"]
        yield "guided", "yes, it has SPADE blocks" if architecture["guided"] else "no"
        yield "predicts", "x0 - mu" if loaded.prediction == "x0" else "noise"
    if loaded.sde is None:
        yield "T", "not recorded in a released file: 400 for Places2, 100 elsewhere, unless you know better"
        return
    yield "T", f"{loaded.sde['T']} ({loaded.sde['schedule']} schedule, max_sigma {loaded.sde['max_sigma']:g}, eps {loaded.sde['eps']:g})"
    if loaded.sde["mean_fill"] == "white" or loaded.sde["rounding"] == "released":
        filled = loaded.sde["mean_fill"] or "black"
        yield "mean", f"{filled} in the hole; the optimum step with {loaded.sde['rounding']} rounding"
    structure = loaded.structure
    edges = f"edges of the {structure.get('edge_source', '?')} image, sigma {structure.get('edge_sigma', '?')}"
    yield "structure", f"{structure['pair']}, {edges}"
    yield "trained", f"{loaded.step:,} iterations" if loaded.step is not None else "for an unknown number of iterations"


def describe_prior(loaded: LoadedNetwork, architecture: dict) -> Iterator[tuple[str, str]]:
    """The properties of a prior or its classifier, and of the process it was trained with."""
    yield "channels", f"{', '.join(map(str, architecture['channels']))}, {architecture['blocks']} blocks a level"
    heads = architecture["head_channels"]
    divided = f"{architecture['heads']} heads" if heads is None else f"heads of {heads} channels"
    factors = ", ".join(f"1/{factor}" for factor in architecture["attention"])
    yield (
        "attention",
        f"at {factors or 'the middle alone'} of the size, {divided}, {'new' if architecture['new_order'] else 'released'} order",
    )
    switches = [name for name in ("scale_shift", "resblock_updown", "class_conditional", "learned_sigma") if architecture.get(name)]
    yield "switches", ", ".join(switches) or "none"
    if loaded.kind == "classifier":
        yield "classifies", f"{architecture['classes']} classes at {architecture['size']}x{architecture['size']} pixels"
    else:
        yield "predicts", "x0" if loaded.prediction == "x0" else "noise"
    process = f"{loaded.process['steps']} steps, {loaded.process['schedule']} schedule"
    yield "process", f"{process}; not recorded in a released file, nor is the division of attention" if loaded.released else process
    if not loaded.released:
        yield "trained", f"{loaded.step:,} iterations" if loaded.step is not None else "for an unknown number of iterations"
