"""Judge a folder of outputs by the folder of truths: the command `strdiffusion evaluate`, see python scripts/evaluate.py --help."""

import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
