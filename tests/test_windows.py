"""Windows around holes, and tiles: what they cover, how large they are, and that tiles leave no seam."""

import numpy as np
import pytest
import torch

from strdiffusion.app.tiles import Tiles, ramp
from strdiffusion.app.windows import THICK, THIN, Box, LayoutOptions, lay_out, shrink_first, tiles_of
from strdiffusion.system.errors import UserError

SIZE = 64


def holes(shape, *boxes):
    hole = np.zeros(shape, bool)
    for top, left, height, width in boxes:
        hole[top : top + height, left : left + width] = True
    return hole


def check(hole, layout, options=LayoutOptions(), size=SIZE):
    """What every layout must be: each hole pixel belongs to exactly one window, which contains it, inside of the picture."""
    owners = np.zeros(hole.shape, int)
    for window in layout.windows:
        box = window.box
        assert box.top >= 0 and box.left >= 0 and box.top + box.height <= hole.shape[0] and box.left + box.width <= hole.shape[1]
        owners[box.slices] += layout.own(window) & hole[box.slices]
        known = np.ones(window.canvas, bool)
        rows, columns = (
            np.minimum((np.nonzero(layout.own(window) & hole[box.slices])[i] * window.canvas[i]) // side, window.canvas[i] - 1)
            for i, side in enumerate((box.height, box.width))
        )
        known[rows, columns] = 0
        tiles = tiles_of(known, size)
        assert 1 <= len(tiles) <= options.max_tiles and len({tile[2:] for tile in tiles}) == 1
        covered = np.zeros(window.canvas, bool)
        for tile in tiles:
            assert max(tile.height, tile.width) <= size and (known[tile.slices] == 0).any()
            covered[tile.slices] = True
        assert covered[known == 0].all()
    assert np.array_equal(owners, hole.astype(int))


def test_a_small_hole_gets_a_window_of_the_training_size_around_it():
    hole = holes((300, 400), (100, 200, 10, 20))
    layout = lay_out(hole, SIZE, LayoutOptions())
    check(hole, layout)
    (window,) = layout.windows
    assert window.box == Box(105 - 32, 210 - 32, 64, 64) and window.canvas == (64, 64)


def test_a_window_stays_inside_of_the_picture():
    hole = holes((300, 400), (0, 395, 5, 5))
    layout = lay_out(hole, SIZE, LayoutOptions())
    check(hole, layout)
    assert layout.windows[0].box == Box(0, 400 - 64, 64, 64)


def test_a_larger_hole_is_shrunk_and_a_still_larger_one_tiled():
    shrunk, tiled = holes((900, 900), (300, 300, 70, 50)), holes((900, 900), (300, 300, 200, 150))
    near = LayoutOptions(context=0.6)
    for hole in (shrunk, tiled):
        check(hole, lay_out(hole, SIZE, LayoutOptions()))
        check(hole, lay_out(hole, SIZE, near))
    (window,) = lay_out(shrunk, SIZE, near).windows
    assert window.box[2:] == (112, 112) and window.canvas == (64, 64)  # 70 * 1.6
    (window,) = lay_out(shrunk, SIZE, LayoutOptions()).windows
    assert window.box[2:] == (210, 150) and window.canvas == (105, 75)  # 70 * 3, 50 * 3
    (window,) = lay_out(tiled, SIZE, near).windows
    assert window.box[2:] == (320, 240) and window.canvas == (160, 120)
    (window,) = lay_out(tiled, SIZE, LayoutOptions(context=0.6, shrink=1, max_tiles=100)).windows
    assert window.canvas == window.box[2:] == (320, 240)


def test_never_more_tiles_than_allowed():
    for most in (1, 4, 9, 16):
        hole, options = holes((1000, 1500), (100, 100, 800, 1300)), LayoutOptions(max_tiles=most)
        check(hole, lay_out(hole, SIZE, options), options)


@pytest.mark.parametrize("shape", [(37, 51), (20, 300), (5, 40), (1, 9), (64, 64), (63, 65)])
def test_small_and_narrow_pictures(shape):
    hole = holes(shape, (0, 2, 1, 3))
    layout = lay_out(hole, SIZE, LayoutOptions())
    check(hole, layout)
    (window,) = layout.windows
    assert min(window.canvas) >= 8
    if max(shape) < SIZE and min(shape) * SIZE / max(shape) >= 8:
        assert window.box == (0, 0, *shape) and max(window.canvas) == SIZE
        assert abs(window.canvas[0] / window.canvas[1] - shape[0] / shape[1]) < 0.03


def test_neighbours_share_a_window_and_others_do_not():
    near = holes((400, 400), (50, 50, 5, 5), (50, 70, 5, 5), (70, 60, 3, 3))
    far = holes((400, 400), (50, 50, 5, 5), (300, 300, 5, 5))
    for hole, count in ((near, 1), (far, 2)):  # near ones also if their windows are large
        layout = lay_out(hole, SIZE, LayoutOptions())
        check(hole, layout)
        assert len(layout.windows) == count


def test_random_holes():
    rng = np.random.default_rng(0)
    for _ in range(40):
        shape = tuple(rng.integers(20, 500, 2))
        boxes = [(rng.integers(shape[0]), rng.integers(shape[1]), *rng.integers(1, 120, 2)) for _ in range(rng.integers(1, 12))]
        hole, options = holes(shape, *boxes), LayoutOptions(rng.uniform(0, 1), rng.uniform(1, 4), int(rng.integers(1, 20)))
        check(hole, lay_out(hole, SIZE, options), options)


WIDE = 256


def deepest(hole, window, layout):
    """The largest distance from a pixel of the window's own holes to a known pixel, by brute force."""
    own = np.argwhere(layout.own(window) & hole[window.box.slices]) + window.box[:2]
    known = np.argwhere(~hole)
    return max(np.sqrt(((known - pixel) ** 2).sum(axis=1).min()) for pixel in own)


def test_networks_that_see_large_windows_see_long_scratches_at_the_scale_of_the_picture():
    hole = holes((400, 400), (200, 20, 6, 350))
    (window,) = (layout := lay_out(hole, SIZE, LayoutOptions(), largest=400)).windows
    check(hole, layout, size=400)
    assert window.box == (203 - 67, 0, 134, 400) and window.canvas == (134, 400)  # half of the context on each side: 64 pixels
    assert window.thickness == 6 and shrink_first(window, SIZE) == 1
    (shrunk,) = lay_out(hole, SIZE, LayoutOptions()).windows
    assert shrunk.canvas == (64, 200)  # a network that knows the place in its images sees it half as long


def test_thick_holes_have_windows_of_their_own_and_are_shrunk_first():
    hole = holes((600, 600), (100, 100, 100, 120), (100, 240, 8, 8), (120, 260, 40, 40))
    layout = lay_out(hole, SIZE, LayoutOptions(), largest=WIDE)
    check(hole, layout, size=WIDE)
    thick, thin = layout.windows
    assert thick.thickness == 100 and thin.thickness == 40 <= THICK * SIZE
    assert thick.box[2:] == thick.canvas == (300 + 200, 320 + 200)  # as much as the picture has
    assert shrink_first(thick, SIZE) == 100 / (THIN * SIZE) and shrink_first(thin, SIZE) == 1


def test_random_holes_of_networks_that_see_large_windows():
    rng = np.random.default_rng(1)
    for _ in range(12):
        shape = tuple(rng.integers(20, 200, 2))
        boxes = [(rng.integers(shape[0]), rng.integers(shape[1]), *rng.integers(1, 60, 2)) for _ in range(rng.integers(1, 6))]
        hole, options = holes(shape, *boxes), LayoutOptions(rng.uniform(0, 3), rng.uniform(1, 4), int(rng.integers(1, 20)))
        layout = lay_out(hole, 24, options, largest=96)
        check(hole, layout, options, size=96)
        for window in layout.windows:
            assert np.isclose(window.thickness, 2 * deepest(hole, window, layout))
            assert window.thickness <= THICK * 24 or len(window.labels) == 1
    everything = lay_out(np.ones((40, 40), bool), 24, LayoutOptions(), largest=96).windows
    assert len(everything) == 1 and everything[0].thickness >= 40


def test_options_out_of_range():
    for option in ({"context": -1}, {"shrink": 0.5}, {"max_tiles": 0}, {"context": float("nan")}):
        with pytest.raises(UserError, match="must be (from|a finite)"):
            LayoutOptions(**option)


# ---- networks on tiles --------------------------------------------------------------------------------


def local_network(x, mu, t, structure=None):
    """A network that looks at single pixels: tiles must give what the whole would."""
    return 2 * x - mu + t + (0 if structure is None else 3 * structure)


def overlapping():
    known = np.ones((50, 90), bool)
    known[5:45, 5:85] = 0
    return tiles_of(known, 32)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_tiles_of_a_local_network_equal_the_whole(at_once):
    boxes = overlapping()
    assert len(boxes) > 4
    x, mu, structure = (torch.rand(2, c, 50, 90, generator=torch.Generator().manual_seed(c)) for c in (3, 4, 1))
    mu = mu[:, :3]
    sizes = []

    def network(x, mu, t, structure):
        sizes.append(len(x))
        return local_network(x, mu, t, structure)

    out = Tiles(boxes, at_once, lambda: None)("texture", network)(x, mu, 7, structure)
    assert (out - local_network(x, mu, 7, structure)).abs().max() < 1e-5
    assert max(sizes) <= at_once and sum(sizes) == 2 * len(boxes)


def test_scores_are_averaged_over_tiles():
    boxes = overlapping()
    y, x = torch.rand(2, 3, 50, 90), torch.rand(2, 1, 50, 90)
    score = Tiles(boxes, 4, lambda: None)("discriminator", lambda y, x, t, group: y.mean(dim=(1, 2, 3)) * t + x.sum(dim=(1, 2, 3)))
    expected = torch.stack([y[(..., *b.slices)].mean(dim=(1, 2, 3)) * 5 + x[(..., *b.slices)].sum(dim=(1, 2, 3)) for b in boxes]).mean(
        dim=0
    )
    assert torch.allclose(score(y, x, 5, group=1), expected)


def test_what_tiles_disagree_about_changes_smoothly():
    """Every tile predicts a constant of its own: cut hard, there would be steps of 1; blended, none is larger than the ramp's slope."""
    boxes = overlapping()
    values = iter(range(len(boxes)))
    network = Tiles(boxes, 1, lambda: None)("texture", lambda x, mu, t: torch.full_like(x, next(values) % 2))
    out = network(torch.zeros(1, 1, 50, 90), torch.zeros(1, 1, 50, 90), 1)
    inside = out[0, 0, 5:45, 5:85]
    assert inside.max() > 0.9 and inside.min() < 0.1
    assert max(inside.diff(dim=0).abs().max(), inside.diff(dim=1).abs().max()) < 0.35
    weights = ramp(32)
    assert weights.min() > 0 and weights.max() == 1 and torch.equal(weights, weights.flip(0)) and weights.diff().abs().max() < 0.2
