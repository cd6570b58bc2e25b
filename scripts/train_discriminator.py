"""Train the discriminator network: the command `strdiffusion train discriminator`, see python scripts/train_discriminator.py --help."""

import functools
import sys

from strdiffusion.commands import train

main = functools.partial(train.main, network="discriminator")

if __name__ == "__main__":
    sys.exit(main())
