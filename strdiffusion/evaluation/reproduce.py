"""Run a table: missing runs are made, interrupted runs are continued, and finished runs are kept if nothing has changed (see `run`)."""

import itertools
import json
import logging
import re
from dataclasses import replace
from pathlib import Path

from strdiffusion.config import load_config, save_config
from strdiffusion.evaluation.columns import column, is_compared, is_of_image
from strdiffusion.evaluation.compare import Cell, Measures
from strdiffusion.evaluation.differences import paired_differences
from strdiffusion.evaluation.equal import differences_at_equal
from strdiffusion.evaluation.folder import SomeLeftOut, inpaint_folder
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.published import PUBLISHED
from strdiffusion.evaluation.rehearsal import State, count_images, count_states, foretell, require_methods, state_of
from strdiffusion.evaluation.render import Table, TableRow, as_csv, as_latex, as_markdown, bucket_title
from strdiffusion.evaluation.report import how_measured
from strdiffusion.evaluation.run import Run
from strdiffusion.evaluation.table_options import BucketConfig, RowConfig, TableConfig
from strdiffusion.evaluation.tablecells import image_metrics, image_numbers, published_cell, run_cells
from strdiffusion.evaluation.winners import NOTE, winners
from strdiffusion.system.device import choose_device, device_name
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, write_text
from strdiffusion.system.folders import Mark, output_folder

log = logging.getLogger(__name__)

THIS = "a table"  # the key of its mark: a table that was changed goes on with what is still valid


def reproduce(config: TableConfig, keep: bool = False) -> Path:
    """Bring every run of the table up to date and write table.csv, table.md and table.tex. Returns the folder.

    All configurations, checkpoints and folders are checked before anything runs. Raises UserError at the end if images were left out.
    keep: refuse to replace results of other options or checkpoints.
    """
    base = load_config(TestConfig, config.base, config.options)  # the rows' common part, for the notes
    runs = planned(config)
    states = {run.folder: state_of(run) for samples in runs.values() for run in samples}
    log.info("%d runs: %s", len(states), count_states(states.values()))
    others = sum(state is State.OTHER for state in states.values())
    if keep and others:
        raise UserError(
            f"{config.output} holds {others} runs of other options or checkpoints, which these would replace: "
            "give another output=FOLDER, or --overwrite"
        )
    count_images(run for samples in runs.values() for run in samples if states[run.folder] is not State.FINISHED)
    require_methods(runs)
    measures = Measures(image_metrics(config.metrics), config.weights, choose_device("auto"), config.judge)
    with output_folder(config.output, True, "set another output=FOLDER") as folder:
        mark = Mark(folder, THIS)
        mark.is_mine()  # raises UserError if other work is unfinished there
        mark.begin()
        problems = fill(config, runs, base, measures, folder)
        print(f"table.csv, table.md and table.tex are in {folder}")
        if problems:
            left_out = f"images were left out in {len(problems)} of {len(runs)} runs, the first: {problems[0]}"
            Mark(folder, THIS, left_out).begin()
            raise UserError(left_out)
        mark.end()
        return folder


def fill(config: TableConfig, runs: dict[tuple[str, str], list[Run]], base: TestConfig, measures: Measures, folder: Path) -> list[str]:
    """Bring the runs up to date and write the table after each, then the differences. Returns the problems of images left out."""
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    problems: list[str] = []
    for (label, bucket), samples in runs.items():
        log.info("%s, %s", label, bucket_title(bucket))
        for run in samples:
            try:
                bring_up_to_date(run)
            except SomeLeftOut as error:
                problems.append(f"{label}, {bucket}: {error}")
        cells[label, bucket] = run_cells([run.folder for run in samples], config.metrics, measures, config.labels)
        table = assemble(config, cells, [*table_notes(config, base, measures), *problems])
        write_table(table, folder)
    save_config(config, folder / "config.yml")
    firsts = {key: samples[0] for key, samples in runs.items()}
    best = best_cells(config, cells, firsts)
    table = replace(table, best=best, notes=[*table.notes, *([NOTE] if best else [])])
    write_table(table, folder)
    print(as_markdown(table))
    for wanted, compare, name in ((config.reference, compare_rows, "differences"), (config.equal, compare_at_equal, "equal")):
        if wanted is not None:
            differences = compare(config, firsts, measures)
            write_table(differences, folder, name)
            print(as_markdown(differences))
    return problems


def best_cells(
    config: TableConfig, cells: dict[tuple[str, str], dict[str, Cell]], runs: dict[tuple[str, str], Run]
) -> frozenset[tuple[str, str, str]]:
    """(label, bucket, metric) of what wins each column."""
    labels = list(dict.fromkeys(label for label, _ in cells))
    found = set()
    for bucket in (bucket.name for bucket in config.buckets):
        folders = {label: runs[label, bucket].folder for label in labels}
        numbers = {folder: replace(image_numbers(folder), judged={}) for folder in folders.values()}  # without the judge's features
        for metric in config.metrics:
            won = winners(metric, {label: cells[label, bucket][metric] for label in labels}, folders, numbers)
            found |= {(label, bucket, metric) for label in won}
    return frozenset(found)


def planned(config: TableConfig) -> dict[tuple[str, str], list[Run]]:
    """The runs of every row in every bucket, one for each sample. Raises UserError for what is wrong with one, and names its row."""
    runs = {}
    for row, bucket in itertools.product((row for row in config.rows if not row.published_only), config.buckets):
        try:
            runs[row.label, bucket.name] = [plan(config, row, bucket, sample) for sample in range(config.samples)]
            for run in runs[row.label, bucket.name]:
                run.fingerprint  # noqa: B018  # computed now: raises UserError if a checkpoint is missing
        except UserError as error:
            raise UserError(f"row {row.label!r}, bucket {bucket.name!r}: ", *error.parts) from None
    folders = [run.folder for samples in runs.values() for run in samples]
    if len(set(folders)) < len(folders):
        raise UserError("two rows or buckets have names that differ in punctuation only: their runs would share a folder")
    return runs


def rehearse(config: TableConfig) -> None:
    """Check the table as `reproduce` does, and print what is left to do and about how long it takes. Nothing is written."""
    load_config(TestConfig, config.base, config.options)
    runs = planned(config)
    Measures(image_metrics(config.metrics), config.weights, choose_device("auto"), config.judge)
    require_methods(runs)
    print(f"{config.title}; rows: {len(config.rows)}, groups of columns: {len(config.buckets)}, samples: {config.samples}")
    print(f"runs: {count_states([state_of(run) for samples in runs.values() for run in samples])}")
    print(foretell(runs))


def plan(config: TableConfig, row: RowConfig, bucket: BucketConfig, sample: int = 0) -> Run:
    """The run of a row in a bucket, or a further sample of it."""
    folder = Path(config.output).expanduser() / "runs" / slug(row.label) / slug(bucket.name)
    if sample:
        folder = folder.with_name(f"{folder.name}_sample_{sample}")
    method = [] if row.method is None else [f"method={row.method}"]
    options = [*config.options, *bucket.options, *method, *row.options, f"output={json.dumps(str(folder))}", "overwrite=false"]
    options += [f"sample={sample}"] if sample else []
    return Run(load_config(TestConfig, config.base, options), timed="seconds" in config.metrics, renew=True)


def bring_up_to_date(run: Run) -> None:
    """Do the missing part of a run: nothing, the rest, what is damaged, or everything."""
    if run.is_finished():
        log.info("  finished already: %s", run.folder)
    else:
        inpaint_folder(run.config, run)


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


def compare_rows(config: TableConfig, runs: dict[tuple[str, str], Run], measures: Measures) -> Table:
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


def compare_at_equal(config: TableConfig, runs: dict[tuple[str, str], Run], measures: Measures) -> Table:
    """The table of the differences of all rows to the mixture of the curve's rows that has the same mean of `equal.metric`."""
    equal, curve, buckets = config.equal.metric, config.equal.rows, [b.name for b in config.buckets]
    metrics = [m for m in config.metrics if is_of_image(m) and m not in (*measures.unavailable, equal)]
    rows = []
    for label in (row.label for row in config.rows if not row.published_only and row.label not in curve):
        cells = {}
        for bucket in buckets:
            folder, *others = (runs[each, bucket].folder for each in (label, *curve))
            numbers = {run: image_numbers(run) for run in (folder, *others)}
            found = differences_at_equal(folder, others, equal, metrics, numbers)
            cells |= {(bucket, metric): cell for metric, cell in found.items()}
        rows.append(TableRow(label, cells))
    shown = column(equal).title
    notes = [
        f"differences to the mixture of two of {', '.join(map(repr, curve))} that has the same mean {shown} over the same images and masks",
        "[low, high]: 95% interval of a bootstrap over images, with the share of the mixture computed anew for each draw",
    ]
    return Table(f"{config.title}: differences at equal {shown}", buckets, metrics, rows, notes)


def write_table(table: Table, folder: Path, name: str = "table") -> None:
    """Write the table as CSV, Markdown and LaTeX."""
    with Together() as files:
        for suffix, text in ((".csv", as_csv(table)), (".md", as_markdown(table)), (".tex", as_latex(table))):
            write_text(folder / f"{name}{suffix}", text, files)


def slug(text: str) -> str:
    """A folder name for a label."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "row"
