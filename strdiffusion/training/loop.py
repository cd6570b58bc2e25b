"""The iterations of a training (spec sec. 6). What differs between the three networks is a `Task`."""

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig
from strdiffusion.system import distributed
from strdiffusion.system.compiling import explain
from strdiffusion.system.errors import Stopped, UserError, one_line
from strdiffusion.training.faults import DataError, FaultCounter
from strdiffusion.training.interrupt import StopRequest
from strdiffusion.training.journal import Journal
from strdiffusion.training.shares import Shares
from strdiffusion.training.state import TrainingState
from strdiffusion.training.tasks import FIRST_T, Task
from strdiffusion.training.validation import validate

log = logging.getLogger(__name__)


class Loop:
    """Step, log, validate, save: until the iterations are done, the time is up, or a signal asks to stop."""

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        state: TrainingState,
        shares: Shares,
        journal: Journal,
        validation: list[Batch],
        faults: FaultCounter,
        stop: StopRequest,
        device: torch.device,
    ):
        self.task, self.config, self.state, self.shares, self.journal = task, config, state, shares, journal
        self.validation, self.faults, self.stop, self.device = validation, faults, stop, device
        self.model = shared_model(task.network, device)
        self.started = time.monotonic()

    def run(self, loader: DataLoader) -> None:
        """Train. Raises UserError for what the user can mend, and Stopped after a signal; then, too, the state is saved."""
        iterations, state = self.config.training.iterations, self.state
        if state.step >= iterations and self.validated():
            log.info("nothing to do: %s is at iteration %d of %d", state.files.latest, state.step, iterations)
            self.journal.close()
            return
        description = {"total": iterations, "initial": state.step, "unit": "it", "desc": self.task.kind}
        bar_options = description | {"smoothing": 0.05, "mininterval": 1, "disable": not distributed.is_main()}
        outcome = "failed"
        try:
            self.journal.status(state.step, "running")  # what it said of an earlier run is over
            with tqdm(**bar_options) as bar, logging_redirect_tqdm(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected call of .lr_scheduler.step")  # after a skipped first step
                explain(self.iterate)(loader, bar)  # where training.compile fails
            outcome = "finished"
        except DataError as error:
            outcome = f"failed: {one_line(str(error))}"
            if state.step:
                state.save()  # what was learnt until then stays
            distributed.fail(error)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):  # that may come at any moment, so the state is not saved
                raise
            outcome = "failed: a data-loading process was killed"
            raise UserError(
                "a data-loading process was killed, probably for memory: try fewer data.workers, or data.workers=0; "
                "resume=auto continues from the last checkpoint"
            ) from None
        except Stopped as stopped:
            outcome = str(stopped)
            log.info("%s at iteration %d, saved in %s: continue with resume=auto", stopped, state.step, state.files.path)
            raise
        except UserError as error:
            outcome = f"failed: {one_line(str(error))}"
            raise
        finally:
            self.faults.summary()
            with contextlib.suppress(UserError):  # the full disk, say, that ended the run
                self.journal.status(state.step, outcome)
            self.journal.close()

    def iterate(self, loader: DataLoader, bar: tqdm) -> None:
        if self.validate_at_start():
            return
        with contextlib.closing(fetch(loader, self.shares.parts)) as batches:
            self.train(batches, bar)

    def train(self, batches: Iterator[tuple[list[Batch], list[str]]], bar: tqdm) -> None:
        options, state = self.config.training, self.state
        while True:
            parts, faults = next(batches)
            scalars = self.train_step([part.to(self.device) for part in parts])
            number, out_of_time, found = distributed.largest([self.stop.number, self.out_of_time(), len(faults)])
            bar.update(1)
            if state.step % options.log_every == 0:
                self.log(scalars, bar)
            if found:
                self.faults.add(faults)
            finished = state.step >= options.iterations or bool(out_of_time)
            improved = False
            if finished or not number:
                improved = self.validate_if_due(finished)
                (number,) = distributed.largest([self.stop.number])
            stuck = state.progress.skipped_in_row >= options.max_skipped
            if state.step % options.save_every == 0 or finished or improved or number or stuck:
                self.save()
            if stuck:
                distributed.fail(UserError(self.advice(scalars)))
            if finished and self.validated():
                if state.step < options.iterations:
                    log.info("stopped after training.max_minutes=%g at iteration %d", options.max_minutes, state.step)
                return
            if number:
                raise Stopped(number)

    def validate_at_start(self) -> bool:
        """Make up for a validation that a signal prevented; returns whether nothing else was left to do. Raises Stopped, too."""
        finished = self.state.step >= self.config.training.iterations
        if self.validate_if_due(finished) or (finished and self.validated()):
            self.save()
        if not self.validated() and self.is_due(finished):  # before an iteration is done, after which it never would be
            raise Stopped(*distributed.largest([self.stop.number]))
        return finished

    def validated(self) -> bool:
        """Whether this iteration's validation is done, or none is configured."""
        return not self.validation or self.state.progress.validated == self.state.step

    def is_due(self, finished: bool) -> bool:
        return finished or self.state.progress.step % self.config.validation.every == 0

    def out_of_time(self) -> bool:
        limit = self.config.training.max_minutes
        return limit is not None and time.monotonic() - self.started > 60 * limit

    def train_step(self, parts: list[Batch]) -> dict[str, float]:
        """One iteration: t uniform in 2..T per image, the loss's gradient over all parts and processes, a step, the moving average.

        Where loss or gradient are not finite, the weights and their average stay as they are. Returns what to log.
        """
        state, scaler, progress = self.state, self.state.scaler, self.state.progress
        state.optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for i, batch in enumerate(parts):
            # spectral norms take one power iteration an iteration of training, not one for each part
            self.model.train(i == 0)
            t, draw = self.shares.noise(self.config.seed, progress.step, i, self.config.sde.T, FIRST_T, self.device)
            with self.without_exchange(i < len(parts) - 1):
                loss, scalars = self.task.loss(self.model, batch, t, draw)
                scaler.scale(loss / len(parts)).backward()
            for name, value in ({"loss": loss} | scalars).items():
                total[name] = total.get(name, 0) + value.detach() / len(parts)
        scaler.unscale_(state.optimizer)
        limit = self.config.training.clip_gradient
        norm = nn.utils.clip_grad_norm_(self.task.network.parameters(), limit if limit is not None else math.inf)
        means = distributed.average(torch.stack([*total.values(), norm])).tolist()
        values = dict(zip((*total, "gradient_norm"), means, strict=True))
        finite = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
        if finite:
            scaler.step(state.optimizer)
            state.ema.update(self.task.network)
        scaler.update()  # where the scale was too large, this lowers it
        state.scheduler.step()
        progress.step += 1
        progress.skipped_in_row = 0 if finite else progress.skipped_in_row + 1
        if not finite:
            progress.skipped += 1
            log.warning(
                "iteration %d was skipped: loss %g, gradient norm %g (skipped so far: %d)",
                progress.step,
                values["loss"],
                values["gradient_norm"],
                progress.skipped,
            )
            self.journal.add("skipped", progress.step, values)
        return values

    def without_exchange(self, when: bool) -> contextlib.AbstractContextManager:
        """The context in which gradients are only summed up, and not yet exchanged between processes."""
        return self.model.no_sync() if when and isinstance(self.model, DistributedDataParallel) else contextlib.nullcontext()

    def advice(self, scalars: dict[str, float]) -> str:
        return (
            f"the loss or its gradient was not finite {self.config.training.max_skipped} times in a row "
            f"(iteration {self.state.step}, loss {scalars['loss']:g}): try a lower training.learning_rate, training.clip_gradient=1 or "
            f"precision=bf16 instead of fp16, and resume=auto from {self.state.files.latest or 'the start'}"
        )

    def validate_if_due(self, finished: bool) -> bool:
        """Validate where it is time and was not done yet; returns whether it was the best so far."""
        options, progress = self.config.validation, self.state.progress
        if self.validated() or not self.is_due(finished):
            return False
        network = self.state.ema.network
        with self.journal.pause():
            result = validate(self.task, network, self.validation, self.config, self.device, lambda: self.stop.number > 0)
        if result is None:  # a signal came: the resumed run does it
            return False
        progress.validated = progress.step
        self.journal.add("validation", progress.step, result.scalars, result.pictures)
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in result.scalars.items())
        log.info("validation at %d: %s", progress.step, numbers)
        return self.note_best(result.scalars[options.best])

    def note_best(self, value: float) -> bool:
        """Remember a validation that is better than all before it."""
        name, progress = self.config.validation.best, self.state.progress
        better = (lambda a, b: a < b) if name == "loss" else (lambda a, b: a > b)
        comparable = progress.best is not None and progress.best[0] == name
        if not math.isfinite(value) or progress.step == 0 or (comparable and not better(value, progress.best[1])):
            return False
        progress.best = (name, value, progress.step)
        return True

    def log(self, scalars: dict[str, float], bar: tqdm) -> None:
        state = self.state
        more = {"learning_rate": state.optimizer.param_groups[0]["lr"], "skipped": state.progress.skipped}
        if state.scaler.is_enabled():
            more["loss_scale"] = state.scaler.get_scale()
        self.journal.add("train", state.step, scalars | more)
        self.journal.status(state.step, "running", scalars["loss"])
        bar.set_postfix(loss=f"{scalars['loss']:.4f}")

    def save(self) -> None:
        self.journal.flush()  # first, so that every line up to a checkpoint is there where the checkpoint is
        if self.state.progress.skipped_in_row >= self.config.training.max_skipped:
            self.state.progress.skipped_in_row = 0  # whoever resumes has mended something
        with self.journal.pause():
            self.state.save()


def shared_model(network: nn.Module, device: torch.device) -> nn.Module:
    """The network as the loss calls it: with gradients averaged over the processes, where there are several."""
    if distributed.count() == 1:
        return network
    # find_unused_parameters keeps the order in which gradients are summed the same before and after a resume
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, find_unused_parameters=True)


def fetch(loader: DataLoader, parts: int) -> Iterator[tuple[list[Batch], list[str]]]:
    """The batches of one iteration after another, with what was wrong with files, until it is closed; then no process is left.

    Raises UserError where there are no data.
    """
    batches = iter(loader)
    error = DataError if distributed.count() == 1 else UserError  # one process alone cannot save the state of all
    try:
        while True:
            found = [next(batches) for _ in range(parts)]
            faults = [fault for _, more in found for fault in more]
            if any(tensors is None for tensors, _ in found):
                raise error(f"no file could be used in place of those that cannot; the last: {faults[-1]}")
            yield [Batch(**tensors) for tensors, _ in found], faults
    finally:
        end(batches)


def end(batches: Iterator) -> None:
    """End a loader's processes now. They ignore the signal by which Python would end those it finds at its own exit, and wait."""
    workers = getattr(batches, "_workers", ())
    if workers and all(worker.is_alive() for worker in workers):
        batches._shutdown_workers()
    abandon(batches)


def abandon(batches: Iterator) -> None:
    """Kill what is left of a loader's processes, and do not wait for them: one that was killed may hold the lock of their queue."""
    if getattr(batches, "_worker_pids_set", False):
        signal_handling._remove_worker_pids(id(batches))  # else torch takes every process that ends here for another failure
        batches._worker_pids_set = False
    for worker in getattr(batches, "_workers", ()):
        worker.kill()
    batches._shutdown = True  # else the iterator, when it is deleted, tells its processes to end, and waits for that lock
