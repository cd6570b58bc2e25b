"""Train the structure network: python scripts/train_structure.py -opt configs/psv/structure.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TrainStructureConfig, load_config
from strdiffusion.training import dry_run, train


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__, dry_run=True)
    config = load_config(TrainStructureConfig, options.opt, options.overrides)
    (dry_run if options.dry_run else train)("structure", config)


if __name__ == "__main__":
    sys.exit(main())
