"""Gray and edge maps, and what may influence them."""

import numpy as np
import pytest

from strdiffusion.data.structure import edge_map, gray_map, structure_maps
from strdiffusion.system.errors import UserError

PAIRS = ["gray2edge", "gray2gray", "edge2edge", "edge2gray"]


@pytest.fixture
def image():
    """Random rectangles (48, 40, 3): many edges."""
    rng = np.random.default_rng(0)
    image = np.full((48, 40, 3), 0.5, np.float32)
    for _ in range(25):
        top, left, height, width = rng.integers(0, 40, 4)
        image[top : top + height, left : left + width] = rng.random(3)
    return image


@pytest.fixture
def known():
    known = np.ones((48, 40), np.float32)
    known[10:30, 8:25] = 0
    return known


def scrambled(image, known):
    noise = np.random.default_rng(9).random(image.shape).astype(np.float32)
    return np.where(known[..., None] > 0, image, noise)


def test_gray_map_is_rec_709_luma_of_8_bit_values(image):
    gray = gray_map(image)
    expected = np.rint(image.astype(float) * 255) / 255 @ [0.2125, 0.7154, 0.0721]
    assert gray.dtype == np.float32 and gray.shape == (48, 40)
    assert np.abs(gray - expected).max() < 1e-6
    assert np.abs(gray * 255 - np.rint(gray * 255)).max() > 0.1  # not rounded to 8 bits again


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_edge_map_of_a_step_is_one_line(sigma):
    gray = np.zeros((40, 40), np.float32)
    gray[:, 20], gray[:, 21:] = 0.5, 1
    edges = edge_map(gray, sigma)
    assert edges.dtype == np.float32 and set(np.unique(edges)) == {0, 1}
    rows = edges[10:30]
    assert (rows.sum(1) == 1).all() and (np.argmax(rows, 1) == 20).all()


def test_edge_map_sigma_smooths(image):
    assert edge_map(gray_map(image), 3).sum() < edge_map(gray_map(image), 1).sum()


def test_states_of_each_pair(image, known):
    gray, edges = gray_map(image), edge_map(gray_map(image), 2)
    known_edges = edge_map(gray, 2, known)
    assert 0 < known_edges.sum() and not np.array_equal(known_edges, edges * known)
    for pair in PAIRS:
        for source, masked_edges in (("full", edges * known), ("known", known_edges)):
            x0, mean = structure_maps(image, known, pair, source, 2)
            assert x0.dtype == mean.dtype == np.float32 and x0.shape == mean.shape == known.shape
            assert np.array_equal(x0, gray if pair.startswith("gray") else edges), pair
            assert np.array_equal(mean, gray * known if pair.endswith("gray") else masked_edges), pair


@pytest.mark.parametrize("pair", PAIRS)
def test_hole_content_does_not_influence_known_states(image, known, pair):
    other = scrambled(image, known)
    assert np.array_equal(structure_maps(image, known, pair, "known", 2)[1], structure_maps(other, known, pair, "known", 2)[1])
    one, two = (structure_maps(content, known, pair, "known", 2, ground_truth=False) for content in (image, other))
    assert np.array_equal(one, two) and not one[1][known == 0].any()
    if pair == "gray2edge":  # the released source does leak, which is why the other exists
        assert not np.array_equal(structure_maps(image, known, pair, "full", 2)[1], structure_maps(other, known, pair, "full", 2)[1])


def test_without_ground_truth_full_edges_are_refused(image, known):
    for pair in PAIRS:
        if "edge" in pair:
            with pytest.raises(UserError, match="structure.edge_source=known"):
                structure_maps(image, known, pair, "full", 2, ground_truth=False)
    structure_maps(image, known, "gray2gray", "full", 2, ground_truth=False)
    with pytest.raises(ValueError):
        structure_maps(image, known, "gray2grey", "full", 2)
