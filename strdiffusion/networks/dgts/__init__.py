"""DGTS (ACM MM 2022): structure tokens attend to global texture references, and fill patch after patch (docs/dgts.md).

* structure.py: patches of the small image become tokens, filled from better-known patches
* references.py: the texture references: a backbone over the masked image, and an encoder
* decoder.py: structure-texture matching attention, and the vocabulary of patches that are there
* filling.py: the loop that fills the patches in an order
* network.py: all of it as one network
* gated.py, upsampler.py, critic.py: the network that enlarges the result, and the discriminator of its training
* losses.py, vgg.py: what both are trained with

Symbols and section numbers are those of docs/dgts.md. B: batch, G = grid^2 patches, R references, all masks 1 = known.
"""

from strdiffusion.networks.dgts.critic import AdversarialPair, Critic, build_upsampler
from strdiffusion.networks.dgts.network import DGTS
from strdiffusion.networks.dgts.upsampler import Upsampler

__all__ = ["DGTS", "AdversarialPair", "Critic", "Upsampler", "build_upsampler"]
