"""Images, masks and structure maps for training and test.

listing       finding image files, with an index file for large folders
decoding      bytes of picture files to pixels
images        reading, writing, resizing and cropping images
labels        reading the class of every pixel
masks         reading, resizing and generating masks (inside the program: 1 = known, 0 = hole)
mask_families kinds of masks by name; mask_rules: how the masks of a test are drawn
mask_sources  where training masks are drawn from
pairing       which mask file belongs to which image
structure     gray and edge maps, the states of the structure process
datasets      training samples by running number, and the sampler to resume them
testset       test images with their masks
checking      what is wrong with a folder of images or masks
tensors       arrays to tensors
facades       procedural street facades; leaves: dead leaves; drawn_files: both as PNG files
"""

from strdiffusion.data.datasets import StepSampler, TrainingDataset
from strdiffusion.data.images import is_whole_png, read_image, write_image
from strdiffusion.data.labels import read_labels
from strdiffusion.data.listing import default_index, find_images, index_file
from strdiffusion.data.mask_sources import GeneratedMasks, MaskFolder, MaskSource
from strdiffusion.data.masks import irregular_mask, read_mask
from strdiffusion.data.pairing import pair_masks
from strdiffusion.data.structure import edge_map, gray_map, structure_maps
from strdiffusion.data.testset import TestDataset, TestItem, collate

__all__ = [
    "GeneratedMasks",
    "MaskFolder",
    "MaskSource",
    "StepSampler",
    "TestDataset",
    "TestItem",
    "TrainingDataset",
    "collate",
    "default_index",
    "edge_map",
    "find_images",
    "gray_map",
    "index_file",
    "irregular_mask",
    "is_whole_png",
    "pair_masks",
    "read_image",
    "read_labels",
    "read_mask",
    "structure_maps",
    "write_image",
]
