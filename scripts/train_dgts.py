"""Train DGTS: the command `strdiffusion train dgts`, see python scripts/train_dgts.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="dgts")

if __name__ == "__main__":
    sys.exit(main())
