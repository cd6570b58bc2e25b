"""VGG-19 as a judge of images: the outputs of its ReLUs, by weights from a file that the user gives."""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = (2, 2, 4, 4, 4)  # convolutions in each block; blocks end in a max pool
WIDTHS = (64, 128, 256, 512, 512)
NAMES = tuple(f"{block}_{i}" for block, count in enumerate(BLOCKS, start=1) for i in range(1, count + 1))
CAFFE_MEAN = (0.40760392, 0.45795686, 0.48501961)  # of blue, green, red


def torchvision_names() -> dict[str, str]:
    """Our names of the convolutions, and torchvision's."""
    names, index = {}, 0
    for name in NAMES:
        names[name] = f"features.{index}"
        block, i = map(int, name.split("_"))
        index += 3 if i == BLOCKS[block - 1] else 2  # a ReLU after each convolution, and a pool after each block
    return names


class VGG19(nn.Module):
    """Features relu1_1 to relu5_4 of images (B,3,H,W) in [-1,1].

    caffe: it has the weights of BAT-Fill's file, which is named conv1_1 to conv5_4 and wants blue, green, red minus a mean, times 255.
        Otherwise torchvision's, which sees images as they are.
    """

    def __init__(self, caffe: bool = False):
        super().__init__()
        self.caffe, convs, c = caffe, {}, 3
        for name in NAMES:
            width = WIDTHS[int(name[0]) - 1]
            convs[name] = nn.Conv2d(c, width, 3, padding=1)
            c = width
        self.convs = nn.ModuleDict(convs)
        self.requires_grad_(False)

    def names_in_file(self) -> dict[str, str]:
        """Our entries, and those of the file of weights."""
        modules = {name: f"conv{name}" for name in NAMES} if self.caffe else torchvision_names()
        return {f"convs.{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in modules.items() for kind in ("weight", "bias")}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a file by the names there. Raises KeyError or RuntimeError if they are not of this network."""
        self.load_state_dict({ours: weights[theirs].float() for ours, theirs in self.names_in_file().items()})

    def forward(self, image: Tensor, wanted: Iterable[str] = NAMES) -> dict[str, Tensor]:
        """The features named `wanted`, such as "4_2": (B,C,H',W')."""
        h, features, wanted = image, {}, set(wanted)
        if self.caffe:
            mean = torch.tensor(CAFFE_MEAN, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
            h = ((image.flip(1) + 1) / 2 - mean) * 255
        for name, conv in self.convs.items():
            if name.endswith("_1") and name != "1_1":
                h = F.max_pool2d(h, 2)
            h = F.relu(conv(h))
            if name in wanted:
                features[name] = h
            if len(features) == len(wanted):
                break
        return features
