"""The networks: one U-Net design for structure and texture, the correlation discriminator, the segmenter that judges results; RePaint's
prior and its classifier.
"""

from typing import Literal

from torch import nn

from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.guided_unet import GuidedUNet
from strdiffusion.networks.noise_classifier import NoiseClassifier
from strdiffusion.networks.segmentation import Segmenter
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator", "judge", "prior", "classifier"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")  # of StrDiffusion
PRIOR_KINDS: tuple[Kind, ...] = ("prior", "classifier")  # of RePaint
CLASSES: dict[Kind, type[nn.Module]] = {
    "structure": UNet,
    "texture": UNet,
    "discriminator": CorrelationDiscriminator,
    "judge": Segmenter,
    "prior": GuidedUNet,
    "classifier": NoiseClassifier,
}


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    return CLASSES[kind](**architecture)


__all__ = [
    "CLASSES",
    "KINDS",
    "PRIOR_KINDS",
    "CorrelationDiscriminator",
    "GuidedUNet",
    "Kind",
    "NoiseClassifier",
    "Segmenter",
    "UNet",
    "build_network",
]
