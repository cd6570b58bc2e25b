"""Write a set of masks as PNG files, white where the hole is: irregular strokes by hole share, RePaint's families, boxes.

For example:

    strdiffusion masks datasets/masks/made
    strdiffusion masks masks --families irregular --buckets 10-20 40-50 --count 100 --size 512 --border inside

If it was interrupted, the same command continues it. Until all masks are there, the folder holds a file unfinished.txt.
"""

import argparse
import csv
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from strdiffusion.data.decoding import opencv
from strdiffusion.data.images import is_whole_png, write_image
from strdiffusion.data.mask_families import BUCKETED, FAMILIES, PHASED, Bucket, bucket_name, numbered_mask, touches_border
from strdiffusion.data.masks import CONTACT_SHEET, hole_share, read_mask
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import sync_all, write_text
from strdiffusion.system.folders import Mark, key_of, output_folder

BUCKETS = ((1, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60))
FINE = set(PHASED)  # the contact sheet enlarges a corner of these
SHEET_COLUMNS, THUMBNAIL, GAP, LABEL_WIDTH = 8, 128, 8, 300
BACKGROUND, INK = 190, 0  # gray levels


class MaskSet(NamedTuple):
    """The masks of one folder. bucket: hole share in percent, None for a family without buckets."""

    family: str
    bucket: Bucket | None

    @property
    def folder(self) -> str:
        return f"{self.family}/{bucket_name(self.bucket)}".rstrip("/")


class MaskRow(NamedTuple):
    """A row of masks.csv. hole_share is in [0, 1]; touches_border is 1 or 0."""

    file: str
    family: str
    bucket: str
    hole_share: float
    touches_border: int


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder to write; one that holds files is refused")
    parser.add_argument(
        "--families",
        nargs="+",
        choices=(*FAMILIES, "all"),
        default=["all"],
        metavar="FAMILY",
        help=f"all (the default), or some of {', '.join(FAMILIES)}",
    )
    parser.add_argument(
        "--buckets",
        nargs="+",
        type=bucket,
        default=BUCKETS,
        metavar="LOW-HIGH",
        help=f"hole shares of the irregular masks in percent, LOW < share <= HIGH (default: {' '.join(map(bucket_name, BUCKETS))})",
    )
    parser.add_argument("--count", type=whole_number(1, 100_000), default=1000, help="masks in each folder (default: 1000)")
    parser.add_argument("--size", type=whole_number(8, 4096), default=256, help="side in pixels (default: 256)")
    parser.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="another seed, other masks (default: 0)")
    parser.add_argument(
        "--border",
        choices=("both", "touching", "inside"),
        default="both",
        help="irregular holes touch the image's border, keep away from it, or alternate (both, the default)",
    )
    parser.add_argument(
        "--phase",
        type=whole_number(0, 1),
        default=0,
        help=f"the first row, and column, that {' and '.join(PHASED)} know: 0 (the default), or 1 as in RePaint's files",
    )
    return parser.parse_args(arguments)


def bucket(text: str) -> Bucket:
    """The bucket that "10-20" names."""
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 0 <= int(low) < int(high) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of whole percents such as 10-20")
    return int(low), int(high)


def whole_number(low: int, high: int):
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def mask_sets(families: list[str], buckets: list[Bucket]) -> list[MaskSet]:
    """One set for each bucket of a family that has buckets, one for each other family."""
    chosen = FAMILIES if "all" in families else dict.fromkeys(families)
    return [MaskSet(family, item) for family in chosen for item in (dict.fromkeys(buckets) if family in BUCKETED else (None,))]


def draw(masks: MaskSet, i: int, options: argparse.Namespace) -> np.ndarray:
    """Mask number i of a set, known (size, size)."""
    touching = i % 2 == 0 if options.border == "both" else options.border == "touching"
    phase = options.phase if masks.family in PHASED else 0
    return numbered_mask(masks.family, options.seed, i, options.size, options.size, masks.bucket, touching, phase=phase)


def made_before(path: Path) -> np.ndarray | None:
    """The mask that an interrupted command drew, known (size, size); None if there is none, or it is not whole."""
    try:
        return read_mask(path) if is_whole_png(path) else None
    except UserError:
        return None


def make_set(masks: MaskSet, options: argparse.Namespace, continued: bool) -> Iterator[tuple[MaskRow, np.ndarray]]:
    """Draw and write the masks of one set that are not there; yields for each its row of the table and known (size, size)."""
    for i in range(options.count):
        file = f"{masks.folder}/{i:05d}.png"
        known = made_before(options.output / file) if continued else None
        if known is None:
            known = draw(masks, i, options)
            write_image(options.output / file, 1 - known)
        share = round(hole_share(known), 6)
        yield MaskRow(file, masks.family, bucket_name(masks.bucket), share, int(touches_border(known))), known


def sheet_row(masks: MaskSet, examples: list[np.ndarray], mean_share: float) -> np.ndarray:
    """A row of the contact sheet: the set's name and some of its masks, gray levels uint8 (H, W)."""
    cv2 = opencv()
    row = np.full((THUMBNAIL + GAP, LABEL_WIDTH + SHEET_COLUMNS * (THUMBNAIL + GAP)), BACKGROUND, np.uint8)
    percent = f" {bucket_name(masks.bucket)} %" if masks.bucket else ""
    lines = [masks.family + percent, f"mean hole share {100 * mean_share:.1f} %"]
    if masks.family in FINE:
        lines.append("top left 16x16 pixels, enlarged")
    for i, line in enumerate(lines):
        cv2.putText(row, line, (GAP, 50 + 24 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.7 if i == 0 else 0.5, INK, 1, cv2.LINE_AA)
    for i, known in enumerate(examples):
        white = 255 * (1 - (known[:16, :16] if masks.family in FINE else known)).astype(np.uint8)
        how = cv2.INTER_AREA if white.shape[0] > THUMBNAIL else cv2.INTER_NEAREST_EXACT
        left = LABEL_WIDTH + i * (THUMBNAIL + GAP)
        row[:THUMBNAIL, left : left + THUMBNAIL] = cv2.resize(white, (THUMBNAIL, THUMBNAIL), interpolation=how)
    return row


def contact_sheet(rows: list[np.ndarray]) -> np.ndarray:
    """The rows (H, W) below each other, under a gap: gray levels float32 in [0, 1]."""
    top = np.full((GAP, rows[0].shape[1]), BACKGROUND, np.uint8)
    return np.concatenate([top, *rows]).astype(np.float32) / 255


@exit_on_user_error(go_on=True)
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    sets = mask_sets(options.families, options.buckets)
    for masks in sets:  # what cannot be drawn is refused before anything is written
        for i in range(2):
            draw(masks, i, options)
    key = key_of("masks", {name: value for name, value in vars(options).items() if name != "output"})
    with output_folder(options.output, lambda folder: Mark(folder, key).is_mine(), "choose another folder") as options.output:
        mark = Mark(options.output, key)
        continued = mark.is_mine()
        mark.begin()
        make_sets(sets, options, continued)
        sync_all()  # once, since a mask is drawn faster than it is flushed; until then the mark says that they may not be whole
        mark.end()


def make_sets(sets: list[MaskSet], options: argparse.Namespace, continued: bool) -> None:
    """Draw the masks that are not there, write the table and the contact sheet, and print how fast that was."""
    table, pictures = [], []
    start = time.perf_counter()
    with tqdm(total=len(sets) * options.count, unit="mask") as bar:
        for masks in sets:
            bar.set_description(masks.folder)
            examples, rows = [], []
            for row, known in make_set(masks, options, continued):
                rows.append(row)
                if len(examples) < SHEET_COLUMNS:
                    examples.append(known)
                bar.update()
            table += rows
            pictures.append(sheet_row(masks, examples, float(np.mean([row.hole_share for row in rows]))))
    seconds = time.perf_counter() - start
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([MaskRow._fields, *table])
    write_text(options.output / "masks.csv", text.getvalue())
    write_image(options.output / CONTACT_SHEET, contact_sheet(pictures))
    print(
        f"{len(table)} masks of {options.size}x{options.size} in {seconds:.1f} s, {len(table) / seconds:.0f} masks per second, "
        f"drawn and written: {options.output} (see {CONTACT_SHEET})"
    )
