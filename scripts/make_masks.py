"""Write a set of masks: the command `strdiffusion masks`, see python scripts/make_masks.py --help."""

import sys

from strdiffusion.commands.masks import main

if __name__ == "__main__":
    sys.exit(main())
