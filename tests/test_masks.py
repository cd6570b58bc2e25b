"""Masks: files, generated holes and pairing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from strdiffusion.data import masks
from strdiffusion.data.mask_sources import GeneratedMasks, MaskFolder
from strdiffusion.data.pairing import pair_masks
from strdiffusion.system.errors import UserError


def test_read_mask_polarity_and_threshold(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "m.png")
    assert masks.read_mask(tmp_path / "m.png").tolist() == [[1, 1, 0, 0]]
    assert masks.read_mask(tmp_path / "m.png", "white_known").tolist() == [[0, 0, 1, 1]]
    with pytest.raises(ValueError):
        masks.read_mask(tmp_path / "m.png", "black")


def test_read_mask_other_file_types(tmp_path):
    bits = np.random.default_rng(0).random((9, 8)) > 0.5
    gray = bits.astype(np.uint8) * 255
    colours = np.dstack([gray, gray, gray, np.full_like(gray, 7)])
    for name, image in [
        ("bits.png", Image.fromarray(bits)),
        ("alpha.png", Image.fromarray(colours)),
        ("deep.png", Image.fromarray(gray.astype(np.uint16) * 257)),
    ]:
        image.save(tmp_path / name)
        known = masks.read_mask(tmp_path / name)
        assert known.dtype == np.float32 and np.array_equal(known, 1 - bits), name


def test_resize_mask_and_share():
    known = np.array([[1, 0], [0, 0]], np.float32)
    assert np.array_equal(masks.resize_mask(known, 4, 6), known.repeat(2, 0).repeat(3, 1))
    assert set(np.unique(masks.resize_mask(np.random.default_rng(0).integers(0, 2, (9, 9)), 5, 4))) <= {0, 1}
    assert masks.hole_share(known) == 0.75


@pytest.mark.parametrize("size", [(8, 8), (16, 9), (8, 200), (256, 256), (1024, 1024)])
@pytest.mark.parametrize("share", [(0.1, 0.5), (0.1, 0.2), (0.4, 0.5), (0.5, 0.5), (0.85, 0.99)])
def test_irregular_mask_share_lies_in_its_range(size, share):
    rng = np.random.default_rng(1)
    for _ in range(2 if size[0] > 256 else 15):
        known = masks.irregular_mask(rng, *size, share)
        assert known.shape == size and known.dtype == np.float32 and set(np.unique(known)) == {0, 1}
        assert share[0] <= masks.hole_share(known) <= share[1]


def test_irregular_mask_is_determined_by_rng_and_varies():
    one, same, other = (masks.irregular_mask(np.random.default_rng(seed), 64, 64) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    rng = np.random.default_rng(0)
    shares = [masks.hole_share(masks.irregular_mask(rng, 64, 64)) for _ in range(200)]
    assert min(shares) < 0.15 and max(shares) > 0.45 and 0.25 < np.mean(shares) < 0.4
    for pixels, share in ((4, (0.0, 0.01)), (4, (0.99, 1.0)), (8, (0.3, 0.3))):
        assert 0 < masks.hole_share(masks.irregular_mask(rng, pixels, pixels, share)) < 1


@pytest.mark.parametrize("share", [(0.5, 0.1), (-0.1, 0.5), (0.1, 1.5), (0, 0), (1, 1)])
def test_impossible_hole_share(share):
    with pytest.raises(UserError, match="hole share"):
        GeneratedMasks(share)


def test_warn_if_inverted(caplog):
    masks.warn_if_inverted([0.1, 0.5, 0.95], "white_hole")
    masks.warn_if_inverted([], "white_hole")
    assert caplog.text == ""
    masks.warn_if_inverted([0.1, 0.7, 0.9], "white_hole")
    assert len(caplog.records) == 1 and "data.masks.polarity=white_known" in caplog.text


def test_mask_folder(tmp_path, caplog):
    hole = np.zeros((20, 30), np.uint8)
    hole[2:8, 3:12] = 255
    Image.fromarray(hole).save(tmp_path / "m.png")
    source = MaskFolder(tmp_path)
    known = 1 - hole.astype(np.float32) / 255
    flips = [known, known[::-1], known[:, ::-1], known[::-1, ::-1]]
    rng = np.random.default_rng(0)
    drawn = [source.draw(rng, 20, 30) for _ in range(40)]
    seen = [sum(np.array_equal(mask, flip) for mask in drawn) for flip in flips]
    assert sum(seen) == 40 and min(seen) > 2
    assert source.draw(rng, 10, 15).shape == (10, 15) and caplog.text == ""
    MaskFolder(tmp_path, "white_known")
    assert "white_hole" in caplog.text and len(caplog.records) == 1


def paths(folder, *names):
    return [Path(folder) / name for name in names]


def test_pair_by_name():
    images = paths("i", "a.jpg", "b.png", "sub/a.jpg")
    files = paths("m", "a.png", "b_mask.png", "sub/a.png", "unused.png")
    chosen = [files[0], files[1], files[2]]
    assert pair_masks(images, files, "name") == chosen
    assert pair_masks(images, files, "name", 0, Path("i"), Path("m")) == chosen
    flat = paths("m", "b.png", "c_mask.png")
    assert pair_masks(paths("i", "x/b.png", "y/c.png"), flat, "name", 0, Path("i"), Path("m")) == flat
    both = paths("i", "a.png", "a.jpg")
    assert pair_masks(both, files[:1], "name") == [files[0]] * 2


def test_pair_by_name_refuses():
    images = paths("i", *(f"{i}.png" for i in range(9)))
    with pytest.raises(UserError, match=r"5 of 9 images.*4\.png, i/5\.png, i/6\.png, \.\.\.;"):
        pair_masks(images, paths("m", *(f"{i}.png" for i in range(4))), "name")
    with pytest.raises(UserError, match="several masks"):
        pair_masks(images[:1], paths("m", "0.png", "0.jpg"), "name")
    with pytest.raises(UserError, match="several masks"):
        pair_masks(paths("i", "x/0.png"), paths("m", "y/0.png", "z/0.png"), "name", 0, Path("i"), Path("m"))
    with pytest.raises(UserError, match="several images"):
        pair_masks(paths("i", "x/0.png", "y/0.png"), paths("m", "0.png"), "name")


def test_pair_by_order(caplog):
    images, files = paths("i", "a", "b"), paths("m", "1", "2")
    assert pair_masks(images, files, "order") == files and caplog.text == ""
    assert pair_masks(images, files + paths("m", "3"), "order") == files and "not used" in caplog.text
    with pytest.raises(UserError, match="2 images but only 1 masks"):
        pair_masks(images, files[:1], "order")


def test_pair_seeded_is_stable_and_independent():
    images, files = paths("i", *(f"{i}.png" for i in range(300))), paths("m", *"abcde")
    chosen = pair_masks(images, files, "seeded", 3)
    assert pair_masks(images[7:8], files, "seeded", 3) == chosen[7:8]
    assert pair_masks(images, files, "seeded", 4) != chosen
    assert min(chosen.count(file) for file in files) > 30
    # sha256("3:0.png") and so on, first 16 hexadecimal digits as a number, modulo 5: the same on every machine.
    assert "".join(path.name for path in chosen[:8]) == "cbeeadba"
