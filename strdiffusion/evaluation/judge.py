"""The judge: a network, trained on images with labels, that says what a result shows in the hole.

opinion = Judge("weights/judge")(image)        # the class of every pixel, and what each level of the network saw
features_distance(opinion, of_truth, hole)     # how different two images look to it
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from strdiffusion.checkpoints import StorageType, load_network, network_from_tensors, read_checkpoint, save_tensors
from strdiffusion.config.training import SegmenterConfig
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import file_hash
from strdiffusion.system.folders import output_folder
from strdiffusion.system.parser import build, read_yaml, save_config

FORMAT = "strdiffusion judge 1"
DESCRIPTION, WEIGHTS = "judge.yml", "judge.safetensors"


@dataclass(kw_only=True)
class JudgeRecord(SegmenterConfig):
    """judge.yml: everything about a judge but its weights.

    images, labels: what it was trained on. chosen_on: the images by which its checkpoint was chosen, if any. step: iterations of training.
    """

    format: Literal["strdiffusion judge 1"]
    images: str
    labels: str
    step: int
    chosen_on: str | None = None


@dataclass(frozen=True)
class Opinion:
    """What a judge sees in an image (H,W): labels (H,W) int64, and of each level of its network features (C,H'/2^i,W'/2^i)."""

    labels: np.ndarray
    features: list[Tensor]


class Judge:
    """A judge on a device, loaded from its folder."""

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu"):
        """Load it. Raises UserError if the folder holds no judge."""
        self.folder, self.device = Path(folder).expanduser(), device
        path = self.folder / DESCRIPTION
        if not path.is_file():
            raise UserError(f"judge={folder} is not the folder of a judge: it has no {DESCRIPTION}")
        self.record = build(JudgeRecord, read_yaml(path), str(path))
        architecture = {"classes": len(self.record.classes), "width": self.record.width, "depth": self.record.depth}
        loaded = network_from_tensors(self.folder / WEIGHTS, "judge", architecture, step=self.record.step)
        loaded.to(torch.device(device))
        self.network, self.digest = loaded.network, file_hash(self.folder / WEIGHTS)[:8]

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Opinion:
        """Its opinion of image (H,W,3) in [0,1]."""
        tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None].to(self.device)
        logits, features = self.network.logits_and_features(tensor)
        return Opinion(logits[0].argmax(dim=0).cpu().numpy(), [level[0].cpu() for level in features])

    def __str__(self) -> str:
        return f"{self.folder} (SHA-256 {self.digest}..., trained on {self.record.images})"


def pack_judge(checkpoint: Path, folder: Path, dtype: StorageType = "float32") -> None:
    """Write the folder of a judge from a checkpoint of its training. Raises UserError if it is of another network, or the folder in use."""
    loaded = load_network(checkpoint, "judge")
    config = read_checkpoint(checkpoint)["config"]
    data, validation = config["data"], config["validation"]
    record = JudgeRecord(
        format=FORMAT, **config["network"], images=data["images"], labels=data["labels"], step=loaded.step, chosen_on=validation["images"]
    )
    with output_folder(folder, False, "give a new folder") as folder:
        save_tensors(folder / WEIGHTS, loaded.network.state_dict(), dtype)
        save_config(record, folder / DESCRIPTION)  # written last, because a folder without it is no judge


@dataclass(frozen=True)
class Accuracy:
    """How often a judge is right: the share of all pixels, and for each class by name intersection / union and share of all pixels."""

    images: int
    pixels: float
    iou: dict[str, float]
    shares: dict[str, float]


def measure_accuracy(judge: Judge, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Accuracy:
    """The accuracy of a judge on images (H,W,3) in [0,1] and their true labels (H,W)."""
    names = judge.record.classes
    table, images = np.zeros((len(names), len(names)), np.int64), 0  # [truth, found]
    for image, labels in pairs:
        np.add.at(table, (labels.astype(np.int64), judge(image).labels), 1)
        images += 1
    right, truth, found = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    iou = right / np.maximum(truth + found - right, 1)
    shares = truth / table.sum()
    return Accuracy(images, float(right.sum() / table.sum()), *(dict(zip(names, v.tolist(), strict=True)) for v in (iou, shares)))


def hole_features(opinion: Opinion, hole: np.ndarray) -> np.ndarray:
    """The deepest features, averaged over the hole (H,W) bool: (C,) float32. A cell counts by its share of hole pixels."""
    deepest = opinion.features[-1]  # (C,h,w)
    weights = hole_shares(hole, len(opinion.features) - 1, deepest)
    return (deepest * weights).sum(dim=(1, 2)).div(weights.sum()).numpy()


def features_distance(opinion: Opinion, truth: Opinion, hole: np.ndarray) -> float:
    """The distance of features in the hole (H,W) bool, in [0,2]: LPIPS (Zhang et al. 2018) without learnt weights.

    The features of a position are scaled to length 1; the squared difference of the two images is averaged over the hole's positions of a
    level, and over the levels. nan if the hole is empty.
    """
    if not hole.any():
        return float("nan")
    distances = []
    for level, (ours, theirs) in enumerate(zip(opinion.features, truth.features, strict=True)):  # (C,h,w)
        difference = (F.normalize(ours, dim=0) - F.normalize(theirs, dim=0)).square().sum(dim=0)  # (h,w)
        weights = hole_shares(hole, level, ours)
        distances.append(float((difference * weights).sum() / weights.sum()))
    return float(np.mean(distances))


def hole_shares(hole: np.ndarray, level: int, features: Tensor) -> Tensor:
    """The share of hole (H,W) bool in each position (h,w) of a level's features (C,h,w), which covers 2^level pixels a side."""
    cell, (h, w) = 2**level, features.shape[-2:]
    padded = F.pad(torch.from_numpy(hole.astype(np.float32))[None], (0, w * cell - hole.shape[1], 0, h * cell - hole.shape[0]))
    return F.avg_pool2d(padded, cell)[0]
