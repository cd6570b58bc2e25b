"""The states of a method while it samples, each with its time t."""

from collections.abc import Callable
from dataclasses import replace

import torch

from strdiffusion.data import TestItem, collate
from strdiffusion.evaluation.folder import image_seed
from strdiffusion.figures.methods import Entry
from strdiffusion.methods import Method, Result, Step, run

Visit = Callable[[Step, Step | None], None]


def visit_states(entry: Entry, method: Method, items: list[TestItem], visit: Visit) -> Result:
    """Inpaint items of one size. Call `visit` with every state from T to 0 and with the state after it (None at the end).

    The time of a state is its `to`. Pictures that a step did not change are left out of its state, such as the structure in the late
    stage. A sampler that jumps back visits a t several times; the state that it keeps comes last.
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
    """The last of one or two states, with only the pictures that are other tensors than in the state before it."""
    before = states[0].pictures if len(states) == 2 else {}
    return replace(states[-1], pictures={name: p for name, p in states[-1].pictures.items() if p is not before.get(name)})
