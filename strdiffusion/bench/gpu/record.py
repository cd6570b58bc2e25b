"""What a part has measured, kept line by line so that a killed part goes on, and what there is still time for."""

import contextlib
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from strdiffusion.bench.gpu.needs import missing, pip_names
from strdiffusion.system.errors import UserError, one_line

TRIES = 2  # a measurement that is begun so often and never ends is given up
DONE = ("ok", "does not fit", "skipped")  # what is not measured again


class OutOfTime(Exception):
    """A measurement took longer than there was time."""


class Record:
    """The lines of FOLDER/PART.jsonl: {"run": ...} when a process begins, {"begun": KEY} before, and {"key": KEY, "status": ..., ...}
    after each measurement. `about` says where it runs; lines of another device or of other sizes are refused by UserError.

    again: a process of the same run ended before this one: what failed in it is not tried again.
    """

    def __init__(self, folder: Path, part: str, about: dict, again: bool = False):
        self.path, self.part, self.about = folder / f"{part}.jsonl", part, about
        self.rows: dict[str, dict] = {}
        self.begun: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for line in self._lines():
            if "run" in line:
                self._require_same(line["run"])
                if not again:
                    self.rows = {key: row for key, row in self.rows.items() if row["status"] in DONE}
            elif "begun" in line:
                self.begun[line["begun"]] = self.begun.get(line["begun"], 0) + 1
            elif "key" in line:
                self._take(line)
        if not again:
            self.rows = {key: row for key, row in self.rows.items() if row["status"] in DONE}
        self.file = open(self.path, "a", encoding="utf-8")
        self._write({"run": about, "at": time.strftime("%Y-%m-%d %H:%M:%S")})

    def _lines(self) -> list[dict]:
        """All lines that were written whole. A cut last line is ended, so that the next one stands alone."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            with open(self.path, "ab") as file:
                file.write(b"\n")
        found = []
        for line in data.decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                found += [value] if isinstance(value, dict) else []
        return found

    def _require_same(self, earlier: dict) -> None:
        for name in ("device", "sizes", "torch"):
            if earlier.get(name) != self.about[name]:
                raise UserError(
                    f"{self.path} holds measurements of {name} {earlier.get(name)}, and this is {self.about[name]}: give another --out"
                )

    def _take(self, row: dict) -> None:
        self.rows[row["key"]] = row
        self.begun.pop(row["key"], None)

    def _write(self, line: dict) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def begin(self, key: str) -> None:
        self.begun[key] = self.begun.get(key, 0) + 1
        self._write({"begun": key})

    def end(self, key: str, status: str, **values) -> dict:
        row = {"key": key, "status": status, **values}
        self._write(row)
        self._take(row)
        return row

    def close(self) -> None:
        self.file.close()


@dataclass
class Session:
    """A part at work: what it measures with, how long it may take, and what it leaves out.

    deadline: of time.monotonic(). say: prints a line. left_out: keys by reason. lacking: what is not run for want of packages.
    """

    record: Record
    device: torch.device
    quick: bool
    deadline: float
    folder: Path
    say: Callable[[str], None] = print
    changed: Callable[["Session"], None] = lambda session: None
    left_out: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def measure(self, key: str, action: Callable[[], dict], seconds: float = 5.0) -> dict | None:
        """Measure once: a row of `action`'s values, or what an earlier process measured; None if it is left out.

        seconds: about how long it takes; without that time it is left out. A failure is a row, too.
        """
        if key in self.record.rows:
            return self.record.rows[key]
        if self.record.begun.get(key, 0) >= TRIES:
            row = self.record.end(key, "failed", reason=f"begun {TRIES} times, and each time the process ended or was ended before it")
            self.say(f"{self.record.part}: {key}: failed: {row['reason']}")
            return row
        if self.left < seconds:
            self.left_out[key] = f"needs about {seconds:.0f} s, {max(self.left, 0):.0f} s are left"
            return None
        self.record.begin(key)
        started = time.monotonic()
        row = self._run(key, action, started)
        self.say(f"{self.record.part}: {key}: {row['status']}{self._detail(row)} ({row['seconds']:.1f} s)")
        self.changed(self)
        return row

    def _run(self, key: str, action: Callable[[], dict], started: float) -> dict:
        def passed() -> dict:
            return {"seconds": round(time.monotonic() - started, 2)}

        try:
            return self.record.end(key, **({"status": "ok"} | action() | passed()))
        except OutOfTime as error:  # the next run tries again
            self.left_out[key] = str(error)
            row = self.record.end(key, "no time", reason=one_line(str(error))[:500], **passed())
        except torch.OutOfMemoryError:
            row = self.record.end(key, "does not fit", **passed())
        except Exception as error:  # one measurement must not end the others
            row = self.record.end(key, "failed", reason=one_line(f"{type(error).__name__}: {error}")[:500], **passed())
            if self.device.type == "cuda" and is_lost(error):
                self.say(f"{self.record.part}: {key}: failed: {row['reason']}")
                end_process()
        self.free()
        return row

    @staticmethod
    def _detail(row: dict) -> str:
        return f": {row['reason']}" if row.get("reason") else ""

    def free(self) -> None:
        """Give back what the last measurement held."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def can(self, what: str, *packages: str) -> bool:
        """Whether these packages are installed. If not, `what` is noted as not run."""
        lacks = missing(packages)
        if lacks:
            self.lacking[what] = tuple(lacks)
        return not lacks

    def say_lacking(self) -> None:
        """The one line of what cannot run here."""
        if self.lacking:
            which = "; ".join(f"{what} (needs {', '.join(pip_names(names))})" for what, names in self.lacking.items())
            self.say(f"{self.record.part}: not run, because packages are missing: {which}")

    def outcome(self) -> dict:
        """Everything, for JSON."""
        return {
            "part": self.record.part,
            **self.record.about,
            "rows": list(self.record.rows.values()),
            "left_out": self.left_out,
            "lacking": {what: pip_names(names) for what, names in self.lacking.items()},
        }


LOST = 70  # the exit status of a process whose GPU context is broken: another goes on


def is_lost(error: Exception) -> bool:
    """Whether a CUDA context is broken after this error: then every later call of the process fails."""
    text = str(error).lower()
    return any(word in text for word in ("illegal memory access", "device-side assert", "unspecified launch failure", "misaligned address"))


def end_process() -> NoReturn:
    os._exit(LOST)  # a normal exit would use the broken context


@contextlib.contextmanager
def peak_gib(device: torch.device) -> Iterator[dict]:
    """Fills {"memory_gib": the peak of the GPU's tensors in this context}; None on other devices, whose processes share it."""
    found: dict = {"memory_gib": None}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield found
    if device.type == "cuda":
        found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
