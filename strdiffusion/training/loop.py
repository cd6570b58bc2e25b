"""The loop around the iterations of a training: when to log, validate, save and stop. step.py is the iteration itself."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from strdiffusion.batch import Batch
from strdiffusion.system import distributed
from strdiffusion.system.compiling import explain
from strdiffusion.system.errors import Stopped, UserError
from strdiffusion.training.ending import recorded
from strdiffusion.training.interrupt import StopRequest
from strdiffusion.training.journal import Journal
from strdiffusion.training.loading import fetch
from strdiffusion.training.preparation import Prepared
from strdiffusion.training.state import TrainingState
from strdiffusion.training.step import shared_model, train_step
from strdiffusion.training.validation import validate

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

Watch = Callable[[TrainingState, float], bool]  # is told the state and the share that is done; False: it is enough


class Loop:
    """Step, log, validate, save: until the iterations are done, the time is up, or a signal asks to stop."""

    def __init__(
        self,
        prepared: Prepared,
        state: TrainingState,
        journal: Journal,
        stop: StopRequest,
        watch: Watch | None = None,
        progress: bool = True,
    ):
        self.prepared, self.config, self.state, self.journal, self.stop = prepared, prepared.config, state, journal, stop
        self.model = shared_model(state.task.network, prepared.device)
        self.started, self.first = time.monotonic(), state.step
        self.watch, self.progress = watch, progress

    def run(self, loader: DataLoader) -> None:
        """Train. Raises UserError for what the user can mend, and Stopped after a signal; then the state is saved, too."""
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        state, shares, iterations = self.state, self.prepared.shares, self.config.training.iterations
        if state.step >= iterations and self.validated():
            log.info("nothing to do: %s is at iteration %d of %d", state.files.latest, state.step, iterations)
            self.journal.close()
            return
        kind, quiet = state.task.kind, not (self.progress and distributed.is_main())
        known = iterations if self.config.training.max_minutes is None else None  # otherwise it is expected, from the first one on
        with recorded(state, self.prepared.faults, self.journal):
            self.journal.status(state.step, "running")  # in place of how an earlier run ended
            with (
                tqdm(total=known, initial=state.step, unit="it", desc=kind, smoothing=0.05, mininterval=1, disable=quiet) as bar,
                logging_redirect_tqdm(),
                contextlib.closing(fetch(loader, shares.parts)) as batches,
            ):
                explain(self.iterate)(batches, bar)  # if training.compile fails

    def iterate(self, batches: Iterator[tuple[list[Batch], list[str]]], bar: "tqdm") -> None:
        """Do all iterations that are left. Raises Stopped after a signal, once the state is saved."""
        if self.validate_at_start():
            return
        options, state, shares, device = self.config.training, self.state, self.prepared.shares, self.prepared.device
        for parts, faults in batches:
            values = train_step(self.model, state, shares, [part.to(device) for part in parts])
            signal, enough, found = distributed.largest([self.stop.number, self.out_of_time() or self.is_enough(), len(faults)])
            self.report(values, bar)
            if found:
                self.prepared.faults.add(faults)

            finished = state.step >= options.iterations or bool(enough)
            improved = False
            if finished or not signal:
                improved = self.validate_if_due(finished)
                (signal,) = distributed.largest([self.stop.number])
            stuck = state.standing.skipped_in_row >= options.max_skipped
            if state.step % options.save_every == 0 or finished or improved or signal or stuck:
                self.save()

            if stuck:
                distributed.fail(UserError(self.advice(values)))
            if finished and self.validated():
                if state.step < options.iterations and self.out_of_time():
                    log.info("stopped after training.max_minutes=%g at iteration %d", options.max_minutes, state.step)
                return
            if signal:
                raise Stopped(signal)

    def validate_at_start(self) -> bool:
        """Make up for a validation that a signal prevented. Returns whether nothing else is left to do. Raises Stopped, too."""
        finished = self.state.step >= self.config.training.iterations
        if self.validate_if_due(finished) or (finished and self.validated()):
            self.save()
        if not self.validated() and self.is_due(finished):  # a signal prevented it again; after the next iteration it is not due any more
            raise Stopped(*distributed.largest([self.stop.number]))
        return finished

    def validated(self) -> bool:
        """Whether this iteration's validation is done, or none is configured."""
        return not self.prepared.validation or self.state.standing.validated == self.state.step

    def is_due(self, finished: bool) -> bool:
        return finished or (self.state.step > 0 and self.state.step % self.config.validation.every == 0)

    def out_of_time(self) -> bool:
        limit = self.config.training.max_minutes
        return limit is not None and time.monotonic() - self.started > 60 * limit

    def is_enough(self) -> bool:
        """Whether the watcher says so."""
        if self.watch is None:
            return False
        share = self.state.step / self.config.training.iterations
        if self.config.training.max_minutes is not None:
            share = max(share, (time.monotonic() - self.started) / (60 * self.config.training.max_minutes))
        return not self.watch(self.state, min(share, 1.0))

    def validate_if_due(self, finished: bool) -> bool:
        """Validate if it is time and not done yet. Returns whether the result is the best so far."""
        if self.validated() or not self.is_due(finished):
            return False
        state, prepared = self.state, self.prepared
        if state.files.latest is None:
            self.save()  # whatever happens in the first validation, which may be long
        averaged = state.ema.network
        with self.journal.validating(state.step):
            result = validate(state.task, averaged, prepared.validation, self.config, prepared.device, lambda: self.stop.number > 0)
        if result is None:  # a signal came: the resumed run validates
            return False
        state.standing.validated = state.step
        self.journal.add("validation", state.step, result.scalars, result.pictures)
        log.info("validation at %d: %s", state.step, "  ".join(f"{name} {value:.4g}" for name, value in result.scalars.items()))
        return self.note_best(result.scalars[self.config.validation.best])

    def note_best(self, value: float) -> bool:
        """Note this validation as the best if it is. Returns whether it is."""
        name, standing = self.config.validation.best, self.state.standing
        if not math.isfinite(value) or standing.step == 0:
            return False
        if standing.best is not None and standing.best[0] == name:
            before = standing.best[1]
            if not (value < before if name == "loss" else value > before):
                return False
        standing.best = (name, value, standing.step)
        return True

    def report(self, values: dict[str, float], bar: "tqdm") -> None:
        """Record an iteration: every one that was skipped, and the others every training.log_every."""
        state = self.state
        if self.config.training.max_minutes is not None:
            bar.total = self.expected(self.first)  # a bar that is not shown does not know where it began
        bar.update(1)
        if state.standing.skipped_in_row:
            self.journal.add("skipped", state.step, values)
        if state.step % self.config.training.log_every:
            return
        more = {"learning_rate": state.rate, "skipped": state.standing.skipped}
        if state.scaler.is_enabled():
            more["loss_scale"] = state.scaler.get_scale()
        self.journal.add("train", state.step, values | more)
        self.journal.status(state.step, "running", values["loss"])
        bar.set_postfix(loss=f"{values['loss']:.4f}")

    def expected(self, first: int) -> int:
        """The iteration that is reached when the time is over, at the pace since the first one of this run."""
        share = (time.monotonic() - self.started) / (60 * self.config.training.max_minutes)
        pace = (self.state.step - first) / max(share, 1e-6)
        return min(self.config.training.iterations, max(self.state.step, first + math.ceil(pace)))

    def save(self) -> None:
        self.journal.flush()  # first, so that a checkpoint never exists without the lines before it
        if self.state.standing.skipped_in_row >= self.config.training.max_skipped:
            self.state.standing.skipped_in_row = 0  # it is resumed after something was changed, and gets as many tries again
        with self.journal.pause():
            self.state.save()

    def advice(self, values: dict[str, float]) -> str:
        return (
            f"the loss or its gradient was not finite {self.config.training.max_skipped} times in a row "
            f"(iteration {self.state.step}, loss {values['loss']:g}): try a lower training.learning_rate, training.clip_gradient=1 or "
            f"precision=bf16 instead of fp16, and resume=auto from {self.state.files.latest or 'the start'}"
        )
