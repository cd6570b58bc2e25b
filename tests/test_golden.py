"""The released program's numbers (tests/golden/README.md), recomputed through the project's public code."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from strdiffusion.errors import UserError
from strdiffusion.evaluation.golden import check_folder

GOLDEN = Path(__file__).parent / "golden"


def test_every_golden_item_is_within_its_tolerance():
    items = list(check_folder(GOLDEN))
    stored = sum(len(np.load(GOLDEN / f"{name}.npz").files) for name in ("sde", "networks", "structure_maps", "losses", "sampler"))
    not_numbers_to_check = 1 + 3  # the losses' mask, and the parameters of runs a, b and c
    assert len(items) == stored - not_numbers_to_check
    assert [(i.name, i.error) for i in items if not i.passed] == []


def test_a_changed_number_is_found(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "golden")
    file = tmp_path / "golden" / "sampler.npz"
    content = dict(np.load(file))
    content["a_scores"][3, 1] *= 1.001
    content["b_draws"] += 1
    np.savez(file, **content)
    failed = {item.name for item in check_folder(tmp_path / "golden") if not item.passed}
    assert failed == {"sampler/a_scores", "sampler/b_draws"}


def test_a_folder_without_golden_numbers_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"meta\.json"):
        list(check_folder(tmp_path))
