"""The networks: one U-Net design for structure and texture, the correlation discriminator, and those of DGTS in dgts/."""

from typing import Literal

from torch import nn

from strdiffusion.networks.dgts import DGTS, build_upsampler
from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator", "dgts", "upsampler"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")  # of StrDiffusion


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    if kind == "dgts":
        return DGTS(**architecture)
    if kind == "upsampler":
        return build_upsampler(**architecture)
    return CorrelationDiscriminator(**architecture) if kind == "discriminator" else UNet(**architecture)


__all__ = ["KINDS", "CorrelationDiscriminator", "Kind", "UNet", "build_network"]
