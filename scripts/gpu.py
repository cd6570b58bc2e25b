"""The first hour on a GPU: is everything right on it, how fast is it, what fits, and what do trainings cost?

    python scripts/gpu.py [tests] [networks] [samplers] [training] [benchmark] [--out FOLDER] [--minutes 10] [--quick]

Each part takes at most --minutes and writes FOLDER/PART.jsonl line by line, PART.json and PART.md. A part that was stopped, or had no time
for everything, goes on when the same command is given again. It runs from a checkout with nothing installed but torch and numpy; what needs
another package is named and left out. --device cpu measures small networks, to try the command without a GPU.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a bare checkout is not installed

import torch  # noqa: E402

from strdiffusion.bench.gpu import report, scale  # noqa: E402
from strdiffusion.bench.gpu.record import LOST, Record, Session  # noqa: E402
from strdiffusion.system.cli import OneLineParser, exit_on_user_error  # noqa: E402
from strdiffusion.system.device import device_name, keep_memory  # noqa: E402
from strdiffusion.system.errors import UserError  # noqa: E402

MEASURED = 0.9  # the share of --minutes after which nothing is begun
KILLED = 0.97  # and that after which a part is ended: a measurement hangs
GRACE = 8  # seconds to end in
RESTARTS = 3  # of a part whose process broke
OUT = "results/gpu"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(report.PARTS)} (default: all of them)")
    parser.add_argument("--out", type=Path, default=Path(OUT), help=f"folder of the report (default: {OUT})")
    parser.add_argument("--minutes", type=float, default=10.0, help="the most that a part may take (default: 10)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: small networks, to try the command (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="small networks on a GPU, too")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)  # of the process that does the work: when its part began
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in report.PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(report.PARTS)}")
    if not 0 < options.minutes < 10_000:
        parser.error("--minutes must be above 0")
    return options


def work(part: str, options: argparse.Namespace) -> int:
    """Do a part in this process. Returns 1 if something failed or nothing could be measured, else 0."""
    device, cores = torch.device(options.device), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    keep_memory(device)
    began = time.time() if options.began is None else options.began
    deadline = time.monotonic() + 60 * MEASURED * options.minutes - (time.time() - began)
    chosen = (scale.quick if options.quick or options.device == "cpu" else scale.full)(device, cores)
    about = {
        "device": device_name(device) if options.device == "cuda" else "cpu",
        "sizes": chosen.name,
        "torch": f"torch {torch.__version__}",
        "cuda": f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if options.device == "cuda" else None,
        "processor": f"{platform.machine()}, {cores} cores",
        "python": f"Python {platform.python_version()}",
    }
    record = Record(options.out, part, about, options.again)
    session = Session(record, device, chosen.name == "quick", deadline, options.out, lambda text: print(text, flush=True), report.write)
    try:
        report.PARTS[part].run(session, chosen)
    finally:
        report.write(session)
        record.close()
    session.say_lacking()
    report.print_summary(session)
    return int(not record.rows or any(row["status"] == "failed" for row in record.rows.values()))


def supervise(part: str, options: argparse.Namespace) -> int:
    """Do a part in processes of its own: one that hangs is ended in time, and one that breaks is followed by another."""
    began, limit = time.time(), 60 * KILLED * options.minutes
    command = [sys.executable, str(Path(__file__).resolve()), part, "--out", str(options.out), "--minutes", str(options.minutes)]
    command += ["--device", options.device, "--began", str(began), *(["--quick"] if options.quick else [])]
    for attempt in range(RESTARTS):
        status = wait_for(command + (["--again"] if attempt else []), max(began + limit - time.time(), 1))
        if status is None:
            print(
                f"{part}: ended after {options.minutes:g} minutes, in the middle of a measurement; give the same command again", flush=True
            )
            return 1
        if status >= 0 and status != LOST:
            return status
        reason = "the GPU's context broke" if status == LOST else f"signal {-status}"
        print(f"{part}: its process ended ({reason}); another goes on", flush=True)
    return 1


def wait_for(command: list[str], seconds: float) -> int | None:
    """The exit status of a command; None if it was ended because it took longer."""
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.terminate()  # it ends what it has started
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


@exit_on_user_error
def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    parts = options.parts or list(report.PARTS)
    if options.device == "cuda" and not torch.cuda.is_available():
        for part in parts[:-1]:
            print(f"error: {part}: {NO_GPU}", file=sys.stderr)
        raise UserError(f"{parts[-1]}: {NO_GPU}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.began is not None:
        return work(parts[0], options)
    return max(supervise(part, options) for part in parts)


NO_GPU = "there is no CUDA GPU that torch can use, nothing was measured; --device cpu tries the command with small networks"


if __name__ == "__main__":
    sys.exit(main())
