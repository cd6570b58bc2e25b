"""Gradient checkpointing: blocks that recompute their activations in the backward pass instead of storing them."""

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


class RecomputedBlock(nn.Module):
    """A block that stores only its inputs for the backward pass if `recompute` is set. The results are the same.

    Only for blocks whose second evaluation gives the same output. SPADE blocks in training do not: each evaluation updates spectral norm.
    """

    recompute = False

    def __call__(self, *inputs):
        if self.recompute and is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


def recompute_blocks(network: nn.Module) -> None:
    """Set `recompute` in all such blocks of a network."""
    for module in network.modules():
        if isinstance(module, RecomputedBlock):
            module.recompute = True
