"""Train the structure network: the command `strdiffusion train structure`, see python scripts/train_structure.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="structure")

if __name__ == "__main__":
    sys.exit(main())
