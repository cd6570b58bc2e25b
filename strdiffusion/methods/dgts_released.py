"""The end of the released test procedure (docs/dgts.md, sec. 8): a contrast stretch, two JPEG files, and the enlarging network."""

import io
import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from strdiffusion.batch import Known

log = logging.getLogger(__name__)


def enlarge_as_released(enlarge: Callable[..., Tensor], factor: int, small: Tensor, known: Known) -> Tensor:
    """Enlarge filled small images (B,3,S,S) in [-1,1] as the released program does. Returns images (B,3,H,W) in [0,1], whose known pixels
    have changed; by how much is logged.

    enlarge: the network, which enlarges by `factor`.
    The released program stretches and compresses the true image, hole and all. The truth is not known here: the hole holds the filling.
    """
    size, device = known.image.shape[-1], small.device
    results = []
    for f, image, mask in zip(small, known.image, known.mask, strict=True):
        coarse = F.interpolate(f[None], size=(size, size), mode="bicubic")[0].clamp(-1, 1)
        x = through_jpeg(stretched(torch.where(mask > 0.5, 2 * image - 1, coarse)))  # (size,size,3), 8 bits
        y = through_jpeg(stretched(f), side=size // factor)
        x, y = (torch.from_numpy(levels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)[None].to(device) for levels in (x, y))
        output = enlarge(y, x, mask[None]).float() * (1 - mask) + x * mask
        final = through_jpeg(((output[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).cpu().numpy().astype(np.uint8))
        results.append(torch.from_numpy(final.transpose(2, 0, 1).astype(np.float32) / 255))
    result = torch.stack(results).to(device)
    change = ((result - known.image).abs() * known.mask)[known.mask.expand_as(result) > 0.5] * 255
    if len(change):
        log.warning(
            "dgts.released=true has changed known pixels by %.1f of 255 levels on average, %.0f at most", change.mean(), change.max()
        )
    return result


def stretched(image: Tensor) -> np.ndarray:
    """An image (3,H,W), its least value at 0 and its largest at 255: (H,W,3), 8 bits."""
    low, high = image.min(), image.max()
    levels = (image - low) / (high - low).clamp(min=1e-8) * 255
    return levels.round().permute(1, 2, 0).cpu().numpy().astype(np.uint8)


def through_jpeg(levels: np.ndarray, side: int | None = None) -> np.ndarray:
    """8-bit levels (H,W,3) written as JPEG and read back, then reduced to (side,side,3) by bicubic resampling."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG")
    picture = Image.open(file)
    return np.asarray(picture if side is None else picture.resize((side, side), Image.Resampling.BICUBIC))
