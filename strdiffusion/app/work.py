"""The batches of a call of StrDiffusion, its progress, its callback, and its cancellation."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from strdiffusion.app.canvas import Canvas, as_image
from strdiffusion.app.windows import Window
from strdiffusion.methods import Step


class Cancelled(Exception):
    """The caller ended the sampling: `callback` returned False, or `cancel` returned True."""


@dataclass(frozen=True)
class WindowStep:
    """What a callback is given after every step: the state of the first picture of the current batch.

    done: the finished share of the whole call, in [0, 1]. number: the window, from 0, out of `windows`. sample: the sample, from 0.
    """

    t: int
    T: int
    done: float
    window: Window
    number: int
    windows: int
    sample: int
    state: Step
    canvas: Canvas
    image: np.ndarray

    @property
    def texture(self) -> np.ndarray:
        """The noisy texture of the window's canvas with the known pixels in place, float32 (h, w, 3) in [0, 1]."""
        return np.where(self.canvas.known[..., None], self.image, as_image(self.state.image[0]))

    @property
    def structure(self) -> np.ndarray | None:
        """The noisy structure of the window's canvas, float32 (h, w) in [0, 1]; None for a method without one."""
        structure = self.state.pictures.get("structure")
        return None if structure is None else structure[0, 0].float().clamp(0, 1).cpu().numpy()


class Work:
    """The windows and samples of a call, in batches, and their progress, counted in the pixels that the networks see."""

    def __init__(
        self, canvases: list[Canvas], num_samples: int, later: float, progress: bool, callback: Callable | None, cancel: Callable | None
    ):
        self.canvases, self.later, self.callback, self.cancel = canvases, later, callback, cancel
        self.jobs = [(i, sample) for i in range(len(canvases)) for sample in range(num_samples)]
        self.total = sum(self.weight(step) for canvas in canvases for step in canvas.steps()) * num_samples or 1
        self.finished = 0.0
        shape = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(total=100, disable=not progress, desc="inpainting", bar_format=shape)

    def batches(self, batch_size: int) -> Iterator[list[tuple[int, int]]]:
        """Batches of at most `batch_size` jobs (window, sample) with the same canvas size and tiles."""
        groups = defaultdict(list)
        for i, sample in self.jobs:
            canvas = self.canvases[i]
            groups[tuple((step.known.shape, step.tiles) for step in canvas.steps())].append((i, sample))
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                yield group[start : start + batch_size]

    def weight(self, canvas: Canvas) -> float:
        """The work of a canvas. If its sampling begins from an estimate, fewer steps are taken."""
        return canvas.area * (self.later if canvas.coarse is not None else 1.0)

    def check_cancel(self) -> None:
        if self.cancel is not None and self.cancel():
            raise Cancelled

    def after_step(self, jobs: list[tuple[int, int]], canvas: Canvas, image: np.ndarray) -> Callable[[Step], None]:
        """The watcher of the method for a batch of jobs; `canvas` and `image` are of the first job."""
        number, sample = jobs[0]
        reached = 0.0  # the furthest so far: resampling may jump back
        weight = len(jobs) * self.weight(canvas)

        def tell(step: Step) -> None:
            nonlocal reached
            self.check_cancel()
            if step.is_start:
                return
            reached = max(reached, step.share)
            done = min((self.finished + weight * reached) / self.total, 1.0)
            self._show(done)
            if self.callback is None:
                return
            shown = WindowStep(step.t, step.T, done, canvas.window, number, len(self.canvases), sample, step, canvas, image)
            if self.callback(shown) is False:
                raise Cancelled

        return tell

    def finish(self, weight: float) -> None:
        self.finished += weight
        self._show(min(self.finished / self.total, 1.0))

    def _show(self, done: float) -> None:
        self.bar.n = 100 * done
        self.bar.update(0)
