"""Measure how fast networks, samplers and training are on this machine, and compare them with its best rates.

    python scripts/benchmark.py [networks] [samplers] [training] [--precision fp32 bf16] [--output FILE.json] [...]

The defaults are the released sizes. On a CPU, let nothing else run, or give --cpu-time.
"""

import argparse
import contextlib
import json
import platform
import sys
from pathlib import Path
from typing import get_args

import torch

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.bench import timing
from strdiffusion.bench.networks import FORMS, Sizes, time_networks
from strdiffusion.bench.report import network_table, sampler_table, training_table
from strdiffusion.bench.samplers import SAMPLERS, time_samplers
from strdiffusion.bench.training import time_training
from strdiffusion.denoiser import Precision
from strdiffusion.networks import KINDS
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.device import choose_device, device_name, keep_memory
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, write_text
from strdiffusion.system.folders import output_files

PARTS = ("networks", "samplers", "training")
TABLES = {"networks": network_table, "samplers": sampler_table, "training": training_table}


def options() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(PARTS)} (default: networks)")
    sizes = parser.add_argument_group("sizes")
    for name, value in vars(Sizes()).items():
        sizes.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"(default: {value})")
    parser.add_argument("--precision", nargs="+", choices=get_args(Precision), default=["fp32"])
    of_kind = "networks to measure alone and in training; prior, RePaint's, alone"
    parser.add_argument("--kind", nargs="+", choices=(*KINDS, "prior"), default=list(KINDS), help=of_kind)
    parser.add_argument("--form", nargs="+", choices=FORMS, default=list(FORMS[:3]), help="forms of the networks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the CPU time of one thread, for a machine on which other programs run"
    )
    parser.add_argument("--output", type=Path, help="write all numbers as JSON")
    samplers = parser.add_argument_group("samplers")
    samplers.add_argument("--sampler", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    samplers.add_argument("--T", type=int, default=100, help="(default: 100)")
    for kind in KINDS:
        samplers.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"trained weights of the {kind} network; else random ones")
    training = parser.add_argument_group("training")
    training.add_argument("--images", help="folder of training images; without it, images are generated")
    training.add_argument("--workers", type=int, default=4, help="data-loading processes (default: 4)")
    training.add_argument("--checkpoint", action="store_true", help="with training.checkpoint=true")
    parser.add_argument("--compile", action="store_true", help="samplers and training with compile=true")
    found = parser.parse_args()
    if "prior" in found.kind and "training" in found.parts:
        raise UserError(
            "the training of a prior is not measured here: leave prior out of --kind; a training itself reports images a second"
        )
    unknown = set(found.parts) - set(PARTS)
    if unknown:
        raise UserError(f"there is no part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    if min(found.size, found.batch, found.width, found.depth, found.discriminator_width, found.repeats, found.T - 1) < 1:
        raise UserError("sizes and repeats must be at least 1, and T at least 2")
    return found


def measure(part: str, found: argparse.Namespace, device: torch.device) -> list[dict]:
    sizes = Sizes(**{name: getattr(found, name) for name in vars(Sizes())})
    if part == "networks":
        return time_networks(sizes, found.precision, found.form, device, found.repeats, found.kind)
    if part == "samplers":
        checkpoints = {kind: getattr(found, kind) for kind in KINDS if getattr(found, kind)}
        return [row for p in found.precision for row in time_samplers(found.sampler, sizes, found.T, p, found.compile, device, checkpoints)]
    return [
        row
        for p in found.precision
        for row in time_training(found.kind, sizes, p, device, found.repeats, found.workers, found.checkpoint, found.compile, found.images)
    ]


def processor() -> str:
    """The processor's name, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return names.get("model name", platform.machine())


@exit_on_user_error(go_on=True)
def main() -> None:
    found = options()
    device = choose_device(found.device)
    keep_memory(device)
    if found.cpu_time:
        timing.count_cpu_time()
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(output_files([found.output], True, "")) if found.output else None
        report_of(found, device, files)


def report_of(found: argparse.Namespace, device: torch.device, files: Together | None) -> None:
    """Measure, print the tables, and write all numbers, if a file is given."""
    clock = "CPU time" if found.cpu_time else "wall clock"
    versions = {"torch": f"torch {torch.__version__}", "python": f"Python {platform.python_version()}"}
    report: dict = {"device": device_name(device), "processor": processor(), "clock": clock, **versions}
    print(", ".join([*report.values(), f"{found.size}x{found.size}, batch {found.batch}, width {found.width}"]) + "\n")
    for part in found.parts or PARTS[:1]:
        report[part] = measure(part, found, device)
        print(TABLES[part](report[part]) + "\n", flush=True)
    if files is not None:
        write_text(found.output, json.dumps(report, indent=1) + "\n", files)


if __name__ == "__main__":
    sys.exit(main())
