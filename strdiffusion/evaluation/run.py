"""A run: the results of one test configuration in their folder. Whose they are, which of them are whole, and when all of them are there.

One design serves the command `test` and the tables of `reproduce`. A run is known by its fingerprint, a hash of all that its results
depend on. While it is not whole, unfinished.txt says so and holds the fingerprint. At its end fingerprint.txt and finished.txt are written.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from strdiffusion.config import save_config, to_dict
from strdiffusion.data import is_whole_png
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.pictures import OVERVIEW
from strdiffusion.evaluation.table import ResultRow, read_rows
from strdiffusion.system.device import choose_device, device_name
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import file_hash, write_text
from strdiffusion.system.folders import Mark, found_key, output_folder
from strdiffusion.system.parser import read_yaml

log = logging.getLogger(__name__)

# keys of a test configuration that do not change its results; batch_size is one too, unless the table shows seconds
NEUTRAL = ("output", "overwrite", "process")
# options that did not exist when older results were computed, and what they were then: only other values make a new fingerprint
LATER = {
    "crop_border": 0,
    "repaint.solver": "ddpm",
    "repaint.stop_resampling": 0,
    "repaint.truncate": False,
    "sample": 0,
    "data.masks.family": "irregular",
    "data.masks.phase": 0,
    "sampler.ahead": 0,
    "sampler.put_back": True,
    "sde.rounding": "exact",
    "sde.mean_fill": None,
}
FINGERPRINT, FINISHED = "fingerprint.txt", "finished.txt"
RESULTS, CONFIG, SUMMARY = "results.csv", "config.yml", "summary.md"
PART = "results.part{}.csv"  # the rows of one of several processes, until the table is written
ALWAYS = ("inpainted", "masked", "side_by_side")  # folders with a picture of every image
PICTURES = (*ALWAYS, "structure", "process", "traces")  # folders below the output folder
CLEARING = "nothing here is to be kept"  # the key of a mark while earlier results are removed


@dataclass(frozen=True)
class Run:
    """The results of a test configuration, in its folder.

    timed: seconds count, so that the device and the batch size are part of the fingerprint. renew: results of another fingerprint are
    replaced, as in the folders of a table, instead of refused.
    """

    config: TestConfig
    timed: bool = False
    renew: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.config.output).expanduser()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the results depend on: the resolved configuration, the method's options and its files' content.

        Raises UserError if a file cannot be read.
        """
        return self._hash(to_dict(self.config) | self.config.options.revision())

    def earlier_fingerprint(self) -> str | None:
        """What an earlier version wrote for the same run, if it had this method and gave the same results."""
        earlier = self.config.options.earlier_form(to_dict(self.config))
        return None if earlier is None else self._hash(earlier)

    def _hash(self, tree: dict) -> str:
        neutral = NEUTRAL if self.timed else (*NEUTRAL, "batch_size")
        options = {key: value for key, value in without_later(tree).items() if key not in neutral}
        options["content"] = [None if path is None else checkpoint_hash(path) for path in self.config.options.files()]
        if self.timed:
            options["timed"] = [device_name(choose_device(self.config.device)), self.config.batch_size]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()

    def found(self) -> str | None:
        """The fingerprint of what is in the folder, finished or not; None if it is not of a run, or was made before there were any."""
        mark = self.folder / FINGERPRINT
        found = found_key(self.folder)
        if found is None:
            found = mark.read_text(encoding="utf-8", errors="replace") if mark.exists() else None
        if found not in (None, CLEARING, self.fingerprint) and found == self.earlier_fingerprint():
            if mark.exists():
                write_text(mark, self.fingerprint)
            return self.fingerprint
        return found

    def is_finished(self) -> bool:
        """Whether all results are there and whole. What says that it is finished and is not whole is mended by `inpaint_folder`."""
        if self.found() != self.fingerprint or found_key(self.folder) is not None or not (self.folder / FINISHED).exists():
            return False
        try:
            rows = read_rows(self.folder / RESULTS)
        except UserError:
            rows = []
        counted = re.search(r": (\d+)$", (self.folder / FINISHED).read_text(encoding="utf-8", errors="replace").strip())
        summary = self.folder / SUMMARY
        texts = self._has_config() and summary.is_file() and summary.stat().st_size
        complete = rows and (counted is None or int(counted[1]) == len(rows)) and texts and is_whole_png(self.folder / OVERVIEW)
        return bool(complete) and all(self.is_whole(row) for row in rows)

    def _has_config(self) -> bool:
        """Whether the configuration is written beside the results, and can be read."""
        with contextlib.suppress(UserError):
            return bool(read_yaml(self.folder / CONFIG))
        return False

    def is_whole(self, row: ResultRow) -> bool:
        """Whether the pictures and the trace of a row are there, and none is empty or cut off."""
        kinds = (*ALWAYS, *(kind for kind in self.config.options.pictures if (self.folder / kind).is_dir()))
        if not all(is_whole_png(self.folder / kind / f"{row.name}.png") for kind in kinds):
            return False
        traces = self.folder / "traces"
        return not traces.is_dir() or ends_with(traces / f"{row.name}.json", b"}")

    @contextlib.contextmanager
    def held(self) -> Iterator[list[ResultRow]]:
        """Hold the folder in this context. Yields the rows of an unfinished or damaged run that are whole, so that the rest is left to do.

        Raises UserError if the folder holds other files, unless config.overwrite, or a finished run.
        """
        of_table = "they are not of this table: set another output, or remove them"
        how_to = of_table if self.renew else "set another output=FOLDER, or overwrite=true"
        with output_folder(self.config.output, self._may_write, how_to):
            rows = [] if self.config.overwrite or self.found() != self.fingerprint else self.whole_rows()
            if rows:
                log.info("%d images are done already in %s", len(rows), self.folder)
                self._mark()
                if not self._has_config():
                    save_config(self.config, self.folder / CONFIG)
            yield rows

    def _may_write(self, folder: Path) -> bool:
        found = None if self.config.overwrite else self.found()
        if found is None:
            return self.config.overwrite
        if found in (CLEARING, self.fingerprint):
            return not self.is_finished()
        if found_key(folder) is not None and not self.renew:
            raise UserError(
                f"{folder} holds an unfinished run of other options or checkpoints: give these to go on with it, set another "
                "output=FOLDER, or overwrite=true"
            )
        return self.renew

    def whole_rows(self) -> list[ResultRow]:
        """The rows that earlier processes wrote, in one file or in one for each process, whose pictures are whole."""
        rows = {}
        for path in (self.folder / RESULTS, *sorted(self.folder.glob(PART.format("*")))):
            try:
                rows |= {row.name: row for row in read_rows(path)}
            except UserError as error:
                log.warning("done again: %s", error)
        damaged = [row.name for row in rows.values() if not self.is_whole(row)]
        if damaged:
            log.warning("%d images are done again, whose pictures are missing, empty or cut off: the first is %s", len(damaged), damaged[0])
        return [row for row in rows.values() if row.name not in set(damaged)]

    def _mark(self) -> None:
        """Mark the folder as not whole; it keeps what is there."""
        Mark(self.folder, self.fingerprint).begin()
        (self.folder / FINISHED).unlink(missing_ok=True)

    def begin(self) -> None:
        """Begin anew: remove the results of another run, so that two never mix, and write the configuration."""
        of_a_run = any((self.folder / name).exists() for name in (RESULTS, FINGERPRINT)) or found_key(self.folder) is not None
        parts = list(self.folder.glob(PART.format("*")))
        Mark(self.folder, CLEARING).begin()
        if of_a_run or parts:
            for kind in (*PICTURES, *self.config.options.pictures):
                shutil.rmtree(self.folder / kind, ignore_errors=True)
            for path in (*parts, *(self.folder / name for name in (FINISHED, FINGERPRINT, RESULTS, SUMMARY, OVERVIEW, CONFIG))):
                path.unlink(missing_ok=True)
        save_config(self.config, self.folder / CONFIG)
        self._mark()

    def forget_parts(self) -> None:
        """Remove the rows of single processes: the table has them all."""
        for part in self.folder.glob(PART.format("*")):
            part.unlink()

    def leave(self, problem: str) -> None:
        """The process is done, and the run is not whole: images were left out."""
        Mark(self.folder, self.fingerprint, problem).begin()

    def finish(self, count: int) -> None:
        """Every image is done."""
        write_text(self.folder / FINGERPRINT, self.fingerprint)
        write_text(self.folder / FINISHED, f"every image is done: {count}\n")
        Mark(self.folder, self.fingerprint).end()


def without_later(tree: dict, prefix: str = "") -> dict:
    """The options without those of LATER that are as they were."""
    kept = {key: value for key, value in tree.items() if prefix + key not in LATER or value != LATER[prefix + key]}
    return {key: without_later(value, f"{prefix}{key}.") if isinstance(value, dict) else value for key, value in kept.items()}


def checkpoint_hash(path: Path) -> str:
    """The hash of a checkpoint's content. Raises UserError if the file cannot be read."""
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror}; train it first, or change the table's options") from None


def ends_with(path: Path, end: bytes) -> bool:
    """Whether a file exists and ends with these bytes."""
    try:
        with open(path, "rb") as file:
            return file.read().endswith(end)
    except (OSError, ValueError):
        return False
