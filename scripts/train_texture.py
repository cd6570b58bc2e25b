"""Train the texture network: the command `strdiffusion train texture`, see python scripts/train_texture.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="texture")

if __name__ == "__main__":
    sys.exit(main())
