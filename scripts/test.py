"""Inpaint a folder of images: python scripts/test.py -opt configs/psv/test.yml [key=value ...]"""

import sys

from strdiffusion.cli import exit_on_user_error, parse_options
from strdiffusion.config import TestConfig, load_config
from strdiffusion.evaluation.folder import inpaint_folder


@exit_on_user_error
def main() -> None:
    options = parse_options(__doc__)
    inpaint_folder(load_config(TestConfig, options.opt, options.overrides))


if __name__ == "__main__":
    sys.exit(main())
