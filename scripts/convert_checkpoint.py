"""Convert a released checkpoint to ours, or one of ours to the released form.

For example:

    python scripts/convert_checkpoint.py released.pth ours.pt --T 100
    python scripts/convert_checkpoint.py ours.pt released.pth
"""

import argparse
import sys
from pathlib import Path

from strdiffusion.checkpoints import LoadedNetwork, load_network, network_record, save_released, write_checkpoint
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.networks import KINDS
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the checkpoint to convert; its form is detected")
    parser.add_argument("target", type=Path, help="the file to write; an existing one is not overwritten")
    parser.add_argument("--T", type=int, help="released to ours: the T the weights were trained with (the file does not record it)")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="ours to released: which weights")
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    options = parse_arguments()
    if options.target.exists():
        raise UserError(f"{options.target} exists and is not overwritten: give another name")
    loaded = load_network(options.source, weights=options.weights)
    if loaded.kind not in KINDS:  # of DGTS: there is no T
        convert_dgts(loaded, options.target)
    elif loaded.released:
        if options.T is None or options.T < 2:
            raise UserError(f"{options.source} does not record its T: give the one it was trained with, for example --T 100")
        sde = MeanRevertingSDE(**vars(SDEConfig(T=options.T)))
        structure = StructureConfig(edge_source="full", edge_sigma=3.0)  # of the released trainings
        record = network_record(loaded.kind, loaded.network, sde, vars(structure), loaded.prediction)
        print(f"recorded as released: {record['sde']}, {record['structure']}")
        write_checkpoint(options.target, record | {"step": None, "network": loaded.network.state_dict(), "ema": None})
    else:
        if loaded.prediction != "noise":
            raise UserError(f"{options.source} predicts {loaded.prediction}: the released form knows only networks that predict noise")
        save_released(options.target, loaded.network)
    print(f"{loaded.kind} network, {loaded.network.architecture()}: {options.source} -> {options.target}")


def convert_dgts(loaded: LoadedNetwork, target: Path) -> None:
    """Write a network of DGTS in the other form. A released file records no lambda: the network gets that of Places2."""
    if loaded.released:
        record = network_record(loaded.kind, loaded.network, None, None, "x0")
        write_checkpoint(target, record | {"step": None, "network": loaded.network.state_dict(), "ema": None})
    else:
        save_released(target, loaded.network)


if __name__ == "__main__":
    sys.exit(main())
