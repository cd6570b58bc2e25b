"""Kill a small run at random moments until it is done, and compare it with an uninterrupted one: python scripts/kill_test.py 30

A training (--kind structure, texture, joint, discriminator, prior, dgts, upsampler) gets SIGKILL, SIGTERM, SIGUSR1, SIGINT and SIGHUP;
half of the SIGKILLs aim at the writing of a checkpoint, when its temporary file exists. After each signal the run continues with
resume=auto. In the end weights, moving average, optimizer, progress and all logged losses must be those of the uninterrupted run, bit for
bit.

The commands that write folders (--kind test, reproduce, inpaint, masks) get SIGKILL, half of them while a temporary file exists, and are
given again, unchanged. Each folder that is done is compared with an uninterrupted one, byte for byte except for the seconds that it
took, and another is begun until there were enough kills. All are forked from this process, so that a start costs little.
"""

import argparse
import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
import yaml

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.checkpoints import network_record, read_checkpoint, write_checkpoint
from strdiffusion.commands.main import main as run_command
from strdiffusion.data import write_image
from strdiffusion.data.images import resize_image
from strdiffusion.networks import UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.folders import LOCK, found_key

ROOT = Path(__file__).resolve().parents[1]
SMALL = "network={width: 8, depth: 2}"
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
COMMANDS = ("test", "reproduce", "inpaint", "masks")
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


# ---- commands that write folders ----------------------------------------------------------------------

SIZE, T = 24, 6
SECONDS = {"seconds", "s/image"}  # columns that may differ
OWN = {"output", "overwrite", "key"}  # keys of YAML and JSON that may differ: the folder, and a hash of results.csv, which has seconds
CONFIG = """output: unused
device: cpu
batch_size: 2
sde: {{T: {T}}}
structure: {{edge_source: known, edge_sigma: 1}}
checkpoints: {{texture: {folder}/networks/texture.pt, structure: {folder}/networks/structure.pt}}
data: {{images: {folder}/photos, masks: {{folder: null}}, size: {size}, index: null}}
sampler: {{resampling: none, steps: 3}}
"""
TABLE = """title: A small table
base: {folder}/test.yml
output: unused
metrics: [psnr, hole_psnr, l1, texture_evaluations]
buckets: [{{name: 10-20, options: ['data.masks.hole_share=[0.1, 0.2]']}}, {{name: 30-40, options: ['data.masks.hole_share=[0.3, 0.4]']}}]
rows: [{{label: telea, method: telea}}, {{label: ours}}]
reference: telea
"""


def prepare(folder: Path, images: int) -> None:
    """Photographs with a mask, small random networks, a test configuration and a table."""
    torch.manual_seed(0)
    structure = {"pair": "gray2edge", "edge_source": "known", "edge_sigma": 1.0}
    for kind, network in (("texture", UNet(3, 4, 2, guided=True)), ("structure", UNet(1, 4, 2))):
        (folder / "networks").mkdir(exist_ok=True)
        record = network_record(kind, network, MeanRevertingSDE(T=T), structure)
        write_checkpoint(folder / "networks" / f"{kind}.pt", record | {"step": 0, "network": network.state_dict(), "ema": None})
    rng = np.random.default_rng(0)
    for i in range(images):
        write_image(folder / "photos" / f"{'ab'[i % 2]}" / f"{i}.png", resize_image(rng.random((4, 4, 3), np.float32), SIZE, SIZE))
    hole = np.zeros((SIZE, SIZE))
    hole[8:16, 6:14] = 1
    write_image(folder / "mask.png", hole)
    (folder / "test.yml").write_text(CONFIG.format(folder=folder, T=T, size=SIZE))
    (folder / "table.yml").write_text(TABLE.format(folder=folder))


def command_line(kind: str, folder: Path, output: Path, images: int, quick: bool = False) -> list[str]:
    """The words after `strdiffusion` that write `output`. quick: by methods that need no network."""
    if kind == "test":
        return ["test", "-opt", str(folder / "test.yml"), f"output={output}", *(["method=telea"] if quick else [])]
    if kind == "reproduce":
        rows = "rows=[{label: telea, method: telea}, {label: ours, method: mean_fill}]"
        return ["reproduce", str(folder / "table.yml"), f"output={output}", *([rows, "metrics=[psnr, l1]"] if quick else [])]
    if kind == "inpaint":
        steps = ["--device", "cpu", "--resampling", "none", "--steps", "3", "--samples", "2", "--model", str(folder / "networks")]
        how = ["--method", "telea"] if quick else steps
        return ["inpaint", str(folder / "photos"), str(folder / "mask.png"), "-o", str(output), *how]
    return ["masks", str(output), "--families", "irregular", "wide", "--buckets", "10-20", "--count", str(images), "--size", "64"]


def fork(words: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a process of its own; returns its number. before: is called in it first."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    status = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        torch.set_num_threads(1)
        before()
        sys.stdin, sys.stdout, sys.stderr = map(opened, (0, 1, 2))
        status = run_command(words) or 0
    except SystemExit as ended:  # --help
        status = ended.code or 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def opened(descriptor: int) -> TextIO | None:
    """A standard stream, as the interpreter makes it at its start: None if it is closed."""
    try:
        return open(descriptor, "w" if descriptor else "r", closefd=False, errors="backslashreplace")
    except OSError:
        return None


def kill_command(number: int, output: Path, rng: random.Random, longest: float) -> str | None:
    """SIGKILL at a random moment after it began to hold the folder; returns what happened, or None if the command ended before.

    A command that was killed after its last write refuses to write again. Raises SystemExit if it failed in another way.
    """
    deadline, aims = None, rng.random() < 0.5
    while True:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            if status and (os.waitstatus_to_exitcode(status) != 2 or found_key(output) is not None):
                raise SystemExit(f"the command failed with status {os.waitstatus_to_exitcode(status)}")
            return None
        if deadline is None and holds(output, number):
            deadline = time.monotonic() + rng.uniform(0, longest)
        late = -1 if deadline is None else time.monotonic() - deadline
        if late > 0 and (not aims or late > 1 or is_writing(output)):
            break
        time.sleep(0.001 if late > 0 else 0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return "SIGKILL while writing" if is_writing(output) else "SIGKILL"


def is_writing(output: Path) -> bool:
    """Whether there is a temporary file."""
    return any(name.endswith(".tmp") for _, _, names in os.walk(output) for name in names)


def holds(output: Path, number: int) -> bool:
    """Whether a process holds a folder."""
    try:
        return f'"process": {number},' in (output / LOCK).read_text()
    except OSError:
        return False


def folder_differences(one: Path, two: Path) -> list[str]:
    """What differs between two folders: names, and contents except for seconds, the folders' own names, and hashes of these."""
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (one, two)]
    found = [f"only in one: {name}" for name in sorted(set(names[0]) ^ set(names[1]))]
    return found + [name for name in names[0] if name in names[1] and comparable(one / name, one) != comparable(two / name, two)]


def comparable(path: Path, folder: Path) -> object:
    """What must be the same of a file."""
    if path.is_dir():
        return None
    content = path.read_bytes()
    if path.suffix == ".csv":
        return [{key: value for key, value in line.items() if key not in SECONDS} for line in csv.DictReader(io.StringIO(content.decode()))]
    if path.name == "summary.md":
        lines = [line.split("|") for line in content.decode().splitlines()]
        hidden = {i for i, cell in enumerate(lines[0]) if cell.strip() in SECONDS}
        return [[cell.strip(" -:") for i, cell in enumerate(line) if i not in hidden] for line in lines]
    if path.suffix in (".yml", ".json"):
        tree = yaml.safe_load(content.replace(str(folder).encode(), b""))
        return {key: value for key, value in tree.items() if key not in OWN}
    return content


def kill_commands(kind: str, kills: int, images: int, rng: random.Random, folder: Path, quick: bool = False) -> list[str]:
    """Interrupt a command `kills` times, in as many folders as it takes. Returns what differs from an uninterrupted one."""
    prepare(folder, images)
    number = fork(command_line(kind, folder, folder / "whole", images, quick), folder / "log")
    while not holds(folder / "whole", number) and os.waitpid(number, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    began = time.monotonic()
    _, status = os.waitpid(number, 0)
    if status:
        raise SystemExit((folder / "log").read_text()[-2000:])
    longest = 0.7 * (time.monotonic() - began)  # of the work, without the start
    happened: Counter[str] = Counter()
    found, folders = [], 0
    while happened.total() < kills:
        output, before = folder / f"killed_{folders}", happened.total()
        folders += 1
        while True:
            number = fork(command_line(kind, folder, output, images, quick), folder / "log")
            what = kill_command(number, output, rng, longest if happened.total() < kills else 1e9)
            if what is None:
                break
            happened[what] += 1
            if happened.total() % 10 == 0:
                print(f"{happened.total():3d} kills", flush=True)
        found += [f"{output.name}: {name}" for name in folder_differences(folder / "whole", output)]
        print(f"{happened.total():3d} kills, folder {folders} is done after {happened.total() - before} of them", flush=True)
        shutil.rmtree(output)
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(happened.items()))
    outcome = "DIFFERENT: " + ", ".join(found[:10]) if found else "the same"
    print(f"{kind}: {happened.total()} kills ({kinds}), {folders} folders: {outcome}")
    return found


def kill_training(options: argparse.Namespace, rng: random.Random, folder: Path) -> list[str]:
    """Interrupt a training `kills` times, in as many runs as it takes. Returns what differs from an uninterrupted one."""
    for module in ("strdiffusion.training", "torch.utils.tensorboard", "torch._dynamo", "skimage.color"):
        importlib.import_module(module)  # once, and not in each start
    photographs(folder / "train", 9)
    photographs(folder / "held_out", 3)
    began = time.monotonic()
    whole = Process(command(options.kind, folder, folder / "whole", options.iterations, workers=0), folder / "log")
    if whole.wait() != 0:
        raise SystemExit((folder / "log").read_text()[-2000:])
    longest = min(2 * (time.monotonic() - began) / options.kills, 2.0)  # so that the kills are spread over the run
    happened: Counter[str] = Counter()
    found, runs, workers = [], 0, 0
    while happened.total() < options.kills:
        output, before = folder / f"killed_{runs}", happened.total()
        runs += 1
        while True:
            workers = (workers + 1) % 3  # the number of loader workers must not matter
            process = Process(command(options.kind, folder, output, options.iterations, workers), folder / "log")
            signal_name = hit(process, output, rng, longest) if happened.total() < options.kills else None
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
    print(f"{options.kind}: {happened.total()} kills ({kinds}), {runs} runs: {outcome}")
    return found


@exit_on_user_error(go_on=True)
def main() -> int:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, help="how many times the run is interrupted")
    parser.add_argument("--kind", choices=(*KINDS, *COMMANDS), default="texture")
    parser.add_argument("--iterations", type=int, default=120, help="of a training")
    parser.add_argument("--images", type=int, default=12, help="of a command that writes a folder")
    parser.add_argument("--quick", action="store_true", help="a command by methods that need no network: many kills in a short time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    torch.set_num_threads(1)  # a fork has no other threads
    with tempfile.TemporaryDirectory(prefix="kill_test_") as temporary:
        if options.kind in COMMANDS:
            found = kill_commands(options.kind, options.kills, options.images, rng, Path(temporary), options.quick)
        else:
            found = kill_training(options, rng, Path(temporary))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
