"""The data of a training, from its configuration."""

import logging
from pathlib import Path

from torch.utils.data import default_collate

from strdiffusion.batch import Batch
from strdiffusion.config import TrainConfig
from strdiffusion.config.common import MaskConfig
from strdiffusion.data import GeneratedMasks, MaskFolder, MaskSource, TestDataset, TrainingDataset, default_index, index_file
from strdiffusion.data.listing import find_images
from strdiffusion.data.structure import structure_maps
from strdiffusion.data.tensors import sample_tensors
from strdiffusion.data.unknown import UnknownParts
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)


def mask_source(masks: MaskConfig, indexed: bool) -> MaskSource:
    """Where training masks come from; an `indexed` folder is remembered in the cache folder."""
    if masks.folder is None:
        return GeneratedMasks(masks.hole_share, masks.family, masks.phase)
    return MaskFolder(masks.folder, masks.polarity, default_index(masks.folder) if indexed else None)


def training_dataset(config: TrainConfig) -> TrainingDataset:
    """The stream of training samples."""
    data, folder, files = config.data, Path(config.data.images).expanduser(), None
    if folder.is_file():
        folder, files = folder.parent, [folder]
    elif data.unknown is not None:
        files = find_images(folder, index_file(data.index, folder))
    return TrainingDataset(
        folder=folder,
        size=data.size,
        masks=mask_source(data.masks, data.index is not None),
        seed=config.seed,
        crop_from=data.crop_from,
        augment=data.augment,
        index=index_file(data.index, data.images),
        files=files,
        labels=data.labels,
        unknown=None if data.unknown is None else UnknownParts(data.unknown, files, folder),
        shrink=data.shrink,
        **vars(config.maps),
    )


def validation_batches(config: TrainConfig) -> list[Batch]:
    """The held-out images in batches of the training's size, each image with the same mask in every run."""
    validation = config.validation
    if validation.images is None:
        return []
    dataset = TestDataset(
        images=validation.images,
        masks=validation.masks.folder,
        pairing="seeded",
        polarity=validation.masks.polarity,
        seed=config.seed,
        size=config.data.size,
        fit="center_crop",
        hole_share=validation.masks.hole_share,
        family=validation.masks.family,
        phase=validation.masks.phase,
        index=index_file(validation.index, validation.images),
        labels=validation.labels,
        limit=validation.loss_images,
    )
    items = []
    for i in range(len(dataset)):
        try:
            item = dataset[i]
            image, known = item.image(), item.known()
            maps = structure_maps(image, known, *vars(config.maps).values())
            items.append(sample_tensors(image, known, *maps, item.labels))
        except UserError as error:
            log.warning("not validated: %s", error)
    if not items:
        raise UserError(f"no image in validation.images={validation.images} can be used: replace them, or set validation.images=null")
    size = max(config.training.batch_size, config.validation.samples)
    return [Batch(**default_collate(items[i : i + size])) for i in range(0, len(items), size)]
