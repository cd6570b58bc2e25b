"""The networks: one U-Net design for structure and texture, the correlation discriminator, and the segmenter that judges results."""

from typing import Literal

from torch import nn

from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.segmentation import Segmenter
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator", "judge"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")  # of the method
CLASSES: dict[Kind, type[nn.Module]] = {"structure": UNet, "texture": UNet, "discriminator": CorrelationDiscriminator, "judge": Segmenter}


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    return CLASSES[kind](**architecture)


__all__ = ["CLASSES", "KINDS", "CorrelationDiscriminator", "Kind", "Segmenter", "UNet", "build_network"]
