"""Train DGTS's enlarging network: the command `strdiffusion train upsampler`, see python scripts/train_upsampler.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="upsampler")

if __name__ == "__main__":
    sys.exit(main())
