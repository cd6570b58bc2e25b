"""Train the judge of results: the command `strdiffusion train judge`, see python scripts/train_judge.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="judge")

if __name__ == "__main__":
    sys.exit(main())
