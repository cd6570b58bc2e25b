"""The states of texture and structure during sampling, each with the t it belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strdiffusion.batch import Batch
from strdiffusion.evaluation.guides import OracleGuided
from strdiffusion.methods.inpainting import Inpainter
from strdiffusion.samplers import Models, Progress, Sample, SeededNoise
from strdiffusion.samplers.run import Run


@dataclass(frozen=True)
class State:
    """What a sampler holds at t, on its device.

    texture: y_t (B,3,H,W).
    structure: x_t (B,1,H,W); None without guidance, and after the early stage, where no structure is denoised.
    guide: the structure (B,1,H,W) that the texture's step from t was given; None without guidance and at t = 0.
    """

    t: int
    texture: Tensor
    structure: Tensor | None
    guide: Tensor | None


@torch.inference_mode()
def visit_states(inpainter: Inpainter | OracleGuided, batch: Batch, seeds: Sequence[int], visit: Callable[[State], None]) -> Sample:
    """Inpaint a batch, and call `visit` with every state from T to 0.

    A sampler that jumps back passes a t several times; what it keeps comes last.
    """
    known = batch.to(inpainter.device)
    guided = inpainter.models.structure is not None
    # a sampler tells of a state after the step that made it; the one it starts from is drawn here again, from the same noise
    texture, structure = (state.x for state in Run(inpainter.models, known, SeededNoise(seeds)).start())
    raw, structure = None, structure if guided else None

    def after_step(progress: Progress) -> None:
        nonlocal texture, raw, structure
        denoised = guided and progress.structure is not raw  # in the late stage the last structure is handed on as it is
        guide = progress.structure if denoised else texture.mean(dim=1, keepdim=True) if guided else None
        visit(State(progress.t, texture, structure, guide))
        texture, raw, structure = progress.texture, progress.structure, progress.structure if denoised else None

    sample = inpainter(batch, seeds, after_step)
    visit(State(0, texture, structure, None))
    return sample


@torch.inference_mode()
def estimate(models: Models, known: Batch, state: State) -> tuple[Tensor, Tensor | None]:
    """The clean texture and structure that the networks predict from a state; at t = 0 the state itself.

    Structure is None where the state has none.
    """
    if state.t == 0:
        return state.texture, state.structure
    texture = models.texture.x0(state.texture, known.texture_mean, state.t, state.guide)
    if state.structure is None:
        return texture, None
    return texture, models.structure.x0(state.structure, known.structure_mean, state.t)
