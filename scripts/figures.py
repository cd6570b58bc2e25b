"""Make a figure, as PNG and PDF.

For example:

    python scripts/figures.py grid        --out figures/grid Ours=results/mine LaMa=results/lama --truth photos --masked results/mine
    python scripts/figures.py grid        --out figures/most A=results/a B=results/b --disagree hole_ssim --first 8
    python scripts/figures.py process     --out figures/process -opt configs/benchmark/figures.yml [process.t=[20,10,0] ...]
    python scripts/figures.py discrepancy --out figures/discrepancy -opt configs/benchmark/figures.yml [discrepancy.of=estimate ...]
    python scripts/figures.py guide       --out figures/guide -opt configs/benchmark/test.yml [--first 24] [sampler.steps=20 ...]
    python scripts/figures.py filling     --out figures/filling -opt configs/dgts/test.yml [--patch 12] [dgts.order=raster ...]
    python scripts/figures.py trace       --out figures/trace results/mine [--image NAME]
    python scripts/figures.py histogram   --out figures/masks datasets/masks/test [--polarity white_known]
    python scripts/figures.py curves      --out figures/curves structure=runs/psv/structure texture=runs/psv/texture
    python scripts/figures.py schedules   --out figures/schedules ["mine={steps: 50, jump_length: 5, stop_resampling: 20}" ...]
    python scripts/figures.py tradeoff    --out figures/steps results/tables/benchmark_steps [--metrics hole_psnr hole_ssim]
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion import figures
from strdiffusion.config import load_config
from strdiffusion.data.masks import Polarity
from strdiffusion.evaluation.columns import TABLE_METRICS, ComparedMetric, HoleMetric, column, is_of_image
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.figures import grid as grids
from strdiffusion.figures.style import fit_text
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.folders import output_files

TITLE_WIDTH = 7.0  # cm
OF_IMAGES = [metric for metric in TABLE_METRICS if is_of_image(metric)]


def grid(options: argparse.Namespace):
    folders = [split_label(text) for text in options.results]
    methods = [figures.open_column(label, folder) for label, folder in folders]
    if options.disagree and options.images:
        raise UserError("--disagree chooses the images: leave --images out")
    names, captions = options.images, None
    if options.disagree:
        found = grids.disagreements([folder for _, folder in folders], options.disagree, options.first)
        digits = column(options.disagree).digits
        names = list(found)
        captions = {label: [f"{numbers[i]:.{digits}f}" for numbers in found.values()] for i, (label, _) in enumerate(folders)}
    names = grids.choose_images(methods, names, options.first)
    columns = list(methods)
    if options.masked:
        columns.insert(0, figures.open_column("masked", options.masked, "masked"))
    if options.truth:
        if (options.truth.expanduser() / "inpainted").is_dir():
            raise UserError(f"--truth {options.truth} holds results of a test: give the folder of the true pictures")
        fit = next((fit for _, folder in folders if (fit := grids.fit_of(folder))), None)
        columns.append(figures.open_column("truth", options.truth, fit=fit))
    return figures.grid_figure(columns, names, captions)


def process(options: argparse.Namespace):
    return figures.process_figure(figures.record_process(load_config(figures.FiguresConfig, options.opt, options.overrides)))


def discrepancy(options: argparse.Namespace):
    config = load_config(figures.FiguresConfig, options.opt, options.overrides)
    return figures.discrepancy_figure(figures.measure_discrepancy(config), config.discrepancy)


def guide(options: argparse.Namespace):
    return figures.guide_figure(figures.measure_guide(load_config(TestConfig, options.opt, options.overrides), options.first))


def filling(options: argparse.Namespace):
    config = load_config(TestConfig, options.opt, options.overrides)
    return figures.filling_figure(figures.record_filling(config, options.image, options.patch))


def trace(options: argparse.Namespace):
    traces = figures.read_traces(options.results, options.image)
    what = options.image or (next(iter(traces)) if len(traces) == 1 else f"{len(traces)} images, counts summed")
    return figures.trace_figure(figures.summarise(list(traces.values())), fit_text(what, TITLE_WIDTH))


def histogram(options: argparse.Namespace):
    shares = figures.hole_shares(options.masks, options.polarity)
    title = f"{len(shares)} masks in {options.masks.resolve().name}, {options.polarity.replace('_', ' = ')}"
    return figures.histogram_figure(shares, fit_text(title, TITLE_WIDTH))


def curves(options: argparse.Namespace):
    return figures.curves_figure([figures.read_curves(label, path) for label, path in map(split_label, options.trainings)])


def schedules(options: argparse.Namespace):
    return figures.schedules_figure(figures.read_schedules(options.schedules))


def tradeoff(options: argparse.Namespace):
    return figures.tradeoff_figure(figures.read_points(options.table, options.bucket), options.metrics)


def split_label(text: str) -> tuple[str, Path]:
    """The label and the folder of LABEL=FOLDER; without a label, the folder's name is the label."""
    label, equals, folder = text.partition("=")
    if not equals:
        return Path(text).name, Path(text)
    if not label or not folder:
        raise UserError(f"{text!r} is not of the form LABEL=FOLDER")
    return label, Path(folder)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="KIND")

    def add(draw, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(draw.__name__, help=help, description=help)
        command.set_defaults(draw=draw)
        command.add_argument("--out", required=True, metavar="NAME", help="writes NAME.png and NAME.pdf")
        command.add_argument("--overwrite", action="store_true", help="replace figures that exist")
        return command

    command = add(grid, "compare pictures: rows are images, columns are methods")
    command.add_argument("results", nargs="+", metavar="LABEL=FOLDER", help="result folders of scripts/test.py, or any folders of pictures")
    command.add_argument("--truth", type=Path, metavar="FOLDER", help="a last column with the true pictures")
    command.add_argument("--masked", type=Path, metavar="FOLDER", help="a first column with masked pictures (or a result folder's)")
    command.add_argument("--images", nargs="+", default=[], metavar="NAME", help="which images, by name without suffix")
    command.add_argument("--first", type=positive, default=6, metavar="N", help="without --images: the first N by name (6)")
    command.add_argument(
        "--disagree", choices=OF_IMAGES, metavar="METRIC", help="the N images in which this metric of the results differs most"
    )
    for draw, help in ((process, "the denoising process as a strip"), (discrepancy, "PSNR of known and hole region over t, and their gap")):
        command = add(draw, help)
        command.add_argument("-opt", "--opt", required=True, metavar="FILE", help="the methods as YAML, see configs/benchmark/figures.yml")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file")
    command = add(guide, "how far the structure that guides at test is from the true one, over t")
    command.add_argument("-opt", "--opt", required=True, metavar="FILE", help="a test configuration without resampling")
    command.add_argument("--first", type=positive, default=24, metavar="N", help="of the first N images (24)")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file")
    command = add(filling, "DGTS: the order of filling, and where a patch looks among the texture references")
    command.add_argument("-opt", "--opt", required=True, metavar="FILE", help="a test configuration of DGTS")
    command.add_argument("--image", metavar="NAME", help="which image, by name without suffix (the first)")
    command.add_argument("--patch", type=positive, metavar="N", help="the N-th patch that was filled (that in the middle)")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="replace values of the file")
    command = add(trace, "scores, decisions and evaluations of resampling over t")
    command.add_argument("results", type=Path, metavar="FOLDER", help="a result folder of scripts/test.py")
    command.add_argument("--image", metavar="NAME", help="for this image; without it, summed over all images")
    command = add(histogram, "hole shares of a folder of masks")
    command.add_argument("masks", type=Path, metavar="FOLDER", help="a folder of mask files")
    command.add_argument("--polarity", choices=get_args(Polarity), default="white_hole", help="what white means (white_hole)")
    command = add(curves, "losses and validation over the iterations of trainings")
    command.add_argument("trainings", nargs="+", metavar="LABEL=FOLDER", help="output folders of trainings, or their metrics.jsonl")
    command = add(schedules, "t over the moves of RePaint's schedules, with their counts; the published ones if none is given")
    command.add_argument("schedules", nargs="*", metavar="LABEL=OPTIONS", help="options of `repaint`, such as {stop_resampling: 100}")
    command = add(tradeoff, "quality over network evaluations and seconds, of the rows of a table")
    command.add_argument("table", type=Path, metavar="FOLDER", help="what scripts/reproduce.py wrote")
    command.add_argument("--bucket", help="of several buckets, which")
    quality = get_args(ComparedMetric) + get_args(HoleMetric)
    command.add_argument("--metrics", nargs="+", choices=quality, default=["hole_psnr", "hole_ssim"], help="hole_psnr and hole_ssim")
    return parser.parse_args()


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    paths = figures.figure_files(options.out)
    with output_files(paths, options.overwrite, "give another --out, or --overwrite") as files:
        figures.save_figure(options.draw(options), paths, files)
    print(f"wrote {' and '.join(map(str, paths))}")


if __name__ == "__main__":
    sys.exit(main())
