"""Train the texture network: python scripts/train_texture.py -opt configs/psv/texture.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TrainTextureConfig, load_config
from strdiffusion.training import dry_run, train


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__, dry_run=True)
    config = load_config(TrainTextureConfig, options.opt, options.overrides)
    (dry_run if options.dry_run else train)("texture", config)


if __name__ == "__main__":
    sys.exit(main())
