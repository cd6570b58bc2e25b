"""Inpaint a folder of images as a configuration says: the command `strdiffusion test`, see python scripts/test.py --help."""

import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.test import main

if __name__ == "__main__":
    sys.exit(main())
