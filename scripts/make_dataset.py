"""Write the street facades of the benchmark as PNG files: FOLDER/train, val and test, and a contact sheet of each.

Their labels, the class of every pixel, are written to FOLDER/labels/train and so on; CLASSES in strdiffusion/data/facades/sheet.py
names the classes in order.

    python scripts/make_dataset.py datasets/facades
    python scripts/make_dataset.py datasets/facades128 --size 128 --splits val test --count 50

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

from strdiffusion.data.facade_files import LABELS, write_facades
from strdiffusion.data.facades import SIZES, SPLITS, VERSION, colour_labels, draw_scene
from strdiffusion.data.images import write_image
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.files import claim_output_folder, write_text

SHEET_IMAGES = 40
SHEET_WIDTH = 1280  # pixels, about


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, choices=SIZES, default=64, help="side in pixels (default: 64)")
    parser.add_argument(
        "--splits", nargs="+", choices=tuple(SPLITS), default=["train", "val", "test"], help="which splits (default: train, val and test)"
    )
    parser.add_argument("--count", type=int, help="only the first COUNT images of each split")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that draw (default: one a core)")
    options = parser.parse_args()
    if options.workers < 1 or (options.count is not None and options.count < 1):
        parser.error("--workers and --count must be at least 1")
    return options


def claim(folder: Path, size: int) -> Path:
    """Take the folder, new or left by an interrupted run of the same size; raises UserError for any other."""
    about, expected = folder / "dataset.json", {"images": "facades", "version": VERSION, "size": size}
    try:
        mine = json.loads(about.read_text(encoding="utf-8")) == expected if about.exists() else False
    except (ValueError, OSError):
        mine = False
    folder = claim_output_folder(folder, mine, "give a new folder, or one that this program began with the same --size")
    write_text(about, json.dumps(expected) + "\n")
    return folder


def write_contact_sheets(folder: Path, split: str, size: int, count: int) -> None:
    """The first images of a split as one picture, and their labels as another."""
    pictures, labels = zip(*(draw_scene(split, i, size) for i in range(min(count, SHEET_IMAGES))), strict=True)
    write_image(folder / f"{split}.png", contact_sheet(list(pictures)) / 255)
    write_image(folder / LABELS / f"{split}.png", contact_sheet([colour_labels(plane) for plane in labels]) / 255)


def contact_sheet(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size side by side, (H, W, 3) uint8."""
    columns = min(len(images), SHEET_WIDTH // images[0].shape[1])
    blank = np.full_like(images[0], 255)
    images = images + [blank] * (-len(images) % columns)
    return np.concatenate([np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)])


@exit_on_user_error
def main() -> None:
    options = parse_arguments()
    folder = claim(options.output.expanduser(), options.size)
    for split in options.splits:
        count = min(options.count or SPLITS[split], SPLITS[split])
        started = time.perf_counter()
        drawn = write_facades(folder, split, options.size, count, options.workers)
        for _ in tqdm(drawn, total=count, desc=split, unit="image"):
            pass
        write_contact_sheets(folder, split, options.size, count)
        seconds = time.perf_counter() - started
        print(f"{split}: {count} images of {options.size}x{options.size} in {folder / split}, {count / max(seconds, 1e-9):.0f} a second")
    print(f"look at {folder / options.splits[0]}.png")


if __name__ == "__main__":
    sys.exit(main())
