"""Inpaint a folder of images by a method and write the results: pictures, a CSV row per image, a summary by hole share."""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.data import TestDataset, TestItem, collate, index_file
from strdiffusion.data.listing import require_folders
from strdiffusion.data.masks import stable_hash
from strdiffusion.data.tensors import as_tensor
from strdiffusion.evaluation.metrics import inside, psnr, ssim
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.overlap import Writer, ahead
from strdiffusion.evaluation.pictures import OVERVIEW, as_8_bit, write_overview, write_pictures, write_process, write_trace
from strdiffusion.evaluation.run import PART, RESULTS, SUMMARY, Run
from strdiffusion.evaluation.table import ResultRow, read_rows, summary_table, write_rows
from strdiffusion.methods import Method, Result, Step, method_class, see
from strdiffusion.methods import run as run_method
from strdiffusion.system import distributed, threads
from strdiffusion.system.device import choose_device
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import Together, write_text

log = logging.getLogger(__name__)

OVERVIEW_ROWS = 12
BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"


class SomeLeftOut(UserError):
    """Results are written, but some images were left out."""


def inpaint_folder(config: TestConfig, run: Run | None = None) -> Path:
    """Inpaint the images of a test configuration by its method. Returns the folder with the results.

    An interrupted run of the same configuration is continued, unless config.overwrite: its rows and pictures stay, and the rest is done.
    Processes started by torchrun divide the images among them; the table has all images, in the same order as with one process.
    Images that cannot be read or paired are reported one by one and left out; in that case SomeLeftOut is raised at the end.

    run: the run of the configuration, if it is one of a table.
    """
    run = run or Run(config)
    with distributed.processes(config.device) as device, contextlib.ExitStack() as stack:
        threads.fit(config.data.size**2)
        require_folders({"data.images": config.data.images, "data.masks.folder": config.data.masks.folder})
        method = open_method(config, device)
        dataset = test_dataset(config)
        earlier = distributed.on_main(lambda: stack.enter_context(run.held()))
        rows, problems = inpaint_share(run, method, dataset, earlier)
        rows = earlier + [row for found in distributed.gather(rows) for row in found]
        problems = [problem for found in distributed.gather(problems) for problem in found]
        order = {name: i for i, name in enumerate(dataset.names)}
        rows.sort(key=lambda row: order.get(row.name, len(order)))
        distributed.on_main(lambda: finish(run, rows, problems, len(dataset)))
        return run.folder


def inpaint_share(run: Run, method: Method, dataset: TestDataset, earlier: list[ResultRow]) -> tuple[list[ResultRow], list[str]]:
    """Inpaint this process's share of the images that have no row yet. Returns their rows, and the problems of images left out.

    Results of an earlier test are removed when the first new batch is ready. Rows are written after each batch.
    """
    config, folder = run.config, run.folder
    done = {row.name for row in earlier}
    left = [i for i, name in enumerate(dataset.names) if name not in done][distributed.rank() :: distributed.count()]
    file = folder / (RESULTS if distributed.count() == 1 else PART.format(distributed.rank()))
    rows: list[ResultRow] = []
    problems: list[str] = []

    def record(new: list[ResultRow]) -> None:
        rows.extend(new)
        write_rows(rows if distributed.count() > 1 else earlier + rows, file)

    files = Together()
    bar_options = {"total": len(left), "unit": "image", "desc": "inpainting", "bar_format": BAR_FORMAT, "mininterval": 0.5}
    try:
        with tqdm(**bar_options, disable=not distributed.is_main()) as bar, logging_redirect_tqdm(), Writer() as write:
            waiting = ahead(batches(dataset, left, method, config.batch_size, problems))
            first = next(waiting, None)
            if not earlier and any(distributed.gather(first is not None)):
                distributed.on_main(run.begin)
            for items in itertools.chain([first] if first else [], waiting):
                files = Together()
                result, seconds = inpaint_batch(method, config, items, files, bar, write)
                write(write_batch, config, items, result, seconds, files, record)
            bar.update(len(problems))
    finally:
        files.discard()  # of a batch that was interrupted
    return rows, problems


def finish(run: Run, rows: list[ResultRow], problems: list[str], total: int) -> None:
    """Write and print the table of all rows. Raises SomeLeftOut if there are problems."""
    folder, left_out = run.folder, ""
    if problems:
        left_out = f"{len(problems)} of {total} images were left out, the first because: {problems[0]}"
    if rows:
        write_rows(rows, folder / RESULTS)
        run.forget_parts()
        rows = read_rows(folder / RESULTS)  # with the digits that are written, as a continued run has them
        table = summary_table(rows)
        write_overview([row.name for row in rows[:OVERVIEW_ROWS]], folder)
        write_text(folder / SUMMARY, table + "\n")
        run.leave(left_out) if problems else run.finish(len(rows))
        print(table)
        print(f"pictures and results.csv are in {folder}; start with {folder / OVERVIEW}")
    if problems:
        raise SomeLeftOut(left_out)


def open_method(config: TestConfig, device: torch.device | None = None) -> Method:
    """Load the method of a test configuration, on the configuration's device or another. Raises UserError if it cannot inpaint the size
    to which the configuration brings all images.
    """
    method = method_class(config.method).open(config.options, device or choose_device(config.device))
    size = config.data.size
    if config.data.fit != "none" and size is not None:
        try:
            method.require_size(size, size)
        except UserError as error:
            raise UserError(f"data.size={size} does not fit: an image {error}") from None
    return method


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
    method: Method, config: TestConfig, items: list[TestItem], files: Together, bar: tqdm, write: Writer
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
            write(write_process, items, step, Path(config.output).expanduser(), files)

    started = time.perf_counter()
    result = run_method(method, collate(items), [image_seed(config, item) for item in items], show).cpu()
    seconds = (time.perf_counter() - started) / len(items)
    bar.n = done + len(items)
    bar.update(0)
    return result, seconds


def write_batch(
    config: TestConfig, items: list[TestItem], result: Result, seconds: float, files: Together, record: Callable[[list[ResultRow]], None]
) -> None:
    """Write pictures and traces of a batch to the disk, then record its rows: so every recorded row has its pictures."""
    new, folder = [], Path(config.output).expanduser()
    with files:
        for i, item in enumerate(items):
            image = as_8_bit(result.image[i])
            pictures = {name: as_8_bit(images[i]) for name, images in result.pictures.items()}
            write_pictures(item, image, pictures, folder, config.data.ground_truth, files)
            if result.traces:
                write_trace(item, result.traces[i], folder, files)
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
