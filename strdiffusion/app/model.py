"""`StrDiffusion`: inpaint any picture, given a mask, by a loaded method."""

import logging
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from strdiffusion.app.canvas import Canvas, as_image, make_canvas, put_back, together
from strdiffusion.app.inputs import Inputs, read_inputs
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import Source
from strdiffusion.app.tiles import Tiles
from strdiffusion.app.windows import Layout, LayoutOptions, Window, lay_out, whole_picture
from strdiffusion.app.work import WindowStep, Work
from strdiffusion.checkpoints import StorageType
from strdiffusion.checkpoints.networks import Weights
from strdiffusion.config.common import Device
from strdiffusion.data.images import resize_image
from strdiffusion.data.masks import Polarity, stable_hash
from strdiffusion.denoiser import Precision
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import Evaluations, Method, Result, method_class, run
from strdiffusion.methods.folders import load_method, save_method
from strdiffusion.networks import Kind
from strdiffusion.samplers import ImageTrace, SamplerConfig
from strdiffusion.sde import MeanFill
from strdiffusion.system.cli import PHOTOGRAPHS_MODEL, default_model
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import Option, UserError, brief, one_line
from strdiffusion.system.files import read_regular, write_text
from strdiffusion.system.parser import Count, Range, convert, load_config

log = logging.getLogger(__name__)

BATCH_SIZE = 8
TRAINED_ON, MOST_SAID = "trained_on.txt", 300  # a file of a model folder; bytes
Samples, BatchSize = Annotated[int, Range(1, 1000)], Annotated[int, Range(1, 65_536)]


@dataclass(frozen=True)
class Plan:
    """What a call will do. evaluations: of each network by its name, for all samples; at least and at most, if decisions change them.

    area: of each network, the mean number of pixels that an evaluation sees, divided by those of a training image.
    """

    windows: list[Window]
    tiles: list[int]  # of each window
    evaluations: dict[str, Evaluations]
    area: dict[str, float]


@dataclass(frozen=True)
class Output:
    """images: a picture for each sample. structure: for each sample the last structure that guided, at the end of the early stage
    (spec sec. 7), gray, black outside of the windows; None if the method has none. trace: for each sample a trace of each window
    (scores, decisions, evaluations); empty if the method records none.
    """

    images: list[Picture]
    structure: list[Picture] | None
    trace: list[list[ImageTrace]]


class StrDiffusion:
    """A method of inpainting (StrDiffusion, or the method of the loaded model) for pictures of any size.

    `load` reads a model folder, training runs or released checkpoints. Call the object to inpaint a picture. Its `method` works on
    batches of images of one size. `trained_on` says on what pictures it was trained, if the model's folder does.
    """

    def __init__(self, method: Method, trained_on: str | None = None):
        self.method = method
        self.trained_on = trained_on
        method.close_doors()  # a hole of a picture holds no truth

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[Kind, str | Path],
        *,
        T: int | None = None,
        size: int | None = None,
        weights: Weights = "ema",
        mean_fill: MeanFill | None = None,
        device: Device = "auto",
        precision: Precision = "fp32",
    ) -> "StrDiffusion":
        """Load a model. The source is a model folder, a folder of training runs or of checkpoint files, a test configuration
        (configs/*/test.yml), a mapping from kind to checkpoint file, or the name of a method without weights, such as "telea".

        Args:
            T: of released files, which do not record it.
            mean_fill: of released files of IR-SDE alone: "white" (its authors') or "black".
            size: of the training images, if it is not recorded (default 256).
            weights: which weights of our checkpoints, the moving average or the raw weights.

        A model that says on what it was trained is named in a warning. Raises UserError if the source is not a model.
        """
        chosen = choose_device(convert(Device, device, "the call", "device"))
        convert(Precision, precision, "the call", "precision")
        path = None if isinstance(source, Mapping) else Path(source).expanduser()
        if path is not None and path.suffix in (".yml", ".yaml") and not path.is_dir():
            config = load_config(TestConfig, path)
            model = cls.from_config(config, chosen)
            model.trained_on = trained_on(getattr(getattr(config.options, "checkpoints", None), "folder", None))
            require_same(model.method, path, T, size)
            model = model if precision == "fp32" else cls(model.method.varied(precision=precision), model.trained_on)
            model.say_what_it_has_seen(path)
            return model
        method = load_method(source if path is None else path, chosen, T, size, weights, mean_fill)
        model = cls(method if precision == "fp32" else method.varied(precision=precision), trained_on(path))
        model.say_what_it_has_seen(path)
        return model

    def say_what_it_has_seen(self, source: Path | None) -> None:
        """Warn that other pictures are filled like those of the training, if the model says what these were."""
        if self.trained_on:
            other = default_model(PHOTOGRAPHS_MODEL)
            advice = f"; for photographs there is {other}" if other.exists() else ""
            text = "the model %s was trained on %s, and fills every picture as if it were one of them%s"
            log.warning(text, source, self.trained_on, advice)

    @classmethod
    def from_config(cls, config: TestConfig, device: torch.device | None = None) -> "StrDiffusion":
        """The method of a test configuration, with all doors to the hole closed. Raises UserError if its parts do not fit together."""
        method = method_class(config.method).open(config.options, device or choose_device(config.device))
        if method.size is not None:
            method.size = config.data.size
        return cls(method)

    @property
    def size(self) -> int | None:
        """Side of the images that suit the method, in pixels; None if it does not matter."""
        return self.method.size

    def save(self, folder: str | Path, dtype: StorageType = "float32") -> Path:
        """Write a model folder: model.yml and a safetensors file for each network. A 16-bit dtype halves its size."""
        folder = save_method(self.method, folder, convert(StorageType, dtype, "the call", "dtype"))
        if self.trained_on:
            write_text(folder / TRAINED_ON, self.trained_on + "\n")
        return folder

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
        context: float = LayoutOptions.context,
        shrink: float = LayoutOptions.shrink,
        max_tiles: int = LayoutOptions.max_tiles,
    ) -> Plan:
        """What a call with these arguments will do, and how many network evaluations it will take; see `time_evaluations`."""
        inputs = read_inputs(image, mask, hints, polarity, feather)
        canvases = self._canvases(inputs, self._layout(inputs, LayoutOptions(context, shrink, max_tiles)))
        method = self.method.varied(sampler=sampler, steps=steps, resampling=resampling)
        steps = [step for canvas in canvases for step in canvas.steps()]
        first, later = ([step for step in steps if (step.coarse is None) == begins] for begins in (True, False))
        counts, areas = zip(*((sum(len(step.tiles) for step in part), sum(step.area for step in part)) for part in (first, later)))
        rest, none = method.cost(late=True) if later else {}, Evaluations(0, 0)
        evaluations, area = {}, {}
        for name, cost in method.cost().items():
            made, seen = (cost * of[0] + rest.get(name, none) * of[1] for of in (counts, areas))
            evaluations[name] = made * num_samples
            area[name] = seen.most / made.most / method.size**2 if made.most and method.size else 1.0
        return Plan([canvas.window for canvas in canvases], [len(canvas.tiles) for canvas in canvases], evaluations, area)

    def time_evaluations(self) -> dict[str, float]:
        """Seconds of one evaluation of each network on a picture of the training size, measured once after a warm-up."""
        return self.method.time_evaluations()

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
        context: float = LayoutOptions.context,
        shrink: float = LayoutOptions.shrink,
        max_tiles: int = LayoutOptions.max_tiles,
        progress: bool = False,
        callback: Callable[[WindowStep], bool | None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Output:
        """Inpaint a picture of any size. Known pixels are returned unchanged, bit for bit.

        Args:
            image, mask, hints: a path, Pillow image, array (H, W[, C]) or tensor (C, H, W). The mask is white where the hole is (see
                `polarity`). Pixels of the hints (RGBA) that are opaque and in the hole count as known.
            seed: the same seed gives the same picture, for any batch size.
            num_samples: the number of different pictures.
            feather: the known pixels up to this distance from the hole are blended with the result; 0 keeps all known pixels.
            sampler: the solver's name, or all sampler settings; steps, resampling: see `strdiffusion/samplers/options.py`.
                Settings that are not given are the model's.
            precision, device: as loaded if they are not given.
            batch_size: how many windows or tiles a network processes at a time. With the training size it limits memory use. On the
                CPU networks process one at a time: more would not be faster, and may round differently.
            context, shrink, max_tiles: the layout of windows, see `strdiffusion/app/windows.py`.
            progress: show a progress bar on stderr.
            callback: called after every step; if it returns False, Cancelled is raised.
            cancel: called before every network evaluation; if it returns True, Cancelled is raised.

        Raises UserError for input that cannot be read or does not fit.
        """
        seed = whole(seed)
        for name, value, hint in (
            ("num_samples", num_samples, Samples),
            ("batch_size", batch_size, BatchSize),
            ("feather", feather, Count),
            ("polarity", polarity, Polarity),
            ("device", device or "auto", Device),
        ):
            convert(hint, value, "the call", name)
        method = self.method.varied(sampler=sampler, steps=steps, resampling=resampling, precision=precision)
        if num_samples > 1 and not method.draws:
            same = f": {method.name} draws nothing, and all samples would be the same picture; leave it out"
            raise UserError(Option("num_samples", num_samples), same)
        if device is not None and choose_device(device) != method.device:
            self.method.to(choose_device(device))
            method.device = self.method.device
        inputs = read_inputs(image, mask, hints, polarity, feather)
        layout = self._layout(inputs, LayoutOptions(context, shrink, max_tiles))
        canvases = self._canvases(inputs, layout)
        images = [inputs.picture.copy() for _ in range(num_samples)]
        structures = []
        if "structure" in method.Options.pictures:
            structures = [Picture(np.zeros((*inputs.picture.size, 1), np.uint8), name="structure") for _ in range(num_samples)]
        traces: list[dict[int, ImageTrace]] = [{} for _ in range(num_samples)]
        work = Work(canvases, num_samples, share_of_late(method), progress, callback, cancel)
        with work.bar:
            for jobs in work.batches(batch_size):
                seeds = [f"{seed}:{sample}:{i}" for i, sample in jobs]
                result = self._sample(method, inputs, [canvases[i] for i, _ in jobs], seeds, jobs, work, batch_size)
                for k, (i, sample) in enumerate(jobs):
                    window = canvases[i].window
                    put_back(images[sample].levels, as_image(result.image[k]), inputs, layout, window)
                    if structures:
                        _put_structure(structures[sample].levels, result.pictures["structure"][k, 0], window)
                    if result.traces:
                        traces[sample][i] = result.traces[k]
        return Output(images, structures or None, [[trace[i] for i in sorted(trace)] for trace in traces])

    def _sample(
        self,
        method: Method,
        inputs: Inputs,
        canvases: list[Canvas],
        seeds: list[str],
        jobs: list[tuple[int, int]],
        work: Work,
        batch_size: int,
    ) -> Result:
        """Inpaint canvases of one size with the same tiles. If there are several tiles, inpaint the whole canvas coarsely first."""
        images = [canvas.image(inputs) for canvas in canvases]
        begin, earlier = None, ()
        if canvases[0].coarse is not None:
            coarser, others = [canvas.coarse for canvas in canvases], [f"{seed}:coarse" for seed in seeds]
            coarse = self._sample(method, inputs, coarser, others, jobs, work, batch_size)
            parts = zip(canvases, images, coarse.image)
            begin = together([canvas.estimate(image, as_image(texture), method) for canvas, image, texture in parts])
            earlier = coarse.traces
        work.check_cancel()
        tiles = Tiles(canvases[0].tiles, 1 if method.device.type == "cpu" else batch_size, work.check_cancel)
        known = together([canvas.known_image(image, method) for canvas, image in zip(canvases, images)])
        numbers = [stable_hash(seed) % 2**62 for seed in seeds]
        watch = work.after_step(jobs, canvases[0], images[0])
        result = run(method, known.to(method.device), numbers, watch, tiles, begin)
        work.finish(len(jobs) * work.weight(canvases[0]))
        if not earlier:
            return result
        traces = [ImageTrace(before.steps + after.steps) for before, after in zip(earlier, result.traces, strict=True)]
        return replace(result, traces=traces)

    def _layout(self, inputs: Inputs, options: LayoutOptions) -> Layout:
        if self.method.size is None:
            return whole_picture(~inputs.seen)
        options = options if self.method.tiles else replace(options, max_tiles=1)
        return lay_out(~inputs.seen, self.method.size, options, self.method.largest)

    def _canvases(self, inputs: Inputs, layout: Layout) -> list[Canvas]:
        canvases = [make_canvas(inputs, window, self.method.size, self.method.largest) for window in layout.windows]
        if None in canvases:
            raise UserError(f"{inputs.picture.name} has a hole with no known pixel around it: give a larger ", Option("context"))
        return canvases


def _put_structure(levels: np.ndarray, structure: Tensor, window: Window) -> None:
    values = resize_image(structure.float().clamp(0, 1).cpu().numpy(), window.box.height, window.box.width)
    levels[window.box.slices] = np.rint(255 * values)[..., None].astype(np.uint8)


def trained_on(folder: str | Path | None) -> str | None:
    """The line of a model folder that says on what pictures its networks were trained; None if it has none.

    It is a file of its own, not a key of model.yml: a line for people changes no result, and tables know results by that file's content.
    """
    file = None if folder is None else Path(folder).expanduser() / TRAINED_ON
    if file is None or not file.is_file():
        return None
    try:
        lines = read_regular(file, MOST_SAID).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return None
    return (one_line(lines[0].strip()) or None) if lines else None


def whole(seed: object) -> int:
    """The seed as an integer, of Python's or NumPy's. Raises UserError for anything else."""
    try:
        return operator.index(seed)
    except TypeError:
        raise UserError(Option("seed", where="the call"), f" must be a whole number, not {brief(seed)}") from None


def share_of_late(method: Method) -> float:
    """The share of the evaluations that a method needs if it begins from an estimate."""
    whole, late = (sum(cost.least for cost in method.cost(late).values()) for late in (False, True))
    return late / whole if whole else 1.0


def require_same(method: Method, source: Path, T: int | None, size: int | None) -> None:
    """Raise UserError if T or size is given and differs from the configuration's."""
    sde = getattr(method, "sde", None)
    for name, wanted, recorded in (("T", T, sde and sde.T), ("size", size, method.size)):
        if wanted is not None and wanted != recorded:
            raise UserError(f"{source} is a model of {name}={recorded}, not {wanted}: leave ", Option(name), " out")
