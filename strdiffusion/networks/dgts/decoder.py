"""Structure-texture matching attention (docs/dgts.md, sec. 5): tokens of patches attend to the texture references.

Patches that are there already, the *entries* of the vocabulary, attend plainly. Missing ones, the *candidates*, attend also by the
bridge: missing patch -> patches that are there -> references. Entries see nothing but the references, so what the vocabulary holds of
them never changes, and a new entry and the next candidate go through a layer together.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(NamedTuple):
    """What a layer makes of the references M: W_k M and W_v M, both (B,R,width). It is made once an image."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Vocabulary:
    """The patches that are there. keys: for each layer W_o O_l (B,N,width); scores: for each layer R_l (B,N,R); valid (B,N): rows that an
    image has; rows that it has not contribute nothing.
    """

    keys: list[Tensor]
    scores: list[Tensor]
    valid: Tensor


@dataclass(frozen=True)
class Decoded:
    """What a pass of the decoder gives for the entries, the first `entries` of the rows, and the candidates after them.

    states: the inputs of the layers and, last, the output, (B,n+T,width) each. attention: A of each layer, (B,n+T,R).
    """

    entries: int
    states: list[Tensor]
    attention: list[Tensor]

    @property
    def output(self) -> Tensor:
        """Of the candidates, (B,T,width)."""
        return self.states[-1][:, self.entries :]

    @property
    def last_attention(self) -> Tensor:
        """A of the candidates in the last layer, (B,T,R)."""
        return self.attention[-1][:, self.entries :]


class DecoderLayer(nn.Module):
    """One head of attention over the references, and a feed-forward part."""

    def __init__(self, width: int, reference_width: int, dropout: float):
        super().__init__()
        self.scale = width**-0.5
        self.query, self.unknown, self.known = (nn.Linear(width, width) for _ in range(3))
        self.key, self.value = (nn.Linear(reference_width, width) for _ in range(2))
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def memory(self, references: Tensor) -> Memory:
        return Memory(self.key(references), self.value(references))

    def scores(self, x: Tensor, memory: Memory) -> Tensor:
        """S (B,T,R) of tokens x (B,T,width)."""
        return self.query(x) @ memory.keys.transpose(1, 2) * self.scale

    def bridge(self, x: Tensor, keys: Tensor, scores: Tensor, valid: Tensor) -> Tensor:
        """softmax(G R_l) (B,T,R): over the references alone, not over the vocabulary."""
        G = self.unknown(x) @ keys.transpose(1, 2) * self.scale * valid[:, None]  # (B,T,N)
        return (G @ scores).softmax(dim=2)

    def forward(self, x: Tensor, attention: Tensor, memory: Memory) -> Tensor:
        """The tokens after the layer, given A (B,T,R)."""
        x = self.norm1(x + self.drop(attention @ memory.values))
        return self.norm2(x + self.drop(self.linear2(self.drop(F.relu(self.linear1(x))))))


class Decoder(nn.Module):
    """The layers. share: lambda, the weight of the bridge in A."""

    def __init__(self, width: int, reference_width: int, layers: int, share: float, dropout: float):
        super().__init__()
        self.width, self.share = width, share
        self.layers = nn.ModuleList(DecoderLayer(width, reference_width, dropout) for _ in range(layers))

    def memory(self, references: Tensor) -> list[Memory]:
        """W_k M and W_v M of every layer, of references M (B,R,reference_width)."""
        return [layer.memory(references) for layer in self.layers]

    def empty(self, references: Tensor) -> Vocabulary:
        """A vocabulary without patches, for references M (B,R,.)."""
        B, R, _ = references.shape
        nothing = references.new_zeros(B, 0, self.width), references.new_zeros(B, 0, R)
        keys, scores = ([of_layer] * len(self.layers) for of_layer in nothing)
        return Vocabulary(keys, scores, torch.zeros(B, 0, dtype=torch.bool, device=references.device))

    def forward(
        self, memory: list[Memory], vocabulary: Vocabulary, entries: Tensor, valid: Tensor, candidates: Tensor
    ) -> tuple[Decoded, Vocabulary]:
        """Let entries (B,n,width), of which `valid` (B,n) are real, into the vocabulary, and decode candidates (B,T,width) with it."""
        n = entries.shape[1]
        x = torch.cat([entries, candidates], dim=1)  # (B,n+T,width)
        valid = torch.cat([vocabulary.valid, valid], dim=1)  # (B,N)
        states, attentions, keys, scores = [x], [], [], []
        for layer, of_layer, old_keys, old_scores in zip(self.layers, memory, vocabulary.keys, vocabulary.scores, strict=True):
            S = layer.scores(x, of_layer)  # (B,n+T,R)
            keys.append(torch.cat([old_keys, layer.known(x[:, :n])], dim=1))  # (B,N,width)
            scores.append(torch.cat([old_scores, S[:, :n]], dim=1))  # (B,N,R)
            bridged = layer.bridge(x[:, n:], keys[-1], scores[-1], valid)  # (B,T,R)
            plain = S.softmax(dim=2)  # (B,n+T,R)
            mixed = self.share * bridged + (1 - self.share) * plain[:, n:]  # (B,T,R)
            attentions.append(torch.cat([plain[:, :n], mixed], dim=1))
            x = layer(x, attentions[-1], of_layer)
            states.append(x)
        return Decoded(n, states, attentions), Vocabulary(keys, scores, valid)


class PatchPixels(nn.Module):
    """Pixels (B,T,3,patch,patch) of decoded tokens (B,T,width); without activation (sec. 6, step 4)."""

    CHANNELS = 24

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.patch = patch
        self.expand = nn.Linear(width, self.CHANNELS * patch**2)
        self.mix = nn.Conv2d(self.CHANNELS, 3, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        B, T, _ = tokens.shape
        maps = self.expand(tokens).view(B * T, self.CHANNELS, self.patch, self.patch)
        return self.mix(maps).view(B, T, 3, self.patch, self.patch)
