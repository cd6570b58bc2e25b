"""Everything the page can do, without its layout."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from strdiffusion.app import Cancelled
from strdiffusion.app.web import view
from strdiffusion.app.web.job import Job, Line
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.offers import Offers
from strdiffusion.app.web.painting import Painting, read_painting
from strdiffusion.app.web.photo import Photo
from strdiffusion.app.web.results import Results, write_results
from strdiffusion.app.web.session import PREVIEW, Session, Sessions
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The settings chosen on the page; solver, steps and resampling are used only if the preset is CUSTOM."""

    model: str
    preset: str
    solver: str
    steps: int
    resampling: str
    seed: int = 0
    samples: int = 1


@dataclass(frozen=True)
class Example:
    """A picture of the gallery, (H, W, 3) uint8."""

    name: str
    pixels: np.ndarray


class Service:
    """Sessions, offered models and examples together. A visit is identified by the key of its page."""

    def __init__(self, sessions: Sessions, offers: Offers, examples: Sequence[Example], limits: Limits):
        self.sessions, self.offers, self.examples, self.limits = sessions, offers, examples, limits
        self._runs, self._line = count(1), Line(limits.queue)

    def open_example(self, key: str, number: int) -> Photo:
        """Open an example of the gallery as the picture."""
        example = self.examples[number]
        return self.sessions[key].open_pixels(example.pixels, example.name)

    def preview_address(self, key: str) -> str:
        """The address of the preview to paint on; each picture has its own."""
        session, photo = self._session(key)
        return f"{view.address(session.token, PREVIEW)}?number={photo.number}"

    def expected(self, key: str, painted: object, settings: Settings) -> str:
        """The expected time and work of an inpainting, in one line. Raises UserError if something is missing."""
        _, photo = self._session(key)
        painting = self._painting(photo, painted)
        offer = self.offers[settings.model]
        arguments = offer.arguments(settings.preset, settings.solver, settings.steps, settings.resampling)
        plan = offer.model.plan(photo.open(), painting.hole, hints=painting.hints, num_samples=self._samples(settings), **arguments)
        least, most = (sum(getattr(number, end) for number in plan.evaluations.values()) for end in ("least", "most"))
        tiles = sum(plan.tiles)
        work = f"{len(plan.windows)} window{'s' * (len(plan.windows) > 1)}" + (f" of {tiles} tiles" if tiles > len(plan.windows) else "")
        evaluations = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        return f"Expected: {view.spell_duration(*offer.duration(plan))} ({work}, {evaluations} network evaluations)"

    def run(self, key: str, painted: object, settings: Settings) -> Iterator[str]:
        """Inpaint, and yield the progress as HTML. Afterwards `show` shows the result. Raises UserError or Cancelled."""
        session, photo = self._session(key)
        painting = self._painting(photo, painted)
        offer = self.offers[settings.model]
        arguments = offer.arguments(settings.preset, settings.solver, settings.steps, settings.resampling)
        samples, seed, tag = self._samples(settings), int(settings.seed or 0), f"run{next(self._runs)}"
        said = f"{settings.model}, {offer.describe(arguments)}, seed {seed}{f', {samples} samples' if samples > 1 else ''}"
        picture, began = photo.open(), time.monotonic()

        def work(callback, cancel) -> Results:
            nonlocal began
            began = time.monotonic()
            output = offer.model(
                picture, painting.hole, hints=painting.hints, seed=seed, num_samples=samples, callback=callback, cancel=cancel, **arguments
            )
            seconds = time.monotonic() - began
            return session.keep(photo, lambda: write_results(output, photo, session.folder, tag, said, seconds))

        session.job = job = Job(work, self._line)
        for glimpse in job.watch():
            yield view.progress(glimpse, samples, time.monotonic() - began)
        job.result()

    def cancel(self, key: str) -> None:
        """Cancel the visit's running inpainting, if there is one."""
        if (job := self.sessions[key].job) is not None:
            job.cancel()

    def show(self, key: str, sample: int = 0) -> str:
        """A sample of the last inpainting as HTML. Raises UserError if there is none."""
        session = self.sessions[key]
        if (results := session.results) is None:
            raise UserError("There is no result yet.")
        if not 0 <= sample < len(results.samples):
            raise UserError(f"There is no sample {sample + 1}.")
        return view.finished(results, sample, session.token, f"{view.address(session.token, PREVIEW)}?number={results.photo.number}")

    def _session(self, key: str) -> tuple[Session, Photo]:
        session = self.sessions[key]
        if session.photo is None:
            raise UserError("Open a picture first, or take an example.")
        return session, session.photo

    def _painting(self, photo: Photo, painted: object) -> Painting:
        if isinstance(painted, Mapping) and painted.get("number") != photo.number:
            painted = None  # of an earlier picture
        return read_painting(painted, photo.preview, photo.size)

    def _samples(self, settings: Settings) -> int:
        if not 1 <= int(settings.samples) <= self.limits.samples:
            raise UserError(f"Between 1 and {self.limits.samples} samples can be made at a time.")
        return int(settings.samples)


def spelled(error: BaseException) -> str:
    """The message of an error for a visitor; unexpected errors are logged."""
    if isinstance(error, Cancelled):
        return "Cancelled."
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "not enough memory" in str(error):
        return "There is not enough memory for this: take a smaller picture."
    log.error("error in the page", exc_info=error)
    return "Something went wrong; see the terminal of the server."
