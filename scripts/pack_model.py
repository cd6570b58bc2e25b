"""Pack trained networks into a model folder: model.yml, and a safetensors file for each network.

    python scripts/pack_model.py weights/mine texture=runs/mine/texture/latest.pt structure=runs/mine/structure/latest.pt \\
        discriminator=runs/mine/discriminator/latest.pt sampler.solver=posterior sampler.steps=20 --dtype float16
    python scripts/pack_model.py weights/mine prior=runs/mine/prior/latest.pt repaint.steps=25 --dtype float16
    python scripts/pack_model.py weights/mine dgts=runs/mine/dgts/latest.pt upsampler=runs/mine/upsampler/latest.pt
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.app import StrDiffusion
from strdiffusion.checkpoints.tensors import StorageType
from strdiffusion.config.model import ModelConfig, PriorModelConfig
from strdiffusion.methods.loading import save_folder
from strdiffusion.methods.prior_loading import save_prior_folder, vars_of_process
from strdiffusion.networks import DGTS_KINDS, KINDS, PRIOR_KINDS
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, set_override, to_dict

PACKED = (*KINDS, *PRIOR_KINDS, *DGTS_KINDS)


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write; one that holds files is refused")
    help = (
        f"a checkpoint for each network ({', '.join(PACKED)}), and any key of model.yml: sampler.*, of a prior repaint.*, are its defaults"
    )
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help=help)
    parser.add_argument("--dtype", choices=get_args(StorageType), default="float32", help="how numbers are stored (float32)")
    parser.add_argument("--T", type=int, help="the T of released checkpoints, which do not record it")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="of our checkpoints, which weights (ema)")
    return parser.parse_args()


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    networks, overrides = {}, []
    for setting in options.settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"{setting!r} is not of the form KEY=VALUE")
        if key in PACKED:
            networks[key] = value
        else:
            overrides.append(setting)
    model = StrDiffusion.load(networks, T=options.T, weights=options.weights, device="cpu")
    if not {"texture", "prior"} & networks.keys():
        pack_as_it_is(model, overrides, options)
    elif "prior" in networks:
        config = with_overrides(PriorModelConfig, model.method.model.config, overrides)
        config.repaint.process(**vars_of_process(config.process))  # raises UserError if they do not fit
        save_prior_folder(model.method.model._replace(config=config), options.folder, options.dtype)
    else:
        config = with_overrides(ModelConfig, model.method.model.config, overrides)
        config.check()
        save_folder(model.method.model._replace(config=config), options.folder, options.dtype)
    report(options.folder)


def with_overrides(cls: type, config, overrides: list[str]):
    """The configuration with keys of model.yml replaced."""
    tree = to_dict(config)
    for override in overrides:
        set_override(tree, override)
    return build(cls, tree, "the command line")


def pack_as_it_is(model: StrDiffusion, overrides: list[str], options: argparse.Namespace) -> None:
    """Pack the networks of another method. Raises UserError for settings: its model.yml takes them by hand."""
    if overrides:
        name = model.method.name
        raise UserError(f"{overrides[0]} is no setting that is packed with networks of {name}: edit its model.yml, or set it in the test")
    model.save(options.folder, options.dtype)


def report(folder: Path) -> None:
    """Print the files of a folder and their sizes."""
    sizes = ", ".join(f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in sorted(folder.iterdir()))
    print(f"{folder}: {sizes}")


if __name__ == "__main__":
    sys.exit(main())
