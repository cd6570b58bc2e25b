"""Everything the page can do, without its layout."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count

import numpy as np

from strdiffusion.app import Cancelled, Composition, Output, Picture
from strdiffusion.app.composition import Composed
from strdiffusion.app.inputs import read_inputs
from strdiffusion.app.web import view
from strdiffusion.app.web.composing import NO_OBJECTS, read_composition
from strdiffusion.app.web.job import Job, Line
from strdiffusion.app.web.learning import Learning
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.offers import Offer, Offers
from strdiffusion.app.web.painting import Painting, read_hole, read_painting
from strdiffusion.app.web.photo import Example, Photo, as_png
from strdiffusion.app.web.results import Results, write_composed, write_results
from strdiffusion.app.web.session import PREVIEW, Session, Sessions
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

NO_PICTURE = "Open a picture first, or take an example."


@dataclass(frozen=True)
class Settings:
    """The settings chosen on the page; solver, steps and resampling are used only if the preset is CUSTOM.

    learn: the minutes for which the model learns from the picture first; 0: it does not.
    """

    model: str
    preset: str
    solver: str
    steps: int
    resampling: str
    seed: int = 0
    samples: int = 1
    learn: int = 0

    @classmethod
    def read(cls, values: Sequence[object]) -> "Settings":
        """Settings as a browser sent them, in this order. Raises UserError."""
        read = []
        for field, value in zip(fields(cls), values, strict=True):
            if field.type is str:
                value = "" if value is None else value
            elif value is None or isinstance(value, float) and value.is_integer():
                value = int(value or 0)
            if not isinstance(value, field.type) or isinstance(value, bool):
                raise UserError(f"The setting {field.name} must be a {'whole number' if field.type is int else 'name'}.")
            read.append(value)
        return cls(*read)


@dataclass(frozen=True)
class Task:
    """A picture and its hole, bool (H, W), with hints or as a composition."""

    picture: Picture
    hole: np.ndarray
    hints: np.ndarray | None = None
    composition: Composition | None = None
    composed: Composed | None = None


class Service:
    """Sessions, offered models and examples together. A visit is identified by the key of its page."""

    def __init__(self, sessions: Sessions, offers: Offers, examples: Sequence[Example], limits: Limits, cutouts: Sequence[Example] = ()):
        self.sessions, self.offers, self.examples, self.limits, self.cutouts = sessions, offers, examples, limits, cutouts
        self._runs, self._line = count(1), Line(limits.queue)

    def arrive(self, key: str, token: str = "") -> tuple[str, list[dict], Photo | None]:
        """Open a session for a page, or go on with the one of this token, if its page was loaded again.

        Returns the token of its files, the cut-outs of its pool as `view.cutout` describes them, and the open picture.
        """
        if (session := self.sessions.take_up(key, token)) is not None:
            return session.token, self._cutouts(session), session.photo
        session = self.sessions.open(key)
        for example in self.cutouts[: self.limits.cutouts]:
            path = session.new_file()
            path.write_bytes(as_png(Picture(example.pixels)))
            session.add_cutout(path, example.name)
        return session.token, self._cutouts(session), None

    def left(self, key: str) -> bool:
        """Whether the page was loaded again, or lost, while its hole was filled. That ended the filling; this tells it once."""
        session = self.sessions[key]
        job, session.watched = session.watched, None
        if job is not None:
            job.cancel()
        return job is not None

    def _cutouts(self, session: Session) -> list[dict]:
        return [view.cutout(session.token, cutout) for cutout in session.pool.values()]

    def open_example(self, key: str, number: int) -> Photo:
        """Open an example of the gallery as the picture."""
        if not 0 <= number < len(self.examples):
            raise UserError(f"There is no example {number}.")
        example = self.examples[number]
        return self.sessions[key].open_pixels(example.pixels, example.name)

    def preview_address(self, key: str) -> str:
        """The address of the preview to paint on; each picture has its own."""
        session, photo = self._session(key)
        return f"{view.address(session.token, PREVIEW)}?number={photo.number}"

    def expected(self, key: str, painted: object, settings: Settings, arranged: object = None) -> str:
        """The expected time and work of a task, in one line. Raises UserError if something is missing."""
        session, offer = self.sessions[key], self.offers[settings.model]
        arguments = offer.arguments(settings.preset, settings.solver, settings.steps, settings.resampling)
        samples = self._samples(settings, offer)
        with self.sessions.decoding.turn():
            task = self._task(session, painted, arranged, to_plan=True)
            plan = offer.model.plan(task.picture, task.hole, hints=task.hints, num_samples=samples, **arguments)
        least, most = (sum(getattr(number, end) for number in plan.evaluations.values()) for end in ("least", "most"))
        tiles = sum(plan.tiles)
        work = f"{len(plan.windows)} window{'s' * (len(plan.windows) > 1)}" + (f" of {tiles} tiles" if tiles > len(plan.windows) else "")
        evaluations = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        learning = 60 * settings.learn if self._learning(settings, offer) else 0
        duration = view.spell_duration(*(learning + seconds for seconds in offer.duration(plan)))
        return f"Expected: {duration} ({work}, {evaluations} network evaluations)"

    def run(self, key: str, painted: object, settings: Settings, arranged: object = None) -> Iterator[str]:
        """Inpaint the hole that was painted, or what was arranged, and yield the progress as HTML. Afterwards `show` shows the result.

        arranged: what compose.js sent, in the mode for composing; None: the open picture is inpainted. Raises UserError or Cancelled.
        """
        session = self.sessions[key]
        opened, offer = session.photo, self.offers[settings.model]
        self._require_something(session, painted, arranged)
        arguments = offer.arguments(settings.preset, settings.solver, settings.steps, settings.resampling)
        samples, seed, tag = self._samples(settings, offer), int(settings.seed or 0), f"run{next(self._runs)}"
        learning = self._learning(settings, offer)
        said = f"{settings.model}, {offer.describe(arguments)}, seed {seed}{f', {samples} samples' if samples > 1 else ''}"
        said += f", after {settings.learn} min of learning from the picture" if learning else ""
        began = time.monotonic()

        def results(task: Task, output: Output, seconds: float) -> Results:
            photo, before, bundle = opened, None, None
            if task.composition is not None:
                photo, before, bundle = write_composed(task.composition, task.composed, session.folder, tag)
            written = write_results(output, photo, session.folder, tag, said, seconds)
            return replace(written, before=before, bundle=bundle)

        def work(callback, cancel) -> Results:
            nonlocal began
            with self.sessions.decoding.turn(cancel):  # not before: who waits in the line holds no picture
                try:
                    task = self._task(session, painted, arranged)
                except UserError:
                    if cancel():  # the picture or the whole session is gone
                        raise Cancelled from None
                    raise
                plan = offer.model.plan(task.picture, task.hole, hints=task.hints, num_samples=samples, **arguments)
            began = time.monotonic()
            model = offer.model
            if learning:
                inputs = read_inputs(task.picture, task.hole, task.hints, "white_hole", 0)
                model = learning.learn(inputs, seed, callback, cancel)
            filling = time.monotonic()
            output = model(
                task.picture, task.hole, hints=task.hints, seed=seed, num_samples=samples, callback=callback, cancel=cancel, **arguments
            )
            seconds = time.monotonic() - began
            if not learning:  # which has windows of its own
                offer.learn(plan, time.monotonic() - filling)
            return session.keep(opened, lambda: results(task, output, seconds))

        if session.job is not None:
            session.job.cancel()  # one at a time for each page
        session.job = job = Job(work, self._line)
        session.watched = job
        for glimpse in job.watch():
            yield view.progress(glimpse, samples, time.monotonic() - began)
        if session.watched is job:
            session.watched = None  # not if the page is left meanwhile, which closes this generator
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
        before = view.address(session.token, results.before or PREVIEW) + f"?number={results.photo.number}"
        return view.finished(results, sample, session.token, before)

    def _require_something(self, session: Session, painted: object, arranged: object) -> None:
        """Raise UserError if it can be told without a large picture that something is missing."""
        if arranged is None:
            photo = self._photo(session)
            self._painting(photo, painted, photo.preview)
        elif not isinstance(arranged, Mapping) or not arranged.get("objects"):
            raise UserError(NO_OBJECTS)

    def _task(self, session: Session, painted: object, arranged: object, to_plan: bool = False) -> Task:
        """What is to be painted; to_plan: the open picture's size is enough. Raises UserError if something is missing."""
        if arranged is None:
            photo = self._photo(session)
            painting = self._painting(photo, painted, photo.size)
            return Task(photo.blank() if to_plan else photo.open(), painting.hole, painting.hints)
        picture = hole = None
        if isinstance(arranged, Mapping) and arranged.get("canvas") == "picture":
            photo = self._photo(session)
            if not isinstance(painted, Mapping) or painted.get("number") != photo.number or arranged.get("number") != photo.number:
                raise UserError("Paint a hole into the open picture first (Fill a hole), or take a blank canvas.")
            picture, hole = photo.open(), read_hole(painted, photo.preview, photo.size)
        composition = read_composition(arranged, session.pool, self.limits, picture, hole)
        composed = composition.render()
        return Task(composed.picture, composed.hole, None, composition, composed)

    def _session(self, key: str) -> tuple[Session, Photo]:
        session = self.sessions[key]
        return session, self._photo(session)

    def _photo(self, session: Session) -> Photo:
        if session.photo is None:
            raise UserError(NO_PICTURE)
        return session.photo

    def _painting(self, photo: Photo, painted: object, size: tuple[int, int]) -> Painting:
        if isinstance(painted, Mapping) and painted.get("number") != photo.number:
            painted = None  # of an earlier picture
        return read_painting(painted, photo.preview, size)

    def _learning(self, settings: Settings, offer: Offer) -> Learning | None:
        """How the model of an offer learns from the picture; None if it does not. Raises UserError if it cannot."""
        if not 0 <= settings.learn <= self.limits.minutes:
            raise UserError(f"A model can learn from the picture for at most {self.limits.minutes} minutes.")
        return Learning(offer.model, settings.learn) if settings.learn else None

    def _samples(self, settings: Settings, offer: Offer) -> int:
        """How many samples are made: one of a method that draws nothing, whatever is set."""
        if not 1 <= int(settings.samples) <= self.limits.samples:
            raise UserError(f"Between 1 and {self.limits.samples} samples can be made at a time.")
        return int(settings.samples) if offer.model.method.draws else 1


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
