"""Kill a small training at random moments until it is done, and compare it with an uninterrupted one: scripts/kill_test.py."""

import importlib
import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from forks import HEAVY, fork

from strdiffusion.checkpoints import read_checkpoint
from strdiffusion.data import write_image

ROOT = Path(__file__).resolve().parents[1]
SMALL = "network={width: 8, depth: 1}"
SDE = f"sde.T=6 structure.edge_source=known {SMALL}"
KINDS = {  # configuration, and the options that make it tiny
    "structure": ("psv/structure", SDE),
    "texture": ("psv/texture", SDE),
    "joint": ("benchmark/joint", f"{SDE} objective.ahead=[0,2]"),
    "discriminator": ("psv/discriminator", "sde.T=6 structure.edge_source=known network.width=8"),
    "prior": (
        "benchmark/prior",
        "process.steps=20 network={width: 32, multipliers: [1, 1], blocks: 1, attention: [], head_channels: 32} "
        "sampling={steps: 4, jump_length: 2, jump_n_sample: 2}",
    ),
    "dgts": (
        "benchmark/dgts",
        "network={reduction: 2, patch: 6, grid: 4, width: 16, reference_width: 8, heads: 2, encoder_layers: 1, decoder_layers: 2, "
        "backbone: small} objective.one_by_one=3",
    ),
    "upsampler": (
        "benchmark/upsampler",
        "network={width: 4, factor: 4, dilations: [1, 2], critic_width: 4} objective={loss: adversarial, core: null, core_share: 0}",
    ),
}
GRACEFUL = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130, signal.SIGHUP: 129}
TIMINGS = {"seconds", "images_per_second"}  # what may differ in metrics.jsonl
SETTINGS = (
    "device=cpu precision=fp32 data.size=48 data.index=null validation.index=null data.masks.folder=null "
    "training.batch_size=4 training.learning_rate=1e-3 training.clip_gradient=1 training.warmup=5 training.save_every=4 training.keep=3 "
    "training.log_every=1 training.lr_schedule=steps training.milestones=[60] validation.every=14 validation.samples=2 resume=auto"
)


def photographs(folder: Path, count: int) -> None:
    """Smooth images, one of which is truncated."""
    rng = np.random.default_rng(0)
    for i in range(count):
        ramp = np.linspace(0, 1, 60)[:, None, None] * rng.random(3) + 0.3 * rng.random((60, 60, 3))
        write_image(folder / f"{i}.png", ramp)
    broken = folder / "broken.png"
    broken.write_bytes((folder / "0.png").read_bytes()[:500])


def command(kind: str, data: Path, output: Path, iterations: int, workers: int) -> list[str]:
    """The words after `strdiffusion` of a training."""
    configuration, small = KINDS[kind]
    return [
        "train",
        "texture" if kind == "joint" else kind,
        "-opt",
        str(ROOT / "configs" / f"{configuration}.yml"),
        *SETTINGS.split(),
        *words_of(small),
        f"output={output}",
        f"data.images={data / 'train'}",
        f"validation.images={data / 'held_out'}",
        f"data.workers={workers}",
        f"training.iterations={iterations}",
    ]


def words_of(options: str) -> list[str]:
    """Options in one text, as words: a space inside of brackets ends none."""
    return re.split(r" (?=[a-z_.]+=)", options)


class Process:
    """A command that runs in a process of its own."""

    def __init__(self, words: list[str], log: Path):
        self.pid, self.status = fork(words, log), None

    def poll(self, how: int = os.WNOHANG) -> int | None:
        """Its exit status, negative if a signal ended it; None if it runs."""
        if self.status is None:
            ended, status = os.waitpid(self.pid, how)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status

    def wait(self) -> int:
        return self.poll(0)


def hit(process: Process, output: Path, rng: random.Random, longest: float) -> str | None:
    """Send one signal at a random moment after training has begun; returns its name, or None if the run ended before."""
    number = rng.choice([signal.SIGKILL] * 3 + list(GRACEFUL))
    aim_at_writing = number == signal.SIGKILL and rng.random() < 0.5
    while process.poll() is None and not is_training(output, process.pid):
        time.sleep(0.005)
    deadline = time.monotonic() + rng.uniform(0, longest)
    writing = False
    while process.poll() is None and not writing and time.monotonic() < deadline + (20 if aim_at_writing else 0):
        writing = aim_at_writing and time.monotonic() > deadline and any(output.glob(".step_*.tmp"))
        time.sleep(0 if aim_at_writing else 0.002)
    if process.poll() is not None:
        return None
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    status = process.wait()
    told = output / "status.txt"  # absent where the run was killed before it wrote one
    finished = told.exists() and "finished" in told.read_text()  # the signal came while the interpreter was ending
    if number in GRACEFUL and status not in (GRACEFUL[number], 0) and not finished:
        raise SystemExit(f"{signal.Signals(number).name} ended with status {status} instead of {GRACEFUL[number]}")
    left = any(output.glob(".step_*.tmp"))
    return signal.Signals(number).name + (" while writing" if left else "")


def is_training(output: Path, pid: int) -> bool:
    """Whether the process catches signals already: then its TensorBoard file exists."""
    return any(output.glob(f"tensorboard/*.{pid}.*"))


def same(one: object, two: object) -> bool:
    """Whether two trees of dictionaries, lists, tensors and values are bitwise equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def logged(output: Path) -> list[dict]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMINGS} for line in lines]


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two finished runs."""
    found = []
    for name in ("latest.pt", "best.pt"):
        a, b = (read_checkpoint(folder / name) for folder in (one, two))
        del a["config"], b["config"]  # the output folder
        found += [f"{name}: {key}" for key in sorted(a.keys() | b.keys()) if not same(a.get(key), b.get(key))]
    kept = [[path.name for path in sorted(folder.glob("step_*"))] for folder in (one, two)]
    # a signal saves between two regular checkpoints, so of those kept only their number and the newest are the same
    if len(kept[0]) != len(kept[1]) or kept[0][-1:] != kept[1][-1:]:
        found.append("the checkpoints that are kept")
    return found + ([] if logged(one) == logged(two) else ["metrics.jsonl"])


def kill_training(kind: str, kills: int, iterations: int, rng: random.Random, folder: Path) -> list[str]:
    """Interrupt a training `kills` times, in as many runs as it takes. Returns what differs from an uninterrupted one."""
    for module in HEAVY:
        importlib.import_module(module)  # once, and not in each start
    photographs(folder / "train", 9)
    photographs(folder / "held_out", 3)
    began = time.monotonic()
    whole = Process(command(kind, folder, folder / "whole", iterations, workers=0), folder / "log")
    if whole.wait() != 0:
        raise SystemExit((folder / "log").read_text()[-2000:])
    longest = min(2 * (time.monotonic() - began) / kills, 2.0)  # so that the kills are spread over the run
    happened: Counter[str] = Counter()
    found, runs, workers = [], 0, 0
    while happened.total() < kills:
        output, before = folder / f"killed_{runs}", happened.total()
        runs += 1
        while True:
            workers = (workers + 1) % 3  # the number of loader workers must not matter
            process = Process(command(kind, folder, output, iterations, workers), folder / "log")
            signal_name = hit(process, output, rng, longest) if happened.total() < kills else None
            if signal_name is None:
                break
            happened[signal_name] += 1
            newest = max((path.name for path in output.glob("step_*.pt")), default="none")
            print(f"{happened.total():3d} {signal_name:22s} newest checkpoint {newest}", flush=True)
        if process.wait() != 0:
            raise SystemExit((folder / "log").read_text()[-2000:])
        found += [f"{output.name}: {name}" for name in differences(folder / "whole", output)]
        print(f"run {runs} is done after {happened.total() - before} kills, with {len(logged(output))} logged lines", flush=True)
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(happened.items()))
    outcome = "DIFFERENT: " + ", ".join(found[:10]) if found else "bit for bit the same"
    print(f"{kind}: {happened.total()} kills ({kinds}), {runs} runs: {outcome}")
    return found
