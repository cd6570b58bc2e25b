"""Train the judge of results: the command `strdiffusion train judge`, see python scripts/train_judge.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="judge")

if __name__ == "__main__":
    sys.exit(main())
