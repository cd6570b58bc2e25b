"""Write a set of masks: the command `strdiffusion masks`, see python scripts/make_masks.py --help."""

import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.masks import main

if __name__ == "__main__":
    sys.exit(main())
