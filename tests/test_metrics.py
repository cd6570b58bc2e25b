"""PSNR, SSIM and L1 against scikit-image and by hand, and the statistics of a mean."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from strdiffusion.evaluation.metrics import l1, psnr, ssim
from strdiffusion.evaluation.statistics import Summary, bootstrap_interval, summarise


@pytest.fixture
def images():
    """A smooth image (40,48,3), a noisy copy, and a hole (40,48)."""
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.random((40, 48, 3)), (2, 2, 0))
    truth = ((truth - truth.min()) / np.ptp(truth)).astype(np.float32)
    image = np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)
    hole = np.zeros((40, 48), bool)
    hole[5:20, 8:30] = True
    return image, truth, hole


def test_psnr(images):
    image, truth, hole = images
    assert abs(psnr(image, truth) - peak_signal_noise_ratio(truth.astype(float), image.astype(float), data_range=1)) < 1e-9
    by_hand = 10 * math.log10(1 / np.mean((image[5:20, 8:30].astype(float) - truth[5:20, 8:30]) ** 2))
    assert abs(psnr(image, truth, hole) - by_hand) < 1e-9
    assert abs(psnr(truth * 0 + 0.1, truth * 0) - 20) < 1e-6
    assert psnr(truth, truth) == math.inf and math.isnan(psnr(image, truth, hole & False))


def test_l1(images):
    image, truth, hole = images
    assert abs(l1(image, truth) - np.abs(image.astype(float) - truth).sum() / image.size) < 1e-12
    assert abs(l1(image, truth, hole) - np.abs(image.astype(float) - truth)[5:20, 8:30].mean()) < 1e-12
    assert l1(truth, truth) == 0 and math.isnan(l1(image, truth, hole & False))


def test_the_hole_alone_counts(images):
    image, truth, hole = images
    elsewhere = np.where(hole[..., None], image, 1 - image)
    for metric in (psnr, l1):
        assert metric(elsewhere, truth, hole) == metric(image, truth, hole) != metric(image, truth)


def similarity_map(x, y):
    """SSIM by its definition: Gaussian-weighted means, variances and covariance of each channel (H,W,C)."""

    def mean(values):
        return gaussian_filter(values, (1.5, 1.5, 0), truncate=3.5)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return (2 * mx * my + 0.01**2) * (2 * cov + 0.03**2) / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))


def test_ssim(images):
    image, truth, hole = images
    options = {"channel_axis": 2, "data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    mean = structural_similarity(truth.astype(float), image.astype(float), **options)
    values = similarity_map(truth.astype(float), image.astype(float))
    assert abs(ssim(image, truth) - mean) < 1e-12
    assert abs(ssim(image, truth) - values[5:-5, 5:-5].mean()) < 1e-9  # without the outer 5 pixels
    assert abs(ssim(image, truth, hole) - values[hole].mean()) < 1e-9
    assert abs(ssim(truth, truth) - 1) < 1e-12
    assert math.isnan(ssim(image, truth, hole & False)) and math.isnan(ssim(image[:10], truth[:10]))


def test_bootstrap_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(30, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert abs(low - (values.mean() - half)) < 0.15 * half and abs(high - (values.mean() + half)) < 0.15 * half
    assert bootstrap_interval(values) == (low, high) != bootstrap_interval(values, seed=1)
    wide, narrow = bootstrap_interval(values, level=0.99), bootstrap_interval(values, level=0.5)
    assert wide[0] < low < narrow[0] < narrow[1] < high < wide[1]


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.exponential(size=50), seed=seed, resamples=200)
        hits += low <= 1 <= high
    assert 0.85 < hits / 200 <= 1  # 0.95 less what skewness costs


def test_large_sets_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("strdiffusion.evaluation.statistics.CHUNK", 1000)
    values = np.random.default_rng(3).normal(0, 1, 300)
    low, high = bootstrap_interval(values)
    assert abs(high - low - 2 * 1.96 * values.std() / math.sqrt(300)) < 0.03


def test_summaries():
    assert summarise([]) is None and summarise([math.nan]) is None
    assert summarise([2.0, 2.0, math.nan]) == Summary(2.0, 2.0, 2.0, 2)
    one = summarise([3.0])
    assert one.mean == 3 and one.count == 1 and math.isnan(one.low) and math.isnan(one.high)
    infinite = summarise([math.inf, 30.0, 31.0])
    assert infinite.mean == infinite.high == math.inf and infinite.low >= 30
