"""Train the prior of RePaint: the command `strdiffusion train prior`, see python scripts/train_prior.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="prior")

if __name__ == "__main__":
    sys.exit(main())
