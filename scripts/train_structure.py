"""Train the structure network: the command `strdiffusion train structure`, see python scripts/train_structure.py --help."""

import functools
import sys

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands import train

main = functools.partial(train.main, network="structure")

if __name__ == "__main__":
    sys.exit(main())
