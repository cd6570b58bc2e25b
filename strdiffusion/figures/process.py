"""The denoising process as a strip: states of texture and structure at chosen t, for several methods."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from strdiffusion.data import TestItem
from strdiffusion.figures.methods import Entry, FiguresConfig, SameImages, chosen_item, load_entries
from strdiffusion.figures.states import visit_states
from strdiffusion.figures.tables import Panel, table_figure
from strdiffusion.methods import Method, Step
from strdiffusion.system.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

DEFAULT_COLUMNS = 6
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Process:
    """One method on one image: states by t, texture (H,W,3) and structure (H,W), and the truth of both (None if unknown).

    structure is empty without guidance. It ends with the early stage, at t = structure_end: the late stage denoises no structure.
    """

    label: str
    texture: dict[int, np.ndarray]
    structure: dict[int, np.ndarray]
    structure_end: int | None
    truth: tuple[np.ndarray, np.ndarray | None] | None


def record_process(config: FiguresConfig) -> list[Process]:
    """Run every entry on the chosen image, and keep the states at the chosen t."""
    entries = load_entries(config)
    grids = {entry.label: entry.config.options.grid() for entry in entries}
    steps = {label: () if grid is None else grid.times for label, grid in grids.items()}
    times = chosen_times(config.process.t, {label: visited for label, visited in steps.items() if visited})
    same = SameImages()
    methods = [entry.open() for entry in entries]
    items = [chosen_item(entry, method, config.process.image) for entry, method in zip(entries, methods, strict=True)]
    for entry, item in zip(entries, items, strict=True):
        same.require(entry, item)
    return [record_states(entry, method, item, times) for entry, method, item in zip(entries, methods, items, strict=True)]


def chosen_times(wanted: Sequence[int], visited: Mapping[str, Sequence[int]]) -> list[int]:
    """The times to show, in descending order. Raises UserError for a time that a method does not visit.

    Args:
        wanted: the times; if empty, some times that all methods visit.
        visited: the times of each method, from 0 to its T.
    """
    if not visited:
        return [0]  # methods without steps have only a result
    if not wanted:
        Ts = [times[-1] for times in visited.values()]
        if len(set(Ts)) > 1:
            raise UserError(f"the methods have different T ({', '.join(map(str, Ts))}): choose the steps to show by process.t=[...]")
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


def record_states(entry: Entry, method: Method, item: TestItem, times: Sequence[int]) -> Process:
    """Run one entry on one image. The result of a method without steps is shown at the last time."""
    texture: dict[int, np.ndarray] = {}
    structure: dict[int, np.ndarray] = {}
    with_structure: set[int] = set()

    def keep(state: Step, _: Step | None) -> None:
        if "structure" in state.pictures:
            with_structure.add(state.to)
        if state.to in times:
            texture[state.to] = state.image[0].permute(1, 2, 0).cpu().numpy()
            structure.pop(state.to, None)
            if "structure" in state.pictures:
                structure[state.to] = state.pictures["structure"][0, 0].cpu().numpy()

    log.info("%s: inpainting %s", entry.label, item.name)
    result = visit_states(entry, method, [item], keep)
    if not texture:
        texture[min(times)] = result.image[0].permute(1, 2, 0).cpu().numpy()
    truth = None
    if entry.config.data.ground_truth:
        truth = item.image(), method.true_pictures(item.for_maps()).get("structure")
    return Process(entry.label, texture, structure, min(with_structure, default=None), truth)


def process_figure(processes: Sequence[Process]) -> "Figure":
    """Draw the strips below each other: a row for the texture and, with guidance, one for the structure. Values are clipped to [0,1]."""
    times = sorted(set().union(*(process.texture for process in processes)), reverse=True)
    with_truth = all(process.truth is not None for process in processes)
    cells: list[list[Panel]] = []
    rows: list[str] = []
    groups = []
    for process in processes:
        strips: list[tuple[str, dict]] = [("texture", process.texture)]
        if process.structure:
            strips.append(("structure", process.structure))
        for index, (kind, states) in enumerate(strips):
            missing = "no such step" if kind == "texture" else f"ended at t = {process.structure_end}"
            row: list[Panel] = [states.get(t, missing) for t in times]
            cells.append(row + ([process.truth[index]] if with_truth else []))
            rows.append(kind)
        groups.append((process.label, len(strips)))
    columns = [f"t = {t}" for t in times] + (["truth"] if with_truth else [])
    return table_figure(cells, columns, rows, groups)
