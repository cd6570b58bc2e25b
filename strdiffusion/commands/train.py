"""Train a network.

    strdiffusion train structure -opt configs/psv/structure.yml [key=value ...]
    strdiffusion train texture -opt configs/psv/texture.yml resume=auto
    strdiffusion train discriminator -opt configs/psv/discriminator.yml training.batch_size=8
    strdiffusion train judge -opt configs/benchmark/judge.yml
    strdiffusion train prior -opt configs/benchmark/prior.yml
    strdiffusion train dgts -opt configs/benchmark/dgts.yml
    strdiffusion train upsampler -opt configs/benchmark/upsampler.yml

All options: strdiffusion/config/training.py; of a prior: prior.py beside it, of DGTS: dgts.py. Ctrl-C saves; resume=auto continues.
"""

from collections.abc import Sequence

from strdiffusion.config import (
    TrainDGTSConfig,
    TrainDiscriminatorConfig,
    TrainJudgeConfig,
    TrainPriorConfig,
    TrainStructureConfig,
    TrainTextureConfig,
    TrainUpsamplerConfig,
    load_config,
)
from strdiffusion.networks import Kind
from strdiffusion.system.cli import exit_on_user_error, parse_options

CONFIGURATIONS = {
    "structure": TrainStructureConfig,
    "texture": TrainTextureConfig,
    "discriminator": TrainDiscriminatorConfig,
    "judge": TrainJudgeConfig,
    "prior": TrainPriorConfig,
    "dgts": TrainDGTSConfig,
    "upsampler": TrainUpsamplerConfig,
}


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None, network: Kind = "texture") -> None:
    options = parse_options(__doc__, arguments, prog or f"strdiffusion train {network}", dry_run=True)
    config = load_config(CONFIGURATIONS[network], options.opt, options.overrides)
    from strdiffusion.training import dry_run, train

    (dry_run if options.dry_run else train)(network, config)
