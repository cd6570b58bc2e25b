"""The pictures and traces that a test writes beside its numbers."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strdiffusion.data import TestItem, read_image, write_image
from strdiffusion.methods import Step
from strdiffusion.samplers import ImageTrace
from strdiffusion.system.files import Together, inside, write_text

OVERVIEW = "overview.png"
GAP = 4  # pixels between neighbouring pictures


def as_8_bit(image: Tensor) -> np.ndarray:
    """(C,H,W) to (H,W,C) in [0,1], rounded to 8 bits, so that metrics are computed on the pixels that are written."""
    return np.round(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.float32) / 255


def picture_path(folder: Path, kind: str, name: str) -> Path:
    return inside(folder / kind, f"{name}.png")


def write_pictures(
    item: TestItem, result: np.ndarray, pictures: Mapping[str, np.ndarray], folder: Path, ground_truth: bool, files: Together
) -> None:
    """Write the result, the masked input and the method's other pictures (for StrDiffusion the structure at the end of the early
    stage), and all of them side by side, with the truth if there is one.
    """
    masked = as_8_bit(item.texture * item.mask + (1 - item.mask))  # white holes
    columns = [masked, result]
    write_image(picture_path(folder, "inpainted", item.name), result, files)
    write_image(picture_path(folder, "masked", item.name), masked, files)
    for kind, picture in pictures.items():
        write_image(picture_path(folder, kind, item.name), picture, files)
        columns.insert(-1, picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2))
    if ground_truth:
        columns.append(as_8_bit(item.texture))
    gap = np.ones((masked.shape[0], GAP, 3), np.float32)
    spaced = [part for column in columns for part in (column, gap)][:-1]
    write_image(picture_path(folder, "side_by_side", item.name), np.concatenate(spaced, axis=1), files)


def write_overview(names: list[str], folder: Path) -> None:
    """Write the side-by-side pictures of these images as the rows of one picture."""
    rows = [read_image(picture_path(folder, "side_by_side", name)) for name in names]
    width = max(row.shape[1] for row in rows)
    spaced = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0)), constant_values=1) for row in rows]
    with Together() as files:
        write_image(folder / OVERVIEW, np.concatenate(spaced)[:-GAP], files)


def write_process(items: list[TestItem], step: Step, folder: Path, files: Together) -> None:
    """Write the image and the other pictures after a step, side by side."""
    for i, item in enumerate(items):
        states = [images[i].expand(3, -1, -1) for images in (step.image, *step.pictures.values())]
        write_image(picture_path(folder, "process", f"{item.name}/t{step.t:04d}"), as_8_bit(torch.cat(states, dim=2).cpu()), files)


def write_trace(item: TestItem, trace: ImageTrace, folder: Path, files: Together) -> None:
    """Write the scores, decisions and evaluations of every step as JSON."""
    path = inside(folder / "traces", f"{item.name}.json")
    write_text(path, json.dumps(trace.as_dict()), files)
