"""Everything that changes during a training: it is saved in checkpoints and resumed from them."""

import contextlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from strdiffusion.checkpoints import network_record, read_checkpoint
from strdiffusion.checkpoints.files import compare_entries
from strdiffusion.checkpoints.networks import are_weights
from strdiffusion.config import TrainConfig, TrainSDEConfig, to_dict
from strdiffusion.config.training import TrainingConfig
from strdiffusion.ddpm import DDPM
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import threads
from strdiffusion.system.distributed import count, on_main
from strdiffusion.system.errors import UserError, brief
from strdiffusion.training.ema import EMA
from strdiffusion.training.folder import BEST, CheckpointFolder
from strdiffusion.training.optimizer import make_optimizer, parameters_of
from strdiffusion.training.task import Task

log = logging.getLogger(__name__)

NEEDED = ("network", "ema", "ema_updates", "optimizer", "scaler", "rng", "step")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of Adam


@dataclass
class Standing:
    """How far a training has got.

    step: iterations done. validated: the iteration last validated. best: the best validation, as (which number, its value, iteration).
    skipped: iterations that left the weights as they were, because loss or gradient were not finite; skipped_in_row: the latest of them.
    """

    step: int = 0
    validated: int | None = None
    best: tuple[str, float, int] | None = None
    skipped: int = 0
    skipped_in_row: int = 0

    def advance(self, finite: bool) -> None:
        """Count an iteration."""
        self.step += 1
        self.skipped += 0 if finite else 1
        self.skipped_in_row = 0 if finite else self.skipped_in_row + 1


class TrainingState:
    """The network and its moving average, the optimizer, the scale of the loss, and how far the training is."""

    def __init__(
        self, files: CheckpointFolder, task: Task, process: MeanRevertingSDE | DDPM | None, config: TrainConfig, device: torch.device
    ):
        options = config.training
        self.files, self.task, self.process, self.config, self.device = files, task, process, config, device
        self.standing = Standing()
        self.ema = EMA(task.network, options.ema_decay)
        self.optimizer = make_optimizer(task.groups(), options)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

    @property
    def step(self) -> int:
        """The number of iterations done."""
        return self.standing.step

    @property
    def rate(self) -> float:
        """The learning rate of the next iteration."""
        return self.config.training.learning_rate * rate_factor(self.step, self.config.training)

    def record(self) -> dict:
        """What describes the network in a checkpoint."""
        structure = to_dict(self.config.structure) if isinstance(self.config, TrainSDEConfig) else None
        return network_record(self.task.kind, self.task.network, self.process, structure, self.task.prediction)

    def content(self) -> dict:
        """What a checkpoint holds."""
        return self.record() | {
            **vars(self.standing),
            "network": self.task.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            **({"rng_gpu": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}),  # of dropout
            "config": to_dict(self.config),
            "threads": torch.get_num_threads(),
        }

    def save(self) -> None:
        """Write a checkpoint, from the main process. Raises WriteError."""
        best = self.standing.best
        on_main(lambda: self.files.write(self.step, self.content(), best is not None and best[2] == self.step))

    def begin(self, network: nn.Module) -> None:
        """Begin with the weights of a network of the same architecture."""
        for mine in (self.task.network, self.ema.network):
            mine.load_state_dict(network.state_dict())

    def resume(self, which: str) -> None:
        """Continue from a file, or ("auto") from the newest checkpoint that can be read; "none" starts anew."""
        if which == "none":
            return
        path, content = on_main(lambda: self._find(which))
        if path is None:
            log.info("resume=auto: no checkpoint in %s, starting anew", self.files.path)
            return
        self._load(path, content or read_checkpoint(path))
        if self.standing.best is not None and self.standing.best[2] == self.step:
            on_main(self._restore_best)

    def _find(self, which: str) -> tuple[Path | None, dict | None]:
        """The checkpoint to continue from, and its content if this is the only process (otherwise each reads the file)."""
        if which == "auto":
            path, content = self.files.newest_readable() or (None, None)
        else:
            path, content, newest = Path(which).expanduser(), read_checkpoint(which), self.files.latest
            step = content.get("step")
            if newest is not None and isinstance(step, int) and newest.name > self.files.file(step).name:
                raise UserError(f"the output folder {self.files.path} holds later checkpoints ({newest.name}): set another output=FOLDER")
        return path, content if count() == 1 else None

    def _restore_best(self) -> None:
        """Link best.pt to this checkpoint: the run may have been killed after it wrote the checkpoint and before it set the link."""
        with contextlib.suppress(OSError):
            self.files.link(self.step, BEST)

    def _load(self, path: Path, content: dict) -> None:
        for key, wanted in self.record().items():
            if not agrees(content.get(key), wanted):
                raise UserError(
                    f"the checkpoint {path} cannot be resumed: its {key} is {brief(content.get(key))}, the configuration's is {wanted}; "
                    "make them equal, or train anew in another output=FOLDER"
                )
        lacking = [name for name in NEEDED if content.get(name) is None]
        if lacking:
            raise UserError(f"the checkpoint {path} cannot be resumed: it lacks what training needs ({', '.join(lacking)})")
        try:
            for network, name in ((self.task.network, "network"), (self.ema.network, "ema")):
                self._check_weights(path, network, content[name])
                network.load_state_dict(content[name])
            self.ema.updates = whole(content["ema_updates"])
            self._load_moments(path, content["optimizer"]["state"])
            if self.scaler.is_enabled() and content["scaler"]:
                self._load_scale(path, content["scaler"])
            torch.set_rng_state(content["rng"])
            if self.device.type == "cuda" and content.get("rng_gpu") is not None:
                torch.cuda.set_rng_state(content["rng_gpu"], self.device)
            self.standing = standing_in(content)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
            raise UserError(f"the checkpoint {path} cannot be resumed: it lacks what training needs ({brief(error)})") from None
        log.info("resumed %s at iteration %d", path, self.step)
        if self.device.type == "cpu" and isinstance(before := content.get("threads"), int) and (now := threads.repeat(before)) != before:
            log.info("it had %d threads and goes on with %d, so it rounds differently from here on", before, now)
        changed = [f"{name}={brief(value)} (was {brief(old)})" for name, value, old in changes(to_dict(self.config), content.get("config"))]
        if changed:
            log.warning("the configuration is not that of the checkpoint: %s", ", ".join(changed))

    def _check_weights(self, path: Path, network: nn.Module, found: dict) -> None:
        """Raise UserError if entries are not those of the network, or not finite."""
        if not are_weights(found):
            raise UserError(f"the checkpoint {path} is damaged: its weights are not tensors of numbers")
        difference = compare_entries(network.state_dict(), found)
        broken = [name for name, value in found.items() if not value.isfinite().all()]
        if difference or broken:
            raise UserError(f"the checkpoint {path} is damaged: {difference or f'{brief(broken[0])} is not finite'}")

    def _load_moments(self, path: Path, found: dict) -> None:
        """Take only the averages of the optimizer from a checkpoint; its options come from the configuration.

        Raises UserError if they do not fit the network's parameters, are not finite, or if an average of squares is negative.
        """
        parameters = parameters_of(self.optimizer)
        if found and found.keys() != set(range(len(parameters))):
            raise UserError(f"the checkpoint {path} is damaged: the optimizer's state does not fit the network")
        state = {}
        for i, parameter in enumerate(parameters if found else []):
            values = [torch.as_tensor(found[i][name], dtype=torch.float32) for name in MOMENTS]
            first, second, steps = values
            if first.shape != parameter.shape or second.shape != parameter.shape or steps.numel() != 1:
                raise UserError(f"the checkpoint {path} is damaged: the optimizer's state does not fit the network")
            if not all(value.isfinite().all() for value in values) or (second < 0).any() or (steps < 0).any():
                raise UserError(f"the checkpoint {path} is damaged: the optimizer's state is not finite, or negative")
            # laid out as the parameter, whatever wrote the file: the fused optimizer of a GPU takes nothing else
            first, second = (torch.empty_like(parameter, device="cpu").copy_(value) for value in (first, second))
            state[i] = dict(zip(MOMENTS, (first, second, steps), strict=True))
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    def _load_scale(self, path: Path, found: dict) -> None:
        """Take the scale of the loss (fp16), and for how many iterations it was good. Raises UserError or ValueError."""
        scale = found["scale"]
        if not isinstance(scale, float) or not 0 < scale < math.inf:
            raise UserError(f"the checkpoint {path} is damaged: {brief(scale)} is no scale of the loss")
        self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": scale, "_growth_tracker": whole(found["_growth_tracker"])})


def standing_in(content: dict) -> Standing:
    """How far the training of a checkpoint is. Raises KeyError, TypeError or ValueError if it is damaged."""
    validated, best = content.get("validated"), content.get("best")
    return Standing(
        step=whole(content["step"]),
        validated=None if validated is None else whole(validated),
        best=None if best is None else (str(best[0]), float(best[1]), whole(best[2])),
        skipped=whole(content.get("skipped", 0)),
        skipped_in_row=whole(content.get("skipped_in_row", 0)),
    )


def agrees(found: object, wanted: object) -> bool:
    """Whether a value of a file is the one wanted. A file may hold anything, and comparing tensors gives no truth value."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and found.keys() == wanted.keys() and all(agrees(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(agrees, found, wanted))
    return isinstance(found, str | int | float | bool | None) and found == wanted


def changes(config: dict, before: object, prefix: str = "") -> list[tuple[str, object, object]]:
    """The options that differ from those of an earlier configuration, as (dotted name, value, value before); `resume` and `output` may."""
    found = []
    for name, value in config.items():
        old = before.get(name) if isinstance(before, dict) else None
        if isinstance(value, dict):
            found += changes(value, old, f"{prefix}{name}.")
        elif prefix + name not in ("resume", "output") and not (value == old if isinstance(value, list) else agrees(old, value)):
            found.append((prefix + name, value, old))
    return found


def whole(number: object) -> int:
    """The number, if it can be a count. Raises ValueError."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**53:
        raise ValueError(f"{brief(number)} is no count")
    return number


def rate_factor(step: int, options: TrainingConfig) -> float:
    """The factor of the learning rate at an iteration: linear warm-up, then lr_decay at each milestone, or a cosine to zero."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.lr_schedule == "cosine":
        progress = (step - options.warmup) / (options.iterations - options.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return options.lr_decay ** sum(step >= milestone for milestone in options.milestones)
