"""Kill a command that writes a folder at random moments until it is done, and compare it with an uninterrupted one: scripts/kill_test.py.

And the work that such commands are given: photographs with a mask, small networks, a test configuration and a table.
"""

import csv
import io
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import yaml
from forks import fork

from strdiffusion.checkpoints import network_record, write_checkpoint
from strdiffusion.data import write_image
from strdiffusion.data.images import resize_image
from strdiffusion.networks import UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.folders import LOCK, found_key

COMMANDS = ("test", "reproduce", "inpaint", "masks")
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
    for kind, network in (("texture", UNet(3, 4, 1, guided=True)), ("structure", UNet(1, 4, 2))):
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
