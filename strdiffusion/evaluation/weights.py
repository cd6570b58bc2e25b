"""The pretrained weights for perceptual metrics: from a given file or the libraries' caches, never downloaded.

The name of a published file ends with the beginning of its SHA-256, which is checked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from strdiffusion.checkpoints.files import read_checkpoint
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import file_hash

Pretrained = Literal["alex", "vgg", "inception"]

PUBLISHED: dict[Pretrained, str] = {  # as the libraries name them in the cache
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "inception": "weights-inception-2015-12-05-6726825d.pth",
}


class Unavailable(Exception):
    """A metric cannot be computed here. The message is the reason, for the footnote of a table."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of pretrained weights. published: it is the published file, with which metrics are usually computed."""

    path: Path
    digest: str  # the first 8 hexadecimal digits of its SHA-256
    published: bool

    def __str__(self) -> str:
        return f"{self.path.name} (SHA-256 {self.digest}..., {'as published' if self.published else 'NOT the published file'})"


def find_weights(network: Pretrained, path: str | None = None) -> WeightsFile:
    """The file of a network's weights: `path`, or the published file in torch.hub's cache.

    Raises UserError if `path` cannot be read, and Unavailable if the cache holds no such file or a damaged one.
    """
    if path is not None:
        return _describe(network, Path(path).expanduser())
    name = PUBLISHED[network]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.is_file():
        raise Unavailable(f"no pretrained weights: {cached} does not exist, and weights.{network}=FILE is not given")
    found = _describe(network, cached)
    if not found.published:
        raise Unavailable(f"{cached} is damaged: its SHA-256 begins with {found.digest}, not as its name says; get it again")
    return found


def read_weights(file: WeightsFile) -> dict[str, torch.Tensor]:
    """The named tensors of a file. Raises UserError if it is damaged or holds anything else."""
    try:
        return read_checkpoint(file.path)
    except UserError as error:
        raise UserError(str(error).replace("the checkpoint", "the file of pretrained weights", 1)) from None


def _describe(network: Pretrained, path: Path) -> WeightsFile:
    try:
        sha256 = file_hash(path)
    except OSError as error:
        raise UserError(f"weights.{network}={path} cannot be read: {error.strerror}; give the file {PUBLISHED[network]}") from None
    expected = PUBLISHED[network].removesuffix(".pth").rpartition("-")[2]
    return WeightsFile(path, sha256[:8], sha256.startswith(expected))
