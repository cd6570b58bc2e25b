"""Run a table of configs/tables/: the command `strdiffusion reproduce`, see python scripts/reproduce.py --help."""

import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
