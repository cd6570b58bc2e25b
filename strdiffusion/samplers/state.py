"""The states that a sampler computes: images of one process at one time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Images of one process at one time, with the last prediction if the solver is of order 2 (MaRS).

    x: (B,C,H,W). guide: of the structure, what the step that led here gave to the texture as its guide, (B,1,H,W).
    q: x0 predicted in the step that led here, (B,C,H,W), and t_q: the time of that step. Both are None for other solvers,
    at the start, and after noise was added.

    q is treated like x: it is averaged, accepted and rejected together with the image. For the texture that is exact: all proposals
    of a step start from the same x and q, and the step is affine in its prediction, so the mean of two proposals is the step by the
    mean of their predictions. Proposals of the structure come by different paths, but their q are predictions at the same time.
    """

    x: Tensor
    q: Tensor | None = None
    t_q: int | None = None
    guide: Tensor | None = None

    def __getitem__(self, rows: Sequence[int]) -> "State":
        """The images at these positions."""
        return self._map(lambda images: images[rows])

    def mix(self, rows: Sequence[int], new: "State", share: Tensor) -> "State":
        """Replace the images at `rows` by (1-s) old + s new, s = share (len(rows),), each 0, 1/2 or 1; exact for 0 and 1."""
        s = share.view(-1, 1, 1, 1)

        def mixed(images: Tensor, proposed: Tensor) -> Tensor:
            old = images[rows]
            values = torch.where(s == 1, proposed, torch.where(s == 0, old, (old + proposed) / 2))
            return images.index_put((torch.tensor(rows, device=images.device),), values)

        return self._map(mixed, new)

    def paste(self, known: Tensor, mask: Tensor) -> "State":
        """Replace the known pixels of x: k m + x (1-m). q and guide are not changed."""
        return replace(self, x=known * mask + self.x * (1 - mask))

    def _map(self, change: Callable[..., Tensor], *others: "State") -> "State":
        """Change x, q and guide in the same way."""
        x, q, guide = (
            None if getattr(self, part) is None else change(*(getattr(state, part) for state in (self, *others)))
            for part in ("x", "q", "guide")
        )
        return State(x, q, self.t_q, guide)


class Moment(NamedTuple):
    """What a sampler yields: first its start, with n = to = N; then the states after each step.

    n: steps left before the step; to: steps left after it. y: texture. x: structure, None without guidance; in the late stage,
    which denoises no structure, it stays the same object.
    """

    n: int
    to: int
    y: State
    x: State | None
