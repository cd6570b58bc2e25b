"""Train the structure network: python scripts/train_structure.py -opt configs/psv/structure.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TrainStructureConfig, load_config
from strdiffusion.training import train


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__)
    train("structure", load_config(TrainStructureConfig, options.opt, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
