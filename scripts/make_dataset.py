"""Write drawn images as PNG files, FOLDER/train and so on, and a contact sheet of each split.

    python scripts/make_dataset.py datasets/facades
    python scripts/make_dataset.py datasets/facades128 --size 128 --splits val test --count 50
    python scripts/make_dataset.py datasets/leaves --images leaves

facades: the benchmark's streets. Their labels, the class of every pixel, are written to FOLDER/labels/train and so on; CLASSES in
strdiffusion/data/facades/sheet.py names the classes in order. leaves: dead leaves, shapes that overlap, to learn from before there is a
photograph; the splits are train and val.

If it was interrupted, or lacks labels, the same command continues it.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.data import leaves
from strdiffusion.data.drawn_files import DRAW, LABELS, write_drawn
from strdiffusion.data.facades import SIZES, SPLITS, VERSION, colour_labels
from strdiffusion.data.images import write_image
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.files import sync_all, write_text
from strdiffusion.system.folders import Mark, output_folder

ABOUT = "dataset.json"
OF = {"facades": (SPLITS, ["train", "val", "test"], VERSION), "leaves": (leaves.SPLITS, ["train", "val"], leaves.VERSION)}
SHEET_IMAGES = 40
SHEET_WIDTH = 1280  # pixels, about


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--images", choices=tuple(OF), default="facades", help="what is drawn (default: facades)")
    parser.add_argument("--size", type=int, choices=SIZES, default=64, help="side in pixels (default: 64)")
    parser.add_argument(
        "--splits", nargs="+", choices=tuple(SPLITS), metavar="SPLIT", help="which splits (default: train, val and, of facades, test)"
    )
    parser.add_argument("--count", type=int, help="only the first COUNT images of each split")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw (default: one a core)")
    options = parser.parse_args()
    there, usual, _ = OF[options.images]
    options.splits = options.splits or usual
    if absent := [split for split in options.splits if split not in there]:
        parser.error(f"{options.images} have no split {absent[0]}: choose from {', '.join(there)}")
    if options.workers < 1 or (options.count is not None and options.count < 1):
        parser.error("--workers and --count must be at least 1")
    return options


def is_mine(folder: Path, about: dict) -> bool:
    """Whether a folder was left by an interrupted run of the same size, or by one that lacks splits or labels."""
    try:
        return json.loads((folder / ABOUT).read_text(encoding="utf-8")) == about
    except (ValueError, OSError):
        return Mark(folder, json.dumps(about)).is_mine()


def write_contact_sheets(folder: Path, images: str, split: str, size: int, count: int) -> None:
    """The first images of a split as one picture, and their labels, if there are, as another."""
    pictures, *labels = zip(*(DRAW[images](split, i, size) for i in range(min(count, SHEET_IMAGES))), strict=True)
    write_image(folder / f"{split}.png", contact_sheet(list(pictures)) / 255)
    for planes in labels:
        write_image(folder / LABELS / f"{split}.png", contact_sheet([colour_labels(plane) for plane in planes]) / 255)


def contact_sheet(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size side by side, (H, W, 3) uint8."""
    columns = min(len(images), SHEET_WIDTH // images[0].shape[1])
    blank = np.full_like(images[0], 255)
    images = images + [blank] * (-len(images) % columns)
    return np.concatenate([np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)])


def draw_split(folder: Path, split: str, options: argparse.Namespace) -> None:
    """Draw the images of a split that are not there, and its contact sheet, and print how fast that was."""
    most = OF[options.images][0][split]
    count = min(options.count or most, most)
    started = time.perf_counter()
    drawn = write_drawn(options.images, folder, split, options.size, count, options.workers)
    for _ in tqdm(drawn, total=count, desc=split, unit="image"):
        pass
    write_contact_sheets(folder, options.images, split, options.size, count)
    seconds = time.perf_counter() - started
    print(f"{split}: {count} images of {options.size}x{options.size} in {folder / split}, {count / max(seconds, 1e-9):.0f} a second")


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    about = {"images": options.images, "version": OF[options.images][2], "size": options.size}
    how_to = "give a new folder, or one that this program began with the same --size and --images"
    with output_folder(options.output, lambda folder: is_mine(folder, about), how_to) as folder:
        mark = Mark(folder, json.dumps(about))
        mark.begin()
        write_text(folder / ABOUT, json.dumps(about) + "\n")
        for split in options.splits:
            draw_split(folder, split, options)
        sync_all()
        mark.end()
    print(f"look at {folder / options.splits[0]}.png")


if __name__ == "__main__":
    sys.exit(main())
