"""Kill a small run at random moments until it is done, and compare it with an uninterrupted one: python scripts/kill_test.py 30

A training (--kind structure, texture, joint, discriminator, prior, dgts, upsampler) gets SIGKILL, SIGTERM, SIGUSR1, SIGINT and SIGHUP;
half of the SIGKILLs aim at the writing of a checkpoint, when its temporary file exists. After each signal the run continues with
resume=auto. In the end weights, moving average, optimizer, progress and all logged losses must be those of the uninterrupted run, bit for
bit.

The commands that write folders (--kind test, reproduce, inpaint, masks) get SIGKILL, half of them while a temporary file exists, and are
given again, unchanged. Each folder that is done is compared with an uninterrupted one, byte for byte except for the seconds that it
took, and another is begun until there were enough kills. All are forked from this process, so that a start costs little.
"""

import random
import sys
import tempfile
from pathlib import Path

import torch

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.system.cli import OneLineParser, exit_on_user_error

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from kill_commands import COMMANDS, kill_commands
from kill_trainings import KINDS, kill_training


@exit_on_user_error(go_on=True)
def main() -> int:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, help="how many times the run is interrupted")
    parser.add_argument("--kind", choices=(*KINDS, *COMMANDS), default="texture")
    parser.add_argument("--iterations", type=int, default=120, help="of a training")
    parser.add_argument("--images", type=int, default=12, help="of a command that writes a folder")
    parser.add_argument("--quick", action="store_true", help="a command by methods that need no network: many kills in a short time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    torch.set_num_threads(1)  # a fork has no other threads
    with tempfile.TemporaryDirectory(prefix="kill_test_") as temporary:
        if options.kind in COMMANDS:
            found = kill_commands(options.kind, options.kills, options.images, rng, Path(temporary), options.quick)
        else:
            found = kill_training(options.kind, options.kills, options.iterations, rng, Path(temporary))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
