"""The records of a run: log.txt, metrics.jsonl, TensorBoard and the one line of status.txt. Only the main process writes."""

import contextlib
import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from strdiffusion.checkpoints.files import WriteError
from strdiffusion.config import TrainConfig, to_dict
from strdiffusion.system import distributed
from strdiffusion.system.device import device_name
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import write_atomically
from strdiffusion.system.terminal import duration

log = logging.getLogger(__name__)

SMOOTHING = 0.8  # of the iterations a second, from one logged line to the next


class Journal:
    """Scalars and pictures of iterations, and how far the run is. If `enabled` is false, nothing is written.

    metrics.jsonl has a line per event, {"step": N, "kind": "train" or "validation", names: values}; `seconds` (since the
    start of this process) and `images_per_second` are the only values that differ between two runs of one configuration.
    """

    def __init__(self, folder: Path, kind: str, config: TrainConfig, step: int, validated: int | None, enabled: bool):
        self.folder, self.kind, self.config, self.enabled = folder, kind, config, enabled
        self.iterations = config.training.iterations
        self.started = self.last_time = time.monotonic()
        self.last_step = step
        self.rate = math.nan  # iterations a second
        self.intervals = 0  # measured so far
        self.validation_seconds = 0.0  # of the latest
        self.failed_board = False
        self.path = folder / "metrics.jsonl"
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            with writing(folder):
                forget_later_lines(self.path, step, validated)
                self.file = open(self.path, "a", encoding="utf-8")
                self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def add(self, kind: str, step: int, scalars: dict[str, float], pictures: dict[str, Tensor] | None = None) -> None:
        """Record the scalars of an iteration, and pictures (B,3,H,W) of it. Raises WriteError if the disk is full."""
        if not self.enabled:
            return
        line = {"step": step, "kind": kind, **scalars, "seconds": round(time.monotonic() - self.started, 3)}
        if kind == "train":
            self._measure(step)
            speed = self.rate * self.config.training.batch_size
            line["images_per_second"] = round(speed, 3) if math.isfinite(speed) else None
        with writing(self.path):
            self.file.write(json.dumps({name: plain(value) for name, value in line.items()}) + "\n")
            self.file.flush()
        self._to_board(kind, step, scalars, pictures or {})

    def status(self, step: int, state: str, loss: float | None = None) -> None:
        """Replace the line of status.txt."""
        if not self.enabled:
            return
        parts = [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.kind}: {state}, iteration {step} of {self.iterations}"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}")
        if math.isfinite(self.rate) and self.rate > 0:
            parts.append(f"{self.rate:.3g} iterations/s, {self.rate * self.config.training.batch_size:.3g} images/s")
            if state == "running":
                parts.append(f"{duration((self.iterations - step) / self.rate + self._validations_left(step))} left")
        with writing(self.folder):
            write_atomically(self.folder / "status.txt", (", ".join(parts) + "\n").encode())

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Do not count the time of this context, a validation or the writing of a checkpoint, in the iterations a second."""
        began = time.monotonic()
        yield
        self.last_time += time.monotonic() - began

    @contextlib.contextmanager
    def validating(self, step: int) -> Iterator[None]:
        """Say in status.txt that a validation runs, and count its time in what is left, not in the iterations a second."""
        self.status(step, "validating")
        began = time.monotonic()
        with self.pause():
            yield
        self.validation_seconds = time.monotonic() - began
        self.status(step, "running")

    def _validations_left(self, step: int) -> float:
        """The seconds that the validations after `step` will take."""
        return count_validations(step, self.iterations, self.config.validation.every) * self.validation_seconds

    def flush(self) -> None:
        """Write the lines so far to the disk, so that no checkpoint is newer than the lines before it."""
        if self.enabled:
            with writing(self.path):
                os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.enabled:
            try:
                self.file.close()
                self.board.close()
            except OSError as error:
                log.info("the last lines of metrics or TensorBoard could not be written: %s", error.strerror)

    def _measure(self, step: int) -> None:
        now = time.monotonic()
        if step > self.last_step:
            seconds = max(now - self.last_time, 1e-9) / (step - self.last_step)
            if self.intervals > 1:  # the first includes the start, so it is not averaged
                seconds = SMOOTHING / self.rate + (1 - SMOOTHING) * seconds
            self.rate = 1 / seconds
            self.intervals += 1
        self.last_step, self.last_time = step, now

    def _to_board(self, kind: str, step: int, scalars: dict[str, float], pictures: dict[str, Tensor]) -> None:
        """Add to the TensorBoard files. If they cannot be written, the run goes on: metrics.jsonl has the numbers."""
        try:
            for name, value in scalars.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)
            for name, images in pictures.items():
                self.board.add_images(f"{kind}/{name}", images, step)
        except OSError as error:
            if not self.failed_board:
                log.warning("TensorBoard files cannot be written (%s); metrics.jsonl goes on", error.strerror)
            self.failed_board = True


def count_validations(step: int, iterations: int, every: int) -> int:
    """How many validations follow the iteration `step`: one every `every` iterations, and one at the end."""
    return (iterations - 1) // every + 1 - step // every if step < iterations else 0


def plain(value: object) -> object:
    """A value for JSON, which has no infinities: they become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def forget_later_lines(path: Path, step: int, validated: int | None) -> None:
    """Remove the lines that a killed run has logged after the checkpoint of `step`: they will be logged again. Raises OSError.

    validated: the iteration last validated before the checkpoint; later validations are removed, too.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _belongs(line, step, validated)]
    if kept != lines:
        write_atomically(path, b"".join(kept))


def _belongs(line: bytes, step: int, validated: int | None) -> bool:
    try:
        record = json.loads(line)
        if record["kind"] == "validation":
            return validated is not None and record["step"] <= validated
        return record["step"] <= step and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError):  # the end of a line that was being written
        return False


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteError that names the path."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}; free some space or change output") from None


class QuietFileHandler(logging.FileHandler):
    """A log file that prints once to stderr that it cannot be written, instead of a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        if self.level <= logging.CRITICAL:
            self.setLevel(logging.CRITICAL + 1)
            print(f"notice: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is still in its buffer
            super().close()


@contextlib.contextmanager
def log_file(folder: Path, enabled: bool) -> Iterator[None]:
    """Append what is logged to log.txt, with the time."""
    if not enabled:
        yield
        return
    with writing(folder):
        handler = QuietFileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("strdiffusion")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    except UserError as error:  # only to the file: the command line prints it to stderr
        handler.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (one_line(str(error)),), None))
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def log_start(kind: str, config: TrainConfig, network: torch.nn.Module, images: int, held_out: int, device: torch.device) -> None:
    """Log what a run starts with: the network, the data, the machine, the configuration."""
    parameters = sum(p.numel() for p in network.parameters())
    processes = f", {distributed.count()} processes" if distributed.count() > 1 else ""
    log.info(
        "%s network: %.2f M parameters, %d images, %d held out, %s%s, output %s",
        kind,
        parameters / 1e6,
        images,
        held_out,
        device_name(device),
        processes,
        config.output,
    )
    log.info("python %s, torch %s, %s; command: %s", platform.python_version(), torch.__version__, platform.platform(), " ".join(sys.argv))
    import yaml

    log.info("configuration: %s", yaml.safe_dump(to_dict(config), default_flow_style=True, width=10**9, sort_keys=False).strip())
