"""Test images with their masks, by number: names, paths and tensors, for evaluation and inpainting."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from strdiffusion.batch import Known
from strdiffusion.data.images import (
    center_crop,
    enlarge_to,
    enlarged_size,
    filled_from,
    read_image,
    resize_as_released,
    resize_image,
    resize_nearest,
    truncated,
)
from strdiffusion.data.labels import LabelFolder
from strdiffusion.data.listing import find_images
from strdiffusion.data.mask_families import Family, Phase
from strdiffusion.data.mask_rules import MaskRule
from strdiffusion.data.masks import (
    Polarity,
    check_hole_share,
    hole_share,
    other_polarity,
    read_mask,
    resize_mask,
    sampled_hole_shares,
    warn_if_inverted,
)
from strdiffusion.data.pairing import Pairing, pair_masks
from strdiffusion.data.tensors import as_tensor
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

Fit = Literal["resize", "center_crop", "none", "released"]
SIZED = ("resize", "center_crop", "released")  # those that need a size
TO_SIZE = ("resize", "released")  # the aspect ratio is not kept


@dataclass(frozen=True)
class TestItem:
    """One test image. Tensors are float32, values in [0, 1], as in `TrainingDataset`; H, W may differ by item."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    name: str  # relative path with "/", without suffix unless two images would share the name
    image_path: Path
    mask_path: Path | str  # a text beginning with "generated:" if there is no file
    texture: torch.Tensor  # (3, H, W), the truth; zero in the hole if there is none
    mask: torch.Tensor  # (1, H, W), 1 = known
    hole_share: float  # in (0, 1)
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)  # what a method made of the known pixels, (1, H, W)
    labels: np.ndarray | None = None  # (H, W) uint8, the class of every pixel, if the data have labels
    truncate: bool = False  # maps are made of the image's 8-bit levels by truncation, see `TestDataset`

    def image(self) -> np.ndarray:
        """The truth as an array (H, W, 3)."""
        return self.texture.permute(1, 2, 0).numpy()

    def for_maps(self, image: np.ndarray | None = None) -> np.ndarray:
        """What gray values and edges are made of, (H, W, 3): the truth, or another image in its place."""
        image = self.image() if image is None else image
        return truncated(image) if self.truncate else image

    def known(self) -> np.ndarray:
        """The mask as an array (H, W)."""
        return self.mask[0].numpy()


class TestDataset(Dataset):
    """The images of a folder in sorted order, each with its mask; item i is a `TestItem`.

    images, masks  folders; without a folder of masks they are generated, seeded by `seed` and the image's name
    pairing        which mask file goes with which image, see `pair_masks`
    polarity       what white means in mask files
    size, fit      "resize": to size x size. "center_crop": the shorter side enlarged to size if it is smaller,
                   then the middle size x size; a mask file of that size is used as it is. "none": as it is.
                   "released": to size x size as the release of StrDiffusion does (bilinear, and gray values and edges from levels
                   that are truncated, not rounded)
    family, phase  of generated masks, see `MaskRule`
    hole_share     range for generated masks of the families that have shares
    ground_truth   False: the hole's content is unknown; it is set to zero and influences nothing
    index          index file of the image folder, see `find_images`
    limit          take the first so many images only
    labels         folder of the images' labels, see `LabelFolder`
    Raises UserError for unusable folders, files, pairs and options.
    """

    __test__ = False

    def __init__(
        self,
        *,
        images: str | os.PathLike,
        masks: str | os.PathLike | None,
        pairing: Pairing,
        polarity: Polarity,
        seed: int,
        size: int | None,
        fit: Fit,
        hole_share: tuple[float, float],
        family: Family = "irregular",
        phase: Phase = 0,
        ground_truth: bool = True,
        index: str | os.PathLike | None = None,
        limit: int | None = None,
        labels: str | os.PathLike | None = None,
    ):
        if fit not in get_args(Fit):
            raise ValueError(f"unknown fit {fit!r}")
        if fit != "none" and size is None:
            raise UserError(f"data.fit={fit} needs data.size in pixels; give one, or set data.fit=none")
        if limit is not None and limit < 1:
            raise UserError(f"limit {limit} leaves no image; give at least 1")
        images, masks = Path(images).expanduser(), None if masks is None else Path(masks).expanduser()
        self.size, self.fit, self.polarity, self.seed = size, fit, polarity, seed
        self.family, self.hole_share, self.phase = family, hole_share, phase
        self.ground_truth = ground_truth
        self.labels = None if labels is None else LabelFolder(labels, images)
        files = find_images(images, index)
        self.names = item_names(files, images)[:limit]
        self.files = files[:limit]
        self.mask_files: list[Path] | None = None
        self._told_resized = False
        if masks is None:
            check_hole_share(hole_share)
        else:
            mask_files = find_images(masks)
            if pairing == "order":
                mask_files = mask_files[:limit]
            self.mask_files = pair_masks(self.files, mask_files, pairing, seed, images, masks)
            warn_if_inverted(sampled_hole_shares(self.mask_files, polarity), polarity)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> TestItem:
        path, mask_path, name = self.files[i], self.mask_path(i), self.names[i]
        image = read_image(path)
        labels = None if self.labels is None else fit_labels(self.labels.read(path, image.shape[:2]), self.size, self.fit)
        if self.mask_files is None:
            image = fit_image(image, self.size, self.fit)
            known = self.mask_rule(i).draw(*image.shape[:2])
        else:
            native = image.shape[:2]
            known = self._read_mask(mask_path, path, native)
            if not self.ground_truth:
                image = hide_hole(image, known, self.size, self.fit)
            image = fit_image(image, self.size, self.fit)
            known = fit_mask(known, native, self.size, self.fit)
        share = hole_share(known)
        if not 0 < share < 1:
            raise UserError(self._useless_mask(mask_path, path, share))
        if not self.ground_truth:
            image = image * known[..., None]
        return TestItem(name, path, mask_path, as_tensor(image), as_tensor(known), share, labels=labels, truncate=self.fit == "released")

    def other_image(self, i: int, like: TestItem) -> np.ndarray:
        """Item `like` of number i with the next image in its hole, (H, W, 3): what may stand behind a hole to mislead."""
        image, known = like.image(), like.known()
        other = fit_image(read_image(self.files[(i + 1) % len(self)]), self.size, self.fit)
        return np.where(known[..., None] > 0.5, image, resize_image(other, *known.shape))

    def mask_path(self, i: int) -> Path | str:
        """The mask file of item i, or how its mask is generated."""
        if self.mask_files is None:
            return str(self.mask_rule(i))
        return self.mask_files[i]

    def mask_rule(self, i: int) -> MaskRule:
        """How the mask of item i is generated, if there are no files."""
        return MaskRule(self.seed, self.names[i], i, self.family, self.hole_share, self.phase)

    def _read_mask(self, path: Path, image_path: Path, native: tuple[int, int]) -> np.ndarray:
        """The mask at `path`, with a notice if it does not fit its image of (height, width) `native`."""
        known = read_mask(path, self.polarity)
        fits = known.shape == native or self.fit != "none" and known.shape == (self.size, self.size)
        if not fits and not self._told_resized:
            self._told_resized = True
            log.warning(
                "mask %s has %dx%d pixels but image %s has %dx%d (height x width): masks of another size are resized to their image",
                path,
                *known.shape,
                image_path,
                *native,
            )
        return known

    def _useless_mask(self, mask_path: Path | str, path: Path, share: float) -> str:
        where = f"mask {mask_path} of image {path} (fit {self.fit})"
        if share == 0:
            return f"{where} has no hole, so there is nothing to inpaint; replace the mask or remove the image"
        return (
            f"{where} has no known pixel; replace the mask, or if the masks are inverted set "
            f"data.masks.polarity={other_polarity(self.polarity)}"
        )


def collate(items: Sequence[TestItem]) -> Known:
    """Items of one size as a method is given them: nothing of the holes is left."""
    maps = {name: torch.stack([item.maps[name] for item in items]) for name in items[0].maps}
    return Known(torch.stack([item.texture for item in items]), torch.stack([item.mask for item in items]), maps)


def item_names(files: list[Path], folder: Path) -> list[str]:
    """A distinct name for each of `files`: the path below `folder` without suffix, with it where two would agree."""
    full = [path.relative_to(folder).as_posix() for path in files]
    short = [os.path.splitext(name)[0] for name in full]
    times = Counter(short)
    names = [name if times[name] == 1 else whole for name, whole in zip(short, full)]
    return names if len(set(names)) == len(names) else full


def fit_image(image: np.ndarray, size: int | None, fit: Fit) -> np.ndarray:
    """`image` (H, W, 3) brought to (size, size, 3) in the way `fit`, see `TestDataset`."""
    if fit == "resize":
        return resize_image(image, size, size)
    if fit == "released":
        return resize_as_released(image, size, size)
    if fit == "center_crop":
        return center_crop(enlarge_to(image, size), size, size)
    return image


def fit_labels(labels: np.ndarray, size: int | None, fit: Fit) -> np.ndarray:
    """The labels (h, w) of an image brought to the pixels of the fitted image, by nearest neighbour."""
    if fit in TO_SIZE:
        return resize_nearest(labels, size, size)
    if fit == "center_crop":
        return center_crop(resize_nearest(labels, *enlarged_size(*labels.shape, size)), size, size)
    return labels


def fit_mask(known: np.ndarray, native: tuple[int, int], size: int | None, fit: Fit) -> np.ndarray:
    """The mask known (h, w) brought to the pixels of its fitted image, which was `native` (height, width) before."""
    if fit == "none":
        return resize_mask(known, *native)
    if fit in TO_SIZE or known.shape == (size, size):
        return resize_mask(known, size, size)
    return center_crop(resize_mask(known, *enlarged_size(*native, size)), size, size)


def hide_hole(image: np.ndarray, known: np.ndarray, size: int | None, fit: Fit) -> np.ndarray:
    """`image` (H, W, 3) with the hole filled from the nearest known pixels if `fit` is going to resize it.

    Interpolation would spread the hole's content into known pixels otherwise. The mask known (h, w) may have
    another size; every pixel that it covers in part counts as hole.
    """
    native = image.shape[:2]
    target = (size, size) if fit in TO_SIZE else native if fit == "none" else enlarged_size(*native, size)
    cropped_mask = fit == "center_crop" and known.shape == (size, size)  # says nothing about the uncropped image
    if target == native or cropped_mask:
        return image
    seen = resize_image(known, *native) > 0.999
    return filled_from(image, seen) if seen.any() else np.zeros_like(image)
