"""The numbers of the released RePaint and IR-SDE (tests/golden_repaint/README.md), recomputed through the project's public code."""

import json
import shutil
from pathlib import Path

import golden_forms
import golden_repaint_checks
import numpy as np
import pytest
import torch
from conftest import script
from golden_checks import Stored

from strdiffusion.networks import GuidedUNet, NoiseClassifier
from strdiffusion.system.errors import UserError

GOLDEN = Path(__file__).parent / "golden_repaint"
FILES = ("unet", "classifier", "schedules", "times", "step", "training", "repaint", "irsde")
RELEASED = [256, 256, 512, 512, 1024, 1024]  # channels of the released networks' levels


@pytest.mark.parametrize("fast", [[], ["--fast"]], ids=["trained", "inference"])
def test_every_golden_item_is_within_its_tolerance(fast, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check_golden.py", str(GOLDEN), *fast])
    assert script("check_golden").main() == 0, capsys.readouterr().out
    stored = sum(len(np.load(GOLDEN / f"{name}.npz").files) for name in FILES)
    assert f"{stored} of {stored} items within tolerance" in capsys.readouterr().out


def test_nothing_is_wired_to_the_names_and_sizes_of_this_folder(tmp_path, monkeypatch):
    """A folder of that form with other names: values of our own cannot prove values, only that all are covered."""
    shutil.copytree(GOLDEN, tmp_path / "other")
    meta = json.loads((GOLDEN / "meta.json").read_text())
    meta["unets"] = {"tiny" if name == "plain" else name: options for name, options in meta["unets"].items()}
    meta["runs"] = {"x": meta["runs"]["a"] | {"unet": "tiny"}}
    meta["processes"] = {"named_otherwise": meta["processes"]["linear_1000_20"]}
    meta["times"] = {"one": meta["times"]["short"]}
    for file, old, new in (("unet", "plain", "tiny"), ("repaint", "a", "x"), ("schedules", "linear_1000_20", "named_otherwise")):
        content = np.load(GOLDEN / f"{file}.npz")
        kept = {new + name.removeprefix(old): content[name] for name in content.files if name.startswith(f"{old}_")}
        others = {name: content[name] for name in content.files if file == "unet" and not name.startswith(f"{old}_")}
        np.savez(tmp_path / "other" / f"{file}.npz", **kept, **others)
    np.savez(tmp_path / "other" / "times.npz", one=np.load(GOLDEN / "times.npz")["short"])
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta))
    items = list(golden_forms.check_folder(tmp_path / "other"))
    assert [(item.name, item.error) for item in items if not item.passed] == []
    assert {"unet/tiny_wide", "repaint/x_output", "schedules/named_otherwise_betas", "times/one"} <= {item.name for item in items}


def test_a_changed_number_is_found_and_so_are_missing_and_unknown_ones(tmp_path):
    golden, content = golden_repaint_checks.Golden(GOLDEN), dict(np.load(GOLDEN / "times.npz"))
    content["short"][3] += 1
    content["more"] = content.pop("late")
    np.savez(tmp_path / "times.npz", **content)
    stored = Stored(tmp_path / "times.npz")
    items = [*golden_repaint_checks.time_items(golden, stored), *stored.not_recomputed()]
    assert {item.name for item in items if not item.passed} == {"times/short", "times/late", "times/more (not recomputed)"}


def test_a_folder_of_another_form_is_refused_in_one_line(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps({"unets": {"plain": {}}}))
    with pytest.raises(UserError, match=r"meta\.json is not the description"):
        list(golden_repaint_checks.check_folder(tmp_path))


@pytest.mark.parametrize(
    ("section", "change"),
    [("training", None), ("times", {"new": {"t_T": 9, "unknown": 1}}), ("processes", {"new": {"schedule": "quadratic", "steps": 9}})],
)
def test_a_folder_that_does_not_fit_together_is_refused_in_one_line(section, change, tmp_path, monkeypatch, capsys):
    shutil.copytree(GOLDEN, tmp_path / "other")
    meta = json.loads((GOLDEN / "meta.json").read_text())
    meta |= {"unets": {}, "runs": {}, section: change}
    np.savez(tmp_path / "other" / "unet.npz")
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta))
    monkeypatch.setattr("sys.argv", ["check_golden.py", str(tmp_path / "other")])
    assert script("check_golden").main() == 2
    assert "meta.json does not fit together" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_the_released_networks_have_the_released_names_and_shapes_in_their_order():
    names = json.loads((GOLDEN / "released_state_dict_keys.json").read_text())
    with torch.device("meta"):
        unet = GuidedUNet(256, RELEASED, 2, [8, 16, 32])
        conditional = GuidedUNet(256, RELEASED, 2, [8, 16, 32], class_conditional=True)
        classifier = NoiseClassifier(256, 128, [c // 2 for c in RELEASED], 2, [8, 16, 32])
    for network, expected in ((unet, names["unet"]), (classifier, names["classifier"])):
        assert [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()] == list(expected.items())
    more = {name: list(t.shape) for name, t in conditional.state_dict().items() if name not in names["unet"]}
    assert more == names["unet_class_conditional_adds"]
    counts = [sum(p.numel() for p in network.parameters()) for network in (unet, conditional, classifier)]
    assert counts == [552_814_086, 553_838_086, 54_096_360]
