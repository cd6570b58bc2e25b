"""RePaint (docs/repaint_spec.md sec. 5; arXiv 2201.09865): an unconditional prior, conditioned on the known pixels at sampling.

Intelligent Painter (arXiv 2210.17106) is RePaint with `stop_resampling`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from strdiffusion.ddpm import DDPM, NoiseSchedule, Predicted
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.parser import Count, Positive, Range

MOST_TIMES = 100_000  # of a run; the released configurations have some thousands
Times = Annotated[int, Range(1, 1000)]
PriorSolver = Literal["ddpm", "ddim", "dpm++2m"]


@dataclass
class Jumps:
    """The list of times, by the names of the released configurations. 1 jump_n_sample: no jumps.

    jump_length, jump_n_sample: each stretch of so many steps is denoised so many times. n_sample: each single step so many times.
    jump2_*, jump3_*: two more kinds of jumps; a jump of one kind gives the kinds after it their jumps back.
    start_resampling: nothing is done again above this time; null: no limit. stop_resampling: nothing is done again below this time
        (Intelligent Painter's; its value is 100 of 250).
    """

    jump_length: Positive = 10
    jump_n_sample: Times = 10
    n_sample: Times = 1
    jump2_length: Positive = 1
    jump2_n_sample: Times = 1
    jump3_length: Positive = 1
    jump3_n_sample: Times = 1
    start_resampling: Positive | None = None
    stop_resampling: Count = 0

    def times(self, T: int) -> list[int]:
        """The indices that a run visits, each one away from the one before, from T-1 to -1. Raises UserError if they are too many."""
        kinds = [(self.jump_length, self.jump_n_sample), (self.jump2_length, self.jump2_n_sample), (self.jump3_length, self.jump3_n_sample)]
        jumps = [places(T, *kind) if kind[1] > 1 else {} for kind in kinds]
        left = [dict(each) for each in jumps]  # the jumps left at each place
        limit = T if self.start_resampling is None else self.start_resampling
        t, times = T, []
        while t >= 1:
            t -= 1
            times.append(t)
            if len(times) > MOST_TIMES:
                raise UserError(f"these jumps visit more than {MOST_TIMES} times: lower jump_n_sample, jump2_n_sample, or n_sample")
            if t + 1 < T - 1 and self.stop_resampling <= t <= limit:
                times.extend([t + 1, t] * (self.n_sample - 1))
            for kind in (2, 1, 0):
                length, _ = kinds[kind]
                if left[kind].get(t, 0) > 0 and self.stop_resampling <= t <= limit - length:
                    left[kind][t] -= 1
                    left[kind + 1 :] = [dict(later) for later in jumps[kind + 1 :]]
                    times.extend(range(t + 1, t + length + 1))
                    t += length
        return [*times, -1]


@dataclass
class RepaintConfig(Jumps):
    """How RePaint samples: its times, and the process that is sampled. The defaults are the released ones, but for put_back.

    steps: T, chosen evenly from the steps that the prior was trained with; respacing: instead of it, another choice such as "10,5,7" or
        "ddim50" (sec. 4).
    solver: of the reverse steps: ddpm, as released, with the learned variance; ddim, without noise; dpm++2m, the same of second order
        (DPM-Solver++(2M)). After a jump the first step is one of ddim.
    clip: every predicted x0 to [-1,1].
    put_back: the known pixels of the result are the given ones; false, as released: what the network leaves there.
    label: the class of all images, if the prior is class-conditional or a classifier guides; null, as released: one drawn for each image.
    classifier_scale: of the classifier's gradient.
    truncate: what the network painted is brought to 8 bits by truncation, as released; otherwise it is rounded when it is written.
    """

    steps: Annotated[int, Range(2, 10_000)] = 250
    respacing: str | None = None
    solver: PriorSolver = "ddpm"
    clip: bool = True
    put_back: bool = True
    label: Annotated[int, Range(0, 999)] | None = None
    classifier_scale: Annotated[float, Range(0, 10_000)] = 1.0
    truncate: bool = False

    def process(self, trained: int, schedule: NoiseSchedule, key: str = "repaint") -> DDPM:
        """The process that is sampled, of one with `trained` steps. Raises UserError if these options do not fit it."""
        chosen = "steps" if self.respacing is None else "respacing"
        try:
            process = DDPM(trained, schedule, self.respacing if self.respacing is not None else str(self.steps))
        except ValueError as error:
            option = Option(f"{key}.{chosen}", getattr(self, chosen))
            raise UserError(option, f" does not fit a prior that was trained with {trained} steps: {error}") from None
        for name in ("jump", "jump2", "jump3"):
            length, samples = getattr(self, f"{name}_length"), getattr(self, f"{name}_n_sample")
            if samples > 1 and length >= process.T:
                raise UserError(
                    f"{key}.{name}_length={length} is longer than the process of {process.T} steps: give less than that, or more steps"
                )
        first = process.T - 1 if self.start_resampling is None else self.start_resampling
        if self.stop_resampling and self.stop_resampling >= first:
            raise UserError(
                f"{key}.stop_resampling={self.stop_resampling} must be below {first}, where resampling begins: give less than that"
            )
        return process


def places(T: int, length: int, samples: int) -> dict[int, int]:
    """The number of jumps at each place: 0, length, 2 length, ... below T - length."""
    return dict.fromkeys(range(0, T - length, length), samples - 1)


def truncated(x: Tensor) -> Tensor:
    """Images of the process, in [-1,1], as images in [0,1] of 8-bit levels: floor((x + 1) 127.5) of 255."""
    return ((x + 1) * 127.5).clamp(0, 255).floor() / 255


def count_jumps(times: Sequence[int]) -> int:
    """How often a list of times goes back to more noise, by one step or more at once: its jumps."""
    return sum(i < k and not h < i for h, i, k in zip(times, times[1:], times[2:], strict=False))


def count_reverse_steps(times: Sequence[int]) -> int:
    """The network evaluations of a list of times: its steps down."""
    return sum(k < i for i, k in pairwise(times))


class Estimate(NamedTuple):
    """What a reverse step from index i took for the clean images: x0 (B,3,H,W)."""

    i: int
    x0: Tensor


@dataclass(frozen=True)
class Prior:
    """A network on a process: what one reverse step needs.

    network: called as (x, t, classes), t in the trained process. classes: (B,) for class-conditional networks.
    gradient: of a classifier, called as (x, t), its scale included; None: no guidance. prediction, clip: as `DDPM.reverse`. solver: see
    `RepaintConfig`; only ddpm takes a gradient.
    """

    network: Callable[..., Tensor]
    process: DDPM
    prediction: Predicted = "noise"
    clip: bool = True
    classes: Tensor | None = None
    gradient: Callable[..., Tensor] | None = None
    solver: PriorSolver = "ddpm"

    def reverse_step(self, x: Tensor, i: int, z: Tensor, last: Estimate | None = None) -> tuple[Tensor, Estimate]:
        """From the state x (B,3,H,W) at i to the state at i-1, with noise z; and the estimate that it used. last: that of the step before,
        for the solver of second order.
        """
        t = self.process.network_times[i]
        reverse = self.process.reverse(x, self.network(x, t, self.classes).to(x.dtype), i, self.prediction, self.clip)
        estimate = Estimate(i, reverse.x0)
        if self.solver == "ddpm":
            reverse = reverse if self.gradient is None else reverse.shifted(self.gradient(x, t).to(x.dtype))
            return self.process.draw(reverse, i, z), estimate
        x0 = estimate.x0
        if self.solver == "dpm++2m" and last is not None and last.i == i + 1:
            x0 = self.process.extrapolate(x0, last.x0, i)
        return self.process.step_without_noise(x, x0, i), estimate


class Transition(NamedTuple):
    """The state x (B,3,H,W) after a transition from index i to k; i = k for the start."""

    i: int
    k: int
    x: Tensor


def begin_late(times: Sequence[int], a: Tensor, kept: float) -> Sequence[int]:
    """The times of a run that begins from an estimate x0: they begin just before the first t at which sqrt(a_t), its weight in the state,
    is above `kept`.
    """
    late = next(n for n, t in enumerate(times) if a[t].sqrt() > kept)
    return times[max(late - 1, 0) :]


def repaint(
    prior: Prior, x0: Tensor, m: Tensor, times: Sequence[int], draw: Callable[[Tensor], Tensor], begin: Tensor | None = None
) -> Iterator[Transition]:
    """RePaint's loop, in the order of sec. 5. The last state is the result; its known pixels are the network's.

    x0: (B,3,H,W) in [-1,1], of which only the known pixels are looked at. m: (B,1,H,W), 1 = known; between 0 and 1, as at the rims of
        Intelligent Painter's program, the two are mixed. times: see `Jumps.times`.
    draw: gives standard normal noise like a tensor; 2 draws a reverse step (1 in the first), 1 a climbing step, and the start.
    begin: an estimate of the clean images, (B,3,H,W); the run then starts from its marginal at the first of `times`, not from noise.
    """
    process, last = prior.process, None
    x = draw(x0) if begin is None else process.sample_marginal(begin, times[0], draw(x0))
    yield Transition(times[0], times[0], x)
    for i, k in pairwise(times):
        if k < i:
            z = draw(x)
            if last is not None:  # the very first evaluation sees pure noise
                known = process.sample_marginal(x0, i, draw(x))
                x = torch.where(m > 0, m * known + (1 - m) * x, x)  # a hole may hold anything
            x, last = prior.reverse_step(x, i, z, last)
        else:
            x = process.climb(x, i, draw(x))
        yield Transition(i, k, x)
