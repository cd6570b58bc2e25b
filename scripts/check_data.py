"""Check folders of images and masks: the command `strdiffusion check`, see python scripts/check_data.py --help."""

import sys

from strdiffusion.commands.check import main

if __name__ == "__main__":
    sys.exit(main())
