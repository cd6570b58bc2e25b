"""python -m strdiffusion: the command line."""

import sys

from strdiffusion.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
