"""Mask families, buckets, and scripts/make_masks.py as a user meets it."""

import csv
import hashlib
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from strdiffusion.data.mask_families import BUCKETED, FAMILIES, draw_mask, in_bucket, irregular, numbered_mask, touches_border
from strdiffusion.data.masks import hole_share, irregular_mask, read_mask
from strdiffusion.system.errors import UserError

BUCKETS = [(1, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60)]
FIXED = ["every_second_line", "super_resolution", "half", "expand", "center_box"]
SCRIPT = Path(__file__).parents[1] / "scripts" / "make_masks.py"


def rng(seed=0):
    return np.random.default_rng(seed)


def hole_rows_and_columns(known):
    """(top, bottom, left, right) of the hole, the ends exclusive; it must fill that box."""
    rows, columns = np.nonzero(known == 0)
    box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert (known[box[0] : box[1], box[2] : box[3]] == 0).all()
    return tuple(map(int, box))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(8, 8), (64, 64), (33, 50), (200, 9)])
def test_every_family_gives_holes_and_known_pixels(family, size):
    for seed in range(10):
        known = draw_mask(family, rng(seed), *size)
        assert known.shape == size and known.dtype == np.float32 and set(np.unique(known)) == {0, 1}
        assert np.array_equal(known, draw_mask(family, rng(seed), *size))
    same = np.array_equal(draw_mask(family, rng(0), *size), draw_mask(family, rng(1), *size))
    assert same == (family in FIXED) or size == (8, 8)


@pytest.mark.parametrize("family", ["center_box", "random_box"])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_boxes_of_a_share_are_squares(family, share):
    places = set()
    for size in (64, 256):
        side = round(share**0.5 * size)
        for i in range(20):
            top, bottom, left, right = hole_rows_and_columns(numbered_mask(family, 0, i, size, size, hole_share=(share, share)))
            assert (bottom - top, right - left) == (side, side)
            places.add((top, left))
    assert len(places) > 30 if family == "random_box" else places == {((n - round(share**0.5 * n)) // 2,) * 2 for n in (64, 256)}


def test_the_share_of_boxes_is_drawn_from_a_range():
    shares = [hole_share(draw_mask("random_box", rng(i), 100, 200, (0.1, 0.3))) for i in range(300)]
    assert 0.09 < min(shares) < 0.12 and 0.28 < max(shares) < 0.31
    assert hole_rows_and_columns(draw_mask("center_box", rng(), 40, 80, (0.25, 0.25))) == (10, 30, 20, 60)
    for share in ((0.0001, 0.0001), (0.9999, 0.9999)):
        assert 0 < hole_share(draw_mask("random_box", rng(), 8, 8, share)) < 1
    with pytest.raises(UserError, match="wide take no hole share: only irregular, center_box, random_box do"):
        draw_mask("wide", rng(), 64, 64, (0.1, 0.2))


def test_every_second_line():
    known = draw_mask("every_second_line", rng(), 64, 32)
    assert (known[0::2] == 1).all() and (known[1::2] == 0).all()
    other = draw_mask("every_second_line", rng(), 65, 32, phase=1)
    assert (other[1::2] == 1).all() and (other[0::2] == 0).all()


def test_super_resolution():
    known = draw_mask("super_resolution", rng(), 64, 32)
    assert known.mean() == 0.25 and (known[::2, ::2] == 1).all()
    other = draw_mask("super_resolution", rng(), 64, 32, phase=1)
    assert other.mean() == 0.25 and (other[1::2, 1::2] == 1).all()
    with pytest.raises(UserError, match="the family half have no phase: only every_second_line, super_resolution have one"):
        draw_mask("half", rng(), 64, 32, phase=1)


def test_half_expand_and_boxes():
    assert hole_rows_and_columns(draw_mask("half", rng(), 64, 256)) == (0, 64, 128, 256)
    assert hole_rows_and_columns(1 - draw_mask("expand", rng(), 256, 256)) == (96, 160, 96, 160)
    assert hole_rows_and_columns(1 - draw_mask("expand", rng(), 64, 128)) == (24, 40, 48, 80)
    assert hole_rows_and_columns(draw_mask("center_box", rng(), 256, 64)) == (64, 192, 16, 48)
    sides = set()
    for seed in range(200):
        top, bottom, left, right = hole_rows_and_columns(draw_mask("random_box", rng(seed), 64, 32))
        sides |= {bottom - top, 100 + right - left}
    assert sides == {*range(16, 33), *range(108, 117)}


def test_strokes_are_thick_and_thin_and_cover_at_most_half():
    erode = np.ones((13, 13), np.uint8)  # leaves nothing of a line at most 10 pixels thick
    left_of = {"wide": [], "narrow": []}
    for family, left in left_of.items():
        for seed in range(30):
            known = draw_mask(family, rng(seed), 256, 256)
            assert 0.005 < hole_share(known) <= 0.5
            left.append(cv2.erode(1 - known, erode).sum() / (1 - known).sum())
    assert min(left_of["wide"]) > 0.2 and np.median(left_of["narrow"]) < 0.1


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("bucket", BUCKETS)
def test_irregular_masks_lie_in_their_bucket_and_keep_off_the_border(bucket, size):
    for i in range(20):
        inside = i % 2 == 1
        known = numbered_mask("irregular", 0, i, size, size, bucket, touching=not inside)
        assert bucket[0] / 100 < np.mean(known == 0) <= bucket[1] / 100
        assert touches_border(known) != inside
        if inside:
            assert hole_share(known[size // 20 : -size // 20, size // 20 : -size // 20]) > hole_share(known)
            assert known[:3].all() and known[:, -3:].all()


def test_border_is_free_where_it_may_be_touched():
    free = [touches_border(irregular(rng(seed), 64, 64, (0.01, 0.1))) for seed in range(40)]
    assert 5 < sum(free) < 40
    assert not any(touches_border(irregular(rng(seed), 64, 64, (0.3, 0.5), border=False)) for seed in range(40))


def test_in_bucket_excludes_its_lower_end():
    known = np.ones((10, 10), np.float32)
    for holes, expected in ((10, False), (11, True), (20, True), (21, False)):
        known.flat[:holes] = 0
        assert in_bucket(known, (10, 20)) == expected
    assert {int((irregular(rng(i), 10, 10, (0.07, 0.09)) == 0).sum()) for i in range(30)} == {8, 9}


def test_touches_border():
    for row, column, expected in ((0, 3, True), (4, 2, True), (2, 0, True), (1, 5, True), (1, 1, False), (3, 4, False)):
        known = np.ones((5, 6), np.float32)
        known[row, column] = 0
        assert touches_border(known) == expected


def test_irregular_is_what_training_draws():
    assert np.array_equal(irregular(rng(5), 64, 48, (0.1, 0.5)), irregular_mask(rng(5), 64, 48, (0.1, 0.5)))


def test_numbered_masks_do_not_depend_on_each_other():
    def three(*which):
        return {i: numbered_mask("irregular", 3, i, 64, 64, (10, 20)).tobytes() for i in which}

    drawn = three(2, 0, 1)
    assert three(1) == {1: drawn[1]} and len(set(drawn.values())) == 3
    assert drawn[1] != numbered_mask("irregular", 4, 1, 64, 64, (10, 20)).tobytes()
    # drawn in integers, so the same everywhere
    hashes = [hashlib.sha256(numbered_mask(family, 0, 7, 64, 64).tobytes()).hexdigest()[:8] for family in ("random_box", "wide")]
    assert hashes == ["394d9fae", "f35e620a"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("wided", rng(), 64, 64), "unknown mask family"),
        (("half", rng(), 64, 4), "at least 8"),
        (("half", rng(), 64, 64, (0.1, 0.2)), "no hole share"),
        (("half", rng(), 64, 64, None, False), "off the border"),
        (("irregular", rng(), 8, 8, (0.001, 0.01)), "no hole of 64 pixels"),
        (("irregular", rng(), 64, 64, (0.5, 0.99), False), "no room"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        draw_mask(*arguments)


@pytest.fixture
def make_masks(monkeypatch, capsys):
    """make_masks(*arguments) runs the script; returns status, stdout and stderr."""
    spec = importlib.util.spec_from_file_location("script_make_masks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["make_masks.py", *map(str, arguments)])
        return module.main(), *capsys.readouterr()

    return run


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_make_masks_twice_gives_the_same_bytes(make_masks, tmp_path):
    for name in ("a", "b"):
        status, out, _ = make_masks(tmp_path / name, "--count", 4, "--size", 64)
        assert status == 0 and "56 masks of 64x64" in out and "masks per second" in out
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    folders = [f"irregular/{low}-{high}" for low, high in BUCKETS] + [family for family in FAMILIES if family not in BUCKETED]
    expected = {f"{folder}/{i:05d}.png" for folder in folders for i in range(4)}
    assert files.keys() == expected | {"masks.csv", "contact_sheet.png"}
    make_masks(tmp_path / "c", "--count", 2, "--size", 64, "--families", "wide", "irregular", "--buckets", "20-30")
    assert all(files[name] == data for name, data in contents(tmp_path / "c").items() if "0000" in name)
    assert len(contents(tmp_path / "c")) == 6
    sheet = cv2.imread(str(tmp_path / "a" / "contact_sheet.png"))
    assert sheet.shape[0] > 14 * 64 and sheet.std() > 30


def test_mask_files_and_their_table(make_masks, tmp_path):
    folder = tmp_path / "masks"
    make_masks(folder, "--count", 6, "--size", 64)
    with open(folder / "masks.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 14
    for row in rows:
        pixels = cv2.imread(str(folder / row["file"]), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (64, 64) and pixels.dtype == np.uint8 and set(np.unique(pixels)) == {0, 255}
        known = read_mask(folder / row["file"])  # white is hole
        assert abs(hole_share(known) - float(row["hole_share"])) < 1e-6
        assert touches_border(known) == bool(int(row["touches_border"]))
        assert (row["bucket"] != "") == (row["family"] == "irregular")
        if row["bucket"]:
            assert in_bucket(known, tuple(map(int, row["bucket"].split("-"))))
    irregular_rows = [row["touches_border"] for row in rows if row["family"] == "irregular"]
    assert irregular_rows == ["1", "0"] * 18


@pytest.mark.parametrize(("border", "touches"), [("touching", {"1"}), ("inside", {"0"})])
def test_make_masks_of_one_border_kind(make_masks, tmp_path, border, touches):
    make_masks(tmp_path / "m", "--families", "irregular", "--count", 3, "--size", 64, "--border", border)
    with open(tmp_path / "m" / "masks.csv", newline="", encoding="utf-8") as file:
        assert {row["touches_border"] for row in csv.DictReader(file)} == touches


def test_make_masks_refuses_a_folder_that_holds_files(make_masks, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    status, _, err = make_masks(tmp_path, "--count", 1, "--size", 16)
    assert status == 2 and err.startswith("error: ") and "already holds files" in err and err.count("\n") == 1
    assert contents(tmp_path) == {"mine.txt": b"precious"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--families", "round"], "round"),
        (["--buckets", "20"], "'20'"),
        (["--buckets", "20-10"], "20-10"),
        (["--buckets", "10-101"], "10-101"),
        (["--count", "0"], "from 1 to"),
        (["--size", "4"], "from 8 to"),
        (["--seed", "-1"], "--seed"),
        (["--buckets", "0-1", "--size", "8"], "no hole of 64 pixels"),
        (["--buckets", "99-100", "--border", "inside"], "no room"),
    ],
)
def test_make_masks_refuses_in_one_line_and_writes_nothing(make_masks, tmp_path, arguments, said):
    status, _, err = make_masks(tmp_path / "m", *arguments)
    assert status == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "m").exists()
