"""One training loop for the three networks (spec sec. 6). What differs between them is a `Task`."""

import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig, save_config
from strdiffusion.config.parser import read_yaml
from strdiffusion.data import StepSampler
from strdiffusion.device import choose_device, set_float32_precision
from strdiffusion.errors import UserError
from strdiffusion.output import claim_output_folder
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.training.data import training_dataset, validation_batches
from strdiffusion.training.interrupt import StopRequest, ignore_interrupts
from strdiffusion.training.speed import prepare_network
from strdiffusion.training.state import TrainingState
from strdiffusion.training.tasks import TASKS, Draw, Task

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 20  # non-finite losses in a row
FIRST_T = 2  # as released; at t = 1 the optimum step is x0 itself


def train(kind: str, config: TrainConfig) -> Path:
    """Train the network `kind` as configured; returns the newest checkpoint. Raises UserError for what the user can mend."""
    device = choose_device(config.device)
    set_float32_precision(config.precision)
    torch.manual_seed(config.seed)
    sde = MeanRevertingSDE(**vars(config.sde))
    task: Task = TASKS[kind](config, sde)
    dataset = training_dataset(config)
    validation = validation_batches(config)

    folder = claim_output_folder(config.output, resumes_here(config), "continue with resume=auto, or set another output=FOLDER")
    require_training_folder(folder)
    prepare_network(task.network, config.training, config.precision, device)
    state = TrainingState(folder, task, sde, config, device)
    state.resume(config.resume)
    save_config(config, folder / "config.yml")
    parameters = sum(p.numel() for p in task.network.parameters())
    log.info("%s network: %.2f M parameters, %d images, %s, output %s", kind, parameters / 1e6, len(dataset), device, folder)

    loader = DataLoader(
        dataset, batch_size=config.training.batch_size, sampler=StepSampler(state.step, config.training.batch_size),
        num_workers=config.data.workers, worker_init_fn=ignore_interrupts, pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(config.seed),  # else it draws from the state of training
    )  # fmt: skip
    Loop(task, config, state, validation, device).run(loader)
    return state.latest


def resumes_here(config: TrainConfig) -> bool:
    """Whether the run continues in the folder that it comes from, so that files in it are its own."""
    if config.resume in ("none", "auto"):
        return config.resume == "auto"
    return Path(config.resume).expanduser().resolve().parent == Path(config.output).expanduser().resolve()


def require_training_folder(folder: Path) -> None:
    """Raise UserError where the folder's config.yml is not of a training: resume=auto would write over something else."""
    path = folder / "config.yml"
    found = read_yaml(path) if path.exists() else {}
    if found and "training" not in found:
        raise UserError(f"the output folder {folder} holds results that are not of a training: set another output=FOLDER")


class Loop:
    """The iterations of one training: step, log, validate, save."""

    def __init__(self, task: Task, config: TrainConfig, state: TrainingState, validation: list[Batch], device: torch.device):
        from torch.utils.tensorboard import SummaryWriter

        self.task, self.config, self.state, self.device = task, config, state, device
        self.validation = validation
        self.board = SummaryWriter(str(state.folder / "tensorboard"), purge_step=state.step or None)
        self.bad_steps = 0

    def run(self, loader: DataLoader) -> None:
        options, state = self.config.training, self.state
        if state.step >= options.iterations:
            log.info("nothing to do: %s is at iteration %d of %d", state.latest, state.step, options.iterations)
            return
        description = {"total": options.iterations, "initial": state.step, "unit": "it", "desc": self.task.kind}
        try:
            with StopRequest() as stop, tqdm(**description, smoothing=0.05, mininterval=1) as bar, logging_redirect_tqdm():
                self.iterate(loader, bar, stop)
        except UserError:
            state.save()  # a bad file, say: what was learnt until then stays
            raise
        finally:
            self.board.close()

    def iterate(self, loader: DataLoader, bar: tqdm, stop: StopRequest) -> None:
        """Train until the iterations are done, the time is up, or a stop is requested (KeyboardInterrupt, once all is saved)."""
        options, state = self.config.training, self.state
        started = time.monotonic()
        if state.step == 0:
            self.validate()
        for sample in loader:
            scalars = self.train_step(Batch(**sample).to(self.device))
            bar.update(1)
            if state.step % options.log_every == 0:
                self.log("train", scalars | {"learning_rate": torch.tensor(state.optimizer.param_groups[0]["lr"])})
                bar.set_postfix(loss=f"{scalars['loss'].item():.4f}")
            out_of_time = options.max_minutes is not None and time.monotonic() - started > 60 * options.max_minutes
            last = state.step >= options.iterations or out_of_time
            if state.step % self.config.validation.every == 0 or last:
                self.validate()
            if state.step % options.save_every == 0 or last or stop.requested:
                state.save()
            if stop.requested and not last:
                log.info("stopped at iteration %d, saved in %s: continue with resume=auto", state.step, state.folder)
                raise KeyboardInterrupt
            if last:
                if out_of_time and state.step < options.iterations:
                    log.info("stopped after training.max_minutes=%g at iteration %d", options.max_minutes, state.step)
                break

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One iteration: t uniform in 2..T per image, loss, gradient step, moving average."""
        state, network, scaler = self.state, self.task.network.train(), self.state.scaler
        generator, draw = step_noise(self.config.seed, state.step, self.device)
        t = torch.randint(FIRST_T, self.config.sde.T + 1, (len(batch.mask),), generator=generator)
        loss, scalars = self.task.loss(network, batch, t, draw)

        state.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(state.optimizer)
        limit = self.config.training.clip_gradient
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit if limit is not None else math.inf)
        finite = bool(torch.isfinite(loss + norm))
        if finite or scaler.is_enabled():  # the scaler skips by itself, and lowers its scale
            scaler.step(state.optimizer)
            scaler.update()
        if finite:
            state.ema.update(network)
            self.bad_steps = 0
        else:
            self.count_bad_step(loss)
        state.scheduler.step()
        state.step += 1
        return {"loss": loss.detach(), "gradient_norm": norm} | {k: v.detach() for k, v in scalars.items()}

    def count_bad_step(self, loss: Tensor) -> None:
        """Loss or gradient were not finite, and the weights were left alone; stop where that does not end."""
        self.bad_steps += 1
        if self.bad_steps >= MAX_BAD_STEPS:
            raise UserError(
                f"the loss or its gradient was not finite {MAX_BAD_STEPS} times in a row "
                f"(iteration {self.state.step}, loss {loss.item()}): try a lower training.learning_rate or "
                f"training.clip_gradient=1, and resume=auto from {self.state.latest or 'the start'}"
            )

    @torch.no_grad()
    def validate(self) -> None:
        """Loss at fixed times and noise, and PSNR/SSIM of samples, of the moving average on held-out images."""
        if not self.validation:
            return
        network, T = self.state.ema.network, self.config.sde.T
        totals: dict[str, float] = {}
        for i, batch in enumerate(self.validation):
            _, draw = step_noise(self.config.seed, i, self.device)
            t = torch.linspace(FIRST_T, T, len(batch.mask) + 2)[1:-1].round().long()
            loss, scalars = self.task.loss(network, batch.to(self.device), t, draw)
            for name, value in ({"loss": loss} | scalars).items():
                totals[name] = totals.get(name, 0.0) + value.item() / len(self.validation)
        count = self.config.validation.samples
        if count:
            first = self.validation[0].take(range(min(count, len(self.validation[0]))))
            result = self.task.sample(network, first.to(self.device), self.config.seed)
            totals |= result.scalars
            for name, pictures in result.pictures.items():
                self.board.add_images(f"validation/{name}", pictures, self.state.step)
        self.log("validation", {k: torch.tensor(v) for k, v in totals.items()})
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in totals.items())
        tqdm.write(f"validation at {self.state.step}: {numbers}")

    def log(self, group: str, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            self.board.add_scalar(f"{group}/{name}", value.item(), self.state.step)


def step_noise(seed: int, step: int, device: torch.device) -> tuple[torch.Generator, Draw]:
    """A generator for the times of a step (CPU) and a function that draws its noise; both depend on (seed, step) alone."""
    times = torch.Generator().manual_seed(((seed << 40) + 2 * step) % 2**63)
    noise = torch.Generator(device).manual_seed(((seed << 40) + 2 * step + 1) % 2**63)
    return times, lambda like: torch.randn(like.shape, generator=noise, device=device, dtype=like.dtype)
