"""Train the discriminator network: python scripts/train_discriminator.py -opt configs/psv/discriminator.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TrainDiscriminatorConfig, load_config
from strdiffusion.training import dry_run, train


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__, dry_run=True)
    config = load_config(TrainDiscriminatorConfig, options.opt, options.overrides)
    (dry_run if options.dry_run else train)("discriminator", config)


if __name__ == "__main__":
    sys.exit(main())
