"""Kill a small training at random moments until it is done, and compare it with an uninterrupted one: python scripts/kill_test.py 30

The signals are SIGKILL, SIGTERM, SIGUSR1 and SIGINT; half of the SIGKILLs aim at the writing of a checkpoint, when its temporary file
exists. After each signal the run continues with resume=auto. In the end weights, moving average, optimizer, progress and all logged losses
must be those of the uninterrupted run, bit for bit.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.checkpoints import read_checkpoint
from strdiffusion.data import write_image
from strdiffusion.system.cli import OneLineParser, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("structure", "texture", "discriminator")
GRACEFUL = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
TIMINGS = {"seconds", "images_per_second"}  # what may differ in metrics.jsonl
SETTINGS = (
    "device=cpu sde.T=6 structure.edge_source=known data.size=32 data.index=null validation.index=null data.masks.folder=null "
    "training.batch_size=4 training.learning_rate=1e-3 training.clip_gradient=1 training.warmup=5 training.save_every=4 training.keep=3 "
    "training.log_every=1 training.milestones=[60] validation.every=14 validation.samples=2 resume=auto"
)


def photographs(folder: Path, count: int) -> None:
    """Smooth images, one of which is truncated."""
    rng = np.random.default_rng(0)
    for i in range(count):
        ramp = np.linspace(0, 1, 44)[:, None, None] * rng.random(3) + 0.3 * rng.random((44, 44, 3))
        write_image(folder / f"{i}.png", ramp)
    broken = folder / "broken.png"
    broken.write_bytes((folder / "0.png").read_bytes()[:500])


def command(kind: str, data: Path, output: Path, iterations: int, workers: int) -> list[str]:
    network = "network.width=8" if kind == "discriminator" else "network={width: 8, depth: 2}"
    return [
        sys.executable,
        str(ROOT / "scripts" / f"train_{kind}.py"),
        "-opt",
        str(ROOT / "configs" / "psv" / f"{kind}.yml"),
        *SETTINGS.split(),
        network,
        f"output={output}",
        f"data.images={data / 'train'}",
        f"validation.images={data / 'held_out'}",
        f"data.workers={workers}",
        f"training.iterations={iterations}",
    ]


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen(arguments, env=environment, stdout=file, stderr=file, start_new_session=True)


def hit(process: subprocess.Popen, output: Path, rng: random.Random, longest: float) -> str | None:
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
        process.send_signal(number)
    status = process.wait(timeout=120)
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


@exit_on_user_error
def main() -> int:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, help="how many times the run is interrupted")
    parser.add_argument("--kind", choices=KINDS, default="texture")
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="kill_test_") as temporary:
        folder = Path(temporary)
        photographs(folder / "train", 9)
        photographs(folder / "held_out", 3)
        began = time.monotonic()
        whole = start(command(options.kind, folder, folder / "whole", options.iterations, workers=0), folder / "log")
        if whole.wait() != 0:
            raise SystemExit((folder / "log").read_text()[-2000:])
        longest = 2 * (time.monotonic() - began) / options.kills  # so that the kills are spread over the run
        happened: Counter[str] = Counter()
        output, workers = folder / "killed", 0
        while True:
            workers = (workers + 1) % 3  # the number of loader workers must not matter
            process = start(command(options.kind, folder, output, options.iterations, workers), folder / "log")
            signal_name = None
            if happened.total() < options.kills:
                signal_name = hit(process, output, rng, min(longest, 2.0))
            if signal_name is None:
                if process.wait() != 0:
                    raise SystemExit((folder / "log").read_text()[-2000:])
                if happened.total() >= options.kills:
                    break
                raise SystemExit(f"the run was done after {happened.total()} kills: give more --iterations")
            happened[signal_name] += 1
            newest = max((path.name for path in output.glob("step_*.pt")), default="none")
            print(f"{happened.total():3d} {signal_name:22s} newest checkpoint {newest}", flush=True)
        found = differences(folder / "whole", output)
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(happened.items()))
        outcome = "DIFFERENT: " + ", ".join(found) if found else "bit for bit the same"
        print(f"{options.kills} kills ({kinds}), {len(logged(output))} logged lines: {outcome}")
        return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
