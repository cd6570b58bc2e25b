"""The released program's numbers (tests/golden/README.md), recomputed through the project's public code."""

import json
import re
import shutil
from pathlib import Path

import golden_checks as golden_module
import numpy as np
import pytest
import torch
from conftest import script
from golden_checks import check_folder

from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError

GOLDEN = Path(__file__).parent / "golden"


def test_every_golden_item_is_within_its_tolerance():
    """With the networks as they are trained; with their inference form: the script below."""
    items = list(check_folder(GOLDEN))
    stored = sum(len(np.load(GOLDEN / f"{name}.npz").files) for name in ("sde", "networks", "structure_maps", "losses", "sampler"))
    not_numbers_to_check = 1 + 3  # the losses' mask, and the parameters of runs a, b and c
    assert len(items) == stored - not_numbers_to_check
    assert [(i.name, i.error) for i in items if not i.passed] == []


def test_a_folder_without_golden_numbers_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"meta\.json"):
        list(check_folder(tmp_path))


def test_the_coefficients_that_training_uses_differ_from_the_released_ones_by_rounding_alone(monkeypatch):
    """The losses above are checked with the release's float32 rounding; training computes the optimum exactly."""
    monkeypatch.setattr(golden_module, "MeanRevertingSDE", lambda T, rounding=None: MeanRevertingSDE(T))
    folder = golden_module.Golden(GOLDEN)
    with torch.no_grad():
        items = list(golden_module.loss_items(folder, golden_module.Stored(GOLDEN / "losses.npz")))
    assert len(items) == 9
    assert max(item.error for item in items) < 5e-5


def test_a_folder_of_other_sizes_is_recomputed_too(tmp_path):
    """Nothing is wired to the sizes of tests/golden. Values of our own cannot prove values, only that all are covered."""
    shutil.copytree(GOLDEN, tmp_path / "other")
    meta = {
        "seed": 5,
        "nf": 12,
        "depth": 3,
        "size": 24,
        "odd_size": [13, 27],
        "T": 7,
        "photo": {"name": "camera", "top": 30, "left": 11},
        "discriminator_ngf": 4,
    }
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta))
    losses, sampler = (dict(np.load(GOLDEN / f"{name}.npz")) for name in ("losses", "sampler"))
    losses["mask"] = losses["mask"][:, :, :24, :24]
    for run in "abc":
        sampler[f"{run}_params"][4] = 7
    np.savez(tmp_path / "other" / "losses.npz", **losses)
    np.savez(tmp_path / "other" / "sampler.npz", **sampler)
    items = {item.name: item for item in check_folder(tmp_path / "other")}
    assert len(items) == 75
    assert not any("not recomputed" in name for name in items)
    assert all(item.passed for name, item in items.items() if name.startswith("sde/cosine"))  # no seed, no size
    assert not items["networks/texture_square"].passed  # another seed gives other numbers


def test_the_script_finds_changed_numbers_and_tells_by_its_status(tmp_path, monkeypatch, capsys):
    check = script("check_golden")
    monkeypatch.setattr("sys.argv", ["check_golden.py", str(GOLDEN), "--fast"])
    assert check.main() == 0
    assert "75 of 75 items within tolerance" in capsys.readouterr().out
    shutil.copytree(GOLDEN, tmp_path / "golden")
    networks, sampler = (dict(np.load(GOLDEN / f"{name}.npz")) for name in ("networks", "sampler"))
    networks["texture_odd"][0, 0, 0, 0] += 1
    sampler["a_scores"][3, 1] *= 1.001
    sampler["b_draws"] += 1
    np.savez(tmp_path / "golden" / "networks.npz", **networks)
    np.savez(tmp_path / "golden" / "sampler.npz", **sampler)
    monkeypatch.setattr("sys.argv", ["check_golden.py", str(tmp_path / "golden")])
    assert check.main() == 1
    assert re.findall(r"FAIL (\S+)", capsys.readouterr().out) == ["networks/texture_odd", "sampler/a_scores", "sampler/b_draws"]
    (tmp_path / "golden" / "sde.npz").write_bytes((GOLDEN / "sde.npz").read_bytes()[:3000])
    assert check.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
