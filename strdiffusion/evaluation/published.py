"""Published numbers (spec sec. 9), to show beside ours. Protocols differ, so each states its source."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Published results of one method: values[bucket][metric]."""

    method: str
    source: str
    values: dict[str, dict[str, float]]


def _rows(buckets: tuple[str, ...], **metrics: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return {bucket: {name: values[i] for name, values in metrics.items()} for i, bucket in enumerate(buckets)}


STRDIFFUSION = "the authors' StrDiffusion repository, PSV, 256x256, NVIDIA irregular masks, 100 test images"
ASYDIFFUSION = "the same authors' AsyDiffusion repository, PSV, another protocol than StrDiffusion's own, number of test images not stated"
FOUR = ("10-20", "20-30", "30-40", "40-50")
THREE = FOUR[1:]

PUBLISHED = {
    "psv_strdiffusion": Published(
        "StrDiffusion",
        STRDIFFUSION,
        _rows(FOUR, psnr=(33.17, 29.94, 27.63, 25.71), ssim=(0.960, 0.936, 0.899, 0.851), fid=(11.38, 22.04, 34.41, 44.31)),
    ),
    "psv_asy_irsde": Published(
        "IR-SDE", ASYDIFFUSION, _rows(THREE, psnr=(27.945, 25.134, 23.021), ssim=(0.923, 0.862, 0.786), fid=(30.573, 47.405, 69.093))
    ),
    "psv_asy_irsde_resampling": Published(
        "IR-SDE + 5x resampling at every step",
        ASYDIFFUSION,
        _rows(THREE, psnr=(28.226, 25.260, 23.348), ssim=(0.927, 0.865, 0.799), fid=(29.209, 46.761, 68.571)),
    ),
    "psv_asy_none": Published(
        "StrDiffusion, no resampling",
        ASYDIFFUSION,
        _rows(THREE, psnr=(27.729, 24.534, 22.203), ssim=(0.919, 0.847, 0.758), fid=(29.169, 48.280, 68.866)),
    ),
    "psv_asy_adaptive": Published(
        "StrDiffusion, adaptive (min 2, max 5)",
        ASYDIFFUSION,
        _rows(THREE, psnr=(29.560, 26.553, 24.358), ssim=(0.943, 0.892, 0.826), fid=(24.348, 42.791, 58.437)),
    ),
}
