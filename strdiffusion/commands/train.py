"""Train one of the networks: structure, texture and discriminator of StrDiffusion, or dgts and upsampler of DGTS.

    strdiffusion train structure -opt configs/psv/structure.yml [key=value ...]
    strdiffusion train texture -opt configs/psv/texture.yml resume=auto
    strdiffusion train discriminator -opt configs/psv/discriminator.yml training.batch_size=8
    strdiffusion train dgts -opt configs/benchmark/dgts.yml

All options: strdiffusion/config/training.py and, of DGTS, strdiffusion/config/dgts.py. Ctrl-C saves; resume=auto continues.
"""

from collections.abc import Sequence

from strdiffusion.config import TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig, load_config
from strdiffusion.config.dgts import TrainDGTSConfig, TrainUpsamplerConfig
from strdiffusion.networks import Kind
from strdiffusion.system.cli import exit_on_user_error, parse_options

CONFIGURATIONS = {
    "structure": TrainStructureConfig,
    "texture": TrainTextureConfig,
    "discriminator": TrainDiscriminatorConfig,
    "dgts": TrainDGTSConfig,
    "upsampler": TrainUpsamplerConfig,
}


@exit_on_user_error
def main(arguments: Sequence[str] | None = None, prog: str | None = None, network: Kind = "texture") -> None:
    options = parse_options(__doc__, arguments, prog, dry_run=True)
    config = load_config(CONFIGURATIONS[network], options.opt, options.overrides)
    from strdiffusion.training import dry_run, train

    (dry_run if options.dry_run else train)(network, config)
