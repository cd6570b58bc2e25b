"""The moves that samplers are made of. Each acts on any subset of the batch and counts what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.denoiser import Denoiser, Precision, autocast
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.trace import Callback, ImageTrace, Progress, Sample, StepTrace
from strdiffusion.sde import MeanRevertingSDE

Step = Literal["ancestral", "posterior"]
Rows = Sequence[int]


@dataclass(frozen=True)
class Models:
    """The networks of a sampler; which of them it needs, it says.

    precision: of the discriminator; the denoisers have their own.
    step: how a state at t becomes one at t-1: by the reverse SDE ("ancestral", as released), or by the posterior step.
    """

    texture: Denoiser | None = None
    structure: Denoiser | None = None
    discriminator: nn.Module | None = None
    step: Step = "ancestral"
    precision: Precision = "fp32"

    @property
    def sde(self) -> MeanRevertingSDE:
        return (self.texture or self.structure).sde


class Run:
    """One sampling run of a batch: noise, trace and the moves. `rows` says which images of the batch a move is for."""

    def __init__(self, models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None):
        self.models, self.sde = models, models.sde
        self.known, self.noise, self.callback = known, noise, callback
        self.all: list[int] = list(range(len(known)))
        self.traces = [ImageTrace() for _ in self.all]

    def start(self) -> tuple[Tensor, Tensor]:
        """Draw the terminal states of texture, then structure."""
        y, x = self.known.texture_mean, self.known.structure_mean
        return self.sde.terminal_state(y, self.noise(self.all, y)), self.sde.terminal_state(x, self.noise(self.all, x))

    def begin_step(self, t: int) -> None:
        for trace in self.traces:
            trace.steps.append(StepTrace(t))

    def end_step(self, t: int, y: Tensor, x: Tensor | None) -> None:
        if self.callback is not None:
            self.callback(Progress(t, self.sde.T, y, x, self.traces))

    def finish(self, y: Tensor, x: Tensor | None) -> Sample:
        """Put the known pixels back: y0 m + y (1-m)."""
        return Sample(torch.where(self.known.mask > 0.5, self.known.texture, y), x, self.traces)

    # ---- moves ---------------------------------------------------------------------------------------

    def known_structure(self, t: int) -> Tensor:
        """Draw the known structure at t-1, from the marginal of (x0 m, mu_x)."""
        known = self.known
        return self.sde.sample_marginal(known.structure * known.mask, known.structure_mean, t - 1, self.noise(self.all, known.structure))

    def paste(self, k: Tensor, x: Tensor, rows: Rows) -> Tensor:
        """k m + x (1-m)."""
        mask = self.known.take(rows).mask
        return k * mask + x * (1 - mask)

    def structure_step(self, k: Tensor, x: Tensor, t: int, rows: Rows) -> Tensor:
        """Paste the known structure, then denoise from t to t-1."""
        self._count("structure", rows)
        mu = self.known.take(rows).structure_mean
        x = self.paste(k, x, rows)
        return self._denoise(x, mu, self.models.structure.noise(x, mu, t), t, rows)

    def texture_step(self, y: Tensor, guide: Tensor | None, t: int, rows: Rows) -> Tensor:
        """Denoise the texture from t to t-1 under the guidance of a structure."""
        self._count("texture", rows)
        mu = self.known.take(rows).texture_mean
        return self._denoise(y, mu, self.models.texture.noise(y, mu, t, guide), t, rows)

    def redo_structure(self, k: Tensor, x: Tensor, t: int, jump: int, rows: Rows) -> Tensor:
        """Carry the structure at t-1 forward by `jump` steps and denoise it back."""
        mu = self.known.take(rows).structure_mean
        for j in range(jump):
            x = self.sde.forward_step(x, mu, t - 1 + j, self.noise(rows, x))
        for j in reversed(range(jump)):
            x = self.structure_step(k, x, t + j, rows)
        return x

    def score(self, y: Tensor, x: Tensor, t: int, rows: Rows) -> Tensor:
        """How well texture and structure agree, each image on its own; (len(rows),). Recorded in the trace."""
        self._count("discriminator", rows)
        with autocast(y.device, self.models.precision):
            scores = self.models.discriminator(y * self.known.take(rows).mask, x, t, group=1).float()
        for row, score in zip(rows, scores.tolist(), strict=True):
            self.traces[row].steps[-1].scores.append(score)
        return scores

    def decide(self, rows: Rows, decisions: list) -> None:
        """Record what came of a resampling."""
        for row, decision in zip(rows, decisions, strict=True):
            self.traces[row].steps[-1].decisions.append(decision)

    def _denoise(self, x: Tensor, mu: Tensor, noise_prediction: Tensor, t: int, rows: Rows) -> Tensor:
        z = self.noise(rows, x)
        if self.models.step == "posterior":
            return self.sde.posterior_step(x, mu, noise_prediction, t, z)
        return self.sde.reverse_sde_step(x, mu, self.sde.score(noise_prediction, t), t, z)

    def _count(self, network: str, rows: Rows) -> None:
        for row in rows:
            step = self.traces[row].steps[-1]
            name = f"{network}_evaluations"
            setattr(step, name, getattr(step, name) + 1)


def early_end(T: int) -> int:
    """The last t of the early stage, in which the structure is denoised beside the texture: int(0.4 T)."""
    return max(int(0.4 * T), 1)


def late_stage(run: Run, y: Tensor, x: Tensor) -> Sample:
    """Finish from the end of the early stage; the texture's own channel mean is the guide now (spec sec. 7)."""
    for t in range(early_end(run.sde.T) - 1, 0, -1):
        run.begin_step(t)
        y = run.texture_step(y, y.mean(dim=1, keepdim=True), t, run.all)
        run.end_step(t, y, x)
    return run.finish(y, x)
