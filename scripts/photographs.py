"""Fill holes of photographs by adapted networks and by methods without training, and compare them: a table, and a page of pictures.

    python scripts/photographs.py results/photographs                              the photographs that come with scikit-image
    python scripts/photographs.py results/mine --photographs FOLDER --size 512     photographs of yours
    python scripts/photographs.py results/quick --for 50 --limit 2

Each photograph gets strokes, four squares and one large hole, which are filled together and judged apart: PSNR, SSIM and sharpness in the
hole. Nothing is downloaded. If it is interrupted, the same command goes on with the pictures that are still missing.
"""

import argparse
import csv
import io
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.app import StrDiffusion, adapt
from strdiffusion.app.adapting import AdaptOptions
from strdiffusion.commands.adapt import AMOUNT, amount
from strdiffusion.data.images import opencv, read_image, resize_image, write_image
from strdiffusion.data.listing import find_images
from strdiffusion.data.mask_families import numbered_mask
from strdiffusion.data.masks import stable_hash
from strdiffusion.evaluation.metrics import psnr, sharpness, ssim
from strdiffusion.evaluation.statistics import summarise
from strdiffusion.figures.grid import grid_figure, open_column
from strdiffusion.figures.style import save_figure
from strdiffusion.system.cli import PHOTOGRAPHS_MODEL, OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, write_text
from strdiffusion.system.folders import Mark, key_of, output_folder

SHIPPED = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
CLASSICAL = ("telea", "navier_stokes", "biharmonic", *["shift_map"] * hasattr(opencv(), "xphoto"))
KINDS = ("strokes", "squares", "large")  # 1, 2, 3 in the map of holes
SQUARES, SQUARE, LARGE = 4, 0.12, 0.3  # how many; sides, as shares of the photograph's shorter side
METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {"PSNR": psnr, "SSIM": ssim, "sharpness": sharpness}
DIGITS = {"PSNR": 2, "SSIM": 4, "sharpness": 3}
STEPS = (10, 2)
NAMES = {"telea": "Telea", "navier_stokes": "Navier-Stokes", "biharmonic": "biharmonic", "shift_map": "shift map (patches)"}


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="take these instead of those of scikit-image")
    parser.add_argument("--size", type=int, default=384, help="the longer side that photographs are shrunk to, in pixels (384)")
    parser.add_argument("--model", type=Path, default=Path(PHOTOGRAPHS_MODEL), help=f"what is adapted ({PHOTOGRAPHS_MODEL})")
    parser.add_argument("--for", dest="amount", metavar="AMOUNT", help=AMOUNT)
    parser.add_argument("--seed", type=int, default=0, help="of holes, learning and filling (0)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photographs")
    return parser.parse_args()


def shipped() -> list[Path]:
    """The photographs that scikit-image installs."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    found = [folder / name for name in SHIPPED if (folder / name).exists()]
    if not found:
        raise UserError("this scikit-image comes without photographs: give a folder of yours as --photographs FOLDER")
    return found


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """An image (H, W, 3), shrunk so that its longer side is at most `longest` pixels."""
    factor = max(*image.shape[:2], longest) / longest
    return resize_image(image, round(image.shape[0] / factor), round(image.shape[1] / factor))


def draw_holes(height: int, width: int, name: str, seed: int) -> np.ndarray:
    """The map of holes, uint8 (H, W): 0 known, else 1 + the place in KINDS. Holes of different kinds keep apart."""
    rng, short = np.random.default_rng(stable_hash(f"{seed}:{name}")), min(height, width)
    holes, gap = np.zeros((height, width), np.uint8), short // 20
    for kind, side in ((3, LARGE), *[(2, SQUARE)] * SQUARES):
        side = round(side * short)
        for _ in range(1000):
            top, left = rng.integers(gap, height - side - gap), rng.integers(gap, width - side - gap)
            if not holes[max(top - gap, 0) : top + side + gap, max(left - gap, 0) : left + side + gap].any():
                holes[top : top + side, left : left + side] = kind
                break
    strokes = numbered_mask("narrow", seed, stable_hash(name) % 1000, height, width) < 0.5
    near = np.zeros_like(strokes)
    for y, x in ((y, x) for y in (-gap, 0, gap) for x in (-gap, 0, gap)):
        near |= np.roll(holes > 0, (y, x), (0, 1))
    holes[strokes & ~near] = 1
    return holes


def fill_all(photograph: Path, folder: Path, options: argparse.Namespace, how: AdaptOptions) -> None:
    """Write what every method makes of a photograph, as METHOD/NAME.png, as far as it is missing."""
    name = f"{photograph.stem}.png"
    image = shrunk(read_image(photograph), options.size)
    holes = draw_holes(*image.shape[:2], photograph.stem, options.seed)
    write_image(folder / "truth" / name, image)
    write_image(folder / "holes" / name, holes / np.float32(255))
    write_image(folder / "masked" / name, np.where(holes[..., None] > 0, np.float32(1), image))
    models: dict[str, StrDiffusion] = {}

    def model(adapted: bool) -> StrDiffusion:
        if "base" not in models:
            models["base"] = StrDiffusion.load(options.model)
        if adapted and "adapted" not in models and (folder / "models" / photograph.stem / "model.yml").exists():
            models["adapted"] = StrDiffusion.load(folder / "models" / photograph.stem)
        if adapted and "adapted" not in models:
            began, cpu = time.time(), time.process_time()
            models["adapted"] = adapt(models["base"], [(folder / "masked" / name, holes > 0)], how)
            models["adapted"].save(folder / "models" / photograph.stem)
            took = {"photograph": name, "seconds": f"{time.time() - began:.0f}", "cpu_seconds": f"{time.process_time() - cpu:.0f}"}
            write_text(folder / "time" / f"{photograph.stem}.csv", "".join(f"{key},{value}\n" for key, value in took.items()))
        return models["adapted" if adapted else "base"]

    for method in CLASSICAL:
        if not (folder / NAMES[method] / name).exists():
            write_image(folder / NAMES[method] / name, filled(StrDiffusion.load(method), folder / "masked" / name, holes, options.seed))
    for adapted in (False, True):
        for steps in STEPS:
            row = row_of(adapted, steps)
            if not (folder / row / name).exists():
                write_image(folder / row / name, filled(model(adapted), folder / "masked" / name, holes, options.seed, steps=steps))


def row_of(adapted: bool, steps: int) -> str:
    return f"{'adapted' if adapted else 'as shipped'}, {steps} steps"


def filled(model: StrDiffusion, masked: Path, holes: np.ndarray, seed: int, **sampling) -> np.ndarray:
    """The filled photograph, float32 (H, W, 3)."""
    levels = np.asarray(model(masked, holes > 0, seed=seed, **sampling).images[0])
    return levels / np.float32(255)


def judge(names: list[str], rows: list[str], folder: Path) -> list[dict]:
    """A record of every photograph, kind of hole and row: its metrics."""
    records = []
    for name in names:
        truth, holes = read_image(folder / "truth" / name), np.rint(255 * read_image(folder / "holes" / name)[..., 0])
        for row in rows:
            image = read_image(folder / row / name)
            for number, kind in enumerate(KINDS, 1):
                values = {metric: of(image, truth, holes == number) for metric, of in METRICS.items()}
                records.append({"photograph": name, "holes": kind, "method": row} | values)
    return records


def table(records: list[dict], rows: list[str]) -> str:
    """Means over the photographs with 95 % intervals, as Markdown; and the difference of each row to the best classical method."""
    lines = []
    for kind in KINDS:
        of = {row: [r for r in records if r["holes"] == kind and r["method"] == row] for row in rows}
        best = max((NAMES[method] for method in CLASSICAL), key=lambda row: np.nanmean([r["PSNR"] for r in of[row]]))
        lines += [f"### {kind}", "", f"| method | {' | '.join(METRICS)} | PSNR minus {best} |", "|---" * (len(METRICS) + 2) + "|"]
        for row in rows:
            cells = [told(summarise(r[metric] for r in of[row]), DIGITS[metric]) for metric in METRICS]
            paired = zip(of[row], of[best], strict=True)
            difference = "-" if row == best else told(summarise(mine["PSNR"] - other["PSNR"] for mine, other in paired), 2, "+")
            lines.append(f"| {row} | {' | '.join(cells)} | {difference} |")
        lines.append("")
    return "\n".join(lines)


def time_told(names: list[str], folder: Path) -> str:
    """How long the learning took, in a sentence; empty if nothing was measured."""
    files = [file for file in (folder / "time" / f"{Path(name).stem}.csv" for name in names) if file.exists()]
    times = [dict(line.split(",") for line in file.read_text().splitlines()) for file in files]
    if not times:
        return ""
    seconds, cpu = (sum(float(each[key]) for each in times) / len(times) for key in ("seconds", "cpu_seconds"))
    return f"Learning took {seconds:.0f} seconds a photograph, {cpu:.0f} CPU seconds.\n"


def told(summary, digits: int, sign: str = "") -> str:
    """A mean with its interval."""
    if summary is None:
        return "-"
    mean, low, high = (f"{value:{sign}.{digits}f}" for value in (summary.mean, summary.low, summary.high))
    return mean if math.isnan(summary.low) else f"{mean} [{low}, {high}]"


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    how = amount(options.amount, options.seed, "--for")
    photographs = (shipped() if options.photographs is None else find_images(options.photographs))[: options.limit]
    if len({photograph.stem for photograph in photographs}) < len(photographs):
        raise UserError(f"two photographs in {options.photographs} have one name: rename one")
    work = {name: value for name, value in vars(options).items() if name not in ("output", "limit")}
    rows = [*(NAMES[method] for method in CLASSICAL), *(row_of(adapted, steps) for adapted in (False, True) for steps in STEPS)]
    key = key_of("photographs", work)
    with output_folder(options.output, lambda folder: Mark(folder, key).is_mine(), "choose another folder") as folder:
        mark = Mark(folder, key)
        if not mark.is_mine():
            mark.begin()
        for photograph in photographs:
            print(photograph.name, file=sys.stderr)
            fill_all(photograph, folder, options, how)
        names = [f"{photograph.stem}.png" for photograph in photographs]
        records = judge(names, rows, folder)
        file = io.StringIO(newline="")
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
        write_text(folder / "table.csv", file.getvalue())
        text = table(records, rows) + time_told(names, folder)
        write_text(folder / "table.md", text)
        shown = ["masked", "Telea", "biharmonic", row_of(False, 10), row_of(True, 10), row_of(True, 2), "truth"]
        stems = [photograph.stem for photograph in photographs][:60]
        with Together() as files:
            save_figure(grid_figure([open_column(label, folder / label) for label in shown], stems), [folder / "pictures.png"], files)
        mark.end()
    print(text)


if __name__ == "__main__":
    sys.exit(main())
