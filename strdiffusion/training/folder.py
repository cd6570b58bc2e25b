"""The checkpoints in the folder of a training, and which of them are kept."""

import contextlib
import logging
import os
import shutil
from pathlib import Path

from strdiffusion.checkpoints import read_checkpoint, write_checkpoint
from strdiffusion.checkpoints.files import WriteError
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import replacing

log = logging.getLogger(__name__)

LATEST, BEST = "latest.pt", "best.pt"


class CheckpointFolder:
    """step_N.pt, the newest `keep` of them; latest.pt is the newest, best.pt the best by validation."""

    def __init__(self, path: Path, keep: int):
        self.path, self.keep = path, keep

    def files(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(self.path.glob("step_*.pt"))

    @property
    def latest(self) -> Path | None:
        return max(self.files(), default=None)

    def file(self, step: int) -> Path:
        """The path of an iteration's checkpoint, whether it exists or not."""
        return self.path / f"step_{step:09d}.pt"

    def write(self, step: int, content: dict, best: bool) -> None:
        """Write step_N.pt, link latest.pt (and best.pt) to it, then delete the oldest. Raises WriteError."""
        write_checkpoint(self.file(step), content)
        try:
            self.link(step, LATEST)
            if best:
                self.link(step, BEST)
            for old in self.files()[: -self.keep]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"the folder {self.path} cannot be written: {error.strerror or error}; free some space") from None

    def link(self, step: int, name: str) -> None:
        """Link `name` to the checkpoint of an iteration. Raises OSError."""
        with replacing(self.path / name) as temporary:
            try:
                os.link(self.file(step), temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.file(step), temporary)

    def newest_readable(self, rename: bool = True) -> tuple[Path, dict] | None:
        """The newest checkpoint that can be read, with its content; damaged ones are skipped with a notice and, if `rename`, renamed.

        best.pt, which may be older than the newest `keep`, comes last. Raises UserError if all of them are damaged.
        """
        damaged = any(self.path.glob("*.damaged"))
        for path in reversed(self.files()):
            try:
                return path, read_checkpoint(path)
            except UserError as error:
                damaged = True
                if rename:
                    path.rename(path.with_suffix(".pt.damaged"))  # so that it does not count as the newest
                log.warning("skipped%s: %s", ", and renamed to end in .damaged" if rename else "", error)
        if (self.path / BEST).exists():
            with contextlib.suppress(UserError):
                return self.path / BEST, read_checkpoint(self.path / BEST)
        if damaged:
            raise UserError(f"no checkpoint in {self.path} can be read: remove the folder to start anew, or set another output=FOLDER")
        return None
