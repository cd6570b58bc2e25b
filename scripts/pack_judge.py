"""Make the folder of a judge from a checkpoint of its training, and say how often it is right on images that it has not seen.

python scripts/pack_judge.py runs/benchmark/judge/best.pt weights/judge --images facades:64/test --labels facades:64/test
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.checkpoints.tensors import StorageType
from strdiffusion.data.images import read_image
from strdiffusion.data.labels import LabelFolder
from strdiffusion.data.listing import find_images
from strdiffusion.evaluation.judge import Accuracy, Judge, measure_accuracy, pack_judge
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.markdown import markdown_table


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="a checkpoint of scripts/train_judge.py")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write; one that holds files is refused")
    parser.add_argument("--images", help="a folder of images that the judge has not seen")
    parser.add_argument("--labels", help="the folder of their labels")
    parser.add_argument("--dtype", choices=get_args(StorageType), default="float32", help="how numbers are stored (float32)")
    return parser.parse_args()


def accuracy_table(found: Accuracy) -> str:
    """The accuracy as a Markdown table with a line for each class."""
    lines = [["class", "share of pixels", "IoU"]]
    lines += [[name, f"{100 * found.shares[name]:.1f} %", f"{iou:.3f}"] for name, iou in found.iou.items()]
    mean = sum(found.iou.values()) / len(found.iou)
    return markdown_table([*lines, [f"all, {found.images} images: {100 * found.pixels:.2f} % of pixels right", "", f"{mean:.3f}"]], "right")


@exit_on_user_error(go_on=True)
def main() -> None:
    options = parse_arguments()
    if (options.images is None) != (options.labels is None):
        raise UserError("--images and --labels are needed together")
    pack_judge(options.checkpoint, options.folder, options.dtype)
    print(f"{options.folder}: {sum(path.stat().st_size for path in options.folder.iterdir()) / 2**20:.1f} MiB")
    if options.images is None:
        return
    images, labels = find_images(Path(options.images).expanduser()), LabelFolder(options.labels, options.images)
    loaded = ((image, labels.read(path, image.shape[:2])) for path in images for image in [read_image(path)])
    print(accuracy_table(measure_accuracy(Judge(options.folder), loaded)))


if __name__ == "__main__":
    sys.exit(main())
