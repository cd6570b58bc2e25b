"""The procedural benchmark: the same bytes everywhere, the same street at every size, and a script that writes them."""

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import script, single_error

from strdiffusion.data import GeneratedMasks, TrainingDataset, find_images, index_file, read_image, read_labels, write_image
from strdiffusion.data.facades import CLASSES, SPLITS, draw_facade, draw_labels, draw_scene
from strdiffusion.data.facades.dice import Dice
from strdiffusion.data.facades.sheet import Sheet
from strdiffusion.system.errors import UserError

# What the first release drew. A change here is another benchmark: raise facades.VERSION and train the weights anew.
DIGESTS = {
    ("train", 0, 64): "98224427b751647c",
    ("val", 7, 64): "7469e3bc09a186d5",
    ("test", 199, 128): "da6a434d93c13769",
    ("test", 3, 256): "35875d33bc5a8563",
}
LABEL_DIGESTS = {
    ("train", 0, 64): "27d234a3a512e018",
    ("val", 7, 64): "22be7a151bbebbee",
    ("test", 199, 128): "ae04155ec8108135",
    ("test", 3, 256): "bdcd7221e8d940cc",
}


def digest(plane: np.ndarray) -> str:
    return hashlib.sha256(plane.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("split", "number", "size"), DIGESTS)
def test_the_bytes_of_an_image_never_change(split, number, size):
    assert digest(draw_facade(split, number, size)) == DIGESTS[split, number, size]


@pytest.mark.parametrize("which", LABEL_DIGESTS)
def test_the_bytes_of_labels_never_change(which):
    picture, labels = draw_scene(*which)
    assert digest(picture) == DIGESTS[which]
    assert digest(labels) == digest(draw_labels(*which)) == LABEL_DIGESTS[which]
    assert labels.dtype == np.uint8 and labels.shape == picture.shape[:2]


def test_another_process_draws_the_same_bytes():
    code = "from strdiffusion.data.facades import draw_facade; print(draw_facade('train', 19999, 64).tobytes().hex())"
    drawn = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert drawn.strip() == draw_facade("train", 19_999, 64).tobytes().hex()


def test_an_image_does_not_depend_on_what_was_drawn_before():
    alone = draw_facade("val", 3, 64)
    draw_facade("val", 4, 64)
    np.testing.assert_array_equal(draw_facade("val", 3, 64), alone)


def test_the_street_is_the_same_at_every_size():
    """Brought to 32 pixels, the pictures of two sizes differ by a rounding of edges to samples, and two streets by far more."""
    small, large, other = (
        cv2.resize(draw_facade("test", n, size).astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
        for n, size in ((5, 64), (5, 256), (6, 64))
    )
    assert np.abs(small - large).mean() < 8
    assert np.abs(small - other).mean() > 25


def test_the_labels_are_the_same_at_every_size():
    small, large, other = draw_labels("test", 5, 64), draw_labels("test", 5, 128)[::2, ::2], draw_labels("test", 6, 64)
    assert (small == large).mean() > 0.93
    assert (small == other).mean() < 0.6


def test_every_class_is_there():
    """Half of the pixels are wall, a fifth windows; doors are the rarest, with a fortieth."""
    shares = np.mean([np.bincount(draw_labels("test", n, 64).ravel(), minlength=len(CLASSES)) for n in range(60)], axis=0) / 64**2
    assert len(shares) == len(CLASSES) and shares.min() > 0.02
    assert CLASSES[shares.argmax()] == "wall" and 0.4 < shares.max() < 0.6


@pytest.mark.parametrize("number", [5, 14])
def test_labels_lie_where_the_picture_shows_them(number):
    """Two streets without trees and red houses under a blue sky with white clouds."""
    picture, labels = draw_scene("test", number, 128)
    blue = picture[..., 2].astype(int) - picture[..., 0]
    sky = labels == CLASSES.index("sky")
    assert np.percentile(blue[sky], 2) > 0
    wall = labels == CLASSES.index("wall")
    assert blue[sky].mean() > 30 + blue[wall].mean()
    brightness = picture.mean(axis=2)
    assert brightness[labels == CLASSES.index("window")].mean() < brightness[wall].mean() - 20
    assert (labels[-4:] == CLASSES.index("street")).all()


def test_a_pixel_is_of_the_class_of_most_of_its_samples():
    sheet = Sheet(4)
    with sheet.painting("roof"):
        sheet.rectangle(0, 0, 1, 1, (0, 0, 0))
        with sheet.painting("tree"):
            sheet.rectangle(0, 0, 0.5, 0.25, (0, 0, 0))  # the upper half of the left upper pixel: the first of equals wins
            sheet.rectangle(0.5, 0, 1, 0.25, (0, 0, 0))
            sheet.rectangle(0.5, 0.25, 0.75, 0.5, (0, 0, 0))  # three of four samples
        sheet.shade(0, 0, 1, 1, 0.5)
        with sheet.painting(None):
            sheet.rectangle(0, 0, 1, 1, (0, 0, 0))
    assert [[CLASSES[label] for label in row] for row in sheet.label_map(2)] == [["roof", "tree"], ["roof", "roof"]]


def test_edges_are_smooth():
    """The picture has many levels between dark and light: a drawing without supersampling has few."""
    gray = draw_facade("test", 0, 64).mean(axis=2).round().astype(np.uint8)
    assert len(np.unique(gray)) > 100


def test_splits_are_disjoint():
    seen = {draw_facade(split, n, 64).tobytes() for split in SPLITS for n in range(30)}
    assert len(seen) == 30 * len(SPLITS)


@pytest.mark.parametrize(
    ("split", "number", "size", "message"),
    [
        ("training", 0, 64, "no split"),
        ("val", 100, 64, "no image 100"),
        ("val", -1, 64, "no image -1"),
        ("val", 0, 100, "not drawn at 100"),
    ],
)
def test_what_the_benchmark_does_not_have_is_refused(split, number, size, message):
    with pytest.raises(UserError, match=message):
        draw_facade(split, number, size)


def test_dice_are_the_bits_of_pcg64():
    """Against numpy's generator, whose doubles and bytes come from the same bits."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((1, 2))))
    dice = Dice(1, 2)
    assert [dice.uniform(0, 1) for _ in range(5)] == list(generator.random(5))
    assert {Dice(i).integer(3, 5) for i in range(60)} == {3, 4, 5}
    noise = Dice(4).noise(200, 300)
    assert noise.shape == (200, 300) and noise.min() == -1 and noise.max() == 1 and abs(noise.mean()) < 0.01


def test_facades_stand_where_a_folder_of_images_is_asked_for():
    files = find_images("facades:64/val")
    assert len(files) == SPLITS["val"] and str(files[7]) == "facades:64/val/00007.png"
    np.testing.assert_array_equal((255 * read_image(files[7])).round(), draw_facade("val", 7, 64))
    masks = GeneratedMasks((0.1, 0.5))
    data = TrainingDataset(
        folder="facades:64/train",
        size=64,
        masks=masks,
        pair="gray2edge",
        edge_source="known",
        edge_sigma=1,
        seed=0,
        augment=False,
        index=index_file("auto", "facades:64/train"),
    )
    assert len(data) == SPLITS["train"]
    np.testing.assert_array_equal(data[5]["texture"].permute(1, 2, 0).numpy(), read_image(data.path(5)))


@pytest.mark.parametrize(
    ("folder", "message"),
    [("facades:64", "write facades:SIZE/SPLIT"), ("facades:100/train", "not drawn at 100"), ("facades:64/all", "no split 'all'")],
)
def test_facades_that_there_are_not(folder, message):
    with pytest.raises(UserError, match=message):
        find_images(folder)


@pytest.mark.parametrize("path", ["facades:64/val/00100.png", "facades:64/val/one.png", "facades:x/val/00000.png", "facades:64"])
def test_a_facade_that_there_is_not(path):
    with pytest.raises(UserError, match="facade"):
        read_image(path)


def test_labels_are_read(tmp_path):
    np.testing.assert_array_equal(read_labels("facades:64/test/00003.png"), draw_labels("test", 3, 64))
    labels = draw_labels("val", 0, 64)
    write_image(tmp_path / "gray.png", labels / 255)
    np.testing.assert_array_equal(read_labels(tmp_path / "gray.png"), labels)


def test_what_are_no_labels(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*missing\.png"):
        read_labels(tmp_path / "missing.png")
    write_image(tmp_path / "colours.png", draw_facade("val", 0, 64) / 255)
    with pytest.raises(UserError, match=r"colours\.png has colours, and is no file of labels"):
        read_labels(tmp_path / "colours.png")
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((4, 4), np.uint16))
    with pytest.raises(UserError, match="has pixels of type uint16"):
        read_labels(tmp_path / "deep.png")
    with pytest.raises(UserError, match="has no image 100"):
        read_labels("facades:64/val/00100.png")


@pytest.fixture
def make_dataset(monkeypatch, capsys):
    """make_dataset(*arguments) runs the script; returns status, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["make_dataset.py", *map(str, arguments)])
        return script("make_dataset").main(), *capsys.readouterr()

    return run


def test_make_dataset_writes_what_is_drawn_and_goes_on(make_dataset, tmp_path):
    folder = tmp_path / "facades"
    arguments = (folder, "--splits", "val", "--count", 3, "--workers", 1)
    assert make_dataset(*arguments)[0] == 0
    for n in range(3):
        picture = cv2.cvtColor(cv2.imread(str(folder / "val" / f"{n:05d}.png")), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(picture, draw_facade("val", n, 64))
        np.testing.assert_array_equal(read_labels(folder / "labels" / "val" / f"{n:05d}.png"), draw_labels("val", n, 64))
    assert (folder / "val.png").exists() and (folder / "labels" / "val.png").exists()
    (folder / "labels" / "val" / "00000.png").unlink()  # as in a folder of an earlier version
    (folder / "val" / "00001.png").unlink()
    kept = (folder / "val" / "00000.png").stat().st_mtime_ns
    assert make_dataset(*arguments)[0] == 0
    assert (folder / "val" / "00001.png").exists() and (folder / "labels" / "val" / "00000.png").exists()
    assert (folder / "val" / "00000.png").stat().st_mtime_ns == kept


def test_make_dataset_draws_in_several_processes(make_dataset, tmp_path):
    assert make_dataset(tmp_path / "new", "--splits", "test", "--count", 20, "--workers", 2)[0] == 0
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "new" / "test" / "00019.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(picture, draw_facade("test", 19, 64))


def test_make_dataset_writes_into_nobody_elses_folder(make_dataset, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"images": "other"}))
    assert "already holds files" in single_error(make_dataset(folder, "--count", 1))
    assert [path.name for path in folder.iterdir()] == ["dataset.json"]


def test_make_dataset_refuses_another_size_in_the_same_folder(make_dataset, tmp_path):
    make_dataset(tmp_path / "new", "--splits", "val", "--count", 1, "--workers", 1)
    assert "same --size" in single_error(make_dataset(tmp_path / "new", "--size", 128, "--splits", "val", "--count", 1))
