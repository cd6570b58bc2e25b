"""The metrics of all tables: their names, and how they are printed."""

from typing import Literal, NamedTuple

ComparedMetric = Literal["psnr", "ssim", "l1", "lpips_alex", "lpips_vgg", "fid", "kid"]  # of outputs with their truths
HoleMetric = Literal["hole_psnr", "hole_ssim", "hole_l1"]
Cost = Literal["seconds", "texture_evaluations", "structure_evaluations", "discriminator_evaluations"]
TableMetric = Literal[ComparedMetric, HoleMetric, Cost]  # what a table of runs may show


class Column(NamedTuple):
    """How a metric is printed, and which way is better."""

    title: str
    digits: int
    better: Literal["up", "down"]


OF_IMAGES = {
    "psnr": Column("PSNR (dB)", 2, "up"),
    "ssim": Column("SSIM", 3, "up"),
    "l1": Column("L1", 4, "down"),
    "lpips_alex": Column("LPIPS (alex)", 3, "down"),
    "lpips_vgg": Column("LPIPS (vgg)", 3, "down"),
}
METRICS = {
    **OF_IMAGES,
    **{f"hole_{name}": Column(f"hole {title}", digits, better) for name, (title, digits, better) in OF_IMAGES.items()},
    "fid": Column("FID", 2, "down"),
    "kid": Column("KID", 4, "down"),
    "seconds": Column("s/image", 2, "down"),
    "texture_evaluations": Column("texture evaluations", 0, "down"),
    "structure_evaluations": Column("structure evaluations", 0, "down"),
    "discriminator_evaluations": Column("discriminator evaluations", 0, "down"),
}
