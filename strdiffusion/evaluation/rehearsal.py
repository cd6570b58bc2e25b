"""What a table will do: what is wrong with its data, which runs are done already, and about how long the rest takes. Nothing is written."""

import math
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from pathlib import Path

import torch

from strdiffusion.data import index_file
from strdiffusion.data.listing import find_images, require_folders
from strdiffusion.evaluation.folder import open_method
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.run import CLEARING, Run
from strdiffusion.methods import method_class
from strdiffusion.system.errors import UserError
from strdiffusion.system.terminal import duration


class State(Enum):
    """How far a run is. OTHER: its folder holds results of other options or checkpoints, which the run replaces."""

    FINISHED = "finished"
    BEGUN = "begun"
    OTHER = "to be made anew, in place of results of other options or checkpoints"
    ABSENT = "to do"


def state_of(run: Run) -> State:
    """How far a run is, by what its folder holds."""
    found = run.found()
    if found is None or found == CLEARING:
        return State.ABSENT
    if found != run.fingerprint:
        return State.OTHER
    return State.FINISHED if run.is_finished() else State.BEGUN


def count_states(states: Collection[State]) -> str:
    """How many runs are in which state, in words."""
    return ", ".join(f"{sum(one is state for one in states)} {state.value}" for state in State if state in states)


def count_images(runs: Iterable[Run]) -> dict[Path, int]:
    """The number of images of each run, by its folder. Raises UserError for a folder of images or masks that is missing or has none."""
    runs, lengths = list(runs), {}
    wanted = {(name, folder): None for run in runs for name, folder in folders_of(run.config).items() if folder is not None}
    require_folders([(name, folder) for name, folder in wanted])
    for run in runs:
        data = run.config.data
        for name, folder in folders_of(run.config).items():
            if folder is not None and folder not in lengths:
                try:
                    lengths[folder] = len(find_images(folder, index_file(data.index, folder) if name == "data.images" else None))
                except UserError as error:
                    raise UserError(f"{name}: ", *error.parts) from None
    return {run.folder: min(lengths[Path(run.config.data.images).expanduser()], run.config.data.limit or math.inf) for run in runs}


def folders_of(config: TestConfig) -> dict[str, Path | None]:
    """The folders that a test reads its images and masks from, by their option; None if it draws the masks."""
    given = {"data.images": config.data.images, "data.masks.folder": config.data.masks.folder}
    return {name: None if folder is None else Path(folder).expanduser() for name, folder in given.items()}


def require_methods(runs: Mapping[tuple[str, str], list[Run]]) -> None:
    """Load the method of each run that is left, once for each set of options. Raises UserError, with the row, if its files do not fit."""
    seen = set()
    for (label, bucket), samples in runs.items():
        for run in samples:
            key = repr((run.config.method, run.config.options))
            if key not in seen and state_of(run) is not State.FINISHED:
                seen.add(key)
                try:
                    method_class(run.config.method).open(run.config.options, torch.device("cpu"))
                except UserError as error:
                    raise UserError(f"row {label!r}, bucket {bucket!r}: ", *error.parts) from None


def foretell(runs: Mapping[tuple[str, str], list[Run]]) -> str:
    """What is left to do, in a line for each row, with the evaluations of networks and the time that they take here, one by one."""
    left = {key: [run for run in samples if state_of(run) is not State.FINISHED] for key, samples in runs.items()}
    lengths = count_images(run for samples in left.values() for run in samples)
    for run in (run for samples in left.values() for run in samples):
        if state_of(run) is State.BEGUN:
            lengths[run.folder] -= len(run.whole_rows())
    lines, whole, clock = [], 0.0, Clock()
    for label in dict.fromkeys(label for label, _ in runs):
        of_row = [run for (row, _), samples in left.items() if row == label for run in samples]
        evaluations, seconds = 0, 0.0
        for run in of_row:
            count, each = clock.of_image(run.config)
            evaluations, seconds = evaluations + count * lengths[run.folder], seconds + each * lengths[run.folder]
        whole += seconds
        images = sum(lengths[run.folder] for run in of_row)
        cost = f"{evaluations:,} evaluations of networks, {duration(seconds)}" if evaluations else "no network"
        lines.append(f"  {label}: {images} images, {cost}" if of_row else f"  {label}: finished")
    rest = f"the networks take about {duration(whole)} at most" if whole else "no network is needed"
    return "\n".join([*lines, f"{rest}; nothing was written"])


class Clock:
    """Evaluations and seconds of an image by a test's method. A method is loaded once for each set of options, and timed once."""

    def __init__(self):
        self.known: dict[str, tuple[int, float]] = {}

    def of_image(self, config: TestConfig) -> tuple[int, float]:
        """The most evaluations of networks, and their seconds at the networks' size in batches of one."""
        key = repr((config.method, config.options, config.device))
        if key not in self.known:
            method = open_method(config)
            cost, seconds = {name: count.most for name, count in method.cost().items()}, method.time_evaluations()
            self.known[key] = sum(cost.values()), sum(count * seconds.get(name, 0.0) for name, count in cost.items())
        return self.known[key]
