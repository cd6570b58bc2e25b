"""Structure tokens: patches, their positions, and coarse filled attention (docs/dgts.md, sec. 3)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Residual = Literal["filled", "before"]


def position_code(width: int, grid: int) -> Tensor:
    """The fixed code P (width,grid,grid): sine and cosine of the column in the first half of the channels, of the row in the second."""
    k = torch.arange(width // 4, dtype=torch.float64)
    w = torch.exp(-math.log(10_000) * 2 * k / (width / 2))  # (width/4,)
    angles = w[:, None] * torch.arange(grid, dtype=torch.float64)  # (width/4,grid)
    waves = torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1).float()  # (width/2,grid)
    columns, rows = waves[:, None, :].expand(-1, grid, -1), waves[:, :, None].expand(-1, -1, grid)
    return torch.cat([columns, rows])


def cut(image: Tensor, patch: int) -> Tensor:
    """The patches (B,G,C,patch,patch) of images (B,C,S,S), row by row."""
    B, C, S, _ = image.shape
    n = S // patch
    return image.view(B, C, n, patch, n, patch).permute(0, 2, 4, 1, 3, 5).reshape(B, n * n, C, patch, patch)


def join(patches: Tensor) -> Tensor:
    """The inverse of `cut`: (B,G,C,patch,patch) to (B,C,S,S)."""
    B, G, C, patch, _ = patches.shape
    n = math.isqrt(G)
    return patches.view(B, n, n, C, patch, patch).permute(0, 3, 1, 4, 2, 5).reshape(B, C, n * patch, n * patch)


def known_counts(mask: Tensor, patch: int) -> Tensor:
    """c_p, the number of known pixels of every patch (B,G), of masks (B,1,S,S)."""
    return (cut(mask, patch) > 0.5).sum(dim=(2, 3, 4))


def rows_where(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The positions (B,n) of the patches that are chosen (B,G) in each image, in order, and which of the n rows are (B,n).

    n is the largest number in an image; the rows that an image lacks hold positions of other patches.
    """
    n = int(chosen.sum(dim=1).max())
    rows = (~chosen).int().argsort(dim=1, stable=True)[:, :n]
    return rows, chosen.gather(1, rows)


def take(table: Tensor, rows: Tensor) -> Tensor:
    """The rows (B,n) of a table (B,G,...): (B,n,...)."""
    index = rows.view(*rows.shape, *[1] * (table.dim() - 2)).expand(-1, -1, *table.shape[2:])
    return table.gather(1, index)


def put(table: Tensor, rows: Tensor, valid: Tensor, values: Tensor) -> Tensor:
    """The table (B,G,...) with `values` (B,n,...) in those of the different rows (B,n) that are valid."""
    fits = valid.view(*valid.shape, *[1] * (table.dim() - 2))
    index = rows.view(*rows.shape, *[1] * (table.dim() - 2)).expand_as(values)
    return table.scatter(1, index, torch.where(fits, values, take(table, rows)).to(table.dtype))


class StructureTokens(nn.Module):
    """The tokens t_p (B,G,width) of small images with holes.

    residual: what is added to the filled tokens before they are normalised: themselves ("filled", as released), or the tokens
        before filling ("before").
    """

    def __init__(self, width: int, patch: int, grid: int, residual: Residual, dropout: float):
        super().__init__()
        self.patch, self.residual, self.scale = patch, residual, width**-0.5
        self.embed = nn.Conv2d(3, width, patch, stride=patch)
        self.width, self.grid = width, grid
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.drop, self.norm = nn.Dropout(dropout), nn.LayerNorm(width)

    def of_patches(self, image: Tensor) -> Tensor:
        """E: images (B,3,S,S) to the bare tokens of their patches (B,G,width), without position."""
        return self.embed(image).flatten(2).transpose(1, 2)

    def position(self) -> Tensor:
        """P (width,grid,grid)."""
        return position_code(self.width, self.grid)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """image (B,3,S,S), mask (B,1,S,S); each image has its own mask."""
        before = self.of_patches(image * mask) + self.position().to(image).flatten(1).t()  # (B,G,width)
        filled = self.coarse_filling(before, known_counts(mask, self.patch))
        return self.norm((filled if self.residual == "filled" else before) + self.drop(filled))

    def coarse_filling(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Coarse filled attention: the tokens (B,G,width) of patches with missing pixels become mixtures of those of better-known
        patches, nearly known ones first. counts (B,G): known pixels of each patch.
        """
        keys = self.key(tokens)  # (B,G,width)
        levels = sorted(set(counts[counts < self.patch**2].tolist()), reverse=True)
        for c in levels:
            rows, valid = rows_where(counts == c)  # (B,n)
            better = (counts > c)[:, None]  # (B,1,G)
            some = better.any(dim=2, keepdim=True)
            scores = self.query(take(tokens, rows)) @ keys.transpose(1, 2) * self.scale  # (B,n,G)
            scores = scores.masked_fill(~better & some, -torch.inf)
            filled = (scores.softmax(dim=2) * some).to(tokens.dtype) @ tokens  # (B,n,width)
            tokens = put(tokens, rows, valid, filled)
            keys = put(keys, rows, valid, self.key(filled))
        return tokens
