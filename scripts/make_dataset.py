"""Write the street facades of the benchmark as PNG files: FOLDER/train, val and test, and a contact sheet of each.

    python scripts/make_dataset.py datasets/facades
    python scripts/make_dataset.py datasets/facades128 --size 128 --splits val test --count 50

If it was interrupted, the same command continues it.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from strdiffusion.data.facade_files import write_facades
from strdiffusion.data.facades import SIZES, SPLITS, VERSION, draw_facade
from strdiffusion.data.images import write_image
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.files import claim_output_folder, write_text

SHEET_IMAGES = 40
SHEET_WIDTH = 1280  # pixels, about


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--size", type=int, choices=SIZES, default=64, help="side in pixels (default: 64)")
    parser.add_argument("--splits", nargs="+", choices=tuple(SPLITS), default=list(SPLITS), help="which splits (default: all)")
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


def contact_sheet(split: str, size: int, count: int) -> np.ndarray:
    """The first images of a split side by side, (H, W, 3) uint8."""
    count = min(count, SHEET_IMAGES)
    columns = min(count, SHEET_WIDTH // size)
    images = [draw_facade(split, i, size) for i in range(count)]
    blank = np.full_like(images[0], 255)
    images += [blank] * (-count % columns)
    return np.concatenate([np.concatenate(images[i : i + columns], axis=1) for i in range(0, len(images), columns)])


@exit_on_user_error
def main() -> None:
    options = parse_arguments()
    folder = claim(options.output.expanduser(), options.size)
    for split in options.splits:
        count = min(options.count or SPLITS[split], SPLITS[split])
        started = time.perf_counter()
        drawn = write_facades(folder / split, split, options.size, count, options.workers)
        for _ in tqdm(drawn, total=count, desc=split, unit="image"):
            pass
        write_image(folder / f"{split}.png", contact_sheet(split, options.size, count) / 255)
        seconds = time.perf_counter() - started
        print(f"{split}: {count} images of {options.size}x{options.size} in {folder / split}, {count / max(seconds, 1e-9):.0f} a second")
    print(f"look at {folder / options.splits[0]}.png")


if __name__ == "__main__":
    sys.exit(main())
