"""The metrics of all tables: their names, and how they are printed."""

from typing import Literal, NamedTuple, get_args

from strdiffusion.samplers.trace import SUFFIX

UsualMetric = Literal["psnr", "ssim", "l1", "lpips_alex", "lpips_vgg", "fid", "kid"]  # of outputs with their truths
JudgeMetric = Literal["agreement", "mean_iou", "judge_distance", "judge_fid", "judge_kid"]  # of the hole, by a judge
ComparedMetric = Literal[UsualMetric, "sharpness", JudgeMetric]
SampleMetric = Literal["diversity", "judge_diversity", "best_hole_psnr", "best_agreement"]  # of several results of each image
HOLE_ONLY = ("sharpness", *get_args(JudgeMetric))  # without a value for the whole image
HoleMetric = Literal["hole_psnr", "hole_ssim", "hole_l1"]
PAIRED = ("psnr", "ssim", "hole_psnr", "hole_ssim")  # in results.csv for every image
TABLE_METRICS = (*get_args(ComparedMetric), *get_args(HoleMetric), *get_args(SampleMetric), "seconds")  # of runs, besides evaluations


class MetricColumn(NamedTuple):
    """How a metric is printed, and which way is better."""

    title: str
    digits: int
    better: Literal["up", "down", "one"]


OF_IMAGES = {
    "psnr": MetricColumn("PSNR (dB)", 2, "up"),
    "ssim": MetricColumn("SSIM", 3, "up"),
    "l1": MetricColumn("L1", 4, "down"),
    "lpips_alex": MetricColumn("LPIPS (alex)", 3, "down"),
    "lpips_vgg": MetricColumn("LPIPS (vgg)", 3, "down"),
}
METRICS = {
    **OF_IMAGES,
    **{f"hole_{name}": MetricColumn(f"hole {title}", digits, better) for name, (title, digits, better) in OF_IMAGES.items()},
    "fid": MetricColumn("FID", 2, "down"),
    "kid": MetricColumn("KID", 4, "down"),
    "sharpness": MetricColumn("hole sharpness", 3, "one"),
    "agreement": MetricColumn("hole agreement", 3, "up"),
    "mean_iou": MetricColumn("hole mean IoU", 3, "up"),
    "judge_distance": MetricColumn("judge distance", 4, "down"),
    "judge_fid": MetricColumn("judge FID", 3, "down"),
    "judge_kid": MetricColumn("judge KID", 5, "down"),
    "diversity": MetricColumn("diversity (L1)", 4, "up"),
    "judge_diversity": MetricColumn("diversity (judge)", 4, "up"),
    "best_hole_psnr": MetricColumn("best hole PSNR (dB)", 2, "up"),
    "best_agreement": MetricColumn("best hole agreement", 3, "up"),
    "seconds": MetricColumn("s/image", 2, "down"),
}


def is_compared(metric: str) -> bool:
    """Whether rows can be compared by it image by image: every metric but costs, those of several results, and FID and KID."""
    return not (is_cost(metric) or of_samples(metric) or metric in ("fid", "kid"))


def is_of_image(metric: str) -> bool:
    """Whether it is a number of each image: what rows can be compared by, but for distances of sets of images."""
    return is_compared(metric) and metric not in ("judge_fid", "judge_kid")


def is_evaluations(metric: str) -> bool:
    """Whether a column counts the evaluations of a network: NETWORK_evaluations."""
    return metric.endswith(SUFFIX) and metric != SUFFIX


def is_cost(metric: str) -> bool:
    """Whether a column measures the cost of results, not their quality."""
    return metric == "seconds" or is_evaluations(metric)


def of_samples(metric: str) -> bool:
    """Whether a column needs several results of each image."""
    return metric in get_args(SampleMetric)


def column(metric: str) -> MetricColumn:
    """How a metric is printed."""
    return MetricColumn(metric.replace("_", " "), 0, "down") if is_evaluations(metric) else METRICS[metric]
