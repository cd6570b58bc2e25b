"""Inpaint a folder of images and write everything about it: pictures, a CSV row per image, a summary by hole share."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from strdiffusion.config import TestConfig, save_config
from strdiffusion.data import TestDataset, TestItem, collate, index_file, read_image, write_image
from strdiffusion.data.masks import stable_hash
from strdiffusion.errors import UserError
from strdiffusion.evaluation.metrics import psnr, ssim
from strdiffusion.evaluation.table import ResultRow, summary_table, write_rows
from strdiffusion.inpainting import Inpainter
from strdiffusion.networks.discriminator import SMALLEST_SIDE
from strdiffusion.output import claim_output_folder
from strdiffusion.samplers import ImageTrace, Progress

log = logging.getLogger(__name__)

OVERVIEW_ROWS = 12
BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total_fmt} images [{elapsed}<{remaining}{postfix}]"


def inpaint_folder(config: TestConfig) -> Path:
    """Inpaint the images of a test configuration; returns the folder with the results.

    Images that cannot be read or paired are reported one by one and left out; if there were any, a UserError at the
    end says how many.
    """
    inpainter = Inpainter(config)
    data = config.data
    dataset = TestDataset(
        images=data.images, masks=data.masks.folder, pairing=data.masks.pairing, polarity=data.masks.polarity, seed=config.seed,
        size=data.size, fit=data.fit, hole_share=data.masks.hole_share, ground_truth=data.ground_truth, limit=data.limit,
        index=index_file(data.index, data.images), **vars(config.structure),
    )  # fmt: skip
    folder = claim_output_folder(config.output, config.overwrite, "set another output=FOLDER, or overwrite=true")
    problems: list[str] = []
    names: list[str] = []
    rows: list[ResultRow] = []
    bar_options = {"total": len(dataset), "unit": "image", "desc": "inpainting", "bar_format": BAR_FORMAT, "mininterval": 0.5}
    with tqdm(**bar_options) as bar, logging_redirect_tqdm():
        for items in batches(dataset, config.batch_size, inpainter.models.discriminator is not None, problems):
            if not rows:
                remove_results(folder)
                save_config(config, folder / "config.yml")
            names.extend(item.name for item in items)
            rows.extend(inpaint_batch(inpainter, items, folder, bar))
            write_rows(rows, folder / "results.csv")
        bar.update(len(problems))
    if rows:
        table = summary_table(rows)
        write_overview(names[:OVERVIEW_ROWS], folder)
        (folder / "summary.md").write_text(table + "\n", encoding="utf-8")
        print(table)
        print(f"pictures and results.csv are in {folder}; start with {folder / 'overview.png'}")
    if problems:
        raise UserError(f"{len(problems)} of {len(dataset)} images were left out, the first because: {problems[0]}")
    return folder


def remove_results(folder: Path) -> None:
    """Remove what an earlier test wrote here (overwrite=true), so that results of two runs never mix."""
    if (folder / "results.csv").exists():
        for kind in ("inpainted", "masked", "structure", "side_by_side", "process", "traces"):
            shutil.rmtree(folder / kind, ignore_errors=True)
        for name in ("results.csv", "summary.md", "overview.png", "config.yml"):
            (folder / name).unlink(missing_ok=True)


def batches(dataset: TestDataset, size: int, scored: bool, problems: list[str]) -> Iterator[list[TestItem]]:
    """Items in batches of one shape, in order; what is wrong with an item is appended to `problems`, and all but the first,
    which will be the run's error, is logged.
    """
    batch: list[TestItem] = []
    for i in range(len(dataset)):
        try:
            item = dataset[i]
            if scored and min(item.mask.shape[-2:]) < SMALLEST_SIDE:
                raise UserError(f"the image {item.image_path} is smaller than {SMALLEST_SIDE} pixels a side: set data.fit=resize")
        except UserError as error:
            if problems:
                log.warning("left out: %s", error)
            problems.append(str(error))
            continue
        if batch and (len(batch) == size or batch[0].mask.shape != item.mask.shape):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def inpaint_batch(inpainter: Inpainter, items: list[TestItem], folder: Path, bar: tqdm) -> list[ResultRow]:
    """Inpaint a few images of one shape, write their pictures and traces, and return their rows."""
    config = inpainter.config
    batch = collate(items)
    seeds = [stable_hash(f"{config.seed}:{item.name}") % 2**62 for item in items]

    done = bar.n

    def show(progress: Progress) -> None:
        bar.set_postfix_str(f"t {progress.t}/{progress.T}", refresh=False)
        bar.n = max(bar.n, done + len(items) * (1 - max(progress.t - 1, 0) / progress.T))
        bar.update(0)
        if config.process and (progress.t % config.process == 0 or progress.t == 1):
            write_process(items, progress, folder)

    started = time.perf_counter()
    sample = inpainter(batch, seeds, show)
    texture = sample.texture.cpu()
    seconds = (time.perf_counter() - started) / len(items)
    structure = None if sample.structure is None else sample.structure.cpu()

    rows = []
    for i, item in enumerate(items):
        result = as_8_bit(texture[i])
        write_pictures(item, result, None if structure is None else as_8_bit(structure[i]), folder, config.data.ground_truth)
        write_trace(item, sample.traces[i], folder)
        rows.append(result_row(item, result, sample.traces[i], seconds, config.data.ground_truth))
    bar.n = done + len(items)
    bar.update(0)
    return rows


def as_8_bit(image: Tensor) -> np.ndarray:
    """(C,H,W) to (H,W,C) in [0,1], rounded to 8 bit, so that metrics are of what is written."""
    return np.round(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.float32) / 255


def result_row(item: TestItem, result: np.ndarray, trace: ImageTrace, seconds: float, ground_truth: bool) -> ResultRow:
    """Everything about one image that goes into the CSV; metrics only where there is a truth."""
    metrics = {}
    if ground_truth:
        truth, masked = as_8_bit(item.texture), as_8_bit(item.texture * item.mask)
        hole = item.mask[0].numpy() < 0.5
        metrics = {
            "psnr": psnr(result, truth), "ssim": ssim(result, truth),
            "hole_psnr": psnr(result, truth, hole), "hole_ssim": ssim(result, truth, hole),
            "masked_hole_psnr": psnr(masked, truth, hole), "masked_hole_ssim": ssim(masked, truth, hole),
        }  # fmt: skip
    return ResultRow(
        image=str(item.image_path), mask=str(item.mask_path), hole_share=item.hole_share, seconds=seconds,
        texture_evaluations=trace.evaluations("texture"), structure_evaluations=trace.evaluations("structure"),
        discriminator_evaluations=trace.evaluations("discriminator"), **metrics,
    )  # fmt: skip


def picture_path(folder: Path, kind: str, name: str) -> Path:
    path = folder / kind / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_pictures(item: TestItem, result: np.ndarray, structure: np.ndarray | None, folder: Path, ground_truth: bool) -> None:
    """Write result, masked input, final structure, and all of them (and the truth) side by side."""
    masked = as_8_bit(item.texture * item.mask + (1 - item.mask))  # white holes
    columns = [masked, result]
    write_image(picture_path(folder, "inpainted", item.name), result)
    write_image(picture_path(folder, "masked", item.name), masked)
    if structure is not None:
        write_image(picture_path(folder, "structure", item.name), structure)
        columns.insert(1, np.repeat(structure, 3, axis=2))
    if ground_truth:
        columns.append(as_8_bit(item.texture))
    gap = np.ones((masked.shape[0], 4, 3), np.float32)
    spaced = [part for column in columns for part in (column, gap)][:-1]
    write_image(picture_path(folder, "side_by_side", item.name), np.concatenate(spaced, axis=1))


def write_overview(names: list[str], folder: Path) -> None:
    """Write the side-by-side pictures of these images below each other."""
    gap = 4
    rows = [read_image(picture_path(folder, "side_by_side", name)) for name in names]
    width = max(row.shape[1] for row in rows)
    spaced = [np.pad(row, ((0, gap), (0, width - row.shape[1]), (0, 0)), constant_values=1) for row in rows]
    write_image(folder / "overview.png", np.concatenate(spaced)[:-gap])


def write_process(items: list[TestItem], progress: Progress, folder: Path) -> None:
    """Write the states of texture and structure after a step, side by side."""
    for i, item in enumerate(items):
        states = [progress.texture[i]]
        if progress.structure is not None:
            states.append(progress.structure[i].expand(3, -1, -1))
        write_image(picture_path(folder, "process", f"{item.name}/t{progress.t:04d}"), as_8_bit(torch.cat(states, dim=2).cpu()))


def write_trace(item: TestItem, trace: ImageTrace, folder: Path) -> None:
    """Write scores, decisions and evaluations of every step as JSON."""
    path = folder / "traces" / f"{item.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(trace.as_dict()), encoding="utf-8")
