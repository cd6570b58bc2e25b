"""Cut the demo's images from the photographs of scikit-image: crops to train on, other photographs to test on.

For example:

    python scripts/prepare_demo.py demo/data
"""

import shutil
import sys
from pathlib import Path

import numpy as np

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.data.images import resize_short_side, write_image
from strdiffusion.system.cli import OneLineParser, exit_on_user_error
from strdiffusion.system.folders import output_folder

TRAIN = ("coffee", "rocket", "stereo_motorcycle", "retina", "immunohistochemistry", "hubble_deep_field", "camera", "brick", "grass")
HELD_OUT = ("chelsea", "astronaut")
TRAIN_SHORT_SIDES = (96, 144, 224)  # every photograph at three scales
TRAIN_CROP, TRAIN_CROPS_PER_SCALE = 96, 24
TEST_SHORT_SIDE, TEST_CROP, TEST_CROPS = 128, 64, 6


def photograph(name: str) -> np.ndarray:
    """A photograph of scikit-image as (H,W,3) in [0,1]; of a stereo pair the left one."""
    import skimage.data

    image = getattr(skimage.data, name)()
    image = image[0] if isinstance(image, tuple) else image
    image = image.astype(np.float32) / 255
    return np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3]


def random_crops(image: np.ndarray, size: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    corners = [(rng.integers(image.shape[0] - size + 1), rng.integers(image.shape[1] - size + 1)) for _ in range(count)]
    return [image[top : top + size, left : left + size] for top, left in corners]


def spread_crops(image: np.ndarray, size: int, count: int) -> list[np.ndarray]:
    """Crops in two rows that cover the photograph evenly."""
    tops = np.linspace(0, image.shape[0] - size, 2).round().astype(int)
    lefts = np.linspace(0, image.shape[1] - size, count // 2).round().astype(int)
    return [image[top : top + size, left : left + size] for top in tops for left in lefts]


def prepare(target: Path) -> None:
    """Write the crops to a folder of a temporary name, which becomes the target when it is complete."""
    folder = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    rng = np.random.default_rng(0)
    for name in TRAIN:
        for side in TRAIN_SHORT_SIDES:
            crops = random_crops(resize_short_side(photograph(name), side), TRAIN_CROP, TRAIN_CROPS_PER_SCALE, rng)
            for i, crop in enumerate(crops):
                # nine photographs have few colours: swap the channels, so that colour is learnt from the surroundings
                write_image(folder / "train" / f"{name}_{side}_{i:02d}.png", crop[..., rng.permutation(3)])
    for name in HELD_OUT:
        for i, crop in enumerate(spread_crops(resize_short_side(photograph(name), TEST_SHORT_SIDE), TEST_CROP, TEST_CROPS)):
            write_image(folder / "test" / f"{name}_{i}.png", crop)
    folder.rename(target)


@exit_on_user_error(go_on=True)
def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write train/ and test/")
    target = parser.parse_args().folder
    if (target / "train").is_dir() and (target / "test").is_dir():
        print(f"{target} is there already")
        return
    with output_folder(target.parent, True, "give another folder"):
        prepare(target)
    print(
        f"{len(list((target / 'train').iterdir()))} training crops of {len(TRAIN)} photographs, "
        f"{len(list((target / 'test').iterdir()))} held-out crops of {', '.join(HELD_OUT)}: {target}"
    )


if __name__ == "__main__":
    sys.exit(main())
