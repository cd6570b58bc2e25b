"""Inpaint a folder of images by a method and write the results: pictures, a CSV row per image, a summary by hole share."""

import itertools
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.config import save_config
from strdiffusion.data import TestDataset, TestItem, collate, index_file
from strdiffusion.data.masks import stable_hash
from strdiffusion.data.tensors import as_tensor
from strdiffusion.evaluation.metrics import inside, psnr, ssim
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.overlap import Writer, ahead
from strdiffusion.evaluation.pictures import as_8_bit, write_overview, write_pictures, write_process, write_trace
from strdiffusion.evaluation.table import ResultRow, read_rows, summary_table, write_rows
from strdiffusion.methods import Method, Result, Step, method_class, run, see
from strdiffusion.system import distributed
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import claim_output_folder, write_text

log = logging.getLogger(__name__)

OVERVIEW_ROWS = 12
RESULTS = "results.csv"
PART = "results.part{}.csv"  # the rows of one of several processes, until the table is written
PICTURES = ("inpainted", "masked", "structure", "side_by_side", "process", "traces")  # folders below the output folder
BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"


class SomeLeftOut(UserError):
    """Results are written, but some images were left out."""


def inpaint_folder(config: TestConfig, resume: bool = False) -> Path:
    """Inpaint the images of a test configuration by its method. Returns the folder with the results.

    resume: keep the rows and pictures of an interrupted run of the same configuration, and do the rest.

    Processes started by torchrun divide the images among them; the table has all images, in the same order as with one process.
    Images that cannot be read or paired are reported one by one and left out; in that case SomeLeftOut is raised at the end.
    """
    with distributed.processes(config.device) as device:
        method = method_class(config.method).open(config.options, device)
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
    """Inpaint this process's share of the images that have no row yet. Returns their rows, and the problems of images left out.

    Results of an earlier test are removed when the first new batch is ready. Rows are written after each batch.
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
        waiting = ahead(batches(dataset, left, method, config.batch_size, problems))
        first = next(waiting, None)
        if not earlier and any(distributed.gather(first is not None)):
            distributed.on_main(lambda: begin(config, folder))
        for items in itertools.chain([first] if first else [], waiting):
            result, seconds = inpaint_batch(method, config, items, folder, bar, write)
            write(write_batch, config, items, result, seconds, folder, record)
        bar.update(len(problems))
    return rows, problems


def finished_rows(folder: Path) -> list[ResultRow]:
    """The rows that earlier runs wrote, in one file or in one for each process."""
    rows = {row.name: row for path in (folder / RESULTS, *sorted(folder.glob(PART.format("*")))) for row in read_rows(path)}
    return list(rows.values())


def begin(config: TestConfig, folder: Path) -> None:
    """Remove earlier results and write the configuration of a new run."""
    remove_results(folder)
    save_config(config, folder / "config.yml")


def finish(rows: list[ResultRow], problems: list[str], total: int, folder: Path) -> None:
    """Write and print the table of all rows. Raises SomeLeftOut if there are problems."""
    if rows:
        write_rows(rows, folder / RESULTS)
        for part in folder.glob(PART.format("*")):
            part.unlink()
        table = summary_table(rows)
        write_overview([row.name for row in rows[:OVERVIEW_ROWS]], folder)
        write_text(folder / "summary.md", table + "\n")
        print(table)
        print(f"pictures and results.csv are in {folder}; start with {folder / 'overview.png'}")
    if problems:
        raise SomeLeftOut(f"{len(problems)} of {total} images were left out, the first because: {problems[0]}")


def open_method(config: TestConfig) -> Method:
    """Load the method of a test configuration, on the configuration's device."""
    return method_class(config.method).open(config.options, choose_device(config.device))


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
        family=data.masks.family,
        phase=data.masks.phase,
        ground_truth=data.ground_truth,
        limit=data.limit,
        index=index_file(data.index, data.images),
    )


test_dataset.__test__ = False  # not a test, despite its name


def remove_results(folder: Path) -> None:
    """Remove the results of an earlier test (overwrite=true), so that results of two runs never mix."""
    parts = list(folder.glob(PART.format("*")))
    if parts or (folder / RESULTS).exists():
        for kind in PICTURES:
            shutil.rmtree(folder / kind, ignore_errors=True)
        for path in (*parts, *(folder / name for name in (RESULTS, "summary.md", "overview.png", "config.yml"))):
            path.unlink(missing_ok=True)


def look_at(dataset: TestDataset, number: int, method: Method) -> TestItem:
    """An item with the maps that the method makes of it. The method sees the truth only through a door."""
    item = dataset[number]
    try:
        method.require_size(*item.mask.shape[-2:])
    except UserError as error:
        raise UserError(f"the image {item.image_path} {error}") from None
    behind = {"truth": item.image} | {"other_image": lambda: dataset.other_image(number, item)}
    shown = {door: item.for_maps(behind[door]()) for door in method.doors}
    maps = see(method, item.for_maps(), item.known(), shown)
    return replace(item, maps={name: as_tensor(values) for name, values in maps.items()})


def batches(dataset: TestDataset, numbers: list[int], method: Method, batch_size: int, problems: list[str]) -> Iterator[list[TestItem]]:
    """The items of these numbers, in order, in batches of one shape.

    The problem of an item that is left out is appended to `problems`. All but the first are logged; the first is part of the final error.
    """
    batch: list[TestItem] = []
    for i in numbers:
        try:
            item = look_at(dataset, i, method)
        except UserError as error:
            problem = one_line(str(error))
            if problems:
                log.warning("left out: %s", problem)
            problems.append(problem)
            continue
        if batch and (len(batch) == batch_size or batch[0].mask.shape != item.mask.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def image_seed(config: TestConfig, item: TestItem) -> int:
    """The seed of an image's noise, from only its name and the configuration's seed and sample."""
    which = f":sample={config.sample}" if config.sample else ""
    return stable_hash(f"{config.seed}:{item.name}{which}") % 2**62


def inpaint_batch(
    method: Method, config: TestConfig, items: list[TestItem], folder: Path, bar: tqdm, write: Writer
) -> tuple[Result, float]:
    """Inpaint a batch of images of one shape. Returns the result on the CPU, and the seconds per image."""
    done = bar.n

    def show(step: Step) -> None:
        if step.is_start:
            return
        bar.set_postfix_str(f"t {step.t}/{step.T}", refresh=False)
        bar.n = max(bar.n, done + len(items) * step.share)
        bar.update(0)
        if config.process and (step.left % config.process == 0 or step.left == 1):
            write(write_process, items, step, folder)

    started = time.perf_counter()
    result = run(method, collate(items), [image_seed(config, item) for item in items], show).cpu()
    seconds = (time.perf_counter() - started) / len(items)
    bar.n = done + len(items)
    bar.update(0)
    return result, seconds


def write_batch(
    config: TestConfig, items: list[TestItem], result: Result, seconds: float, folder: Path, record: Callable[[list[ResultRow]], None]
) -> None:
    """Write pictures and traces of a batch, then record its rows: so every recorded row has its pictures."""
    new = []
    for i, item in enumerate(items):
        image = as_8_bit(result.image[i])
        pictures = {name: as_8_bit(images[i]) for name, images in result.pictures.items()}
        write_pictures(item, image, pictures, folder, config.data.ground_truth)
        if result.traces:
            write_trace(item, result.traces[i], folder)
        new.append(result_row(item, image, result, i, seconds, config))
    record(new)


def result_row(item: TestItem, image: np.ndarray, result: Result, i: int, seconds: float, config: TestConfig) -> ResultRow:
    """The CSV row of one image; metrics only if there is a truth."""
    metrics = {}
    if config.data.ground_truth:
        judged = image, as_8_bit(item.texture), as_8_bit(item.texture * item.mask), item.known() < 0.5
        image, truth, masked, hole = (inside(values, config.crop_border) for values in judged)
        metrics = {
            "psnr": psnr(image, truth),
            "ssim": ssim(image, truth),
            "hole_psnr": psnr(image, truth, hole),
            "hole_ssim": ssim(image, truth, hole),
            "masked_hole_psnr": psnr(masked, truth, hole),
            "masked_hole_ssim": ssim(masked, truth, hole),
        }
    return ResultRow(
        name=item.name,
        image=str(item.image_path),
        mask=str(item.mask_path),
        hole_share=item.hole_share,
        seconds=seconds,
        evaluations=dict(result.evaluations[i]) if result.evaluations else {},
        shown=", ".join(result.shown),
        **metrics,
    )
