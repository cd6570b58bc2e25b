"""Sampling without resampling: the plain reverse SDE, and the guided process as it is."""

import torch

from strdiffusion.batch import Batch
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.run import Models, Run, early_end, late_stage
from strdiffusion.samplers.trace import Callback, Sample


@torch.inference_mode()
def sample_unguided(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """IR-SDE: the texture alone, by the reverse SDE from T to 0 (spec sec. 2). One evaluation a step.

    Draws per image: the start of the texture, then one a step.
    """
    run = Run(models, known, noise, callback)
    y = run.sde.terminal_state(known.texture_mean, noise(run.all, known.texture))
    for t in range(run.sde.T, 0, -1):
        run.begin_step(t)
        y = run.texture_step(y, None, t, run.all)
        run.end_step(t, y, None)
    return run.finish(y, None)


@torch.inference_mode()
def sample_structure(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """The structure alone, denoised from T to 0 as the guided process does it; needs no texture network.

    Draws per image: the start of the structure, then known structure and step. The texture that comes back is the known one.
    """
    run = Run(models, known, noise, callback)
    x = run.sde.terminal_state(known.structure_mean, noise(run.all, known.structure_mean))
    for t in range(run.sde.T, 0, -1):
        run.begin_step(t)
        k = run.known_structure(t)
        x = run.structure_step(k, x, t, run.all)
        run.end_step(t, known.texture, x)
    return run.finish(known.texture, run.paste(known.structure, x, run.all))


@torch.inference_mode()
def sample_guided(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """StrDiffusion without resampling (spec sec. 7, `none`): the structure guides the texture, and nothing is redone."""
    run = Run(models, known, noise, callback)
    y, x = run.start()
    for t in range(run.sde.T, early_end(run.sde.T) - 1, -1):
        run.begin_step(t)
        k = run.known_structure(t)
        x = run.structure_step(k, x, t, run.all)
        y, x = run.texture_step(y, x, t, run.all), run.paste(k, x, run.all)
        run.end_step(t, y, x)
    return late_stage(run, y, x)
