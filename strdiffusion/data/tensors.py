"""Arrays of one sample to tensors."""

import numpy as np
import torch


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W, C) to (C, H, W), (H, W) to (1, H, W); float32, contiguous, sharing no memory with the array."""
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(planes, np.float32, order="C"))


def structure_picture(structure: torch.Tensor) -> torch.Tensor:
    """A structure (B, C, H, W) as a gray picture (B, 1, H, W): one channel as it is; labels with an own tone for each class."""
    if structure.shape[1] == 1:
        return structure
    tones = torch.linspace(1, 0, structure.shape[1]).to(structure).view(1, -1, 1, 1)
    return (structure.clamp(0, 1) * tones).sum(dim=1, keepdim=True).clamp(0, 1)


def sample_tensors(
    image: np.ndarray,
    known: np.ndarray,
    x0: np.ndarray,
    mean: np.ndarray,
    labels: np.ndarray | None = None,
    counted: np.ndarray | None = None,
) -> dict[str, torch.Tensor]:
    """The fields of a training `Batch` for one image (H, W, 3) with known, x0, mean (H, W), and labels and counted (H, W) if there are."""
    arrays = {"texture": image, "structure": x0, "structure_mean": mean, "mask": known} | ({} if counted is None else {"counted": counted})
    of_pixels = {} if labels is None else {"labels": torch.from_numpy(labels.astype(np.int64))}
    return {name: as_tensor(array) for name, array in arrays.items()} | of_pixels
