"""The networks: one U-Net design for structure and texture, the correlation discriminator, the segmenter that judges results; RePaint's
prior and its classifier; those of DGTS in dgts/.
"""

from collections.abc import Callable
from typing import Literal

from torch import nn

from strdiffusion.networks.dgts import DGTS, build_upsampler
from strdiffusion.networks.discriminator import CorrelationDiscriminator
from strdiffusion.networks.guided_unet import GuidedUNet
from strdiffusion.networks.noise_classifier import NoiseClassifier
from strdiffusion.networks.segmentation import Segmenter
from strdiffusion.networks.unet import UNet

Kind = Literal["structure", "texture", "discriminator", "judge", "prior", "classifier", "dgts", "upsampler"]
KINDS: tuple[Kind, ...] = ("structure", "texture", "discriminator")  # of StrDiffusion
PRIOR_KINDS: tuple[Kind, ...] = ("prior", "classifier")  # of RePaint
DGTS_KINDS: tuple[Kind, ...] = ("dgts", "upsampler")
CLASSES: dict[Kind, Callable[..., nn.Module]] = {
    "structure": UNet,
    "texture": UNet,
    "discriminator": CorrelationDiscriminator,
    "judge": Segmenter,
    "prior": GuidedUNet,
    "classifier": NoiseClassifier,
    "dgts": DGTS,
    "upsampler": build_upsampler,  # alone, or in a pair with its discriminator
}


def build_network(kind: Kind, architecture: dict) -> nn.Module:
    """Build a network from the arguments that `architecture()` of one returns."""
    return CLASSES[kind](**architecture)


__all__ = [
    "CLASSES",
    "DGTS_KINDS",
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
