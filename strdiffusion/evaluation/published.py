"""Published numbers (spec sec. 9; docs/repaint_spec.md sec. 10), to show beside ours. Protocols differ, so each states its source."""

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
REPAINT = "RePaint, arXiv 2201.09865, {}, 256x256, 100 test images, read from a public transcription; T=250, jumps of 10, 10 times"
SIX = ("wide", "narrow", "super-resolve 2x", "alternating lines", "half", "expand")
OF_REPAINT = {  # LPIPS (AlexNet) of six families of masks, by data and method
    "celeba": {
        "AOT": (0.104, 0.047, 0.714, 0.667, 0.287, 0.604),
        "DSI": (0.067, 0.038, 0.128, 0.049, 0.211, 0.487),
        "ICT": (0.063, 0.036, 0.483, 0.353, 0.166, 0.432),
        "DeepFillv2": (0.066, 0.049, 0.119, 0.049, 0.209, 0.467),
        "LaMa": (0.045, 0.028, 0.177, 0.083, 0.138, 0.342),
        "RePaint": (0.059, 0.028, 0.029, 0.009, 0.165, 0.435),
    },
    "imagenet": {
        "DSI": (0.117, 0.072, 0.153, 0.069, 0.283, 0.583),
        "ICT": (0.107, 0.073, 0.708, 0.620, 0.255, 0.544),
        "LaMa": (0.105, 0.061, 0.272, 0.121, 0.254, 0.534),
        "RePaint": (0.134, 0.064, 0.183, 0.089, 0.304, 0.629),
    },
    "places2": {
        "AOT": (0.112, 0.062, 0.560, 0.399, 0.263, 0.686),
        "DSI": (0.101, 0.054, 0.157, 0.083, 0.265, 0.565),
        "ICT": (0.101, 0.057, 0.776, 0.672, 0.256, 0.554),
        "DeepFillv2": (0.097, 0.051, 0.120, 0.070, 0.254, 0.532),
        "LaMa": (0.078, 0.039, 0.369, 0.138, 0.233, 0.512),
        "RePaint": (0.105, 0.044, 0.099, 0.051, 0.286, 0.615),
    },
}
OF_DATA = {"celeba": "CelebA-HQ", "imagenet": "ImageNet", "places2": "Places2"}

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
    **{
        f"repaint_{data}_{method.lower()}": Published(method, REPAINT.format(OF_DATA[data]), _rows(SIX, lpips_alex=values))
        for data, methods in OF_REPAINT.items()
        for method, values in methods.items()
    },
}
