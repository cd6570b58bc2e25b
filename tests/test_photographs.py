"""Methods without training, and the table of photographs that fill themselves."""

import csv

import numpy as np
import pytest
from conftest import script, single_error
from PIL import Image
from skimage.restoration import inpaint_biharmonic

from strdiffusion import StrDiffusion, UserError
from strdiffusion.data.images import opencv

PHOTOGRAPHS = script("photographs")


def waves(seed: int, height: int = 96, width: int = 112) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    plane = 127 + 90 * np.sin(x / 5 + seed) * np.cos(y / 7)
    return np.clip(plane[..., None] * [1, 0.8, 0.6] + np.random.default_rng(seed).normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)


def test_biharmonic_is_that_of_scikit_image():
    image, hole = waves(0, 40, 48), np.zeros((40, 48), bool)
    hole[10:16, 20:27] = hole[30:33, 5:9] = True
    expected = inpaint_biharmonic(np.where(hole[..., None], 0, image / 255), hole, channel_axis=-1)
    out = np.asarray(StrDiffusion.load("biharmonic")(image, hole).images[0])
    assert np.array_equal(out[~hole], image[~hole]) and abs(out / 255 - expected.clip(0, 1)).max() < 1 / 255


def test_shift_map_says_what_it_needs(monkeypatch):
    hole = np.zeros((40, 48), bool)
    hole[10:16, 20:27] = True
    if hasattr(opencv(), "xphoto"):
        out = np.asarray(StrDiffusion.load("shift_map")(waves(0, 40, 48), hole).images[0])
        assert np.array_equal(out[~hole], waves(0, 40, 48)[~hole])
        monkeypatch.delattr(opencv(), "xphoto")
    with pytest.raises(UserError, match="needs OpenCV's xphoto.*pip install opencv-contrib-python-headless"):
        StrDiffusion.load("shift_map")(waves(0, 40, 48), hole)


def test_holes_of_three_kinds_keep_apart():
    holes = PHOTOGRAPHS.draw_holes(200, 300, "a", 0)
    assert set(np.unique(holes)) == {0, 1, 2, 3}
    assert (holes == 3).sum() == 60**2 and (holes == 2).sum() == 4 * 24**2
    large = np.argwhere(holes == 3)
    (top, left), (bottom, right) = large.min(axis=0), large.max(axis=0) + 1
    ring = holes[max(top - 8, 0) : bottom + 8, max(left - 8, 0) : right + 8]
    assert set(np.unique(ring)) == {0, 3}
    assert np.array_equal(holes, PHOTOGRAPHS.draw_holes(200, 300, "a", 0)) and not np.array_equal(
        holes, PHOTOGRAPHS.draw_holes(200, 300, "a", 1)
    )


def test_the_table_of_photographs(monkeypatch, capsys, tmp_path):
    """Each photograph is filled by every row; what is known stays; after an interruption only what is missing is made."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.fromarray(waves(number)).save(tmp_path / "photos" / f"{number}.png")
    arguments = [str(tmp_path / "out"), "--photographs", str(tmp_path / "photos"), "--for", "2", "--model", "weights/benchmark_irsde"]

    def run():
        monkeypatch.setattr("sys.argv", ["photographs.py", *arguments])
        return PHOTOGRAPHS.main(), *capsys.readouterr()

    with monkeypatch.context() as interrupted:
        interrupted.setattr(PHOTOGRAPHS, "judge", lambda *_: (_ for _ in ()).throw(UserError("the machine stops here")))
        assert "the machine stops here" in single_error(run())
    out = tmp_path / "out"
    learnt, gone = out / "models" / "0" / "texture.safetensors", out / "adapted, 2 steps" / "0.png"
    before, filled = learnt.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    status, printed, _ = run()
    assert learnt.stat().st_mtime_ns == before and gone.read_bytes() == filled
    assert not status and printed.count("### ") == 3 and "Learning took" in printed
    with open(out / "table.csv", newline="") as file:
        records = list(csv.DictReader(file))
    rows = {record["method"] for record in records}
    assert {"Telea", "biharmonic", "as shipped, 2 steps", "adapted, 10 steps"} <= rows and len(records) == 2 * 3 * len(rows)
    holes, truth = (np.asarray(Image.open(out / folder / "0.png").convert("RGB")) for folder in ("holes", "truth"))
    hole = holes[..., 0] > 0
    adapted, shipped = (np.asarray(Image.open(out / row / "0.png")) for row in ("adapted, 2 steps", "as shipped, 2 steps"))
    assert np.array_equal(adapted[~hole], truth[~hole]) and not np.array_equal(adapted[hole], shipped[hole])
    one = next(r for r in records if (r["photograph"], r["method"], r["holes"]) == ("0.png", "adapted, 2 steps", "squares"))
    error = ((adapted / 255.0 - truth / 255.0)[np.rint(holes[..., 0]) == 2] ** 2).mean()
    assert float(one["PSNR"]) == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert "choose another folder" in single_error(run())
