"""The states of a method while it samples, each with the t it belongs to."""

from collections.abc import Callable
from dataclasses import replace

import torch

from strdiffusion.data import TestItem, collate
from strdiffusion.evaluation.folder import image_seed
from strdiffusion.figures.methods import Entry
from strdiffusion.methods import Method, Result, Step, run

Visit = Callable[[Step, Step | None], None]


def visit_states(entry: Entry, method: Method, items: list[TestItem], visit: Visit) -> Result:
    """Inpaint items of one size, and call `visit` with every state from T to 0, and the one after it (None at the end).

    A state belongs to its time `to`. Pictures that the step to it did not change are left out: no structure is denoised in the late
    stage. A sampler that jumps back passes a t several times; what it keeps comes last.
    """
    states: list[Step] = []  # the last two

    def watch(step: Step) -> None:
        if states:
            visit(changed(*states[-2:]), step)
        states[:] = [*states[-1:], step]

    with torch.inference_mode():
        result = run(method, collate(items), [image_seed(entry.config, item) for item in items], watch)
        if states:
            visit(changed(*states), None)
    return result


def changed(*states: Step) -> Step:
    """The last of one or two states, with only the pictures that are not the same tensors as in the one before."""
    before = states[0].pictures if len(states) == 2 else {}
    return replace(states[-1], pictures={name: p for name, p in states[-1].pictures.items() if p is not before.get(name)})
