"""Part 5: the benchmark's trainings with ten times the budget: what to run first, what each costs, and then the first of them."""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from strdiffusion.bench.gpu import commands
from strdiffusion.bench.gpu.needs import IMAGES, RUNS
from strdiffusion.bench.gpu.record import OutOfTime, Session
from strdiffusion.bench.gpu.scale import ROOT, Scale
from strdiffusion.bench.gpu.training import VIRTUAL
from strdiffusion.bench.training import CONFIGS, same_batch, time_steps
from strdiffusion.config import load_config
from strdiffusion.networks import Kind
from strdiffusion.system.markdown import markdown_table

TIMES = 10  # the budget of the weights that ship
LEAST = 60.0  # seconds: a training of less is not begun
SAVING = 20.0  # seconds that are kept for its end
DRAWING = 40.0  # seconds, about, that 16 cores take to draw the training images


@dataclass(frozen=True)
class Planned:
    """A training of the benchmark: why it comes at this place, what trains it, and what changes its configuration."""

    name: str
    kind: Kind
    file: str
    why: str
    changes: tuple[str, ...] = ()


PLAN = (
    Planned("joint", "texture", "joint.yml", "one network with structure ahead: the open question of docs/benchmark.md"),
    Planned("irsde", "texture", "texture.yml", "the baseline that every other row is compared with", ("objective.guidance=none",)),
    Planned("texture", "texture", "texture.yml", "StrDiffusion's texture network"),
    Planned("structure", "structure", "structure.yml", "its structure network"),
    Planned("discriminator", "discriminator", "discriminator.yml", "for adaptive resampling"),
    Planned("prior", "prior", "prior.yml", "RePaint's prior: no weights ship yet"),
    Planned("dgts", "dgts", "dgts.yml", "DGTS: no weights ship yet"),
    Planned("prior_x0", "prior", "prior.yml", "the prior in the form that the other networks have", ("network.prediction=x0",)),
)


def run(session: Session, scale: Scale) -> None:
    if not session.can("the benchmark's trainings, whose configurations are YAML files", "yaml"):
        return
    with tempfile.TemporaryDirectory(prefix="strdiffusion_gpu_") as name:
        from_files = session.can("training from image files, and the time it waits for them", *IMAGES)
        images = training_images(session) if from_files else VIRTUAL
        for planned in PLAN:
            session.measure(
                planned.name, partial(cost, session, scale, planned, images, from_files, Path(name)), 25 if not session.quick else 5
            )
    if session.can("trainings with what time is left", *RUNS):
        spend(session, scale, images)


def training_images(session: Session) -> str:
    """The folder of training images, drawn if it is not there and there is time; otherwise each is drawn when it is needed."""
    shared, own = ROOT / "datasets/facades/train", session.folder / "facades/train"
    for folder in (shared, own):
        if (folder.parent / "train.png").exists():  # the contact sheet is written last
            return str(folder)
    if session.quick or not session.can("the training images as files", "tqdm"):
        return VIRTUAL

    def draw() -> dict:
        arguments = [str(ROOT / "scripts/make_dataset.py"), str(own.parent), "--splits", "train"]
        commands.run(arguments, session.folder / "facades.log", session.left - 60)
        return {"images": len(list(own.glob("*.png")))}

    row = session.measure("training images", draw, DRAWING + 60)
    return str(own) if row and row["status"] == "ok" and own.is_dir() else VIRTUAL


def options(scale: Scale, planned: Planned, images: str, workers: int) -> list[str]:
    given = [f"data.images={images}", f"data.workers={workers}", "data.index=null", "validation.images=null"]
    small = ["training.batch_size=2", "training.warmup=1", "training.log_every=1"] if scale.name == "quick" else []
    return [*planned.changes, *given, *small]


def cost(session: Session, scale: Scale, planned: Planned, images: str, from_files: bool, folder: Path) -> dict:
    """Seconds an iteration, and hours of ten times the iterations, without validations."""
    workers = scale.workers if from_files else 0
    overrides = [*options(scale, planned, images, workers), f"device={session.device.type}", f"output={folder / 'none'}"]
    config = load_config(CONFIGS[planned.kind], ROOT / "configs/benchmark" / planned.file, overrides)
    repeats = 2 if session.quick else 60
    row = time_steps(planned.kind, config, session.device, repeats, None if from_files else same_batch(config, session.device))
    iterations = TIMES * config.training.iterations
    return {
        "training": planned.name,
        "why": planned.why,
        "iterations": iterations,
        "hours": iterations / row["iterations_per_second"] / 3600,
        "images_per_second": row["iterations_per_second"] * row["batch"],
        "command": command(planned, iterations),
        **row,
    }


def command(planned: Planned, iterations: int) -> str:
    """What a user types."""
    words = [f"python scripts/train_{planned.kind}.py -opt configs/benchmark/{planned.file}", *planned.changes]
    words += [f"training.iterations={iterations}", f"output=runs/gpu/{planned.name}", "data.workers=12", "resume=auto"]
    return " ".join(words)


def spend(session: Session, scale: Scale, images: str) -> None:
    """Train the first of the plan that is not finished, for as long as there is time; the next call goes on."""
    for planned in PLAN[:1] if session.quick else PLAN:
        row = session.record.rows.get(planned.name)
        if row is None or row["status"] != "ok" or f"train {planned.name}" in session.record.rows:
            continue
        left = session.left - SAVING
        if left < (5 if session.quick else LEAST):
            session.left_out[f"train {planned.name}"] = f"{max(session.left, 0):.0f} s are left"
            return
        session.say(f"benchmark: training {planned.name} for at most {left / 60:.1f} minutes")
        train(session, scale, planned, images, 4 if session.quick else row["iterations"], left)


def train(session: Session, scale: Scale, planned: Planned, images: str, iterations: int, seconds: float) -> None:
    output, started = session.folder / "runs" / planned.name, time.monotonic()
    given = [
        *options(scale, planned, images, scale.workers),
        f"device={session.device.type}",
        f"output={output}",
        f"training.iterations={iterations}",
        f"training.max_minutes={max(seconds - SAVING, 5) / 60:.3f}",
        "resume=auto",
    ]
    arguments = commands.training(planned.kind, ROOT / "configs/benchmark" / planned.file, given)
    try:
        commands.run(arguments, session.folder / "train.log", seconds + SAVING / 2)
    except (RuntimeError, OutOfTime) as error:
        session.say(f"benchmark: train {planned.name}: {error}")
        return
    done = max(commands.losses(output), default=0)
    session.say(
        f"benchmark: train {planned.name}: logged up to iteration {done} of {iterations}, {time.monotonic() - started:.0f} s, in {output}"
    )
    if done >= iterations or session.quick:
        session.record.end(f"train {planned.name}", "ok", training=planned.name, done=done, of=iterations)


def table(rows: list[dict]) -> str:
    lines = [["order", "training", "why", "images/s", "ms an iteration", "waiting for data", "iterations", "hours"]]
    notes = ["python scripts/make_dataset.py datasets/facades"]
    order = {planned.name: number for number, planned in enumerate(PLAN, 1)}
    for row in sorted(rows, key=lambda row: order.get(row["key"], len(order) + 1)):
        if "hours" in row:
            waiting = "images in memory" if row["waiting"] is None else f"{100 * row['waiting']:.1f} %"
            rate, time_ = f"{row['images_per_second']:.4g}", f"{row['milliseconds']['median']:.4g}"
            cells = [row["training"], row["why"], rate, time_, waiting, str(row["iterations"]), f"{row['hours']:.2f}"]
            lines.append([str(order[row["training"]]), *cells])
            notes.append(row["command"])
        elif row["status"] != "ok":
            lines.append(["", row["key"], row.get("reason", row["status"])[:150].replace("|", "/"), *[""] * 5])
        elif "done" in row:
            notes.append(f"# {row['key']}: iteration {row['done']} of {row['of']}")
    hours = (
        "Hours are without validations, for one training alone; small networks leave a GPU idle, so several beside each other cost less."
    )
    return "\n\n".join([markdown_table(lines), hours, "```bash\n" + "\n".join(notes) + "\n```"])
