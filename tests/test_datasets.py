"""Training samples and test items, against arrays put together by hand."""

import logging
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2gray
from skimage.transform import resize
from torch.utils.data import DataLoader

from strdiffusion.batch import Batch
from strdiffusion.data import datasets, images, testset
from strdiffusion.data.mask_sources import GeneratedMasks
from strdiffusion.data.masks import resize_mask
from strdiffusion.data.structure import edge_map, gray_map
from strdiffusion.evaluation.folder import look_at
from strdiffusion.methods import Method
from strdiffusion.system.errors import UserError

HOWS = {"rounded": np.rint, "truncated": np.floor}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    """Five images of 40x48, each of one red level 10, 20, .. that names it, with a bright corner and noise."""
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        pixels[..., 0] = 10 * (i + 1)
        save(tmp_path / "images" / f"{i}.png", pixels)
    return tmp_path / "images"


class Gray(Method):
    """A method that looks at the gray values alone."""

    def look(self, image, known, shown):
        return {"gray": gray_map(image)}

    doors: ClassVar[dict] = {}


def training(folder, **options):
    defaults = dict(size=32, masks=GeneratedMasks(), pair="gray2edge", edge_source="known", edge_sigma=2.0, seed=7)
    return datasets.TrainingDataset(folder=folder, **{**defaults, **options})


def item_set(folder, masks=None, **options):
    defaults = dict(pairing="name", polarity="white_hole", seed=0, size=32, fit="center_crop", hole_share=(0.1, 0.5))
    return testset.TestDataset(images=folder, masks=masks, **{**defaults, **options})


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_training_sample(folder):
    dataset = training(folder)
    sample = dataset[3]
    assert {key: tuple(value.shape) for key, value in sample.items()} == {
        "texture": (3, 32, 32),
        "structure": (1, 32, 32),
        "structure_mean": (1, 32, 32),
        "mask": (1, 32, 32),
    }
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in sample.values())
    texture, known = sample["texture"].numpy().transpose(1, 2, 0), sample["mask"][0].numpy()
    assert 0.1 <= 1 - known.mean() <= 0.5
    # The texture is a turned part of the file, the structure belongs to the full texture.
    source = np.asarray(Image.open(dataset.path(3)))
    turned = [np.rot90(t, k) for t in (source, source[:, ::-1]) for k in range(4)]
    crop = np.rint(texture * 255).astype(np.uint8)
    assert any((t[y : y + 32, x : x + 32] == crop).all() for t in turned for y in range(t.shape[0] - 31) for x in range(t.shape[1] - 31))
    assert np.array_equal(sample["structure"][0], gray_map(texture))
    assert np.array_equal(sample["structure_mean"][0], edge_map(gray_map(texture), 2, known))


def test_labels_are_cropped_and_turned_with_their_image(folder):
    """Here the labels are the blue levels of the image, so they must be those of every sample, too."""
    for path in sorted(folder.iterdir()):
        save(folder.parent / "labels" / path.name, np.asarray(Image.open(path))[..., 2])
    dataset = training(folder, labels=folder.parent / "labels")
    for n in range(8):
        sample = dataset[n]
        labels = sample.pop("labels")
        assert labels.dtype == torch.int64 and labels.shape == (32, 32)
        assert torch.equal(labels, (255 * sample["texture"][2]).round().long())
        assert same(sample, training(folder)[n])
    items = item_set(folder, labels=folder.parent / "labels")
    assert np.array_equal(items[2].labels, np.rint(255 * items[2].image()[..., 2])) and items[2].labels.dtype == np.uint8
    assert item_set(folder)[2].labels is None


def test_labels_of_small_images_keep_their_classes(folder):
    """Enlarged images are interpolated, labels are not."""
    for path in sorted(folder.iterdir()):
        save(folder.parent / "labels" / path.name, np.where(np.arange(48) < 24, 3, 200).astype(np.uint8)[None].repeat(40, 0))
    sample = training(folder, labels=folder.parent / "labels", size=96)[0]
    assert set(sample["labels"].unique().tolist()) <= {3, 200}
    items = item_set(folder, labels=folder.parent / "labels", size=20, fit="resize")
    assert np.array_equal(np.unique(items[0].labels), [3, 200]) and items[0].labels.shape == (20, 20)


def test_labels_that_cannot_be_used(folder):
    with pytest.raises(UserError, match="folder of labels .* does not exist"):
        training(folder, labels=folder.parent / "labels")
    (folder.parent / "labels").mkdir()
    with pytest.raises(UserError, match="cannot read image"):
        training(folder, labels=folder.parent / "labels")[0]
    for path in sorted(folder.iterdir()):
        save(folder.parent / "labels" / path.name, np.zeros((8, 9), np.uint8))
    with pytest.raises(UserError, match="have 9x8 pixels, and the image .* 48x40"):
        training(folder, labels=folder.parent / "labels")[0]


def test_a_batch_carries_labels():
    images, planes, labels = torch.rand(3, 3, 4, 4), torch.rand(3, 1, 4, 4), torch.arange(48).view(3, 4, 4)
    batch = Batch(images, planes, planes, planes, labels)
    assert torch.equal(batch.take([2, 0]).labels, labels[[2, 0]]) and torch.equal(batch.to("cpu").labels, labels)
    assert Batch(images, planes, planes, planes).take([1]).to("cpu").labels is None


def test_every_epoch_visits_each_image_once_in_another_order(folder):
    dataset = training(folder)
    order = [dataset.path(n).name for n in range(25)]
    epochs = [tuple(order[i : i + 5]) for i in range(0, 25, 5)]
    assert all(sorted(epoch) == [f"{i}.png" for i in range(5)] for epoch in epochs) and len(set(epochs)) > 1
    assert [training(folder, seed=8).path(n).name for n in range(25)] != order
    reds = [round(255 * float(dataset[n]["texture"][0].mean())) for n in range(5)]
    assert reds == [10 * (int(name[0]) + 1) for name in order[:5]]


def test_samples_do_not_depend_on_workers_resume_or_order(folder):
    dataset = training(folder)
    alone = [dataset[n] for n in reversed(range(16))][::-1]
    assert not torch.equal(alone[0]["mask"], alone[5]["mask"])
    for workers in (0, 2):
        loader = DataLoader(training(folder), 2, sampler=datasets.StepSampler(0, 2), num_workers=workers)
        resumed = DataLoader(training(folder), 2, sampler=datasets.StepSampler(3, 2), num_workers=workers)
        batches = list(islice(loader, 8))
        for n, sample in enumerate(alone):
            assert same({key: value[n % 2] for key, value in batches[n // 2].items()}, sample), (workers, n)
        assert same(next(iter(resumed)), batches[3])
    assert not same(training(folder, seed=8)[0], alone[0])
    with pytest.raises(IndexError):
        dataset[-1]


def test_crops_flips_and_turns_all_occur(tmp_path):
    rows, columns = np.mgrid[:40, :36]
    save(tmp_path / "i" / "a.png", np.dstack([rows * 6, columns * 6, rows * 0]).astype(np.uint8))
    plain, turned = set(), set()
    dataset, fixed = training(tmp_path / "i"), training(tmp_path / "i", augment=False)
    for n in range(150):
        corners = torch.round(fixed[n]["texture"][:2, ::31, ::31] * 255 / 6)
        plain.add((int(corners[0, 0, 0]), int(corners[1, 0, 0])))
        assert corners[0, 1, 0] - corners[0, 0, 0] == 31 and corners[1, 0, 1] - corners[1, 0, 0] == 31
        corners = torch.round(dataset[n]["texture"][:2, ::31, ::31] * 255 / 6)
        turned.add(tuple(torch.sign(corners[:, 0, 0] - corners[:, 1, 1]).tolist()) + (bool(corners[0, 0, 0] == corners[0, 0, 1]),))
    assert {top for top, _ in plain} == set(range(9)) and {left for _, left in plain} == set(range(5))
    assert len(turned) == 8


def test_sizes_crop_from_files_and_errors(folder, tmp_path):
    assert training(folder, size=64)[0]["texture"].shape == (3, 64, 64)
    # From 20 pixels of the short side, a crop of 20 keeps the rows' full range.
    small = training(folder, size=20, crop_from=20, augment=False)
    assert small[0]["texture"].shape == (3, 20, 20) and small[0]["texture"][2].std() < 0.2  # noise averaged 2x2
    assert training(folder, size=20, augment=False)[0]["texture"][2].std() > 0.25
    chosen = training(folder, files=[folder / "2.png"])
    assert len(chosen) == 1 and chosen.path(5) == folder / "2.png"
    for options in ({"crop_from": 16}, {"seed": -1}, {"files": []}):
        with pytest.raises(UserError):
            training(folder, **options)
    training(folder, index=tmp_path / "index.json")
    assert (tmp_path / "index.json").exists()
    (folder / "5.png").write_text("no image")
    bad = training(folder)
    with pytest.raises(UserError, match="5.png"):
        for n in range(6):
            bad[n]


def square_masks(folder, names, size=(40, 48), hole=(slice(12, 22), slice(20, 30))):
    pixels = np.zeros(size, np.uint8)
    pixels[hole] = 255
    for name in names:
        save(folder / name, pixels)
    return folder


def test_item_with_mask_file(folder, tmp_path, caplog):
    items = item_set(folder, square_masks(tmp_path / "m", [f"{i}_mask.png" for i in range(5)]))
    item = items[2]
    assert len(items) == 5 and (item.name, item.image_path, item.mask_path) == ("2", folder / "2.png", tmp_path / "m" / "2_mask.png")
    pixels = np.asarray(Image.open(folder / "2.png"))[4:36, 8:40] / np.float32(255)
    known = np.ones((32, 32), np.float32)
    known[8:18, 12:22] = 0
    assert np.array_equal(item.texture, pixels.transpose(2, 0, 1)) and np.array_equal(item.mask[0], known)
    assert np.array_equal(item.image(), pixels) and np.array_equal(item.known(), known) and not item.maps
    assert item.hole_share == 100 / 1024 and item.texture.is_contiguous() and item.mask.dtype == torch.float32
    assert caplog.text == ""
    with pytest.raises(AttributeError):
        item.name = "other"


def test_fits(folder, tmp_path, caplog):
    masks = square_masks(tmp_path / "m", [f"{i}.png" for i in range(5)])
    assert item_set(folder, masks, fit="none", size=None)[0].texture.shape == (3, 40, 48)
    resized = item_set(folder, masks, fit="resize", size=20)[0]
    assert resized.texture.shape == (3, 20, 20) and caplog.text == ""
    known = np.where(np.asarray(Image.open(masks / "0.png")), 0.0, 1.0)
    assert np.array_equal(resized.mask[0], resize_mask(known, 20, 20))
    enlarged = item_set(folder, masks, size=80)[0]
    assert enlarged.mask.shape == (1, 80, 80) and enlarged.hole_share == 400 / 6400
    assert np.array_equal(np.argwhere(enlarged.mask[0].numpy() == 0)[0], [24, 32])
    for options in ({"size": None}, {"limit": 0}):
        with pytest.raises(UserError):
            item_set(folder, masks, **options)
    with pytest.raises(ValueError):
        item_set(folder, masks, fit="stretch")


def test_the_fit_of_the_release(tmp_path):
    """fit=released against skimage's bilinear interpolation without a filter, and gray values of truncated levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (41, 67, 3), np.uint8)
    save(tmp_path / "x" / "a.png", pixels)
    items = item_set(tmp_path / "x", fit="released", size=24)
    expected = resize(pixels / 255, (24, 24), order=1, mode="edge", anti_aliasing=False)
    item = look_at(items, 0, Gray(None, torch.device("cpu")))
    np.testing.assert_allclose(item.image(), expected, atol=1e-6)
    assert np.abs(item_set(tmp_path / "x", fit="resize", size=24)[0].image() - expected).max() > 0.1
    hidden = item.known() < 0.5
    gray = {name: rgb2gray(np.where(hidden[..., None], 0, how(expected * 255)).astype(np.uint8)) for name, how in HOWS.items()}
    safe = np.abs(expected * 255 - np.rint(expected * 255)).min(axis=2) > 1e-3  # no level at which float32 could fall on the other side
    np.testing.assert_allclose(item.maps["gray"][0][safe], gray["truncated"][safe], atol=1e-6)
    assert safe.mean() > 0.9
    assert (np.abs(gray["rounded"] - gray["truncated"]) > 0.1 / 255).mean() > 0.3  # the two can be told apart
    native = look_at(item_set(tmp_path / "x", fit="none", size=None), 0, Gray(None, torch.device("cpu")))
    assert np.array_equal(native.for_maps(), images.truncated(native.image()))  # 8-bit pictures keep their levels


def test_masks_of_another_size(folder, tmp_path, caplog):
    names = [f"{i}.png" for i in range(5)]
    cropped = item_set(folder, square_masks(tmp_path / "a", names, (32, 32), (slice(0, 8), slice(0, 32))))
    assert [item.hole_share for item in (cropped[0], cropped[1])] == [0.25, 0.25] and caplog.text == ""
    halves = item_set(folder, square_masks(tmp_path / "b", names, (20, 24), (slice(6, 11), slice(10, 15))))
    items = [halves[i] for i in range(5)]
    assert np.array_equal(items[0].mask, item_set(folder, square_masks(tmp_path / "c", names))[0].mask)
    assert len(caplog.records) == 1 and str(tmp_path / "b" / "0.png") in caplog.text and "20x24" in caplog.text


def test_masks_that_are_no_masks(folder, tmp_path, caplog):
    hole = {"none.png": (slice(0, 0),), "all.png": (slice(None),)}
    for name, part in hole.items():
        masks = square_masks(tmp_path / name, [f"{i}.png" for i in range(5)], hole=part)
        with pytest.raises(UserError) as error:
            item_set(folder, masks)[1]
        assert str(masks / "1.png") in str(error.value) and str(folder / "1.png") in str(error.value)
        assert ("data.masks.polarity=white_known" in str(error.value)) == (name == "all.png")
    assert [r.levelno for r in caplog.records] == [logging.WARNING] and "inverted" in caplog.text


def test_generated_masks_depend_on_seed_and_name_alone(folder):
    items = item_set(folder, hole_share=(0.2, 0.3))
    assert items[0].mask_path == "generated:seed=0:share=0.2-0.3"
    assert all(0.2 <= items[i].hole_share <= 0.3 for i in range(5))
    assert not torch.equal(items[0].mask, items[1].mask)
    assert not torch.equal(items[0].mask, item_set(folder, hole_share=(0.2, 0.3), seed=1)[0].mask)
    before = items[4].mask
    (folder / "0.png").unlink()
    assert torch.equal(item_set(folder, hole_share=(0.2, 0.3))[3].mask, before)


def test_names(folder, tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    for name in ("sub/0.png", "3.jpg"):
        save(folder / name, pixels)
    assert item_set(folder).names == ["0", "1", "2", "3.jpg", "3.png", "4", "sub/0"]
    assert item_set(folder, limit=4).names == ["0", "1", "2", "3.jpg"]
    tricky = ["x.jpg", "x.png", "x.png.png", "y.png"]
    assert testset.item_names([tmp_path / name for name in tricky], tmp_path) == tricky


def test_limit_and_pairings(folder, tmp_path, caplog):
    masks = square_masks(tmp_path / "m", ["0.png", "1.png", "x.png", "y.png", "z.png"])
    assert [Path(path).name for path in item_set(folder, masks, limit=2).mask_files] == ["0.png", "1.png"]
    ordered = item_set(folder, masks, pairing="order", limit=3)
    assert [path.name for path in ordered.mask_files] == ["0.png", "1.png", "x.png"]
    assert caplog.text == ""
    with pytest.raises(UserError, match="3 of 5 images"):
        item_set(folder, masks)
    seeded = item_set(folder, masks, pairing="seeded").mask_files
    assert seeded[:2] == item_set(folder, masks, pairing="seeded", limit=2).mask_files


@pytest.mark.parametrize("fit, size", [("none", None), ("resize", 64), ("resize", 20), ("center_crop", 64), ("released", 20)])
@pytest.mark.parametrize("mask_size", [(40, 48), (20, 24)])
def test_without_ground_truth_the_hole_influences_nothing(folder, tmp_path, fit, size, mask_size):
    scale = mask_size[0] / 40
    hole = slice(round(12 * scale), round(24 * scale)), slice(round(20 * scale), round(32 * scale))
    masks = square_masks(tmp_path / "m", [f"{i}.png" for i in range(5)], mask_size, hole)
    options = dict(fit=fit, size=size, ground_truth=False)
    one = item_set(folder, masks, **options)[0]
    pixels = np.array(Image.open(folder / "0.png"))
    pixels[12:24, 20:32] = 255 - pixels[12:24, 20:32]
    save(folder / "0.png", pixels)
    two = item_set(folder, masks, **options)[0]
    for key in ("texture", "mask"):
        assert torch.equal(getattr(one, key), getattr(two, key)), key
    assert not (one.texture * (1 - one.mask)).any() and one.texture.any()


def test_items_through_workers(folder):
    items = list(DataLoader(item_set(folder), batch_size=None, num_workers=2))
    assert [item.name for item in items] == list("01234") and torch.equal(items[3].mask, item_set(folder)[3].mask)
