"""The denoising process as a strip: states of texture and structure at chosen t, method against method."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import TestItem, collate
from strdiffusion.evaluation.folder import image_seed, network_method
from strdiffusion.figures.methods import FiguresConfig, Method, SameImages, chosen_item, load_methods
from strdiffusion.figures.states import State, visit_states
from strdiffusion.figures.tables import Cell, table_figure
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

DEFAULT_COLUMNS = 6
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Process:
    """One method on one image: states by t, texture (H,W,3) and structure (H,W), and the truth of both (None where unknown).

    structure is empty without guidance, and lacks the late stage, where no structure is denoised: structure_end is its last t.
    """

    label: str
    texture: dict[int, np.ndarray]
    structure: dict[int, np.ndarray]
    structure_end: int | None
    truth: tuple[np.ndarray, np.ndarray] | None


def record_process(config: FiguresConfig) -> list[Process]:
    """Run every method on the chosen image, and keep the states at the chosen t."""
    methods = load_methods(config)
    times = chosen_times(config.process.t, {method.label: method.config.grid().times for method in methods})
    same = SameImages()
    items = [chosen_item(method, config.process.image) for method in methods]
    for method, item in zip(methods, items, strict=True):
        same.require(method, item)
    return [record_states(method, item, times) for method, item in zip(methods, items, strict=True)]


def chosen_times(wanted: Sequence[int], visited: Mapping[str, Sequence[int]]) -> list[int]:
    """The times to show, from the greatest to the least; raises UserError for one that a method does not visit.

    Args:
        wanted: the times; where it is empty, some that all methods visit.
        visited: the times of each method, from 0 to its T.
    """
    if not wanted:
        Ts = [times[-1] for times in visited.values()]
        if len(set(Ts)) > 1:
            raise UserError(f"the methods have different T ({', '.join(map(str, Ts))}): say which steps to show, process.t=[...]")
        common = sorted(set.intersection(*map(set, visited.values())))
        wanted = [common[i] for i in np.unique(np.linspace(0, len(common) - 1, DEFAULT_COLUMNS).round().astype(int))]
    for label, times in visited.items():
        if missing := set(wanted) - set(times):
            every = len(times) == times[-1] + 1
            only = f"the steps {times[-1]} to 0" if every else f"{', '.join(map(str, reversed(times)))}"
            raise UserError(f"process.t holds {max(missing)}, but the times of {label} are only {only}")
    if len(wanted) > MOST_COLUMNS:
        raise UserError(f"process.t holds {len(wanted)} steps: take at most {MOST_COLUMNS}")
    return sorted(wanted, reverse=True)


def record_states(method: Method, item: TestItem, times: Sequence[int]) -> Process:
    """Run one method on one image."""
    texture: dict[int, np.ndarray] = {}
    structure: dict[int, np.ndarray] = {}

    with_structure: set[int] = set()

    def keep(state: State) -> None:
        if state.structure is not None:
            with_structure.add(state.t)
        if state.t in times:
            texture[state.t] = state.texture[0].permute(1, 2, 0).cpu().numpy()
            structure.pop(state.t, None)
            if state.structure is not None:
                structure[state.t] = state.structure[0, 0].cpu().numpy()

    log.info("%s: inpainting %s", method.label, item.name)
    visit_states(network_method(method.config), collate([item]), [image_seed(method.config, item)], keep)
    truth = None
    if method.config.data.ground_truth:
        truth = item.texture.permute(1, 2, 0).numpy(), item.structure[0].numpy()
    return Process(method.label, texture, structure, min(with_structure, default=None), truth)


def process_figure(processes: Sequence[Process]) -> "Figure":
    """Draw the strips below each other: a row for the texture and, with guidance, one for the structure. Values are cut to [0,1]."""
    times = sorted(processes[0].texture, reverse=True)
    with_truth = all(process.truth is not None for process in processes)
    cells: list[list[Cell]] = []
    rows: list[str] = []
    groups = []
    for process in processes:
        strips: list[tuple[str, dict]] = [("texture", process.texture)]
        if process.structure:
            strips.append(("structure", process.structure))
        for index, (kind, states) in enumerate(strips):
            row: list[Cell] = [states.get(t, f"ended at t = {process.structure_end}") for t in times]
            cells.append(row + ([process.truth[index]] if with_truth else []))
            rows.append(kind)
        groups.append((process.label, len(strips)))
    columns = [f"t = {t}" for t in times] + (["truth"] if with_truth else [])
    return table_figure(cells, columns, rows, groups)
