"""Filling (docs/dgts.md, sec. 6): patches are decoded in an order, and each enters the vocabulary of patches that are there."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from strdiffusion.networks.dgts.decoder import Decoder, PatchPixels
from strdiffusion.networks.dgts.structure import StructureTokens, cut, join, known_counts, put, rows_where, take
from strdiffusion.system.errors import UserError

Order = Literal["raster", "known", "confidence"]
NONE = -1  # in an order: this image has no further patch


class Parts(Protocol):
    """The networks that filling needs. patch: the side of a patch in pixels."""

    patch: int
    structure: StructureTokens
    decoder: Decoder
    pixels: PatchPixels


@dataclass(frozen=True)
class Filled:
    """What filling gives.

    image: (B,3,S,S), the small image with filled patches and, elsewhere, its own pixels. order: (B,steps), the positions of the patches
    filled one by one, -1 after an image's last. attention: (B,steps,R), A of the last layer for each of these patches.
    passes: how often the decoder ran.
    """

    image: Tensor
    order: Tensor
    attention: Tensor
    passes: int


def fill(
    network: Parts, image: Tensor, mask: Tensor, references: Tensor, order: Order | Tensor = "known", one_by_one: int | None = None
) -> Filled:
    """Fill small images (B,3,S,S) in [-1,1]; mask (B,1,S,S); references M (B,R,.). Each image has its own mask.

    order: by which patches are filled: by position ("raster"), by the number of known pixels ("known"), by the largest entry of A
        ("confidence"), or as given: positions (B,n), padded by -1.
    one_by_one: so many patches are filled one by one, and the rest at once (the training form); None: all one by one.

    Raises UserError if a given order is not of the patches that are missing.
    """
    counts = known_counts(mask, network.patch)  # (B,G)
    missing = counts < network.patch**2
    steps = missing.sum(dim=1).clamp(max=missing.shape[1] if one_by_one is None else one_by_one)  # (B,)
    plan = plan_order(order, counts, missing, steps)  # (B,most), or None if it depends on the scores

    tokens = network.structure(image, mask)  # (B,G,width)
    pixels, known = cut(image * mask, network.patch), cut(mask, network.patch)  # (B,G,.,patch,patch)
    memory, vocabulary = network.decoder.memory(references), network.decoder.empty(references)
    rows, valid = rows_where(~missing)
    entries = take(tokens, rows)
    everything = torch.arange(missing.shape[1], device=image.device).expand_as(missing)
    filled, chosen, attention, passes = pixels, [], [], 0

    for step in range(int(steps.max())):
        rows = everything if plan is None else plan[:, step : step + 1].clamp(min=0)
        decoded, vocabulary = network.decoder(memory, vocabulary, entries, valid, take(tokens, rows))
        passes += 1
        best = most_confident(decoded.last_attention, missing) if plan is None else torch.zeros_like(rows)  # (B,1)
        p = rows.gather(1, best)
        z = compose(network.pixels(take(decoded.output, best)), take(pixels, p), take(known, p))  # (B,1,3,patch,patch)
        valid = (step < steps)[:, None]  # (B,1): images with fewer missing patches are done
        filled = put(filled, p, valid, z)
        missing = missing & ~put(torch.zeros_like(missing), p, valid, valid)
        entries = network.structure.of_patches(z[:, 0])  # (B,1,width): without position, filling and normalisation
        chosen.append(torch.where(valid, p, NONE))
        attention.append(take(decoded.last_attention, best).detach())

    if missing.any():  # the rest of the training form, at once
        rows, left = rows_where(missing)
        decoded, _ = network.decoder(memory, vocabulary, entries, valid, take(tokens, rows))
        passes += 1
        filled = put(filled, rows, left, compose(network.pixels(decoded.output), take(pixels, rows), take(known, rows)))

    nothing = references.new_zeros(len(image), 0, references.shape[1])
    done = torch.cat([counts.new_zeros(len(image), 0), *chosen], dim=1)
    return Filled(join(filled) * (1 - mask) + image * mask, done, torch.cat([nothing, *attention], dim=1), passes)


def compose(pixels: Tensor, image: Tensor, known: Tensor) -> Tensor:
    """z: the pixels of a patch where it is missing, its own where they are known, all (B,T,.,patch,patch)."""
    return pixels * (1 - known) + image * known


def most_confident(attention: Tensor, missing: Tensor) -> Tensor:
    """The missing patch (B,1) with the largest entry of A (B,G,R); the first of equals."""
    return attention.amax(dim=2).masked_fill(~missing, -1).argmax(dim=1, keepdim=True)


def plan_order(order: Order | Tensor, counts: Tensor, missing: Tensor, steps: Tensor) -> Tensor | None:
    """The positions (B,most) by which patches are filled, -1 after an image's last; None if they depend on scores.

    counts, missing (B,G); steps (B,): how many patches of an image are filled one by one. Raises UserError, see `fill`.
    """
    most = int(steps.max())
    if isinstance(order, Tensor):
        plan = order.to(counts.device, torch.long)
        require_order(plan, missing, steps)
        return plan[:, :most]
    if order == "confidence":
        return None
    rank = counts if order == "known" else torch.zeros_like(counts)
    plan = rank.masked_fill(~missing, -1).argsort(dim=1, descending=True, stable=True)[:, :most]
    return torch.where(torch.arange(most, device=counts.device) < steps[:, None], plan, NONE)


def require_order(plan: Tensor, missing: Tensor, steps: Tensor) -> None:
    """Raise UserError if a given order (B,n) does not name, for each image, as many of its missing patches as are filled one by one."""
    if plan.dim() != 2 or len(plan) != len(missing):
        raise UserError(f"the order of filling has the shape {tuple(plan.shape)}: give positions for each of {len(missing)} images")
    for i, (row, lacks, count) in enumerate(zip(plan.tolist(), missing.tolist(), steps.tolist())):
        named = [p for p in row if p != NONE]
        fits = row[: len(named)] == named and len(set(named)) == len(named) == count
        if not fits or not all(0 <= p < len(lacks) and lacks[p] for p in named):
            raise UserError(f"the order of filling of image {i} must name {count} of its patches with missing pixels, each once")
