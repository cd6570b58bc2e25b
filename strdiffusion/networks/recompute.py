"""Gradient checkpointing: blocks that compute their insides again for the gradient instead of remembering them."""

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


class RecomputedBlock(nn.Module):
    """A block that, where `recompute` is set and a gradient is wanted, keeps only its inputs; the results are the same.

    Only for blocks that give the same output twice. SPADE blocks do not in training: spectral norm takes a step in each evaluation.
    """

    recompute = False

    def __call__(self, *inputs):
        if self.recompute and is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


def recompute_blocks(network: nn.Module) -> None:
    """Let all such blocks of a network recompute."""
    for module in network.modules():
        if isinstance(module, RecomputedBlock):
            module.recompute = True
