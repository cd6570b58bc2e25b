"""Convert a released checkpoint to ours, or one of ours to the released form.

For example:

    python scripts/convert_checkpoint.py released.pth ours.pt --T 100
    python scripts/convert_checkpoint.py ours.pt released.pth
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.checkpoints import LoadedNetwork, load_network, network_record, save_released, write_checkpoint
from strdiffusion.checkpoints.released_dgts import unrecorded_sizes
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.ddpm import DDPM
from strdiffusion.methods.loading import require_mean_fill
from strdiffusion.networks import DGTS_KINDS
from strdiffusion.sde import MeanFill, MeanRevertingSDE
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import output_files


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the checkpoint to convert; its form is detected")
    parser.add_argument("target", type=Path, help="the file to write; an existing one is not overwritten")
    parser.add_argument("--T", type=int, help="released to ours: the T the weights were trained with (the file does not record it)")
    parser.add_argument("--mean-fill", choices=get_args(MeanFill), help="released to ours, of IR-SDE: what its mean holds in the hole")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="ours to released: which weights")
    return parser.parse_args()


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    if options.target.exists():
        raise UserError(f"{options.target} exists and is not overwritten: give another name")
    if not options.target.parent.is_dir():
        raise UserError(f"{options.target} cannot be written: {options.target.parent} is no folder; make it, or choose another place")
    with output_files([options.target], False, "give another name"):
        loaded = load_network(options.source, weights=options.weights)
        if loaded.released:
            record = record_of_released(loaded, options)
            content = record | {"step": None, "network": loaded.network.state_dict(), "ema": None}
            write_checkpoint(options.target, content, replace=False)
        else:
            if loaded.prediction != "noise" and loaded.kind not in DGTS_KINDS:
                raise UserError(f"{options.source} predicts {loaded.prediction}: the released form knows only networks that predict noise")
            if loaded.kind in DGTS_KINDS and (lost := unrecorded_sizes(loaded.network)):
                sizes = ", ".join(f"{name}={value}" for name, value in lost.items())
                raise UserError(f"{options.source} has {sizes}, which the released form does not record: keep the file as it is")
            save_released(options.target, loaded.network, replace=False)
    print(f"{loaded.kind} network, {loaded.network.architecture()}: {options.source} -> {options.target}")


def record_of_released(loaded: LoadedNetwork, options: argparse.Namespace) -> dict:
    """What our checkpoint records of a released network; what the file leaves open is said. Raises UserError if it must be given."""
    if loaded.kind in DGTS_KINDS:
        if loaded.kind == "dgts":
            print("recorded as released for Places2: lambda 0.1; with weights of CelebA or PSV give dgts.bridge=0.3 at a test")
        return network_record(loaded.kind, loaded.network, prediction="x0")
    if loaded.process is not None:
        record = network_record(loaded.kind, loaded.network, DDPM(**loaded.process))
        print(f"recorded as released: {record['process']}")
        return record
    if options.T is None or options.T < 2:
        raise UserError(f"{options.source} does not record its T: give the one it was trained with, for example --T 100")
    config = SDEConfig(T=options.T, mean_fill=options.mean_fill)
    if loaded.kind == "texture":
        require_mean_fill(loaded, config, "--mean-fill")
    sde = MeanRevertingSDE(**vars(config))
    structure = StructureConfig(edge_source="full", edge_sigma=3.0)  # of the released trainings
    record = network_record(loaded.kind, loaded.network, sde, vars(structure), loaded.prediction)
    print(f"recorded as released: {record['sde']}, {record['structure']}")
    return record


if __name__ == "__main__":
    sys.exit(main())
