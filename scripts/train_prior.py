"""Train the prior of RePaint: the command `strdiffusion train prior`, see python scripts/train_prior.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="prior")

if __name__ == "__main__":
    sys.exit(main())
