"""Which mask file belongs to which image."""

import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Literal

from strdiffusion.data.masks import stable_hash
from strdiffusion.system.errors import UserError, some

log = logging.getLogger(__name__)

Pairing = Literal["name", "order", "seeded"]


def pair_masks(
    images: list[Path],
    masks: list[Path],
    pairing: Pairing,
    seed: int = 0,
    image_folder: Path | None = None,
    mask_folder: Path | None = None,
) -> list[Path]:
    """The mask of each image, in the order of `images`.

    name: the mask with the image's relative path, or else its file name, without suffix or with "_mask" added.
    order: the i-th mask for the i-th image, in the order given.
    seeded: a mask drawn by a hash of `seed` and the image's relative path; it does not depend on the other images.
    Paths are relative to the two folders; without them, to the folder common to all (name) or file names (seeded).
    Raises UserError for missing and for ambiguous partners.
    """
    if pairing == "name":
        return _by_name(_keys(images, image_folder), _keys(masks, mask_folder))
    if pairing == "order":
        if len(masks) < len(images):
            raise UserError(
                f"{len(images)} images but only {len(masks)} masks in {masks[0].parent if masks else '?'};"
                " add masks, or set data.masks.pairing=seeded, which uses a mask several times"
            )
        if len(masks) > len(images):
            log.warning("%d masks for %d images: the last %d masks are not used", len(masks), len(images), len(masks) - len(images))
        return list(masks[: len(images)])
    if pairing == "seeded":
        if not masks:
            raise UserError("no masks to draw from; check the mask folder")
        names = [path.name if image_folder is None else _relative(path, image_folder) for path in images]
        return [masks[stable_hash(f"{seed}:{name}") % len(masks)] for name in names]
    raise ValueError(f"unknown pairing {pairing!r}")


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _keys(paths: list[Path], folder: Path | None) -> list[tuple[Path, str]]:
    """Each path with its relative path without suffix."""
    if folder is None and paths:
        folder = Path(os.path.commonpath([path.parent for path in paths]))
    return [(path, os.path.splitext(_relative(path, folder))[0]) for path in paths]


def _by_name(images: list[tuple[Path, str]], masks: list[tuple[Path, str]]) -> list[Path]:
    by_path, by_stem = defaultdict(list), defaultdict(list)
    for path, key in masks:
        by_path[key].append(path)
        by_stem[key.rpartition("/")[2]].append(path)
    chosen, missing, owner = [], [], {}
    for image, key in images:
        stem = key.rpartition("/")[2]
        found = by_path.get(key, []) + by_path.get(key + "_mask", []) or by_stem.get(stem, []) + by_stem.get(stem + "_mask", [])
        if not found:
            missing.append(image)
            continue
        if len(found) > 1:
            raise UserError(f"image {image} has several masks by name: {some(found)}; keep one of them")
        # x.png and x.jpg may share a mask, a/x.png and b/x.png may not: it would belong to one of them.
        if owner.setdefault(found[0], key) != key:
            raise UserError(
                f"mask {found[0]} fits several images by name, one of them {image}; give the masks the same subfolders as the images"
            )
        chosen.append(found[0])
    if missing:
        raise UserError(
            f"{len(missing)} of {len(images)} images have no mask of the same name (or with _mask added): "
            f"{some(missing)}; add them, or for a test set data.masks.pairing=order or seeded"
        )
    return chosen
