"""Train the discriminator network: python scripts/train_discriminator.py -opt configs/psv/discriminator.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TrainDiscriminatorConfig, load_config
from strdiffusion.training import train


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__)
    train("discriminator", load_config(TrainDiscriminatorConfig, options.opt, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
