"""Part 4: the trainings of full-size networks: speed, memory, waiting for data; several processes; killing and resuming."""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from strdiffusion.bench.gpu import commands
from strdiffusion.bench.gpu.needs import IMAGES, RUNS, no_compiler
from strdiffusion.bench.gpu.record import Session
from strdiffusion.bench.gpu.scale import ROOT, Scale
from strdiffusion.bench.training import CONFIGS, make_pictures, same_batch, time_steps
from strdiffusion.config import TrainConfig
from strdiffusion.denoiser import Precision
from strdiffusion.networks import KINDS, Kind
from strdiffusion.system.markdown import markdown_table
from strdiffusion.system.parser import build

COMPILING = 240.0  # seconds, about; until the first was compiled
STARTING = 60.0  # seconds that a command may take to begin
VIRTUAL = "facades:64/train"  # a folder of images that is drawn: it is listed without reading a file
CLOSE = {"cpu": 0.0, "cuda": 0.05}  # of losses, relative: convolutions on a GPU may add in another order, and a resumed run is only close


def run(session: Session, scale: Scale) -> None:
    from_files = session.can("training from image files, and the time it waits for them", *IMAGES)
    with tempfile.TemporaryDirectory(prefix="strdiffusion_gpu_") as name:
        folder = Path(name)
        if from_files:
            make_pictures(folder / "pictures", 2 * scale.sizes.size)
        batch = scale.trained[0]
        for kind in KINDS:
            timed(session, scale, folder, kind, scale.precisions[0], batch, from_files)
        if session.can("training by the command line, torchrun, kill and resume", *RUNS):
            processes(session, scale, folder)
            session.measure("kill and resume", partial(kill_and_resume, session, scale, folder), 4 * STARTING if not session.quick else 30)
        else:
            session.measure("collectives", partial(collectives, session, 1), 60)
        for kind in KINDS:
            timed(session, scale, folder, kind, scale.precisions[0], batch, from_files, "checkpoint")
        reason = no_compiler(session.device)
        seconds = COMPILING
        if reason:
            session.say(f"training: not run: compiled ({reason})")
        else:
            for kind in KINDS[:1] if session.quick else KINDS:
                row = timed(session, scale, folder, kind, scale.precisions[0], batch, from_files, "compile", seconds)
                seconds = 1.3 * row["seconds"] if row and row["status"] == "ok" else seconds
        for kind in KINDS:
            until_it_no_longer_fits(session, scale, folder, kind, from_files)
        for precision in scale.precisions[1:]:
            for kind in KINDS:
                timed(session, scale, folder, kind, precision, batch, from_files)


def until_it_no_longer_fits(session: Session, scale: Scale, folder: Path, kind: Kind, from_files: bool) -> None:
    """Batch sizes against memory, plain and with checkpointing: the first sizes, then twice as much each time."""
    for variant in ("", "checkpoint"):
        for batch in sizes_up_to(scale, small=not variant):
            row = timed(session, scale, folder, kind, scale.precisions[0], batch, from_files, variant, 15)
            if row is None or row["status"] == "does not fit":
                break


def sizes_up_to(scale: Scale, small: bool) -> Iterator[int]:
    batch = max(scale.trained)
    yield from sorted(scale.trained) if small else [batch]
    while (batch := 2 * batch) <= scale.largest:
        yield batch


def timed(
    session: Session,
    scale: Scale,
    folder: Path,
    kind: Kind,
    precision: Precision,
    batch: int,
    from_files: bool,
    variant: str = "",
    seconds: float = 20.0,
) -> dict | None:
    def action() -> dict:
        config = configuration(scale, folder, kind, precision, batch, from_files, variant)
        if variant == "compile":
            torch._dynamo.reset()
        data = None if from_files else same_batch(config, session.device)
        row = time_steps(kind, config, session.device, scale.repeats, data)
        row["images_per_second"] = row["iterations_per_second"] * batch
        return {"network": kind} | row

    return session.measure(f"{kind}/{precision}/batch {batch}{'/' + variant if variant else ''}", action, seconds)


def configuration(scale: Scale, folder: Path, kind: Kind, precision: Precision, batch: int, from_files: bool, variant: str) -> TrainConfig:
    sizes = scale.sizes
    unet = {"width": sizes.width, "depth": sizes.depth, "attention": sizes.attention}
    tree = {
        "output": str(folder / "none"),
        "precision": precision,
        "network": {"width": sizes.discriminator_width} if kind == "discriminator" else unet,
        "data": {
            "images": str(folder / "pictures") if from_files else VIRTUAL,
            "size": sizes.size,
            "index": None,
            "workers": scale.workers if from_files else 0,
        },
        "training": {"batch_size": batch, "checkpoint": variant == "checkpoint", "compile": variant == "compile"},
    }
    return build(CONFIGS[kind], tree, "scripts/gpu.py")


# ---- as a user starts them --------------------------------------------------------------------------------


def overrides(scale: Scale, folder: Path, output: Path, device: torch.device, iterations: int, batch: int) -> list[str]:
    """What a short training of the texture network adds to configs/psv/texture.yml."""
    sizes = scale.sizes
    network = f"network={{width: {sizes.width}, depth: {sizes.depth}, attention: {sizes.attention}}}"
    given = {
        "output": output,
        "device": device.type,
        "precision": scale.precisions[0],
        "data.images": folder / "pictures",
        "data.size": sizes.size,
        "data.index": "null",
        "data.masks.folder": "null",
        "data.workers": scale.workers,
        "validation.images": "null",
        "training.batch_size": batch,
        "training.iterations": iterations,
        "training.log_every": 1,
        "training.milestones": "[]",
        "training.keep": 1,
    }
    return [network, *(f"{key}={value}" for key, value in given.items())]


def processes(session: Session, scale: Scale, folder: Path) -> None:
    """A training alone, and by torchrun with a process for each GPU; then what processes exchange."""
    cuda = session.device.type == "cuda"
    gpus = torch.cuda.device_count() if cuda else 2
    batch = max(scale.trained[0], gpus) // gpus * gpus
    iterations = 4 if session.quick else 40

    def trained(count: int) -> dict:
        output, log = Path(tempfile.mkdtemp(dir=folder)), folder / "log.txt"
        arguments = commands.training(
            "texture", ROOT / "configs/psv/texture.yml", overrides(scale, folder, output, session.device, iterations, batch)
        )
        ended = commands.run(commands.torchrun(count, arguments) if count else arguments, log, session.left)
        found = commands.losses(output)
        return {
            "processes": count or 1,
            "launcher": "torchrun" if count else "none",
            "backend": ("NCCL" if cuda else "gloo") if count else "",
            "batch": batch,
            "images_per_second": commands.images_per_second(output, batch),
            "whole_seconds": ended.seconds,
            "last_loss": found[iterations],
        }

    seconds = 20 if session.quick else 2 * STARTING
    session.measure("alone", partial(trained, 0), seconds)
    session.measure(f"torchrun, {gpus} process{'es' if gpus > 1 else ''}", partial(trained, gpus), seconds)
    session.measure("collectives", partial(collectives, session, gpus), seconds)


def collectives(session: Session, count: int) -> dict:
    log = session.folder / "collectives.log"
    log.unlink(missing_ok=True)
    arguments = commands.torchrun(count, ["-m", "strdiffusion.bench.gpu.collectives", session.device.type])
    commands.run(arguments, log, min(session.left, 120))
    found = [line for line in log.read_text().splitlines() if line.startswith("{")]
    log.unlink(missing_ok=True)
    row = json.loads(found[-1])
    right = row["all_reduce"] and row["cpu_tensors"] and row["objects"] and row["gradient_error"] < 0.02
    return row | {"status": "ok" if right else "failed"}


def kill_and_resume(session: Session, scale: Scale, folder: Path) -> dict:
    """A training is killed after its first checkpoint and resumed; its losses are compared with those of one that was left alone."""
    iterations, every, batch, log = 8, 3, scale.trained[0], folder / "log.txt"
    found = {}
    for name in ("whole", "killed"):
        output = Path(tempfile.mkdtemp(dir=folder)) / name
        options = [*overrides(scale, folder, output, session.device, iterations, batch), f"training.save_every={every}", "resume=auto"]
        arguments = commands.training("texture", ROOT / "configs/psv/texture.yml", options)
        if name == "killed":
            commands.kill_when(commands.start(arguments, log), "step_*.pt", output, session.left)
        ended = commands.run(arguments, log, session.left)
        found[name] = commands.losses(output)
    if "resumed" not in log.read_text(errors="replace"):
        raise RuntimeError("the run began anew instead of going on")
    whole, killed = found["whole"], found["killed"]
    if whole.keys() != killed.keys():
        raise RuntimeError(f"the resumed run logged iterations {sorted(killed)}, the other one {sorted(whole)}")
    error = max(abs(killed[step] - loss) / abs(loss) for step, loss in whole.items())
    close = error <= CLOSE[session.device.type]
    return {
        "status": "ok" if close else "failed",
        "reason": "" if close else f"its losses differ by {error:.1e}",
        "iterations": iterations,
        "difference": error,
        "resumed_seconds": ended.seconds,
    }


def table(rows: list[dict]) -> str:
    trained = [["network", "precision", "batch", "checkpoint", "compile", "ms an iteration", "images/s", "peak GiB", "waiting for data"]]
    started = [["what", "result"]]
    for row in rows:
        if "milliseconds" in row:
            time = row["milliseconds"]
            trained.append(
                [
                    row["network"],
                    row["precision"],
                    str(row["batch"]),
                    *("yes" if row[name] else "no" for name in ("checkpoint", "compile")),
                    f"{time['median']:.4g} ({time['fastest']:.4g}-{time['slowest']:.4g})",
                    f"{row['images_per_second']:.3g}",
                    f"{row['memory_gib']:.2f}",
                    "images in memory" if row["waiting"] is None else f"{100 * row['waiting']:.1f} %",
                ]
            )
        else:
            values = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()]
            started.append([row["key"], ", ".join(v for v in values if not v.startswith(("key", "seconds "))).replace("|", "/")])
    return "\n\n".join(markdown_table(lines) for lines in (trained, started) if len(lines) > 1)
