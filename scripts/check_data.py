"""Check folders of images and masks: the command `strdiffusion check`, see python scripts/check_data.py --help."""

import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.check import main

if __name__ == "__main__":
    sys.exit(main())
