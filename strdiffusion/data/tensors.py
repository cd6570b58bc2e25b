"""Arrays of one sample to tensors."""

import numpy as np
import torch


def sample_tensors(image: np.ndarray, known: np.ndarray, x0: np.ndarray, mean: np.ndarray) -> dict[str, torch.Tensor]:
    """image (H, W, 3), known, x0, mean (H, W) as float32: texture (3, H, W), mask, structure, structure_mean (1, H, W).

    All are contiguous and share no memory with the arrays.
    """
    arrays = {"texture": image.transpose(2, 0, 1), "structure": x0[None], "structure_mean": mean[None], "mask": known[None]}
    return {name: torch.from_numpy(np.array(array, np.float32, order="C")) for name, array in arrays.items()}
