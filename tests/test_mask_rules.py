"""Masks of a test and of a training by family, without files: the option data.masks.family."""

import numpy as np
import pytest
import yaml
from conftest import script

from strdiffusion.config import TrainStructureConfig, load_config, to_dict
from strdiffusion.data import GeneratedMasks, TestDataset, irregular_mask, read_mask
from strdiffusion.data.mask_families import FAMILIES, numbered_mask
from strdiffusion.data.mask_rules import MaskRule
from strdiffusion.data.masks import stable_hash
from strdiffusion.evaluation.folder import test_dataset as dataset_of
from strdiffusion.evaluation.options import TestConfig

SIZE = 24


def dataset(photos, **options):
    given = {"seed": 0, "hole_share": (0.1, 0.5), "family": "irregular"} | options
    return TestDataset(images=photos, masks=None, pairing="name", polarity="white_hole", size=SIZE, fit="resize", **given)


@pytest.fixture
def load(tmp_path):
    """load(*overrides, cls=TestConfig) reads a small configuration."""

    def load(*overrides, cls=TestConfig):
        (tmp_path / "x.yml").write_text("data: {images: photos}\noutput: run\nmethod: telea\n" if cls is TestConfig else "{}")
        more = () if cls is TestConfig else ("data.images=photos", "output=run")
        return load_config(cls, tmp_path / "x.yml", [*more, *overrides])

    return load


@pytest.mark.parametrize("family", FAMILIES)
def test_a_test_draws_what_make_masks_numbers(photos, tmp_path, monkeypatch, family):
    """The n-th image in order has mask number n of the same seed, family and size; strokes hang on the image's name."""
    items = dataset(photos, family=family, seed=3)
    for i, name in enumerate("abc"):
        item = items[i]
        if family == "irregular":
            expected = irregular_mask(np.random.default_rng(stable_hash(f"3:{name}")), SIZE, SIZE, (0.1, 0.5))
        elif family.endswith("box"):
            expected = numbered_mask(family, 3, i, SIZE, SIZE, hole_share=(0.1, 0.5))
        else:
            if i == 0:
                made = tmp_path / "made"
                monkeypatch.setattr("sys.argv", ["x", str(made), "--families", family, "--count", "3", "--size", str(SIZE), "--seed", "3"])
                script("make_masks").main()
            expected = read_mask(tmp_path / "made" / family / f"{i:05d}.png")
        np.testing.assert_array_equal(item.known(), expected)
        rule = MaskRule.parse(item.mask_path, name)  # as results.csv records it
        np.testing.assert_array_equal(rule.draw(SIZE, SIZE), expected)
        assert str(rule) == item.mask_path


def test_what_results_record_of_a_mask(photos):
    assert dataset(photos, hole_share=(0.2, 0.3)).mask_path(0) == "generated:seed=0:share=0.2-0.3"  # as ever
    assert dataset(photos, family="wide").mask_path(2) == "generated:seed=0:family=wide:number=2"
    assert (
        dataset(photos, family="random_box", hole_share=(0.2, 0.2)).mask_path(1)
        == "generated:seed=0:family=random_box:number=1:share=0.2-0.2"
    )
    phased = dataset(photos, family="super_resolution", phase=1)
    assert phased.mask_path(0) == "generated:seed=0:family=super_resolution:number=0:phase=1"
    known = MaskRule.parse(phased.mask_path(0), "a").draw(SIZE, SIZE)
    assert (known[1::2, 1::2] == 1).all() and known.sum() == SIZE**2 / 4 and np.array_equal(known, phased[0].known())
    for text in (
        "masks/a.png",
        "generated:",
        "generated:seed=0:family=half:number=1:phase=1",
        "generated:seed=0:family=round:number=1",
        "generated:seed=x:share=0.1-0.2",
    ):
        assert MaskRule.parse(text, "a") is None


def test_squares_by_options_of_a_test(load, photos):
    config = load("data.masks={family: random_box, hole_share: [0.2, 0.2]}", f"data.images={photos}", "data.size=100", "data.index=null")
    masks = [dataset_of(config)[i] for i in range(3)]
    assert {item.hole_share for item in masks} == {0.45**2}  # 45 = round(sqrt(0.2) 100)
    assert len({item.mask.numpy().tobytes() for item in masks}) == 3


def test_the_family_is_recorded(load):
    assert to_dict(load())["data"]["masks"]["family"] == "irregular"
    wide = load("data.masks.family=wide")
    assert to_dict(wide)["data"]["masks"]["family"] == "wide"
    assert TestConfig.from_tree(yaml.safe_load(yaml.safe_dump(to_dict(wide))), "x").data.masks.family == "wide"


@pytest.mark.parametrize("cls", [TestConfig, TrainStructureConfig])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["family=round"], "data.masks.family must be one of irregular, wide"),
        (["family=wide", "folder=holes"], "data.masks.folder and data.masks.family=wide exclude each other"),
        (["family=half", "hole_share=[0.2, 0.3]"], "data.masks.hole_share has no effect on data.masks.family=half"),
        (["hole_share=[0.2, 0.2]"], "data.masks.hole_share must be two shares with 0 < first < second < 1"),
        (["family=center_box", "hole_share=[0.3, 0.2]"], "data.masks.hole_share must be two shares with 0 < first <= second < 1"),
        (["family=half", "phase=1"], "data.masks.phase=1 has no effect on data.masks.family=half"),
        (["phase=2", "family=every_second_line"], "data.masks.phase must be one of 0, 1"),
        (["family=center_box", "hole_share=[1, 1]"], "data.masks.hole_share must be two shares with 0 < first <= second < 1"),
    ],
)
def test_combinations_that_make_no_sense(load, cls, options, said):
    with pytest.raises(Exception, match="data.masks") as error:
        load(*(f"data.masks.{option}" for option in options), cls=cls)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_training_draws_a_family():
    draw = GeneratedMasks((0.2, 0.2), "random_box").draw
    a, b = (draw(np.random.default_rng(seed), 100, 100) for seed in (0, 1))
    assert (a == 0).sum() == (b == 0).sum() == 45**2 and (a != b).any()
    lines = GeneratedMasks(family="every_second_line", phase=1).draw(np.random.default_rng(0), 8, 8)
    assert (lines[1::2] == 1).all() and (lines[::2] == 0).all()
    assert (GeneratedMasks(family="half").draw(np.random.default_rng(0), 8, 8)[:, 4:] == 0).all()
