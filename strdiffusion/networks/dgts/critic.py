"""The discriminator of the enlarging network's training (docs/dgts.md, sec. 11), and both networks as the training loop sees them."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from strdiffusion.networks.dgts.gated import SLOPE, SelfAttention, SpectralConv2d
from strdiffusion.networks.dgts.upsampler import Upsampler, initialise

SMALLEST_SIDE = 48  # pixels: the second scale normalises over fewer than two positions below


class PatchCritic(nn.Module):
    """One scale: scores (B,1,H/4 - 2,W/4 - 2) of patches of images (B,3,H,W)."""

    def __init__(self, width: int):
        super().__init__()
        n, lrelu = width, nn.LeakyReLU(SLOPE)

        def stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(SpectralConv2d(c_in, c_out, 4, stride=stride, padding=1, bias=False), nn.InstanceNorm2d(c_out), lrelu)

        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, n, 4, stride=2, padding=1), lrelu),
                stage(n, 2 * n, 2),
                stage(2 * n, 4 * n, 2),
                stage(4 * n, 8 * n, 1),
                nn.Conv2d(8 * n, 1, 4, padding=1),
            ]
        )
        self.attention = SelfAttention(4 * n)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The outputs of the five stages; the last are the scores. Attention follows the third."""
        outputs, h = [], image
        for i, stage in enumerate(self.stages):
            outputs.append(stage(h))
            h = self.attention(outputs[-1]) if i == 2 else outputs[-1]
        return outputs


class Critic(nn.Module):
    """Two equal discriminators, the second on the image after an average pool."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.width = width
        self.scales = nn.ModuleList([PatchCritic(width), PatchCritic(width)])
        initialise(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The scores of images (B,3,H,W) in [-1,1] at both scales, (B,1,.,.)."""
        return [scale(view)[-1] for scale, view in zip(self.scales, self.views(image), strict=True)]

    @staticmethod
    def views(image: Tensor) -> list[Tensor]:
        """What the scales see."""
        return [image, F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)]


class Scored(NamedTuple):
    """What the pair gives for a batch. fake: (B,3,H,W). for_upsampler: the critic's scores of it, through which only the upsampler is
    trained. of_fake, of_real: the scores by which only the critic is trained.
    """

    fake: Tensor
    for_upsampler: list[Tensor]
    of_fake: list[Tensor]
    of_real: list[Tensor]


class AdversarialPair(nn.Module):
    """Upsampler and critic, for the training loop, which knows one network."""

    def __init__(self, upsampler: Upsampler, critic: Critic):
        super().__init__()
        self.upsampler, self.critic = upsampler, critic

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        return self.upsampler.architecture() | {"critic_width": self.critic.width}

    def forward(self, y: Tensor, image: Tensor, mask: Tensor) -> Scored:
        """y, image, mask: see `Upsampler`; the image is the truth."""
        fake = self.upsampler(y, image, mask)
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        return Scored(fake, functional_call(self.critic, fixed, (fake,)), self.critic(fake.detach()), self.critic(image))


def build_upsampler(critic_width: int = 0, **sizes) -> Upsampler | AdversarialPair:
    """The network of these sizes, with a critic beside it if that has a width."""
    upsampler = Upsampler(**sizes)
    return AdversarialPair(upsampler, Critic(critic_width)) if critic_width else upsampler
