"""Train the texture network: the command `strdiffusion train texture`, see python scripts/train_texture.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="texture")

if __name__ == "__main__":
    sys.exit(main())
