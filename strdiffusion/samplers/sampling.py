"""The operations that samplers are built from (spec sec. 7), and `sample`, which runs a sampler."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from strdiffusion.batch import Known
from strdiffusion.denoiser import Denoiser, GivenX0
from strdiffusion.samplers.grid import Spacing, TimeGrid
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.solvers import SOLVERS, Solution, Solver, Transition
from strdiffusion.samplers.state import Moment, State
from strdiffusion.samplers.trace import ImageTrace, StepTrace
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.parser import Range

Times = Annotated[int, Range(1, 1000)]  # how often something is done again
Back = Annotated[int, Range(0, 1000)]  # how many steps back
NETWORKS = ("texture", "structure", "discriminator")


@dataclass(frozen=True)
class Networks:
    """The networks of a sampler; those that it does not use may be None. discriminator: called as (texture, structure, t, group=1)."""

    texture: Denoiser | None = None
    structure: Denoiser | None = None
    discriminator: Callable[..., Tensor] | None = None

    @property
    def sde(self) -> MeanRevertingSDE:
        return (self.texture or self.structure).sde


@dataclass
class Stepping:
    """How a step is taken, and which times are visited.

    solver: "ancestral" as released; "ode", its probability flow; "posterior"; "mars_ode" or "mars_sde" of `order` (spec sec. 8).
    steps: the number of steps from T to 0; null: one for each t, as released.
    spacing: whether the times are evenly spaced in t or in the log signal-to-noise ratio.
    ahead: in the joint form, the number of times by which the structure leads the texture (spec sec. 11).
    put_back: the known pixels of the result are the given ones; false: what the network leaves there, as IR-SDE's program.
    """

    solver: Solver = "ancestral"
    order: Literal[1, 2] = 2
    steps: Annotated[int, Range(2, 10_000)] | None = None
    spacing: Spacing = "t"
    ahead: Annotated[int, Range(0, 10_000)] = 0
    put_back: bool = True


@dataclass(frozen=True)
class Begin:
    """Begin at time t instead of T, with a draw from the marginal of an estimate of the clean texture (B,3,H,W) and structure (B,1,H,W)."""

    t: int
    texture: Tensor
    structure: Tensor | None = None


@dataclass(frozen=True)
class KnownStructure:
    """k: the known structure at any time, all with one noise z: mean + (x0 - mean) exp(-theta_bar_t) + sigma_bar_t z. Tensors (B,1,H,W)."""

    sde: MeanRevertingSDE
    x0: Tensor
    mean: Tensor
    z: Tensor

    def at(self, t: int) -> Tensor:
        """k at time t, a draw from its marginal."""
        return self.sde.sample_marginal(self.x0, self.mean, t, self.z)

    def __getitem__(self, rows: Sequence[int]) -> "KnownStructure":
        """The images at these positions."""
        return KnownStructure(self.sde, self.x0[rows], self.mean[rows], self.z[rows])


class Sampling:
    """One run of a sampler: networks, known pixels, noise, times and trace of a batch, or of some of its images (`at`).

    Step n is the step with n steps left before it: it leads from grid[n] to grid[n-1]. On the full grid that is from t = n to t-1. Where a
    grid leaves times out, what the release takes at t-1 is taken at grid[n]-1, not at grid[n-1] (spec sec. 7, "Fewer steps").
    """

    def __init__(self, networks: Networks, known: Known, noise: NoiseSource, stepping: Stepping, begin: Begin | None = None):
        self.networks, self.known, self.stepping, self.begin = networks, known, stepping, begin
        self.sde = networks.sde
        self.grid = TimeGrid(self.sde, stepping.steps, stepping.spacing, begin.t if begin else None, stepping.ahead)
        self.N = self.grid.N
        self.noise = noise
        self.in_batch = list(range(len(known)))  # the positions of these images in the batch
        self.traces = [ImageTrace() for _ in self.in_batch]  # of the whole batch

    def at(self, rows: Sequence[int]) -> "Sampling":
        """The same run for only the images at these positions."""
        part = copy.copy(self)
        part.known, part.in_batch = self.known.take(rows), [self.in_batch[row] for row in rows]
        return part

    # ---- the steps ------------------------------------------------------------------------------------

    def all_steps(self) -> Iterator[int]:
        """N, ..., 1."""
        return self.follow(range(self.N, 0, -1))

    def early_stage(self) -> Iterator[int]:
        """The steps in which the structure is denoised together with the texture: t = T, ..., int(0.4 T)."""
        return self.follow(range(self.N, self.grid.early_end - 1, -1))

    def late_stage(self) -> Iterator[int]:
        """The steps after the early stage, down to t = 1."""
        return self.follow(range(self.grid.early_end - 1, 0, -1))

    def follow(self, steps: Iterable) -> Iterator:
        """These steps n, or moves (n, n'), in order. Each begins a new entry of the trace, with its time."""
        for step in steps:
            n = step if isinstance(step, int) else step[0]
            for row in self.in_batch:
                self.traces[row].steps.append(StepTrace(self.grid[n], evaluations=dict.fromkeys(NETWORKS, 0)))
            yield step

    # ---- texture and structure ------------------------------------------------------------------------

    @property
    def texture_mean(self) -> Tensor:
        """mu_y (B,3,H,W)."""
        return self.sde.texture_mean(self.known.image, self.known.mask)

    def start_texture(self) -> State:
        """mu_y + lambda z."""
        return self._start(self.texture_mean, self.begin and self.begin.texture, self.grid.texture(self.N))

    def start_structure(self) -> State:
        """mu_x + lambda z."""
        return self._start(self.known.maps["structure_mean"], self.begin and self.begin.structure, self.grid.structure(self.N))

    def known_structure(self) -> KnownStructure:
        """k: a draw of the known structure (x0 m, mu_x)."""
        x0, mu = self.known.maps["structure"], self.known.maps["structure_mean"]
        return KnownStructure(self.sde, x0, mu, self.draw(x0))

    def paste(self, k: Tensor, x: State) -> State:
        """k m + x (1-m)."""
        return x.paste(k, self.known.mask)

    def structure_step(self, k: KnownStructure, x: State, n: int, lag: int = 1) -> State:
        """Paste the known structure of the time grid[n]-lag, then denoise by one step. The result holds the state at grid[n-1], and
        `guide`, the same step taken only to grid[n]-1: as in training, the guide of a texture at t is a structure at t-1.
        """
        t, to, seen = self.grid[n], self.grid[n - 1], self.networks.structure.context(self.known.image)
        solution = self._solve("structure", self.paste(k.at(t - lag), x), self.known.maps["structure_mean"], n, seen)
        state = solution(to)
        return replace(state, guide=state.x if to == t - 1 else solution(t - 1).x)

    def texture_step(self, y: State, guide: Tensor | None, n: int) -> State:
        """Denoise the texture by one step under the guidance of a structure (B,1,H,W)."""
        return self._solve("texture", y, self.texture_mean, n, guide)(self.grid[n - 1])

    def joint_step(self, y: State, x: State, n: int) -> tuple[State, State]:
        """Denoise texture and structure by one step, each from its own time, with one evaluation of the joint network."""
        mu_y, mu_x = self.texture_mean, self.known.maps["structure_mean"]
        texture, structure = self.grid.texture, self.grid.structure
        self._count("texture")
        y0, x0 = self.networks.texture.both_x0(y.x, mu_y, texture(n), x.x, mu_x, structure(n))
        return self._move(y, y0, mu_y, texture(n), texture(n - 1)), self._move(x, x0, mu_x, structure(n), structure(n - 1))

    def redo_structure(self, k: KnownStructure, x: State, n: int, steps: int) -> State:
        """Add noise to the structure after step n for `steps` steps, at most up to T, and denoise it back. As released, the state j steps
        above step n gets the known structure of 1+j times before it.
        """
        mu, steps = self.known.maps["structure_mean"], min(steps, self.N - n + 1)
        for j in range(steps):  # the release takes the coefficients of the earlier time here
            x = self.forward_step(x, mu, n + j, self.grid[n + j - 1])
        for j in reversed(range(steps)):
            x = self.structure_step(k, x, n + j, lag=1 + j)
        return x

    def forward_step(self, x: State, mu: Tensor, n: int, coefficients_of: int) -> State:
        """Add noise, from grid[n-1] to grid[n]: by the exact transition if that skips times, otherwise by an Euler step with the
        coefficients of the time `coefficients_of`.
        """
        t, to, z = self.grid[n - 1], self.grid[n], self.draw(x.x)
        if to - t > 1:
            return State(self.sde.sample_transition(x.x, mu, t, to, z))
        return State(self.sde.forward_step(x.x, mu, coefficients_of, z))

    # ---- the discriminator ----------------------------------------------------------------------------

    def score(self, y: State, x: State, n: int) -> Tensor:
        """D (B,): how well texture and structure after step n agree, for each image on its own. The scores are recorded in the trace.

        D was trained with a pair at t-1 and the time t, so its time here is grid[n-1]+1.
        """
        self._count("discriminator")
        scores = self.networks.discriminator(y.x * self.known.mask, x.x, self.grid[n - 1] + 1, group=1).float()
        for row, score in zip(self.in_batch, scores.tolist(), strict=True):
            self.traces[row].steps[-1].scores.append(score)
        return scores

    def record(self, decisions: Iterable[str]) -> None:
        """Record the decision about a resampling for each image."""
        for row, decision in zip(self.in_batch, decisions, strict=True):
            self.traces[row].steps[-1].decisions.append(decision)

    # ---- noise, networks, counts ----------------------------------------------------------------------

    def draw(self, like: Tensor) -> Tensor:
        """The next noise of each image, with the shape, dtype and device of `like` (B,C,H,W)."""
        return self.noise(self.in_batch, like)

    def _start(self, mu: Tensor, x0: Tensor | None, t: int) -> State:
        """The terminal state; with an estimate x0, a draw from its marginal at t."""
        z = self.draw(mu)
        return State(self.sde.terminal_state(mu, z) if x0 is None else self.sde.sample_marginal(x0, mu, t, z))

    def _solve(self, network: str, state: State, mu: Tensor, n: int, guide: Tensor | None) -> Solution:
        denoiser, count = getattr(self.networks, network), partial(self._count, network)
        step = Transition(denoiser, mu, self.grid[n], guide, self.draw, self.stepping.order, count)
        return SOLVERS[self.stepping.solver](state, step)

    def _move(self, state: State, x0: Tensor, mu: Tensor, t: int, to: int) -> State:
        """A step by a predicted x0; with t = to the state waits."""
        if t == to:
            return state
        return SOLVERS[self.stepping.solver](state, Transition(GivenX0(self.sde, x0), mu, t, None, self.draw, self.stepping.order))(to)

    def _count(self, network: str) -> None:
        for row in self.in_batch:
            self.traces[row].steps[-1].evaluations[network] += 1


class Sampler(Protocol):
    """A sampler is a dataclass of its options. `steps` reads like the paper's pseudo-code and yields the states."""

    def steps(self, run: Sampling) -> Iterator[Moment]: ...


@dataclass(frozen=True)
class Sample:
    """The result of sampling: the inpainted texture (B,3,H,W); the last structure state (B,1,H,W), None
    without guidance; a trace for each image.
    """

    texture: Tensor
    structure: Tensor | None
    traces: list[ImageTrace]


@torch.inference_mode()
def sample(sampler: Sampler, run: Sampling, watch: Callable[[Moment], None] | None = None) -> Sample:
    """Run a sampler to its end; `watch` is called with every moment, the start included."""
    for moment in sampler.steps(run):
        if watch is not None:
            watch(moment)
    return finished(run, moment)


def finished(run: Sampling, moment: Moment) -> Sample:
    """The result, with the known pixels put back: y0 m + y (1-m), unless `put_back` is off."""
    texture = run.known.put_back(moment.y.x) if run.stepping.put_back else moment.y.x
    return Sample(texture, None if moment.x is None else moment.x.x, run.traces)
