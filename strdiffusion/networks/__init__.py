"""The networks: one U-Net design for structure and texture, and the correlation discriminator."""

from typing import Literal

from torch import nn

from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    return CorrelationDiscriminator(**architecture) if kind == "discriminator" else UNet(**architecture)


__all__ = ["KINDS", "CorrelationDiscriminator", "Kind", "UNet", "build_network"]
