"""docs/tour.ipynb runs from top to bottom: its code cells in order in one namespace, without Jupyter, with the networks that ship."""

import json
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from strdiffusion import StrDiffusion, UserError

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("below", [".", "docs"])  # where Jupyter may be started
def test_the_notebook_runs_from_top_to_bottom(monkeypatch, capsys, below):
    monkeypatch.chdir(ROOT / below)
    monkeypatch.delenv("STRDIFFUSION_MODEL", raising=False)
    monkeypatch.setattr(plt, "show", lambda: None)
    before = sorted(os.listdir())
    names = {"__name__": "__main__"}
    plt.switch_backend("Agg")
    try:
        for number, code in enumerate(CODE if below == "." else CODE[:3]):
            exec(compile(code, f"tour.ipynb, code cell {number}", "exec"), names)
        assert len(plt.get_fignums()) >= (9 if below == "." else 1)
    finally:
        plt.close("all")
    said = capsys.readouterr().out
    assert "T = 100, trained at 64 pixels" in said
    if below == ".":
        assert "texture evaluations" in said and "2 windows" in said and "dB in the hole" in said
    assert sorted(os.listdir()) == before  # it writes no file


def test_the_notebook_shows_what_it_gave():
    """Run from top to bottom, with pictures, without errors, and without a path of the machine that ran it."""
    assert NOTEBOOK["nbformat"] == 4 and len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    executed = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in executed] == list(range(1, len(executed) + 1))
    outputs = [output for cell in executed for output in cell["outputs"]]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    said = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert {output["output_type"] for output in outputs} == {"display_data", "stream"} and len(pictures) >= 12
    assert "texture evaluations" in said and "/" not in said and (ROOT / "docs" / "tour.ipynb").stat().st_size < 1_000_000
    for cell in executed:
        assert max(map(len, "".join(cell["source"]).splitlines())) <= 150


def test_its_default_model_is_the_one_that_ships(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("STRDIFFUSION_MODEL", raising=False)
    names = {}
    exec(compile(CODE[0], "tour.ipynb", "exec"), names)
    assert names["source"] == ROOT / "weights" / "benchmark"


def test_a_mistake_in_a_cell_shows_two_lines():
    """IPython shows what `_render_traceback_` returns: what is wrong, and the line of the cell, whatever of ours lies below it."""
    with pytest.raises(UserError) as caught:
        StrDiffusion.load("weights/absent")
    said, where = caught.value._render_traceback_()
    assert said.startswith("UserError: the model folder weights/absent does not exist")
    assert where.startswith("line ") and where.endswith(': StrDiffusion.load("weights/absent")')
    assert UserError("never raised")._render_traceback_() == ["UserError: never raised"]
