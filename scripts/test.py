"""Inpaint a folder of images as a configuration says: the command `strdiffusion test`, see python scripts/test.py --help."""

import sys

from strdiffusion.commands.test import main

if __name__ == "__main__":
    sys.exit(main())
