"""Inpaint held-out facades with the networks that ship with the repository: tables of several kinds of holes, and a picture.

For example:

    python scripts/demo.py
"""

import sys
from pathlib import Path

import numpy as np

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.config import load_config
from strdiffusion.data import collate
from strdiffusion.data.decoding import opencv
from strdiffusion.data.images import read_image, write_image
from strdiffusion.data.mask_families import numbered_mask
from strdiffusion.evaluation.folder import image_seed, look_at, test_dataset
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.pictures import as_8_bit
from strdiffusion.evaluation.reproduce import plan, reproduce
from strdiffusion.evaluation.table_options import TableConfig
from strdiffusion.methods import Step, method_class, run
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.device import choose_device

TABLES = ("configs/tables/demo.yml", "configs/tables/demo_families.yml")
MASKS = Path("demo/masks")
FAMILIES = ("wide", "narrow", "half", "expand", "every_second_line", "super_resolution")
METHOD = "StrDiffusion"  # the row that is shown
SIZE, COUNT = 64, 24
ENLARGED, LABEL_HEIGHT, GAP = 3, 26, 16
SPACE = 4  # pixels between the pictures of one image
COLUMNS = "masked input, structure (noisy: it stops at t = 0.4 T), its estimate, result, truth"
SECOND = 2 * (SIZE + SPACE)  # where the estimate of the structure is put in


def write_masks() -> None:
    """Draw the masks of the six families, for as many images as the tables take."""
    for family in FAMILIES:
        for i in range(COUNT):
            write_image(MASKS / family / f"{i:05d}.png", 1 - numbered_mask(family, 0, i, SIZE, SIZE))


def examples(path: str, first: int) -> list[tuple[str, np.ndarray]]:
    """The name of every bucket of a table, and the pictures of one image of it: of the images `first`, `first` + 1, ..."""
    table = load_config(TableConfig, path)
    row = next(row for row in table.rows if row.label == METHOD)
    found = []
    for i, bucket in enumerate(table.buckets):
        made = plan(table, row, bucket)
        picture = read_image(made.folder / "side_by_side" / f"{first + i:05d}.png")
        parts = (
            picture[:, :SECOND],
            structure_estimate(made.config, first + i),
            np.ones((SIZE, SPACE, 3), np.float32),
            picture[:, SECOND:],
        )
        found.append((bucket.name.replace("_", " "), np.concatenate(parts, axis=1)))
    return found


def structure_estimate(config: TestConfig, number: int) -> np.ndarray:
    """What the structure network makes of its last state (h, w, 3): the structure without the noise that this state still has."""
    import torch  # not above: a command chooses torch's threads before it is loaded

    method = method_class(config.method).open(config.options, choose_device(config.device))
    item = look_at(test_dataset(config), number, method)
    states: list[Step] = []
    with torch.inference_mode():
        run(method, collate([item]), [image_seed(config, item)], states.append)
        final = max(i for i in range(1, len(states)) if states[i].pictures["structure"] is not states[i - 1].pictures["structure"])
        estimate = method.predict(collate([item]), states[final], states[final + 1]).pictures["structure"]
    return np.repeat(as_8_bit(estimate[0].cpu()), 3, axis=2)


def montage(pictures: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """The pictures (h, w, 3) in [0,1], enlarged, in two columns with their names above them."""
    cv2 = opencv()
    tiles = []
    for name, picture in pictures:
        large = cv2.resize(picture, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
        label = np.full((LABEL_HEIGHT, large.shape[1], 3), 255, np.uint8)  # OpenCV writes on 8 bits alone
        said = f"{name} %" if name[0].isdigit() else name
        cv2.putText(label, f"{said}: {COLUMNS}", (2, LABEL_HEIGHT - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        labelled = np.concatenate([label.astype(np.float32) / 255, large])
        tiles.append(np.pad(labelled, ((0, GAP), (GAP, GAP), (0, 0)), constant_values=1))
    half = (len(tiles) + 1) // 2
    columns = [np.concatenate(tiles[:half]), np.concatenate(tiles[half:] + [np.ones_like(tiles[0])] * (2 * half - len(tiles)))]
    return np.concatenate(columns, axis=1)


@exit_on_user_error(go_on=True)
def main() -> None:
    OneLineParser(description=__doc__.splitlines()[0]).parse_args()
    write_masks()
    pictures: list[tuple[str, np.ndarray]] = []
    for path in TABLES:
        reproduce(load_config(TableConfig, path))
        pictures += examples(path, len(pictures))
    write_image("demo/picture.png", montage(pictures))
    print("notices of masks that look inverted are of the families expand and super_resolution, whose holes are that large: all is well")
    print("look at demo/picture.png")


if __name__ == "__main__":
    sys.exit(main())
