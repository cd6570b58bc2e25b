"""Training: run.py sets a run up, loop.py is the one loop, step.py an iteration of it, tasks.py the trainings of StrDiffusion's networks.

task.py         what a training is to the loop; judge.py, prior.py, dgts.py: the trainings of the judge, of RePaint's prior, of DGTS
optimizer.py    Adam, and groups of parameters with rates of their own
preparation.py  what a run and its rehearsal prepare alike; data.py: the data of a configuration
start.py        the weights that a run begins with, if they are not new
state.py        what is saved and resumed; ema.py: the moving average; folder.py: the checkpoint files
loading.py      the data loader and its processes; faults.py: files that cannot be used
shares.py       which part of a global batch a process takes
validation.py   losses and samples of held-out images
journal.py      log, metrics, TensorBoard and status line; ending.py: what they record of the end
interrupt.py    signals
rehearsal.py    what a run would cost (--dry-run)
"""

from strdiffusion.training.rehearsal import dry_run
from strdiffusion.training.run import train

__all__ = ["dry_run", "train"]
