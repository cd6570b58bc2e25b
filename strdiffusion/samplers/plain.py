"""Sampling without resampling: the plain reverse process, and the guided one as it is."""

import torch

from strdiffusion.batch import Batch
from strdiffusion.samplers.noise import NoiseSource
from strdiffusion.samplers.run import Models, Run, late_stage
from strdiffusion.samplers.trace import Callback, Sample, State


@torch.inference_mode()
def sample_unguided(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """IR-SDE: the texture alone, back from T to 0 (spec sec. 2). One evaluation a step.

    Draws per image: the start of the texture, then one a step.
    """
    run = Run(models, known, noise, callback)
    y = run.start_texture()
    for n in range(run.grid.N, 0, -1):
        run.begin_step(n)
        y = run.texture_step(y, None, n, run.all)
        run.end_step(n, y, None)
    return run.finish(y, None)


@torch.inference_mode()
def sample_structure(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """The structure alone, denoised from T to 0 as the guided process does it; needs no texture network.

    Draws per image: the start of the structure, then known structure and step. The texture that comes back is the known one.
    """
    run = Run(models, known, noise, callback)
    y, x = State(known.texture), run.start_structure()
    for n in range(run.grid.N, 0, -1):
        run.begin_step(n)
        k = run.known_structure(n)
        x = run.structure_step(k, x, n, run.all)
        run.end_step(n, y, x)
    return run.finish(y, run.paste(known.structure, x, run.all))


@torch.inference_mode()
def sample_guided(models: Models, known: Batch, noise: NoiseSource, callback: Callback | None = None) -> Sample:
    """StrDiffusion without resampling (spec sec. 7, `none`): the structure guides the texture, and nothing is redone."""
    run = Run(models, known, noise, callback)
    y, x = run.start()
    for n in range(run.grid.N, run.grid.early_end - 1, -1):
        run.begin_step(n)
        k = run.known_structure(n)
        x = run.structure_step(k, x, n, run.all)
        y, x = run.texture_step(y, x.x, n, run.all), run.paste(k, x, run.all)
        run.end_step(n, y, x)
    return late_stage(run, y, x)
