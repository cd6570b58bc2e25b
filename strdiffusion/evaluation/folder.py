"""Inpaint a folder of images and write everything about it: pictures, a CSV row per image, a summary by hole share."""

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.app import StrDiffusion
from strdiffusion.batch import Batch
from strdiffusion.config import TestConfig, save_config
from strdiffusion.data import TestDataset, TestItem, collate, index_file
from strdiffusion.data.masks import stable_hash
from strdiffusion.evaluation.guides import OracleGuided
from strdiffusion.evaluation.metrics import psnr, ssim
from strdiffusion.evaluation.overlap import Writer, ahead
from strdiffusion.evaluation.pictures import as_8_bit, write_overview, write_pictures, write_process, write_trace
from strdiffusion.evaluation.table import ResultRow, read_rows, summary_table, write_rows
from strdiffusion.methods.inpainting import Inpainter
from strdiffusion.networks.discriminator import SMALLEST_SIDE
from strdiffusion.samplers import ImageTrace, Progress, Sample
from strdiffusion.system import distributed
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import claim_output_folder

log = logging.getLogger(__name__)

OVERVIEW_ROWS = 12
RESULTS = "results.csv"
PART = "results.part{}.csv"  # the rows of one of several processes, until the table is written
BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"

# what inpaints a batch: an Inpainter, or a baseline; called with the batch, a seed per image and a callback
Method = Callable[[Batch, Sequence[int], Callable[[Progress], None]], Sample]


class SomeLeftOut(UserError):
    """Results are written, but not of every image."""


def inpaint_folder(config: TestConfig, method: Method | None = None, resume: bool = False) -> Path:
    """Inpaint the images of a test configuration; returns the folder with the results.

    Args:
        method: what inpaints; None loads the networks of the configuration.
        resume: keep the rows and pictures that an interrupted run of the same configuration left, and do the rest.

    The processes of torchrun share the images out; the table is of all of them, in the order of one process.
    Images that cannot be read or paired are reported one by one and left out; if there were any, a SomeLeftOut at the
    end says how many.
    """
    with distributed.processes(config.device):
        method = method or network_method(config)
        dataset = test_dataset(config)
        how_to = "set another output=FOLDER, or overwrite=true"
        folder = distributed.on_main(lambda: claim_output_folder(config.output, config.overwrite or resume, how_to))
        earlier = distributed.on_main(lambda: finished_rows(folder)) if resume else []
        rows, problems = inpaint_share(config, method, dataset, folder, earlier)
        rows = earlier + [row for found in distributed.gather(rows) for row in found]
        problems = [problem for found in distributed.gather(problems) for problem in found]
        order = {name: i for i, name in enumerate(dataset.names)}
        rows.sort(key=lambda row: order.get(row.name, len(order)))
        distributed.on_main(lambda: finish(rows, problems, len(dataset), folder))
        return folder


def inpaint_share(
    config: TestConfig, method: Method, dataset: TestDataset, folder: Path, earlier: list[ResultRow]
) -> tuple[list[ResultRow], list[str]]:
    """This process's share of the images that have no row yet: their rows, and what was wrong with others.

    What an earlier test left is removed once there is something new; rows are written as they come.
    """
    done = {row.name for row in earlier}
    left = [i for i, name in enumerate(dataset.names) if name not in done][distributed.rank() :: distributed.count()]
    file = folder / (RESULTS if distributed.count() == 1 else PART.format(distributed.rank()))
    rows: list[ResultRow] = []
    problems: list[str] = []

    def record(new: list[ResultRow]) -> None:
        rows.extend(new)
        write_rows(rows if distributed.count() > 1 else earlier + rows, file)

    bar_options = {"total": len(left), "unit": "image", "desc": "inpainting", "bar_format": BAR_FORMAT, "mininterval": 0.5}
    with tqdm(**bar_options, disable=not distributed.is_main()) as bar, logging_redirect_tqdm(), Writer() as write:
        waiting = ahead(batches(dataset, left, config, problems))
        first = next(waiting, None)
        if not earlier and any(distributed.gather(first is not None)):
            distributed.on_main(lambda: begin(config, folder))
        for items in itertools.chain([first] if first else [], waiting):
            sample, seconds = inpaint_batch(method, config, items, folder, bar, write)
            write(write_batch, config, items, sample, seconds, folder, record)
        bar.update(len(problems))
    return rows, problems


def finished_rows(folder: Path) -> list[ResultRow]:
    """The rows that earlier runs wrote, together or each process its own."""
    rows = {row.name: row for path in (folder / RESULTS, *sorted(folder.glob(PART.format("*")))) for row in read_rows(path)}
    return list(rows.values())


def begin(config: TestConfig, folder: Path) -> None:
    """Make room for the results of a new run."""
    remove_results(folder)
    save_config(config, folder / "config.yml")


def finish(rows: list[ResultRow], problems: list[str], total: int, folder: Path) -> None:
    """Write and print the table of all rows; raises SomeLeftOut where there are problems."""
    if rows:
        write_rows(rows, folder / RESULTS)
        for part in folder.glob(PART.format("*")):
            part.unlink()
        table = summary_table(rows)
        write_overview([row.name for row in rows[:OVERVIEW_ROWS]], folder)
        (folder / "summary.md").write_text(table + "\n", encoding="utf-8")
        print(table)
        print(f"pictures and results.csv are in {folder}; start with {folder / 'overview.png'}")
    if problems:
        raise SomeLeftOut(f"{len(problems)} of {total} images were left out, the first because: {problems[0]}")


def network_method(config: TestConfig) -> Inpainter | OracleGuided:
    """The networks of a test configuration, guided as it says."""
    inpainter = StrDiffusion.from_config(config).inpainter()
    return inpainter if config.guide == "denoised" else OracleGuided(inpainter)


def test_dataset(config: TestConfig) -> TestDataset:
    """The images and masks of a test configuration."""
    data = config.data
    return TestDataset(
        images=data.images,
        masks=data.masks.folder,
        pairing=data.masks.pairing,
        polarity=data.masks.polarity,
        seed=config.seed,
        size=data.size,
        fit=data.fit,
        hole_share=data.masks.hole_share,
        ground_truth=data.ground_truth,
        limit=data.limit,
        index=index_file(data.index, data.images),
        foreign_structure=config.guide == "other_image",
        **vars(config.structure),
    )


test_dataset.__test__ = False  # not a test, whatever pytest thinks of its name


def remove_results(folder: Path) -> None:
    """Remove what an earlier test wrote here (overwrite=true), so that results of two runs never mix."""
    parts = list(folder.glob(PART.format("*")))
    if parts or (folder / RESULTS).exists():
        for kind in ("inpainted", "masked", "structure", "side_by_side", "process", "traces"):
            shutil.rmtree(folder / kind, ignore_errors=True)
        for path in (*parts, *(folder / name for name in (RESULTS, "summary.md", "overview.png", "config.yml"))):
            path.unlink(missing_ok=True)


def batches(dataset: TestDataset, numbers: list[int], config: TestConfig, problems: list[str]) -> Iterator[list[TestItem]]:
    """The items of these numbers in batches of one shape, in order.

    What is wrong with an item is appended to `problems`, and all but the first, which will be the run's error, is logged.
    """
    batch: list[TestItem] = []
    for i in numbers:
        try:
            item = dataset[i]
            if config.sampler.scored and min(item.mask.shape[-2:]) < SMALLEST_SIDE:
                raise UserError(f"the image {item.image_path} is smaller than {SMALLEST_SIDE} pixels a side: set data.fit=resize")
        except UserError as error:
            problem = one_line(str(error))
            if problems:
                log.warning("left out: %s", problem)
            problems.append(problem)
            continue
        if batch and (len(batch) == config.batch_size or batch[0].mask.shape != item.mask.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def image_seed(config: TestConfig, item: TestItem) -> int:
    """The seed of an image's noise: of its name and the configuration's seed alone."""
    return stable_hash(f"{config.seed}:{item.name}") % 2**62


def inpaint_batch(
    method: Method, config: TestConfig, items: list[TestItem], folder: Path, bar: tqdm, write: Writer
) -> tuple[Sample, float]:
    """Inpaint a few images of one shape; returns them on the CPU, and the seconds an image."""
    batch = collate(items)
    seeds = [image_seed(config, item) for item in items]
    done = bar.n

    def show(progress: Progress) -> None:
        bar.set_postfix_str(f"t {progress.t}/{progress.T}", refresh=False)
        bar.n = max(bar.n, done + len(items) * progress.share)
        bar.update(0)
        if config.process and (progress.n % config.process == 0 or progress.n == 1):
            write(write_process, items, progress, folder)

    started = time.perf_counter()
    sample = method(batch, seeds, show)
    structure = None if sample.structure is None else sample.structure.cpu()
    sample = Sample(sample.texture.cpu(), structure, sample.traces)
    seconds = (time.perf_counter() - started) / len(items)
    bar.n = done + len(items)
    bar.update(0)
    return sample, seconds


def write_batch(
    config: TestConfig, items: list[TestItem], sample: Sample, seconds: float, folder: Path, record: Callable[[list[ResultRow]], None]
) -> None:
    """Write pictures and traces of a few images; then, so that every row has its pictures, record their rows."""
    new = []
    for i, item in enumerate(items):
        result = as_8_bit(sample.texture[i])
        structure = None if sample.structure is None else as_8_bit(sample.structure[i])
        write_pictures(item, result, structure, folder, config.data.ground_truth)
        write_trace(item, sample.traces[i], folder)
        new.append(result_row(item, result, sample.traces[i], seconds, config.data.ground_truth))
    record(new)


def result_row(item: TestItem, result: np.ndarray, trace: ImageTrace, seconds: float, ground_truth: bool) -> ResultRow:
    """Everything about one image that goes into the CSV; metrics only where there is a truth."""
    metrics = {}
    if ground_truth:
        truth, masked = as_8_bit(item.texture), as_8_bit(item.texture * item.mask)
        hole = item.mask[0].numpy() < 0.5
        metrics = {
            "psnr": psnr(result, truth),
            "ssim": ssim(result, truth),
            "hole_psnr": psnr(result, truth, hole),
            "hole_ssim": ssim(result, truth, hole),
            "masked_hole_psnr": psnr(masked, truth, hole),
            "masked_hole_ssim": ssim(masked, truth, hole),
        }
    return ResultRow(
        name=item.name,
        image=str(item.image_path),
        mask=str(item.mask_path),
        hole_share=item.hole_share,
        seconds=seconds,
        texture_evaluations=trace.evaluations("texture"),
        structure_evaluations=trace.evaluations("structure"),
        discriminator_evaluations=trace.evaluations("discriminator"),
        **metrics,
    )
