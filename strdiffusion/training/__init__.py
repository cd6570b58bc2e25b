"""Training: loop.py is the one loop, tasks.py the three trainings, state.py what is saved and resumed, ema.py, data.py."""

from strdiffusion.training.loop import train

__all__ = ["train"]
