"""The networks: one U-Net design for structure and texture, the correlation discriminator; RePaint's prior and its classifier."""

from typing import Literal

from torch import nn

from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.guided_unet import GuidedUNet
from strdiffusion.networks.noise_classifier import NoiseClassifier
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator", "prior", "classifier"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")  # of StrDiffusion
PRIOR_KINDS: tuple[Kind, ...] = ("prior", "classifier")  # of RePaint
CLASSES = {
    "structure": UNet,
    "texture": UNet,
    "discriminator": CorrelationDiscriminator,
    "prior": GuidedUNet,
    "classifier": NoiseClassifier,
}


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    return CLASSES[kind](**architecture)


__all__ = ["KINDS", "PRIOR_KINDS", "CorrelationDiscriminator", "GuidedUNet", "Kind", "NoiseClassifier", "UNet", "build_network"]
