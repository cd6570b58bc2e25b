"""What a training would cost, measured in a few iterations of it. Nothing is written into the output folder."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from strdiffusion.batch import Batch
from strdiffusion.checkpoints.files import tensors_in
from strdiffusion.config import TrainConfig
from strdiffusion.networks import Kind
from strdiffusion.system import distributed
from strdiffusion.system.device import choose_device, device_name
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import holds_files
from strdiffusion.system.terminal import duration
from strdiffusion.training.faults import SkippingDataset, collate_samples
from strdiffusion.training.folder import CheckpointFolder
from strdiffusion.training.journal import count_validations
from strdiffusion.training.preparation import Prepared, prepare
from strdiffusion.training.run import check_owner, resumes_here
from strdiffusion.training.start import begin
from strdiffusion.training.state import TrainingState
from strdiffusion.training.step import train_step

SAMPLES = 32  # training images that are loaded
STEPS = 3  # iterations timed, after one that warms up
LINE_BYTES = 600  # of metrics and TensorBoard, an entry


def dry_run(kind: Kind, config: TrainConfig) -> None:
    """Check configuration, data, memory for one iteration and the disk, and print what the run will cost. Raises UserError."""
    if distributed.launched():
        raise UserError("--dry-run looks at one process: start it without torchrun")
    device = choose_device(config.device)
    free = check_folder(config)
    prepared = prepare(kind, config, device)
    shares, dataset, validation = prepared.shares, prepared.dataset, prepared.validation
    parts, loading = load_parts(prepared)
    with tempfile.TemporaryDirectory() as nowhere:
        state = prepared.new_state(CheckpointFolder(Path(nowhere), 1))
        step = resumed_step(state, config)
    network, batches = state.task.network, [part.to(device) for part in parts]
    stepping = timed(lambda: train_step(network, state, shares, batches), device)
    memory = peak_memory(device)
    validating = validation_seconds(prepared, state)

    options = config.training
    waiting = loading / max(config.data.workers, 1)
    each = max(stepping, waiting) if config.data.workers else stepping + loading
    left = max(options.iterations - step, 0)
    validations = count_validations(step, options.iterations, config.validation.every) if validation else 0
    hours = (left * each + validations * validating) / 3600
    if options.max_minutes is not None:
        hours = min(hours, options.max_minutes / 60)
    checkpoint = sum(t.numel() * t.element_size() for t in tensors_in(state.content()))
    kept = options.keep + bool(validation)
    pictures = validations * config.validation.samples * 3 * config.data.size**2 * 3
    present = len(CheckpointFolder(Path(config.output).expanduser(), options.keep).files())
    needed = checkpoint * max(kept - present, 0) + pictures + LINE_BYTES * 2 * (left // options.log_every)
    peak = needed + checkpoint  # one more while it is written

    parameters = sum(p.numel() for p in network.parameters())
    print(f"{kind} network: {parameters / 1e6:.2f} M parameters on {device_name(device)}")
    print(f"data: {len(dataset)} training images, {sum(map(len, validation))} held out, {config.data.workers} workers")
    print(f"memory for one iteration of {options.batch_size} images in {shares.parts} parts: {memory}")
    slow = ", for which the network waits: give more data.workers" if waiting > 1.2 * stepping and config.data.workers else ""
    print(f"one iteration: {stepping:.3g} s; its data: {waiting:.3g} s{slow}")
    if validations:
        print(f"validation: {validating:.3g} s, {validations} times")
    print(f"disk: {gigabytes(checkpoint)} a checkpoint, {kept} kept, {gigabytes(peak)} at most; {gigabytes(free)} free")
    if step:
        print(f"it continues at iteration {step} of {options.iterations}")
    if peak > free:
        raise UserError(f"only {gigabytes(free)} are free for output={config.output}: lower training.keep, or change output")
    print(f"the run would take about {hours:.3g} hours ({duration(hours * 3600)}) and {gigabytes(needed)}; nothing was written")


def check_folder(config: TrainConfig) -> int:
    """The free bytes on the disk of the output. Raises UserError if it cannot be written, or already holds another run."""
    folder = Path(config.output).expanduser()
    if folder.is_dir() and holds_files(folder) and not resumes_here(config):
        raise UserError(f"the output folder {folder} already holds files: continue with resume=auto, or set another output=FOLDER")
    check_owner(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"the output folder {folder} cannot be created in {existing}: choose another with output=FOLDER")
    usage = shutil.disk_usage(existing)
    if usage.total == 0:  # as /proc
        raise UserError(f"the output folder {folder} cannot be created in {existing}, which is no place for files: choose another")
    return usage.free


def resumed_step(state: TrainingState, config: TrainConfig) -> int:
    """Load what the run would continue from. Returns its iteration, 0 if it starts anew. Raises UserError as the run would."""
    which = config.resume
    if which == "auto":
        found = CheckpointFolder(Path(config.output).expanduser(), config.training.keep).newest_readable(rename=False)
        which = str(found[0]) if found else "none"
    state.resume(which)
    begin(state, config)
    return state.step


def load_parts(prepared: Prepared) -> tuple[list[Batch], float]:
    """The parts of the first iteration, and the seconds that loading a batch takes. Raises UserError if too many files are bad."""
    samples, shares = SkippingDataset(prepared.dataset), prepared.shares
    started = time.perf_counter()
    loaded = [samples[n] for n in range(min(max(SAMPLES, shares.batch_size), 4 * SAMPLES))]
    seconds = (time.perf_counter() - started) * shares.batch_size / len(loaded)
    prepared.faults.add([fault for sample in loaded for fault in sample.faults])
    if any(sample.tensors is None for sample in loaded):
        raise UserError(f"no file could be used in place of those that cannot; the last: {loaded[-1].faults[-1]}")
    parts = []
    for positions in shares.positions:
        tensors, _ = collate_samples([loaded[position % len(loaded)] for position in positions.tolist()])
        parts.append(Batch(**tensors))
    return parts, seconds


def timed(action: Callable[[], object], device: torch.device) -> float:
    """The median seconds of a few calls, after a first one."""
    action()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[STEPS // 2]


def validation_seconds(prepared: Prepared, state: TrainingState) -> float:
    """About how long a validation takes: the losses of all batches, and the evaluations for the images that are sampled."""
    if not prepared.validation:
        return 0.0
    task, batch = prepared.task, prepared.validation[0].to(prepared.device)
    times = task.times[-1:].expand(len(batch), *task.times.shape[1:])
    with torch.no_grad():
        loss = timed(lambda: task.loss(state.ema.network, batch, times, torch.randn_like), prepared.device)
    sampled = min(prepared.config.validation.samples, len(batch)) / len(batch)
    return loss * (len(prepared.validation) + sampled * task.evaluations)


def peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{gigabytes(torch.cuda.max_memory_allocated(device))} of the GPU's {gigabytes(total)}"
    try:
        import resource  # not on Windows
    except ImportError:
        return "unknown on this system"
    return f"{gigabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)} in this process, and more for data workers"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
