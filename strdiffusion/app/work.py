"""What there is to do in a call, how far it is, and who may look on or stop it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm

from strdiffusion.app.canvas import Canvas, as_image
from strdiffusion.app.windows import Window
from strdiffusion.samplers import Progress, TimeGrid
from strdiffusion.sde import MeanRevertingSDE

KEPT = 0.4  # exp(-theta_bar) of the time at which sampling on tiles begins


class Cancelled(Exception):
    """The caller ended the sampling: its callback returned False, or its `cancel` returned True."""


@dataclass(frozen=True)
class Step:
    """What a callback is given after every step of the sampling, of the first picture of the batch that is worked on.

    done: the share of the whole call that is done, in [0, 1]. number: which window of `windows` it is, from 0. sample: which sample.
    """

    t: int
    T: int
    done: float
    window: Window
    number: int
    windows: int
    sample: int
    state: tuple[Tensor, Tensor | None]
    canvas: Canvas
    image: np.ndarray

    @property
    def texture(self) -> np.ndarray:
        """The noisy texture of the window's canvas with the known pixels in place, float32 (h, w, 3) in [0, 1]."""
        return np.where(self.canvas.known[..., None], self.image, as_image(self.state[0]))

    @property
    def structure(self) -> np.ndarray | None:
        """The noisy structure of the window's canvas, float32 (h, w) in [0, 1]; None without guidance."""
        return None if self.state[1] is None else self.state[1][0].float().clamp(0, 1).cpu().numpy()


class Work:
    """The windows and samples of a call, in batches, and how much of them is done, in steps of single tiles."""

    def __init__(
        self,
        canvases: list[Canvas],
        num_samples: int,
        begin: int,
        grid: TimeGrid,
        progress: bool,
        callback: Callable | None,
        cancel: Callable | None,
    ):
        self.canvases, self.begin, self.callback, self.cancel = canvases, begin, callback, cancel
        self.later = grid.at_or_before(begin) / grid.N
        self.jobs = [(i, sample) for i in range(len(canvases)) for sample in range(num_samples)]
        self.total = sum(1 if canvas.coarse is None else 1 + len(canvas.tiles) * self.later for canvas in canvases) * num_samples or 1
        self.finished = 0.0
        shape = "{l_bar}{bar}| [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(total=100, disable=not progress, desc="inpainting", bar_format=shape)

    def batches(self, batch_size: int) -> Iterator[list[tuple[int, int]]]:
        """Jobs (window, sample) of one canvas size and the same tiles, at most `batch_size` together."""
        groups = defaultdict(list)
        for i, sample in self.jobs:
            canvas = self.canvases[i]
            groups[canvas.known.shape, canvas.tiles, canvas.coarse and canvas.coarse.known.shape].append((i, sample))
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                yield group[start : start + batch_size]

    def share(self, later: bool) -> float:
        """Which share of the steps from T to 0 is taken, all or those from `begin` on."""
        return self.later if later else 1.0

    def check_cancel(self) -> None:
        if self.cancel is not None and self.cancel():
            raise Cancelled

    def after_step(self, jobs: list[tuple[int, int]], canvas: Canvas, image: np.ndarray, later: bool) -> Callable[[Progress], None]:
        """The sampler's callback while a batch of jobs is worked on, of which `canvas` and `image` are the first."""
        number, sample = jobs[0]
        reached = 0.0  # resampling may go back
        weight = len(jobs) * len(canvas.tiles) * self.share(later)

        def tell(progress: Progress) -> None:
            nonlocal reached
            reached = max(reached, progress.share)
            done = min((self.finished + weight * reached) / self.total, 1.0)
            self._show(done)
            if self.callback is None:
                return
            state = progress.texture[0], None if progress.structure is None else progress.structure[0]
            step = Step(progress.t, progress.T, done, canvas.window, number, len(self.canvases), sample, state, canvas, image)
            if self.callback(step) is False:
                raise Cancelled

        return tell

    def finish(self, weight: float) -> None:
        self.finished += weight
        self._show(min(self.finished / self.total, 1.0))

    def _show(self, done: float) -> None:
        self.bar.n = 100 * done
        self.bar.update(0)


def begin_time(grid: TimeGrid, sde: MeanRevertingSDE) -> int:
    """When sampling on tiles begins, given what was made of the whole: as late as that is KEPT of it, but in the early stage."""
    return next((t for n, t in enumerate(grid.times) if n >= grid.early_end and sde.decay[t] <= KEPT), grid.times[-1])
