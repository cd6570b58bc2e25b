"""Check folders of images and masks: one line for each problem, a summary, and status 2 if something must be mended.

    strdiffusion check datasets/psv/train datasets/psv/val datasets/psv/test       no picture may be in two of them
    strdiffusion check datasets/places2/train --size 512 --sample 5000             some of many files
    strdiffusion check --masks datasets/masks/train                                only masks, with a histogram of their hole shares
    strdiffusion check photos --masks masks                                        and whether each photograph has its mask

Lines that begin with "mend" must be mended: such files are refused, replaced by others, or make results wrong. The others are notes.
Nothing is changed.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from strdiffusion.data.checking import CheckedFile, Problem, check_duplicates, check_image, check_mask, check_pairs, check_polarity
from strdiffusion.data.listing import find_images
from strdiffusion.data.masks import CONTACT_SHEET, Polarity, count_buckets
from strdiffusion.data.pairing import Pairing
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError, one_line

BAR = 40  # characters of the longest bar of the histogram
Files = dict[Path, CheckedFile | None]  # None for what cannot be read


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="*", metavar="FOLDER", help="folders of images, with all folders below them")
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="a folder of masks")
    parser.add_argument("--size", type=int, default=256, help="side of the training crops in pixels; 512 for Places2's crop_from (256)")
    parser.add_argument("--polarity", choices=get_args(Polarity), default="white_hole", help="what white means in the masks (white_hole)")
    parser.add_argument(
        "--pairing", choices=get_args(Pairing), default="name", help="how masks belong to images, if one folder of each is given (name)"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="look at N files of each folder only, evenly spread")
    parser.add_argument("--lines", type=int, default=20, metavar="N", help="lines of each kind of problem, 0 for all (20)")
    options = parser.parse_args(arguments)
    if not options.images and options.masks is None:
        parser.error("give a folder of images, or --masks FOLDER")
    if options.sample is not None and options.sample < 1 or options.size < 1 or options.lines < 0:
        parser.error("--sample and --size must be at least 1, --lines at least 0")
    return options


@exit_on_user_error
def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    report = Report(options.lines)
    folders: list[Files] = []
    for folder in options.images:
        folder = folder.expanduser()
        folders.append(read_folder(folder, lambda path: check_image(path, options.size), options.sample, report))
    report.add(check_duplicates([readable(files) for files in folders]))
    masks: Files = {}
    if options.masks is not None:
        mask_folder = options.masks.expanduser()
        masks = read_folder(mask_folder, lambda path: check_mask(path, options.polarity), options.sample, report, but=CONTACT_SHEET)
        report.add(check_duplicates([readable(masks)]))
        report.add(check_polarity(readable(masks), options.polarity))
    if len(folders) == 1 and masks and options.sample is None:
        report.add(check_pairs(folders[0], masks, options.pairing, options.images[0].expanduser(), mask_folder))
    report.finish()
    for folder, files in zip(options.images, folders):
        print(f"{folder}: {summary(files)}")
    if masks:
        print(f"{options.masks}: {summary(masks)}")
        print_histogram([mask.hole_share for mask in readable(masks)])
    report.conclude()


class Report:
    """Prints problems as they are found, at most `lines` of each topic (0: all), and counts them."""

    def __init__(self, lines: int):
        self.lines = lines
        self.counts: Counter[str] = Counter()
        self.mend = 0

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.counts[problem.topic] += 1
            self.mend += problem.must_mend
            if not self.lines or self.counts[problem.topic] <= self.lines:
                tqdm.write(f"{'mend' if problem.must_mend else 'note'}: {one_line(problem.text)}")

    def finish(self) -> None:
        """Print how many problems were not printed."""
        for topic, count in self.counts.items():
            if self.lines and count > self.lines:
                print(f"... and {count - self.lines} more of the kind {topic!r} (--lines 0 prints all)")

    def conclude(self) -> None:
        """The last line; UserError if something must be mended."""
        total = self.counts.total()
        said = ", ".join(f"{count} {topic}" for topic, count in self.counts.items())
        if self.mend:
            raise UserError(f"{self.mend} of {total} problems must be mended ({said})")
        print(f"nothing must be mended ({said})" if total else "no problem was found")


def read_folder(
    folder: Path, check: Callable[[Path], tuple[CheckedFile | None, list[Problem]]], sample: int | None, report: Report, but: str = ""
) -> Files:
    """Check the files of a folder, all or `sample` of them, except those named `but`."""
    paths = [path for path in find_images(folder) if path.name != but]
    if sample is not None and sample < len(paths):
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, sample).round().astype(int)]
    files: Files = {}
    for path in tqdm(paths, desc=str(folder), unit="file", leave=False):
        files[path], problems = check(path)
        report.add(problems)
    return files


def readable(files: Files) -> list[CheckedFile]:
    return [file for file in files.values() if file is not None]


def summary(files: Files) -> str:
    """How many files there are, and their sizes."""
    good = readable(files)
    if not good:
        return f"none of {len(files)} files can be read"
    sides = [min(file.size) for file in good]
    size, times = Counter(file.size for file in good).most_common(1)[0]
    others = "" if times == len(good) else f" in {times} of them, shorter sides from {min(sides)} to {max(sides)}"
    return f"{len(good)} of {len(files)} files can be read, {size[1]}x{size[0]} pixels{others}"


def print_histogram(shares: Sequence[float]) -> None:
    """The masks in each tenth of hole shares; a bucket holds its upper bound."""
    counts = count_buckets(shares) if shares else np.zeros(10, int)
    last = max(np.flatnonzero(counts), default=0)
    for i in range(max(last, 5) + 1):
        print(f"  {10 * i:2d}-{10 * (i + 1):<3d} %  {counts[i]:7d}  {'#' * round(BAR * counts[i] / max(counts.max(), 1))}".rstrip())
