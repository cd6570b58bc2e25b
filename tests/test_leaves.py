"""Dead leaves: what is drawn from a number, and whether it has the statistics of photographs."""

import numpy as np
import pytest
from conftest import script, single_error
from skimage.data import astronaut, camera

from strdiffusion.data import read_image
from strdiffusion.data.leaves import SPLITS, draw_leaves, draw_radii, fill_shape


def test_an_image_is_drawn_from_its_number_alone():
    first = draw_leaves("train", 5, 64)
    draw_leaves("val", 7, 32)
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(draw_leaves("train", 5, 64), first)
    seen = {draw_leaves(split, number, 32).tobytes() for split in SPLITS for number in range(20)}
    assert len(seen) == 20 * len(SPLITS)


def spectrum_slope(images: list[np.ndarray]) -> float:
    """The power of the frequency with which the amplitudes of gray images (64, 64) fall."""
    window = np.outer(np.hanning(64), np.hanning(64))  # so that the borders of an image are no edges
    amplitudes = np.mean([np.abs(np.fft.fft2((image - image.mean()) * window)) for image in images], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    within = (frequency > 2 / 64) & (frequency < 0.4)
    return np.polyfit(np.log(frequency[within]), np.log(amplitudes[within]), 1)[0]


def test_the_spectrum_falls_like_that_of_photographs():
    photographs = [image.mean(axis=2) if image.ndim == 3 else image for image in (astronaut(), camera())]
    crops = [photo[y : y + 64, x : x + 64] for photo in photographs for y in range(0, 448, 64) for x in range(0, 448, 64)]
    drawn = [draw_leaves("val", number, 64).mean(axis=2) for number in range(60)]
    noise = [np.random.default_rng(number).normal(size=(64, 64)) for number in range(60)]
    assert spectrum_slope(drawn) == pytest.approx(spectrum_slope(crops), abs=0.35)
    assert abs(spectrum_slope(noise)) < 0.1


def test_radii_follow_the_third_power():
    """Of a density r^-3 the share above twice the least radius is a quarter, up to the largest radius."""
    radii = [draw_radii(np.random.default_rng(seed)) for seed in range(3000)]
    many = [each / each.min() for each in radii if len(each) > 60]
    assert np.mean([(each > 2).mean() for each in many]) == pytest.approx(0.25, abs=0.06)


def test_a_shape_covers_its_area():
    square = np.array([[4.0, 4.0], [20.0, 4.0], [20.0, 20.0], [4.0, 20.0]])
    inside = fill_shape(square, 32)
    assert inside.shape == (32, 32, 1) and inside[8:16, 8:16].min() == 1 and inside[26:].max() == 0
    assert 16**2 <= inside.sum() <= 18**2  # the outline is inside


def test_make_dataset_draws_them(monkeypatch, capsys, tmp_path):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["make_dataset.py", str(tmp_path / "leaves"), "--images", "leaves", *arguments])
        return script("make_dataset").main(), *capsys.readouterr()

    assert run("--count", "3", "--workers", "1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "leaves").iterdir()) == ["dataset.json", "train", "train.png", "val", "val.png"]
    np.testing.assert_allclose(255 * read_image(tmp_path / "leaves/val/00002.png"), draw_leaves("val", 2, 64), atol=1e-3)
    assert "leaves have no split test" in single_error(run("--splits", "test"))
