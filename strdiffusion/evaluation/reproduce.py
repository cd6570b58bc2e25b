"""Run a table: missing runs are made, interrupted runs are continued, and finished runs are kept if nothing has changed."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from strdiffusion.config import load_config, save_config, to_dict
from strdiffusion.evaluation.columns import is_compared
from strdiffusion.evaluation.compare import Cell, Measures
from strdiffusion.evaluation.differences import paired_differences
from strdiffusion.evaluation.folder import SomeLeftOut, inpaint_folder, remove_results
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.published import PUBLISHED
from strdiffusion.evaluation.render import Table, TableRow, as_csv, as_latex, as_markdown
from strdiffusion.evaluation.report import how_measured
from strdiffusion.evaluation.table_options import BucketConfig, RowConfig, TableConfig
from strdiffusion.evaluation.tablecells import image_metrics, image_numbers, published_cell, run_cells
from strdiffusion.system.device import choose_device, device_name
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import file_hash, write_text

log = logging.getLogger(__name__)

# keys of a test configuration that do not change its results; batch_size is one too, unless the table shows seconds
NEUTRAL = ("output", "overwrite", "process")
# options that did not exist when older results were computed, and what they were then: only other values make a new fingerprint
LATER = {
    "crop_border": 0,
    "sample": 0,
    "data.masks.family": "irregular",
    "sampler.ahead": 0,
    "sampler.put_back": True,
    "sde.rounding": "exact",
    "sde.mean_fill": None,
    "repaint.stop_resampling": 0,
    "repaint.truncate": False,
}
FINGERPRINT, FINISHED = "fingerprint.txt", "finished.txt"


@dataclass(frozen=True)
class TableRun:
    """One row in one bucket: its folder and its test configuration. timed: the table shows seconds."""

    folder: Path
    config: TestConfig
    timed: bool

    def fingerprint(self) -> str:
        """A hash of everything that the results depend on: the resolved configuration, the method's options and its files' content."""
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


def without_later(tree: dict, prefix: str = "") -> dict:
    """The options without those of LATER that are as they were."""
    kept = {key: value for key, value in tree.items() if prefix + key not in LATER or value != LATER[prefix + key]}
    return {key: without_later(value, f"{prefix}{key}.") if isinstance(value, dict) else value for key, value in kept.items()}


def reproduce(config: TableConfig) -> Path:
    """Bring every run of the table up to date and write table.csv, table.md and table.tex. Returns the folder.

    All configurations are checked before anything runs. Raises UserError at the end if images were left out.
    """
    runs = {
        (row.label, bucket.name): [plan(config, row, bucket, sample) for sample in range(config.samples)]
        for row in config.rows
        if not row.published_only
        for bucket in config.buckets
    }
    folder = Path(config.output).expanduser()
    folders = [run.folder for samples in runs.values() for run in samples]
    if len(set(folders)) < len(folders):
        raise UserError("two rows or buckets have names that differ in punctuation only: their runs would share a folder")
    base = load_config(TestConfig, config.base, config.options)  # the rows' common part, for the notes
    # raises UserError if a checkpoint is missing
    fingerprints = {run.folder: run.fingerprint() for samples in runs.values() for run in samples}
    measures = Measures(image_metrics(config.metrics), config.weights, choose_device("auto"), config.judge)
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    problems: list[str] = []
    for (label, bucket), samples in runs.items():
        log.info("%s, %s %%", label, bucket)
        for run in samples:
            try:
                bring_up_to_date(run, fingerprints[run.folder])
            except SomeLeftOut as error:
                problems.append(f"{label}, {bucket}: {error}")
        cells[label, bucket] = run_cells([run.folder for run in samples], config.metrics, measures, config.labels)
        notes = [*table_notes(config, base, measures), *problems]
        table = assemble(config, cells, notes)
        write_table(table, folder)
    save_config(config, folder / "config.yml")
    print(as_markdown(table))
    if config.reference is not None:
        differences = compare_rows(config, {key: samples[0] for key, samples in runs.items()}, measures)
        write_table(differences, folder, "differences")
        print(as_markdown(differences))
    print(f"table.csv, table.md and table.tex are in {folder}")
    if problems:
        raise UserError(f"images were left out in {len(problems)} of {len(runs)} runs, the first: {problems[0]}")
    return folder


def plan(config: TableConfig, row: RowConfig, bucket: BucketConfig, sample: int = 0) -> TableRun:
    """The run of a row in a bucket, or a further sample of it."""
    folder = Path(config.output).expanduser() / "runs" / slug(row.label) / slug(bucket.name)
    if sample:
        folder = folder.with_name(f"{folder.name}_sample_{sample}")
    method = [] if row.method is None else [f"method={row.method}"]
    options = [*config.options, *bucket.options, *method, *row.options, f"output={json.dumps(str(folder))}", "overwrite=false"]
    options += [f"sample={sample}"] if sample else []
    return TableRun(folder, load_config(TestConfig, config.base, options), "seconds" in config.metrics)


def bring_up_to_date(run: TableRun, wanted: str) -> None:
    """Do the missing part of a run whose fingerprint is `wanted`: nothing, the rest, or everything."""
    mark = run.folder / FINGERPRINT
    found = mark.read_text(encoding="utf-8") if mark.exists() else None
    if found not in (None, wanted) and found == run.earlier_fingerprint():
        write_text(mark, wanted)
        found = wanted
    if found == wanted and (run.folder / FINISHED).exists():
        log.info("  finished already: %s", run.folder)
        return
    if found is None and run.folder.exists() and any(run.folder.iterdir()):
        raise UserError(f"{run.folder} holds files that are not of this table: set another output, or remove it")
    if found != wanted:
        (run.folder / FINISHED).unlink(missing_ok=True)
        remove_results(run.folder)
        write_text(mark, wanted)
    inpaint_folder(run.config, resume=True)
    write_text(run.folder / FINISHED, "every image is done\n")  # not reached if some were left out


def table_notes(config: TableConfig, test: TestConfig, measures: Measures) -> list[str]:
    """What all rows share, from the base configuration `test`; then how the numbers were computed."""
    data = test.data
    images = f"images of {data.images}" + (f", the first {data.limit}" if data.limit else "")
    fit = "at their own size" if data.fit == "none" else f"brought to {data.size}x{data.size} by {data.fit}"
    notes = [
        f"ours: {images}, {fit}; {test.options.describe()}seed {test.seed}, unless a row says "
        f"otherwise; base {config.base}, overrides of rows and buckets in config.yml beside this table",
        "ours: " + "; ".join(f"{bucket.name}: {' '.join(bucket.options) or 'masks as in the base'}" for bucket in config.buckets),
        "n: number of images",
    ]
    if config.samples > 1:
        notes.append(
            f"{config.samples} samples of each image; diversity: the mean over their pairs of L1, or of the judge's distance, in the hole; "
            "best: of each image the best sample; all other numbers are of the first"
        )
    if "seconds" in config.metrics:
        notes.append(f"seconds: on {device_name(choose_device(test.device))}, a batch of {test.batch_size} divided by its images")
    return [*notes, *how_measured(image_metrics(config.metrics), measures, 0, config.labels)]


def assemble(config: TableConfig, cells: dict[tuple[str, str], dict[str, Cell]], notes: list[str]) -> Table:
    """The table of the cells that exist so far, with each published row below ours."""
    rows = []
    for row in config.rows:
        if not row.published_only:
            ours = {(b.name, m): c for b in config.buckets for m, c in cells.get((row.label, b.name), {}).items()}
            rows.append(TableRow(row.label, ours))
        if row.published is not None:
            published = PUBLISHED[row.published]
            theirs = {(bucket, metric): published_cell(v) for bucket, values in published.values.items() for metric, v in values.items()}
            rows.append(TableRow(published.method, theirs, published.source))
    return Table(config.title, [b.name for b in config.buckets], list(config.metrics), rows, [*config.notes, *notes])


def compare_rows(config: TableConfig, runs: dict[tuple[str, str], TableRun], measures: Measures) -> Table:
    """The table of the differences of all rows to the reference, image by image."""
    metrics, buckets = [m for m in config.metrics if is_compared(m) and m not in measures.unavailable], [b.name for b in config.buckets]
    rows = []
    for label in (row.label for row in config.rows if not row.published_only and row.label != config.reference):
        cells = {}
        for bucket in buckets:
            folders = runs[label, bucket].folder, runs[config.reference, bucket].folder
            found = paired_differences(*folders, metrics, {folder: image_numbers(folder) for folder in folders})
            cells |= {(bucket, metric): cell for metric, cell in found.items()}
        rows.append(TableRow(label, cells))
    notes = [f"differences to {config.reference!r} of the same image and mask; [low, high]: 95% bootstrap interval of their mean"]
    return Table(f"{config.title}: differences to {config.reference!r}", buckets, metrics, rows, notes)


def write_table(table: Table, folder: Path, name: str = "table") -> None:
    """Write the table as CSV, Markdown and LaTeX."""
    for suffix, text in ((".csv", as_csv(table)), (".md", as_markdown(table)), (".tex", as_latex(table))):
        write_text(folder / f"{name}{suffix}", text)


def slug(text: str) -> str:
    """A folder name for a label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "row"


def checkpoint_hash(path: Path) -> str:
    """The hash of a checkpoint's content. Raises UserError if the file cannot be read."""
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror}; train it first, or change the table's options") from None
