"""Training: run.py sets a run up, loop.py is the one loop, tasks.py the three trainings.

state.py       what is saved and resumed; folder.py: the checkpoint files
shares.py      which part of a global batch a process takes
data.py        the data of a configuration; faults.py: files that cannot be used
validation.py  losses and samples of held-out images
journal.py     log, metrics, TensorBoard and status line
interrupt.py   signals
rehearsal.py   what a run would cost (--dry-run)
"""

from strdiffusion.training.rehearsal import dry_run
from strdiffusion.training.run import train

__all__ = ["dry_run", "train"]
