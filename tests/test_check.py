"""strdiffusion check: every kind of problem is found and said in one line, and nothing else is."""

import cv2
import numpy as np
import pytest
from conftest import save, script, single_error
from PIL import Image

from strdiffusion.commands.main import main
from strdiffusion.data.checking import MEND, content_hash


@pytest.fixture
def check(capsys):
    """check(*arguments) runs the command; returns its status, stdout and stderr."""

    def run(*arguments):
        return main(["check", *map(str, arguments)]), *capsys.readouterr()

    return run


def photograph(seed, side=32):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def square(rows, side=32):
    """A mask with a hole of so many rows."""
    mask = np.zeros((side, side), np.uint8)
    mask[:rows] = 255
    return mask


@pytest.fixture
def folders(tmp_path):
    """photos a, b, c of 32x32, and masks of the same names with holes of 4, 8 and 16 of 32 rows."""
    for i, (name, rows) in enumerate(zip("abc", (4, 8, 16))):
        save(tmp_path / "photos" / f"{name}.png", photograph(i))
        save(tmp_path / "masks" / f"{name}.png", square(rows))
    return tmp_path / "photos", tmp_path / "masks"


def problems(out):
    return [line for line in out.splitlines() if line.startswith(("mend: ", "note: "))]


def test_nothing_is_wrong(check, folders):
    photos, masks = folders
    status, out, _ = check(photos, "--masks", masks, "--size", 32)
    assert status == 0 and problems(out) == [] and out.endswith("no problem was found\n")
    assert "photos: 3 of 3 files can be read, 32x32 pixels\n" in out
    shares = [line.split() for line in out.splitlines() if " % " in line]  # 12.5, 25 and 50 %: a bucket holds its upper bound
    assert {line[0]: int(line[2]) for line in shares} == {"0-10": 0, "10-20": 1, "20-30": 1, "30-40": 0, "40-50": 1, "50-60": 0}


def image_cases(folder):
    """What is put beside good photographs, and the beginning of the line that says so."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes(cv2.imencode(".jpg", photograph(9))[1].tobytes()[:-40])
    save(folder / "tiny.png", photograph(10, 7))
    save(folder / "small.png", photograph(11, 20))
    save(folder / "gray.png", photograph(12)[..., 0])
    alpha = np.dstack([photograph(13), np.full((32, 32), 9, np.uint8)])
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(photograph(14)).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(photograph(15)).quantize(8).save(folder / "palette.png")
    save(folder / "same.bmp", photograph(0))
    return {
        "empty.png is an empty file": "mend",
        "text.jpg is damaged or not an image": "mend",
        "cut.jpg is damaged": "mend",
        "tiny.png has only 7x7 pixels": "mend",
        "small.png has 20x20 pixels, less than 32": "note",
        "gray.png is gray (L)": "note",
        "alpha.png has transparency (RGBA)": "note",
        "cmyk.jpg is CMYK": "note",
        "palette.png has a palette": "note",
        "same.bmp shows the same as": "note",
    }


def mask_cases(folder):
    save(folder / "empty.png", square(0))
    save(folder / "full.png", square(32))
    save(folder / "photo.png", photograph(20))
    soft = square(12)
    soft[12] = 100  # 1 of 32 rows
    save(folder / "soft.png", soft)
    save(folder / "twin.png", square(4))
    return {
        "empty.png has no hole": "mend",
        "full.png has no known pixel": "mend",
        "photo.png is gray in": "mend",
        "soft.png is gray in 3.12% of its pixels": "note",
        "twin.png shows the same as": "note",
    }


@pytest.mark.parametrize("cases", [image_cases, mask_cases])
def test_every_problem_is_one_line(check, folders, cases):
    photos, masks = folders
    folder = photos if cases is image_cases else masks
    expected = cases(folder)
    status, out, err = check(*([photos, "--size", 32] if cases is image_cases else ["--masks", masks]))
    found = problems(out)
    assert len(found) == len(expected), out
    for said, level in expected.items():
        assert [line[:4] for line in found if said in line] == [level], said
    mend = list(expected.values()).count("mend")
    assert f"{mend} of {len(expected)} problems must be mended" in single_error((status, out, err))


def test_notes_alone_are_no_failure(check, folders):
    photos, _ = folders
    save(photos / "gray.png", photograph(12)[..., 0])
    status, out, _ = check(photos, "--size", 33)
    assert status == 0 and "nothing must be mended (4 small, 1 colours)" in out


def test_a_picture_in_training_and_test(check, folders, tmp_path):
    photos, _ = folders
    save(tmp_path / "test" / "z.png", photograph(1))
    save(tmp_path / "test" / "y.png", photograph(5))
    status, out, _ = check(photos, tmp_path / "test", "--size", 8)
    assert status == 2 and len(problems(out)) == 1
    assert f"mend: {tmp_path / 'test' / 'z.png'} shows the same as {photos / 'b.png'}" in out
    # the hash is of pixels and shape: neither a transposed nor a reshaped picture is the same
    flat = np.zeros((2, 8), np.float32)
    assert content_hash(flat) != content_hash(flat.reshape(8, 2)) and content_hash(flat) == content_hash(flat.copy())


def test_inverted_masks(check, tmp_path):
    for rows in (28, 30, 20):
        save(tmp_path / "masks" / f"{rows}.png", square(rows))
    status, out, _ = check("--masks", tmp_path / "masks")
    assert status == 2 and len(problems(out)) == 1 and "inverted" in out and "data.masks.polarity=white_known" in out
    status, out, _ = check("--masks", tmp_path / "masks", "--polarity", "white_known")
    assert status == 0 and problems(out) == []


def test_pairs(check, folders):
    photos, masks = folders
    (masks / "c.png").rename(masks / "d.png")
    status, out, _ = check(photos, "--masks", masks, "--size", 8)
    assert status == 2 and len(problems(out)) == 1 and "1 of 3 images have no mask of the same name" in out and "c.png" in out
    assert check(photos, "--masks", masks, "--size", 8, "--pairing", "order")[0] == 0
    save(masks / "c_mask.png", square(4, 48)[:, np.arange(64) % 48])
    status, out, _ = check(photos, "--masks", masks, "--size", 8)
    assert status == 0 and len(problems(out)) == 2
    assert "c_mask.png has 64x48 pixels" in out and f"note: mask {masks / 'd.png'} belongs to no image" in out


def test_contact_sheet_sample_and_number_of_lines(check, tmp_path):
    for i in range(9):
        save(tmp_path / "masks" / f"{i}.png", square(0 if i else 8))
    save(tmp_path / "masks" / "contact_sheet.png", photograph(0))  # strdiffusion masks writes one; it is no mask
    status, out, err = check("--masks", tmp_path / "masks", "--lines", 2)
    assert status == 2 and len(problems(out)) == 4 and "and 6 more of the kind 'no hole'" in out and "8 no hole, 7 duplicate" in err
    assert len(problems(check("--masks", tmp_path / "masks", "--lines", 0)[1])) == 15
    status, out, _ = check("--masks", tmp_path / "masks", "--sample", 3)
    assert "3 of 3 files" in out and len(problems(out)) == 3


def test_drawn_facades_are_a_folder_too(check):
    status, out, _ = check("facades:64/val", "--size", 64, "--sample", 2)
    assert status == 0 and "2 of 2 files can be read, 64x64 pixels" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a folder"),
        (["absent"], "does not exist"),
        (["--masks", "absent"], "does not exist"),
        (["x", "--sample", "0"], "--sample"),
        (["x", "--polarity", "white"], "--polarity"),
    ],
)
def test_mistakes(check, arguments, said):
    assert said in single_error(check(*arguments))


def test_the_script_is_the_command(check, folders, monkeypatch, capsys):
    by_command = check(folders[0], "--size", 64)
    monkeypatch.setattr("sys.argv", ["check_data.py", str(folders[0]), "--size", "64"])
    assert (script("check_data").main(), *capsys.readouterr()) == by_command


def test_what_must_be_mended_is_a_known_topic():
    from typing import get_args

    from strdiffusion.data.checking import Topic

    assert MEND < set(get_args(Topic))
