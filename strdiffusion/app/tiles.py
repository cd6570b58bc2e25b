"""Networks on canvases larger than their training images: on overlapping tiles, whose outputs are blended at every evaluation.

All tiles are parts of one state with one noise. Their predictions for a pixel are averaged, with weights that fall towards the borders
of the tiles (MultiDiffusion, arXiv 2302.08113). So the state has no seam at any t.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from strdiffusion.app.windows import OVERLAP, Box


class Tiles:
    """Evaluates networks on the tiles of a canvas.

    Args:
        boxes: the tiles, all of one size. Outside of all tiles a denoiser's output is 0; no tile sees those pixels.
        at_once: how many tiles, of all images, a network processes at a time; this limits its memory.
        before: called before every evaluation; an error that it raises ends the sampling.
    """

    def __init__(self, boxes: Sequence[Box], at_once: int, before: Callable[[], None]):
        self.boxes, self.at_once, self.before = boxes, at_once, before
        self.ramp = ramp(boxes[0].height)[:, None] * ramp(boxes[0].width) if len(boxes) > 1 else torch.ones(1, 1)

    def __call__(self, name: str, network: Callable) -> Callable:
        """The network as a function of whole canvases: of two images, t, and possibly a third image, as samplers call it.

        The images that it returns for the tiles are blended; scores (B,) are averaged.
        """

        def evaluate(image: Tensor, other: Tensor, t: int, third: Tensor | None = None, **options) -> Tensor:
            images = [image, other] if third is None else [image, other, third]
            outputs = self._each(lambda a, b, *rest: network(a, b, t, *rest, **options), images)
            return torch.stack(outputs).float().mean(dim=0) if outputs[0].dim() == 1 else self._blend(outputs, image)

        return evaluate

    def _blend(self, outputs: list[Tensor], like: Tensor) -> Tensor:
        """Blend the outputs of all tiles on one canvas."""
        weight = self.ramp.to(like)
        total, weights = torch.zeros_like(like), torch.zeros_like(like[:1, :1])
        for output, box in zip(outputs, self.boxes, strict=True):
            total[(..., *box.slices)] += output * weight
            weights[(..., *box.slices)] += weight
        return total / weights.clamp(min=torch.finfo(weights.dtype).tiny)

    def _each(self, evaluate: Callable, inputs: list[Tensor]) -> list[Tensor]:
        """Evaluate on every tile of every image. Returns a tensor (B,...) of the B images for each tile."""
        B = len(inputs[0])
        jobs = [(image, box) for box in self.boxes for image in range(B)]
        outputs = []
        for start in range(0, len(jobs), self.at_once):
            self.before()
            chunk = jobs[start : start + self.at_once]
            outputs.append(evaluate(*(torch.stack([v[(image, ..., *box.slices)] for image, box in chunk]) for v in inputs)))
        return list(torch.cat(outputs).split(B))


def ramp(length: int) -> Tensor:
    """Weights (length,) of a tile's pixels along one axis: 1 inside, falling smoothly to nearly 0 over the overlap at both ends."""
    distance = torch.minimum(torch.arange(length) + 0.5, length - torch.arange(length) - 0.5)
    return torch.sin((distance / max(length // OVERLAP, 1)).clamp(max=1) * torch.pi / 2) ** 2
