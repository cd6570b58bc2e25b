"""Train DGTS's enlarging network: the command `strdiffusion train upsampler`, see python scripts/train_upsampler.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="upsampler")

if __name__ == "__main__":
    sys.exit(main())
