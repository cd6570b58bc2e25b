"""Training samples as a stream: every sample is a pure function of a seed and its running number.

The test set lives in `testset`; its names are here too.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from strdiffusion.data.images import enlarge_to, filled_from, read_image, resize_image, resize_nearest, resize_short_side
from strdiffusion.data.labels import LabelFolder
from strdiffusion.data.listing import find_images
from strdiffusion.data.mask_sources import MaskSource
from strdiffusion.data.structure import EdgeSource, StructurePair, structure_maps
from strdiffusion.data.tensors import sample_tensors
from strdiffusion.data.unknown import UnknownParts, shrunk_mask
from strdiffusion.system.errors import UserError

# Keep the order of epoch n, and replacements, apart from the crop, flips and mask of sample n.
ORDER_STREAM = 1
REPLACEMENT_STREAM = 2
SMALLEST_SIDE = 8  # pixels; less than that shows nothing
KEPT = 16  # as many images at most stay in memory, those of a training on a few photographs
MOSTLY, TRIES = 0.9, 20  # a crop is taken if this share of it is known, or else the best of so many


class TrainingDataset(Dataset):
    """Random crops of the images of a folder, with a drawn mask and the structure maps.

    `dataset[n]` takes any running number n = 0, 1, 2, ... and depends only on (seed, n) and the files: not on
    the number of workers, nor on the samples before it. Every len(dataset) numbers visit each image once.
    It is a dict of float32 tensors, values in [0, 1]:
    texture (3, size, size); structure (1, size, size), the full image's clean structure x0;
    structure_mean (1, size, size), mu_x; mask (1, size, size), 1 = known.
    With a folder of labels also labels (size, size) int64, the class of every pixel. With `unknown` also counted (1, size, size),
    1 = the truth is known: there are holes in the images themselves, of which nothing is used.

    size         side of the crop in pixels; smaller images are enlarged first
    crop_from    if given, the shorter side is first brought to this many pixels (512 for Places2)
    augment      random flips and 90-degree turns
    index        index file of the folder, see `find_images`
    files        take these image files instead of listing the folder
    labels       folder of the images' labels, see `LabelFolder`
    unknown      the masks of what is unknown in the images, see `UnknownParts`
    shrink       a crop covers `size` times a factor from this range, drawn for each sample, as far as the image is large enough
    Raises UserError for an unusable folder or file.
    """

    def __init__(
        self,
        *,
        folder: str | os.PathLike,
        size: int,
        masks: MaskSource,
        pair: StructurePair,
        edge_source: EdgeSource,
        edge_sigma: float,
        seed: int,
        crop_from: int | None = None,
        augment: bool = True,
        index: str | os.PathLike | None = None,
        files: Sequence[Path] | None = None,
        labels: str | os.PathLike | None = None,
        unknown: UnknownParts | None = None,
        shrink: tuple[float, float] = (1.0, 1.0),
    ):
        if crop_from is not None and crop_from < size:
            raise UserError(f"crop_from {crop_from} is smaller than the crop's size {size}; give at least {size}")
        if seed < 0:
            raise UserError(f"seed {seed} is negative; give 0 or more")
        paths = find_images(Path(folder).expanduser(), index) if files is None else files
        if len(paths) == 0:
            raise UserError(f"no training image in the list of files for {folder}")
        # One array of bytes: a list of millions of paths would be copied into every worker page by page.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.size, self.crop_from, self.augment, self.seed = size, crop_from, augment, seed
        self.masks, self.pair, self.edge_source, self.edge_sigma = masks, pair, edge_source, edge_sigma
        self.labels = None if labels is None else LabelFolder(labels, folder)
        self.unknown, self.shrink = unknown, shrink
        self._kept: dict[Path, np.ndarray] = {}
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """The number of images; sample numbers continue beyond it."""
        return len(self._paths)

    def path(self, n: int, attempt: int = 0) -> Path:
        """The image file of sample n; attempt 1, 2, ... are those to take if the ones before cannot be used."""
        if n < 0:
            raise IndexError(f"sample number {n} is negative")
        if attempt:
            drawn = np.random.default_rng([self.seed, n, REPLACEMENT_STREAM, attempt]).integers(len(self))
            return Path(os.fsdecode(self._paths[drawn]))
        epoch, position = divmod(n, len(self))
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch, ORDER_STREAM])
            self._order = epoch, rng.permutation(len(self))
        return Path(os.fsdecode(self._paths[self._order[1][position]]))

    def __getitem__(self, n: int) -> dict[str, torch.Tensor]:
        return self.load(n)

    def load(self, n: int, attempt: int = 0) -> dict[str, torch.Tensor]:
        """Sample n, or its replacement at attempt 1, 2, ... Raises UserError for a file that cannot be used."""
        image = self._read(self.path(n, attempt))
        rng = np.random.default_rng([self.seed, n] if attempt == 0 else [self.seed, n, attempt])
        crop = self._crop(rng, image)
        if self.augment:
            crop = random_turn(rng, crop)
        image, more = np.ascontiguousarray(crop[..., :3]), crop[..., 3] if crop.shape[2] > 3 else None
        labels, counted = (None, more) if self.labels is None else (more, None)
        known = self.masks.draw(rng, self.size, self.size)
        if counted is not None:
            known = known * counted
        x0, mean = structure_maps(image, known, self.pair, self.edge_source, self.edge_sigma)
        return sample_tensors(image, known, x0, mean, labels, counted)

    def _read(self, path: Path) -> np.ndarray:
        """An image (H, W, 3), at least as large as a crop; labels or what is known of it are a fourth channel, to be cropped with it."""
        if path in self._kept:
            return self._kept[path]
        image = read_image(path)
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise UserError(f"image {path} has only {image.shape[1]}x{image.shape[0]} pixels; remove it")
        labels = None if self.labels is None else self.labels.read(path, image.shape[:2])
        counted = None if self.unknown is None else self.unknown.read(path, image.shape[:2])
        if counted is not None:
            image = filled_from(image, counted)  # before anything is resized: what is unknown has no influence
        image = enlarge_to(image, self.size) if self.crop_from is None else resize_short_side(image, self.crop_from)
        if labels is not None:
            image = np.dstack([image, resize_nearest(labels, *image.shape[:2]).astype(np.float32)])
        elif counted is not None:
            image = np.dstack([image, shrunk_mask(counted, *image.shape[:2])])
        if len(self) <= KEPT:
            self._kept[path] = image
        return image

    def _crop(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """A random part of an image (H, W, C) at (size, size). Where much of the image is unknown, the best of several."""
        side = self.size
        if self.shrink[1] > 1:
            low, high = (min(n * self.size, *image.shape[:2]) for n in self.shrink)
            side = round(math.exp(rng.uniform(math.log(low), math.log(high))))
        crop = random_crop(rng, image, side)
        if self.unknown is not None:
            for _ in range(TRIES):
                if crop[..., 3].mean() >= MOSTLY:
                    break
                crop = max(crop, random_crop(rng, image, side), key=lambda part: part[..., 3].mean())
        if side == self.size:
            return crop
        colours = resize_image(crop[..., :3], self.size, self.size)
        return np.dstack([colours, shrunk_mask(crop[..., 3], self.size, self.size)]) if crop.shape[2] > 3 else colours


def random_crop(rng: np.random.Generator, image: np.ndarray, size: int) -> np.ndarray:
    """A random (size, size) part of `image` (H, W, C), all positions equally likely."""
    top = rng.integers(0, image.shape[0] - size + 1)
    left = rng.integers(0, image.shape[1] - size + 1)
    return image[top : top + size, left : left + size]


def random_turn(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """`image` (H, W, C) turned by 0 to 3 quarter turns, then mirrored or not: all 8 equally likely."""
    turns, mirror = rng.integers(0, 4), rng.integers(0, 2)
    image = np.rot90(image, turns)
    return image[:, ::-1] if mirror else image


class StepSampler(Sampler[int]):
    """Sample numbers without end, for training step `step` on: step * batch_size plus each of `positions` (0 to batch_size - 1)."""

    def __init__(self, step: int, batch_size: int, positions: Sequence[int] | None = None):
        self.step, self.batch_size = step, batch_size
        self.positions = range(batch_size) if positions is None else positions

    def __iter__(self) -> Iterator[int]:
        for step in itertools.count(self.step):
            yield from (step * self.batch_size + position for position in self.positions)
