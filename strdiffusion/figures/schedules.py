"""The times that RePaint's schedules visit, move by move, with what each costs (docs/repaint_spec.md sec. 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from yaml import YAMLError

from strdiffusion.figures.style import COLOURS, TWO_COLUMNS, check_labels, new_figure, styled
from strdiffusion.samplers.prior import RepaintConfig, count_jumps, count_reverse_steps
from strdiffusion.system.errors import UserError, brief
from strdiffusion.system.parser import build, parse_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = {
    "Intelligent Painter: stop at 100": RepaintConfig(stop_resampling=100),
    "RePaint": RepaintConfig(),
    "start at 150": RepaintConfig(start_resampling=150),
    "no resampling": RepaintConfig(jump_n_sample=1),
}
ROW = 2.1  # cm


@dataclass(frozen=True)
class Schedule:
    """A list of times, from T-1 to -1, and its counts."""

    label: str
    times: Sequence[int] = field(repr=False)

    @property
    def evaluations(self) -> int:
        return count_reverse_steps(self.times)

    @property
    def jumps(self) -> int:
        return count_jumps(self.times)

    @property
    def moves(self) -> int:
        return len(self.times) - 1


def read_schedules(given: Sequence[str]) -> list[Schedule]:
    """Schedules of texts such as "ours={steps: 50, jump_length: 5, stop_resampling: 20}"; those of Intelligent Painter's program if none is
    given. Raises UserError for one that is no schedule.
    """
    configs = dict(PUBLISHED)
    if given:
        pairs = [text.partition("=") for text in given]
        check_labels([label for label, _, _ in pairs])
        configs = {label: _config(label, options) for label, _, options in pairs}
    return [Schedule(label, config.times(config.process(1000, "linear", label).T)) for label, config in configs.items()]


def _config(label: str, options: str) -> RepaintConfig:
    try:
        tree = parse_yaml(options)
    except (ValueError, YAMLError):
        raise UserError(f"the schedule {label} is not of the form LABEL={{key: value}}: {brief(options)}") from None
    return build(RepaintConfig, tree, f"the schedule {label}")


@styled
def schedules_figure(schedules: Sequence[Schedule]) -> "Figure":
    """Draw t over the moves of each schedule, all on one scale, with its counts."""
    figure = new_figure(TWO_COLUMNS, 1.2 + ROW * len(schedules))
    rows = figure.subplots(len(schedules), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, schedule, colour in zip(rows, schedules, COLOURS * len(schedules)):
        axes.plot(range(len(schedule.times)), schedule.times, color=colour, linewidth=0.6)
        counts = f"{schedule.evaluations:,} evaluations, {schedule.jumps:,} jumps, {schedule.moves:,} moves"
        axes.set_title(f"{schedule.label}: {counts}", loc="left")
        axes.set_ylabel("t")
        axes.margins(x=0.01)
    rows[-1].set_xlabel("moves")
    return figure
