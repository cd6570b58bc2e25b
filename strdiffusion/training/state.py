"""Everything of a training that changes, registered once with its checkpoints."""

import logging
import math
import os
import shutil
from pathlib import Path

import torch

from strdiffusion.checkpoints import network_record, read_checkpoint, write_checkpoint
from strdiffusion.checkpoints.files import compare_entries
from strdiffusion.config import TrainConfig, to_dict
from strdiffusion.config.training import TrainingConfig
from strdiffusion.errors import UserError
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.training.ema import EMA

log = logging.getLogger(__name__)


class TrainingState:
    """Network, moving average, optimizer, schedule and step, and the checkpoints they are saved to and resumed from."""

    def __init__(self, folder: Path, task, sde: MeanRevertingSDE, config: TrainConfig, device: torch.device):
        options = config.training
        self.folder, self.task, self.sde, self.config, self.device = folder, task, sde, config, device
        self.step = 0
        self.ema = EMA(task.network, options.ema_decay)
        self.optimizer = torch.optim.Adam(task.network.parameters(), lr=options.learning_rate, betas=options.betas, fused=True)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_factor(step, options))

    @property
    def latest(self) -> Path | None:
        """The newest checkpoint file of the folder."""
        return max(self.folder.glob("step_*.pt"), default=None)

    def file_name(self) -> str:
        """The name of a checkpoint of the present step."""
        return f"step_{self.step:09d}.pt"

    def save(self) -> None:
        """Write step_N.pt, let latest.pt be the same file, and delete all but the newest `training.keep`."""
        structure = to_dict(self.config.structure)
        content = network_record(self.task.kind, self.task.network, self.sde, structure, self.task.prediction) | {
            "step": self.step,
            "network": self.task.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "config": to_dict(self.config),
        }
        path = self.folder / self.file_name()
        write_checkpoint(path, content)
        link = self.folder / "latest.pt"
        temporary = self.folder / ".latest.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, link)
        for old in sorted(self.folder.glob("step_*.pt"))[: -self.config.training.keep]:
            old.unlink()

    def resume(self, which: str) -> None:
        """Continue from a file, or ("auto") from the newest checkpoint that can be read; "none" starts anew."""
        if which == "none":
            return
        if which != "auto":
            newest = self.latest
            self._load(Path(which).expanduser(), read_checkpoint(which))
            if newest is not None and newest.name > self.file_name():
                raise UserError(f"the output folder {self.folder} holds later checkpoints ({newest.name}): set another output=FOLDER")
            return
        for path in sorted(self.folder.glob("step_*.pt"), reverse=True):
            try:
                content = read_checkpoint(path)
            except UserError as error:
                path.rename(path.with_suffix(".pt.damaged"))  # so that it does not count as the newest
                log.warning("skipped, and renamed to end in .damaged: %s", error)
                continue
            self._load(path, content)
            return
        if any(self.folder.glob("*.damaged")):
            raise UserError(f"no checkpoint in {self.folder} can be read: remove the folder to start anew, or set another output=FOLDER")
        log.info("resume=auto: no checkpoint in %s, starting anew", self.folder)

    def _load(self, path: Path, content: dict) -> None:
        ours = network_record(self.task.kind, self.task.network, self.sde, to_dict(self.config.structure), self.task.prediction)
        for key, wanted in ours.items():
            if content.get(key) != wanted:
                raise UserError(
                    f"the checkpoint {path} cannot be resumed: its {key} is {content.get(key)}, the configuration's is {wanted}; "
                    "make them equal, or train anew in another output=FOLDER"
                )
        try:
            difference = compare_entries(self.task.network.state_dict(), content["network"])
            if difference:
                raise UserError(f"the checkpoint {path} is damaged: {difference}")
            self.task.network.load_state_dict(content["network"])
            self.ema.network.load_state_dict(content["ema"])
            self.ema.updates = content["ema_updates"]
            self.optimizer.load_state_dict(content["optimizer"])
            self.scheduler.load_state_dict(content["scheduler"])
            if self.scaler.is_enabled() and content["scaler"]:
                self.scaler.load_state_dict(content["scaler"])
            self._set_rate()
            torch.set_rng_state(content["rng"])
            self.step = int(content["step"])
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(f"the checkpoint {path} cannot be resumed: it lacks what training needs ({error!r})") from None
        log.info("resumed %s at iteration %d", path, self.step)

    def _set_rate(self) -> None:
        """Let learning rate and betas be those of the configuration, whatever a checkpoint had."""
        options = self.config.training
        self.scheduler.base_lrs = [options.learning_rate]
        for group in self.optimizer.param_groups:
            group["betas"], group["initial_lr"] = options.betas, options.learning_rate
            group["lr"] = options.learning_rate * rate_factor(self.scheduler.last_epoch, options)


def rate_factor(step: int, options: TrainingConfig) -> float:
    """What the learning rate is multiplied by at an iteration: linear warm-up, then halving at milestones or a cosine to zero."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.lr_schedule == "cosine":
        progress = (step - options.warmup) / (options.iterations - options.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return options.lr_decay ** sum(step >= milestone for milestone in options.milestones)
