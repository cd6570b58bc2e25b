"""StrDiffusion: any picture, a mask, and what the hole becomes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strdiffusion.app.canvas import Canvas, as_image, make_canvas, put_back
from strdiffusion.app.counting import Evaluations, count_evaluations
from strdiffusion.app.inputs import Inputs, read_inputs
from strdiffusion.app.loading import Model, load_for_test, load_model, save_folder
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import Source
from strdiffusion.app.tiles import Tiles
from strdiffusion.app.windows import Layout, Options, Window, lay_out
from strdiffusion.app.work import Step, Work, begin_time
from strdiffusion.batch import Batch
from strdiffusion.checkpoints import StorageType
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config import TestConfig, to_dict
from strdiffusion.config.common import Count, Device, Positive
from strdiffusion.config.testing import SamplerConfig
from strdiffusion.data.images import resize_image
from strdiffusion.data.masks import Polarity, stable_hash
from strdiffusion.denoiser import Precision
from strdiffusion.methods.inpainting import Inpainter
from strdiffusion.networks import KINDS, Kind
from strdiffusion.samplers import Begin, ImageTrace, Sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import convert

BATCH_SIZE = 8


@dataclass(frozen=True)
class Plan:
    """What a call will do. evaluations: of each network, for all samples; least and most are equal unless a discriminator decides."""

    windows: list[Window]
    tiles: list[int]  # of each window
    evaluations: dict[Kind, Evaluations]


@dataclass(frozen=True)
class Output:
    """images: a picture for each sample. structure: for each sample the structure that guided last, at the end of the early stage
    (spec sec. 7), gray, black outside of the windows; None without guidance. trace: for each sample what happened in each window
    (scores, decisions, evaluations).
    """

    images: list[Picture]
    structure: list[Picture] | None
    trace: list[list[ImageTrace]]


class StrDiffusion:
    """Three networks, and everything that is needed to inpaint pictures of any size with them.

    `load` reads a model folder, training runs or released checkpoints; calling it inpaints a picture; `inpainter` is the core, which
    works on batches of one size, and which tests and figures use.
    """

    def __init__(self, model: Model, device: Device = "auto", precision: Precision = "fp32", compile: bool = False):
        self.compile = compile
        self.networks, self.config = model
        self.sde = MeanRevertingSDE(**vars(self.config.sde))
        self.precision: Precision = convert(Precision, precision, "the call", "precision")
        self.device = choose_device(convert(Device, device, "the call", "device"))
        self.networks.to(self.device)

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[Kind, str | Path],
        *,
        T: int | None = None,
        size: int | None = None,
        weights: Weights = "ema",
        device: Device = "auto",
        precision: Precision = "fp32",
    ) -> "StrDiffusion":
        """Load a model folder, a folder of training runs or of checkpoint files, a test configuration with its checkpoints and sampler
        (configs/*/test.yml), or a mapping from kind to checkpoint file.

        Args:
            T: of released files, which do not record it.
            size: of the training images, where nothing records it (256).
            weights: of our checkpoints, the moving average or the raw weights.

        Raises UserError where the source is not a model.
        """
        return cls(load_model(source, T, size, weights), device, precision)

    @classmethod
    def from_config(cls, config: TestConfig) -> "StrDiffusion":
        """The networks and settings of a test configuration; UserError where they do not fit each other."""
        return cls(load_for_test(config), config.device, config.precision, config.compile)

    def save(self, folder: str | Path, dtype: StorageType = "float32") -> Path:
        """Write a model folder: model.yml and a safetensors file for each network. Half precision halves its size."""
        return save_folder(Model(self.networks, self.config), folder, convert(StorageType, dtype, "the call", "dtype"))

    def inpainter(
        self,
        sampler: SamplerConfig | None = None,
        precision: Precision | None = None,
        evaluate: Callable[[Kind, torch.nn.Module], Callable] | None = None,
    ) -> Inpainter:
        """The core: these networks with a sampler, called with batches of one size."""
        chosen = sampler or self.config.sampler
        return Inpainter(self.networks, self.sde, chosen, self.device, precision or self.precision, evaluate, self.compile)

    def sampler_config(
        self, sampler: str | SamplerConfig | None = None, steps: int | None = None, resampling: str | None = None
    ) -> SamplerConfig:
        """The model's sampler settings with these in their place; UserError where they are unknown or do not fit the model."""
        tree = to_dict(sampler if isinstance(sampler, SamplerConfig) else self.config.sampler)
        given = {"method": sampler if isinstance(sampler, str) else None, "steps": steps, "resampling": resampling}
        tree |= {key: value for key, value in given.items() if value is not None}
        chosen: SamplerConfig = convert(SamplerConfig, tree, "the call", "sampler")
        chosen.check(self.config.sde)
        if chosen.guidance != self.networks.texture.network.guided:
            said = "not guided, so sampler.guidance must be false" if chosen.guidance else "guided, so sampler.guidance must be true"
            raise UserError(f"the model's texture network is {said}")
        if chosen.scored and self.networks.discriminator is None:
            raise UserError(f"the model has no discriminator, which resampling={chosen.resampling} needs: use none, fixed or repaint")
        return chosen

    def plan(
        self,
        image: Source,
        mask: Source,
        *,
        hints: Source | None = None,
        feather: int = 0,
        polarity: Polarity = "white_hole",
        num_samples: int = 1,
        sampler: str | SamplerConfig | None = None,
        steps: int | None = None,
        resampling: str | None = None,
        context: float = 0.6,
        shrink: float = 2.0,
        max_tiles: int = 16,
    ) -> Plan:
        """What a call with these arguments will do, and how many network evaluations it will take; see `time_evaluations`."""
        inputs = read_inputs(image, mask, hints, polarity, feather)
        canvases = self._canvases(inputs, lay_out(~inputs.seen, self.config.size, Options(context, shrink, max_tiles)))
        chosen = self.sampler_config(sampler, steps, resampling)
        whole = count_evaluations(chosen, self.config.sde)
        rest = count_evaluations(chosen, self.config.sde, begin_time(chosen.grid(self.config.sde), self.sde))
        tiles = [len(canvas.tiles) for canvas in canvases]
        singles, several = len(tiles), sum(count for count in tiles if count > 1)  # of several, all are inpainted as one first
        evaluations = {kind: (whole[kind] * singles + rest[kind] * several) * num_samples for kind in KINDS}
        return Plan([canvas.window for canvas in canvases], tiles, evaluations)

    def time_evaluations(self, precision: Precision | None = None) -> dict[Kind, float]:
        """Seconds of one evaluation of each network on a picture of the training size, measured once after a first for warmth."""
        models = self.inpainter(precision=precision).models
        texture = torch.rand(1, 3, self.config.size, self.config.size, device=self.device)
        gray = texture[:, :1]
        calls = {"texture": lambda: models.texture.noise(texture, texture, 1, gray if self.config.sampler.guidance else None)}
        if models.structure is not None:
            calls["structure"] = lambda: models.structure.noise(gray, gray, 1)
        if models.discriminator is not None:
            calls["discriminator"] = lambda: models.discriminator(texture, gray, 1, group=1)
        seconds = {}
        with torch.inference_mode():
            for kind, call in calls.items():
                for _ in range(2):
                    start = time.perf_counter()
                    call().sum().item()  # waits for the device
                    seconds[kind] = time.perf_counter() - start
        return seconds

    def __call__(
        self,
        image: Source,
        mask: Source,
        *,
        seed: int = 0,
        num_samples: int = 1,
        hints: Source | None = None,
        feather: int = 0,
        polarity: Polarity = "white_hole",
        sampler: str | SamplerConfig | None = None,
        steps: int | None = None,
        resampling: str | None = None,
        precision: Precision | None = None,
        device: Device | None = None,
        batch_size: int = BATCH_SIZE,
        context: float = 0.6,
        shrink: float = 2.0,
        max_tiles: int = 16,
        progress: bool = False,
        callback: Callable[[Step], bool | None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Output:
        """Inpaint a picture of any size. Known pixels come back as they are, bit for bit.

        Args:
            image, mask, hints: a path, Pillow image, array (H, W[, C]) or tensor (C, H, W). The mask is white where the hole is (see
                `polarity`). Pixels of the hints (RGBA) that are opaque and in the hole count as known.
            seed: the same seed gives the same picture, whatever the batch size.
            num_samples: how many different pictures.
            feather: so many pixels around the hole are blended with what was known there; 0 leaves all known pixels alone.
            sampler: how a step is taken, or all sampler settings; steps, resampling: see `strdiffusion/config/testing.py`.
                What is not given is the model's.
            precision, device: as loaded, where they are not given.
            batch_size: how many windows or tiles a network is given at a time. It bounds memory, with the training size. On the CPU,
                where more than one at a time gains nothing and may round differently, networks are given one.
            context, shrink, max_tiles: how windows are laid, see `strdiffusion/pipeline/windows.py`.
            progress: show a bar on stderr.
            callback: called after every step; where it returns False, Cancelled is raised.
            cancel: asked before every network evaluation; where it returns True, Cancelled is raised.

        Raises UserError for what cannot be read or does not fit.
        """
        chosen = self.sampler_config(sampler, steps, resampling)
        for name, value, hint in (
            ("num_samples", num_samples, Positive),
            ("batch_size", batch_size, Positive),
            ("feather", feather, Count),
            ("polarity", polarity, Polarity),
            ("precision", precision or self.precision, Precision),
            ("device", device or "auto", Device),
        ):
            convert(hint, value, "the call", name)
        if device is not None and choose_device(device) != self.device:
            self.device = choose_device(device)
            self.networks.to(self.device)
        inputs = read_inputs(image, mask, hints, polarity, feather)
        layout = lay_out(~inputs.seen, self.config.size, Options(context, shrink, max_tiles))
        canvases = self._canvases(inputs, layout)
        images = [inputs.picture.copy() for _ in range(num_samples)]
        structures = [Picture(np.zeros((*inputs.picture.size, 1), np.uint8), name="structure") for _ in range(num_samples)]
        traces: list[dict[int, ImageTrace]] = [{} for _ in range(num_samples)]
        grid = chosen.grid(self.config.sde)
        work = Work(canvases, num_samples, begin_time(grid, self.sde), grid, progress, callback, cancel)
        with work.bar:
            for jobs in work.batches(batch_size):
                seeds = [f"{seed}:{sample}:{i}" for i, sample in jobs]
                result = self._sample(
                    inputs,
                    [canvases[i] for i, _ in jobs],
                    seeds,
                    jobs,
                    work,
                    batch_size,
                    lambda tiles: self.inpainter(chosen, precision, tiles),
                )
                for k, (i, sample) in enumerate(jobs):
                    window = canvases[i].window
                    put_back(images[sample].levels, as_image(result.texture[k]), inputs, layout, window)
                    if result.structure is not None:
                        _put_structure(structures[sample].levels, result.structure[k, 0], window)
                    traces[sample][i] = result.traces[k]
        return Output(images, structures if chosen.guidance else None, [[trace[i] for i in sorted(trace)] for trace in traces])

    def _sample(
        self,
        inputs: Inputs,
        canvases: list[Canvas],
        seeds: list[str],
        jobs: list[tuple[int, int]],
        work: Work,
        batch_size: int,
        inpainter: Callable[[Tiles], Inpainter],
    ) -> Sample:
        """Inpaint canvases of one size and with the same tiles; those of several tiles as a whole first, and from there in detail."""
        images = [canvas.image(inputs) for canvas in canvases]
        begin, earlier = None, [ImageTrace() for _ in canvases]
        if canvases[0].coarse is not None:
            coarser, others = [canvas.coarse for canvas in canvases], [f"{seed}:coarse" for seed in seeds]
            coarse = self._sample(inputs, coarser, others, jobs, work, batch_size, inpainter)
            estimates = [
                canvas.estimate(image, as_image(texture), self.config.structure)
                for canvas, image, texture in zip(canvases, images, coarse.texture)
            ]
            fields = (torch.stack([estimate[name] for estimate in estimates]).to(self.device) for name in ("texture", "structure"))
            begin, earlier = Begin(work.begin, *fields), coarse.traces
        work.check_cancel()
        tiles = Tiles(canvases[0].tiles, 1 if self.device.type == "cpu" else batch_size, work.check_cancel)
        tensors = [canvas.tensors(image, self.config.structure) for canvas, image in zip(canvases, images)]
        batch = Batch(**{name: torch.stack([t[name] for t in tensors]) for name in tensors[0]})
        numbers = [stable_hash(seed) % 2**62 for seed in seeds]
        sample = inpainter(tiles)(batch, numbers, work.after_step(jobs, canvases[0], images[0], begin is not None), begin)
        work.finish(len(jobs) * len(canvases[0].tiles) * work.share(begin is not None))
        traces = [ImageTrace(before.steps + after.steps) for before, after in zip(earlier, sample.traces, strict=True)]
        return Sample(sample.texture, sample.structure, traces)

    def _canvases(self, inputs: Inputs, layout: Layout) -> list[Canvas]:
        canvases = [make_canvas(inputs, window, self.config.size) for window in layout.windows]
        if None in canvases:
            raise UserError(f"{inputs.picture.name} has a hole with no known pixel around it: give a larger context")
        return canvases


def _put_structure(levels: np.ndarray, structure: Tensor, window: Window) -> None:
    values = resize_image(structure.float().clamp(0, 1).cpu().numpy(), window.box.height, window.box.width)
    levels[window.box.slices] = np.rint(255 * values)[..., None].astype(np.uint8)
