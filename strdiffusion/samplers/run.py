"""The moves that samplers are made of. Each acts on any subset of the batch and counts what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.denoiser import Denoiser, Precision, autocast
from strdiffusion.samplers.grid import Spacing, TimeGrid
from strdiffusion.samplers.mars import mars_step
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.trace import Callback, ImageTrace, Progress, Sample, State, StepTrace
from strdiffusion.sde import MeanRevertingSDE

Method = Literal["ancestral", "posterior", "mars_ode", "mars_sde"]
Rows = Sequence[int]


@dataclass(frozen=True)
class Begin:
    """Where sampling begins instead of at T: at time t, in the marginal of an estimate of texture (B,3,H,W) and structure (B,1,H,W)."""

    t: int
    texture: Tensor
    structure: Tensor


@dataclass(frozen=True)
class Models:
    """The networks of a sampler; which of them it needs, it says.

    precision: of the discriminator; the denoisers have their own.
    method: how a state becomes one at the next time: by the reverse SDE ("ancestral", as released), by the posterior
        step, or by MaRS (spec sec. 8).
    order: of MaRS, 1 or 2; others do not use it.
    steps, spacing: the times, see `TimeGrid`; None visits every t, as released.
    begin: None begins at T, as released.
    """

    texture: Denoiser | None = None
    structure: Denoiser | None = None
    discriminator: nn.Module | None = None
    method: Method = "ancestral"
    order: Literal[1, 2] = 2
    steps: int | None = None
    spacing: Spacing = "t"
    precision: Precision = "fp32"
    begin: Begin | None = None

    @property
    def sde(self) -> MeanRevertingSDE:
        return (self.texture or self.structure).sde


class Run:
    """One sampling run of a batch: noise, times, trace and the moves. `rows` says which images of the batch a move is for.

    A step is named by n, the number of steps that are left before it: it leads from grid[n] to grid[n-1]. On the full
    grid that is from t = n to t-1.

    What a step of order 2 remembers of an image is part of its State, and is treated as the state is: it leaves the batch
    with it, and is averaged, accepted and rejected with it. For the texture that is exact: all proposals of a step start
    from the same state and memory, and the step is affine in the prediction, so the average of two proposals is the step
    of their average prediction. Proposals of the structure come by different paths, but what they remember are predictions
    of the same time, and the average belongs to the averaged state. Noise that is added (to redo the structure, or in
    RePaint's jumps) ends it: the prediction before belongs to another path, and the first step back is of order 1.
    Pasting known pixels leaves it as the network made it.
    """

    def __init__(self, models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None):
        self.models, self.sde = models, models.sde
        self.grid = TimeGrid(self.sde, models.steps, models.spacing, models.begin.t if models.begin else None)
        self.known, self.noise, self.callback = known, noise, callback
        self.all: list[int] = list(range(len(known)))
        self.traces = [ImageTrace() for _ in self.all]

    def start(self) -> tuple[State, State]:
        """Draw the first states of texture, then structure."""
        return self.start_texture(), self.start_structure()

    def start_texture(self) -> State:
        begin = self.models.begin
        return self._first_state(self.known.texture_mean, begin and begin.texture)

    def start_structure(self) -> State:
        begin = self.models.begin
        return self._first_state(self.known.structure_mean, begin and begin.structure)

    def _first_state(self, mu: Tensor, x0: Tensor | None) -> State:
        """The terminal state, or where an estimate x0 is given, a draw from its marginal at the first time of the grid."""
        noise = self.noise(self.all, mu)
        return State(self.sde.terminal_state(mu, noise) if x0 is None else self.sde.sample_marginal(x0, mu, self.grid[self.grid.N], noise))

    def begin_step(self, n: int) -> None:
        for trace in self.traces:
            trace.steps.append(StepTrace(self.grid[n]))

    def end_step(self, n: int, y: State, x: State | None) -> None:
        if self.callback is not None:
            structure = None if x is None else x.x
            self.callback(Progress(self.grid[n], self.sde.T, n, self.grid.N, y.x, structure, self.traces))

    def finish(self, y: State, x: State | None) -> Sample:
        """Put the known pixels back: y0 m + y (1-m)."""
        texture = torch.where(self.known.mask > 0.5, self.known.texture, y.x)
        return Sample(texture, None if x is None else x.x, self.traces)

    # ---- moves ---------------------------------------------------------------------------------------

    def known_structure(self, n: int) -> Tensor:
        """Draw the known structure at the time to which the step leads, from the marginal of (x0 m, mu_x)."""
        known, to = self.known, self.grid[n - 1]
        return self.sde.sample_marginal(known.structure * known.mask, known.structure_mean, to, self.noise(self.all, known.structure))

    def paste(self, k: Tensor, x: State, rows: Rows) -> State:
        """k m + x (1-m)."""
        mask = self.known.take(rows).mask
        return State(k * mask + x.x * (1 - mask), x.q, x.t_q)

    def structure_step(self, k: Tensor, x: State, n: int, rows: Rows) -> State:
        """Paste the known structure, then denoise by one step."""
        self._count("structure", rows)
        mu = self.known.take(rows).structure_mean
        return self._denoise(self.models.structure, self.paste(k, x, rows), mu, n, rows)

    def texture_step(self, y: State, guide: Tensor | None, n: int, rows: Rows) -> State:
        """Denoise the texture by one step under the guidance of a structure."""
        self._count("texture", rows)
        mu = self.known.take(rows).texture_mean
        return self._denoise(self.models.texture, y, mu, n, rows, guide)

    def redo_structure(self, k: Tensor, x: State, n: int, jump: int, rows: Rows) -> State:
        """Carry the structure that the step led to forward by `jump` steps and denoise it back."""
        mu = self.known.take(rows).structure_mean
        for j in range(jump):
            x = self.forward_step(x, mu, n + j, rows, self.grid[n - 1 + j])
        for j in reversed(range(jump)):
            x = self.structure_step(k, x, n + j, rows)
        return x

    def forward_step(self, x: State, mu: Tensor, n: int, rows: Rows, coefficients_of: int) -> State:
        """Add noise: from grid[n-1] to grid[n], exactly where that skips times, else by the Euler step of a t."""
        t, to, z = self.grid[n - 1], self.grid[n], self.noise(rows, x.x)
        if to - t > 1:
            return State(self.sde.sample_transition(x.x, mu, t, to, z))
        return State(self.sde.forward_step(x.x, mu, coefficients_of, z))

    def score(self, y: State, x: State, n: int, rows: Rows) -> Tensor:
        """How well texture and structure agree, each image on its own; (len(rows),). Recorded in the trace."""
        self._count("discriminator", rows)
        with autocast(y.x.device, self.models.precision):
            scores = self.models.discriminator(y.x * self.known.take(rows).mask, x.x, self.grid[n], group=1).float()
        for row, score in zip(rows, scores.tolist(), strict=True):
            self.traces[row].steps[-1].scores.append(score)
        return scores

    def decide(self, rows: Rows, decisions: list) -> None:
        """Record what came of a resampling."""
        for row, decision in zip(rows, decisions, strict=True):
            self.traces[row].steps[-1].decisions.append(decision)

    def _denoise(self, denoiser: Denoiser, state: State, mu: Tensor, n: int, rows: Rows, guide: Tensor | None = None) -> State:
        x, t, to = state.x, self.grid[n], self.grid[n - 1]
        inputs = (x, mu, t) if guide is None else (x, mu, t, guide)
        if self.models.method in ("mars_ode", "mars_sde"):
            q = denoiser.x0(*inputs)
            # drawn in the last step too, where it has no effect, as the posterior step does
            z = self.noise(rows, x) if self.models.method == "mars_sde" else None
            result = mars_step(self.sde, x, mu, q, t, to, z, None if state.q is None else (state.q, state.t_q))
            return State(result, q, t) if self.models.order == 2 else State(result)
        prediction, z = denoiser.noise(*inputs), self.noise(rows, x)
        if self.models.method == "posterior":
            return State(self.sde.posterior_step(x, mu, prediction, t, z, to))
        return State(self.sde.reverse_sde_step(x, mu, self.sde.score(prediction, t), t, z, to))

    def _count(self, network: str, rows: Rows) -> None:
        for row in rows:
            step = self.traces[row].steps[-1]
            name = f"{network}_evaluations"
            setattr(step, name, getattr(step, name) + 1)


def late_stage(run: Run, y: State, x: State) -> Sample:
    """Finish from the end of the early stage; the texture's own channel mean is the guide now (spec sec. 7)."""
    for n in range(run.grid.early_end - 1, 0, -1):
        run.begin_step(n)
        y = run.texture_step(y, y.x.mean(dim=1, keepdim=True), n, run.all)
        run.end_step(n, y, x)
    return run.finish(y, x)
