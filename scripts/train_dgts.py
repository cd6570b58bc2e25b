"""Train DGTS: the command `strdiffusion train dgts`, see python scripts/train_dgts.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="dgts")

if __name__ == "__main__":
    sys.exit(main())
