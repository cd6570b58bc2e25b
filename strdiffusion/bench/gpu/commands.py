"""Trainings that are started as a user starts them: alone, by torchrun, killed and resumed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from strdiffusion.bench.gpu.record import OutOfTime
from strdiffusion.bench.gpu.scale import ROOT

POLL = 0.05  # seconds


@dataclass
class Ended:
    """How a command ended: its exit status and the end of what it wrote."""

    status: int
    tail: str
    seconds: float


def environment(threads: int | None = None) -> dict[str, str]:
    found = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return found | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


def training(kind: str, options: Path, overrides: list[str]) -> list[str]:
    """The arguments of Python that train a network."""
    return [str(ROOT / "scripts" / f"train_{kind}.py"), "-opt", str(options), *overrides]


def torchrun(processes: int, arguments: list[str]) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *arguments]


def run(arguments: list[str], log: Path, seconds: float) -> Ended:
    """Run Python with these arguments, for at most so many seconds. Raises RuntimeError if it fails, OutOfTime if it takes longer."""
    process, started = start(arguments, log), time.monotonic()
    try:
        process.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        kill(process)
        raise OutOfTime(f"{name_of(arguments)} was not done after {seconds:.0f} s; {tail(log)}") from None
    except BaseException:
        kill(process)
        raise
    ended = Ended(process.returncode, tail(log), time.monotonic() - started)
    if ended.status:
        raise RuntimeError(f"{name_of(arguments)} ended with status {ended.status}: {ended.tail}")
    return ended


def name_of(arguments: list[str]) -> str:
    """The script or module that is run."""
    return next((Path(a).name for a in arguments if a.endswith(".py") or a.startswith("strdiffusion.")), "the command")


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, *arguments], env=environment(), stdout=file, stderr=file, start_new_session=True)


def kill(process: subprocess.Popen) -> None:
    """End a command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_when(process: subprocess.Popen, pattern: str, folder: Path, seconds: float) -> None:
    """Kill a command as soon as its folder holds such a file. Raises RuntimeError if it ends before or does not write one in time."""
    deadline = time.monotonic() + seconds
    while not any(folder.glob(pattern)):
        if process.poll() is not None or time.monotonic() > deadline:
            kill(process)
            raise RuntimeError(f"no {pattern} was written by the command that was to be killed")
        time.sleep(POLL)
    kill(process)


def tail(log: Path) -> str:
    """The last lines of a log that are no progress bar."""
    lines = [line.split("\r")[-1].strip() for line in log.read_text(errors="replace").splitlines()]
    return " / ".join([line for line in lines if line and "it/s" not in line and "s/it" not in line][-4:])[-400:]


def losses(output: Path) -> dict[int, float]:
    """The logged loss of each iteration of a run."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def images_per_second(output: Path, batch: int) -> float | None:
    """Of the second half of a run, by its log's seconds."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    times = [(line["step"], line["seconds"]) for line in lines if line["kind"] == "train"]
    times = times[len(times) // 2 :]
    if len(times) < 2 or times[-1][1] <= times[0][1]:
        return None
    return (times[-1][0] - times[0][0]) * batch / (times[-1][1] - times[0][1])
