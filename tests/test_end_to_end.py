"""The main job, small: the four scripts one after the other, from photographs to results."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import script
from forks import forked

from strdiffusion.data import read_image, write_image
from strdiffusion.training.interrupt import StopRequest, ignore_signals, signals_wait

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(monkeypatch, capsys):
    """run(script, *arguments) runs the main of a script; fails with its output where the status is not 0."""

    def main(name: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        status = script(name).main()
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return main


def photographs(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        ramp = np.linspace(0, 1, 40)[:, None, None] * rng.random(3) + 0.1 * rng.random((40, 40, 3))
        write_image(folder / f"{i}.png", ramp)
    return folder


def small(tmp_path: Path, kind: str) -> list[str]:
    """Overrides that make a demo configuration tiny."""
    return [
        "-opt",
        str(ROOT / f"configs/demo/{kind}.yml"),
        f"output={tmp_path / kind}",
        "sde.T=6",
        "network.width=4",
        "data.size=16",
        "data.workers=0",
        f"data.images={tmp_path / 'train'}",
        f"validation.images={tmp_path / 'held_out'}",
        "training.iterations=3",
        "training.warmup=1",
        "training.batch_size=2",
        "validation.samples=2",
        "device=cpu",
    ]


def test_three_trainings_and_a_test(tmp_path, run):
    photographs(tmp_path / "train", 4)
    held_out = photographs(tmp_path / "held_out", 2)
    for kind in ("structure", "texture", "discriminator"):
        options = small(tmp_path, kind) + (["network.depth=1"] if kind != "discriminator" else [])
        run(f"train_{kind}", *options)
        assert (tmp_path / kind / "latest.pt").exists()
    out = run(
        "test",
        "-opt",
        ROOT / "configs/demo/test.yml",
        f"output={tmp_path / 'results'}",
        "sde.T=6",
        "data.size=16",
        f"data.images={held_out}",
        *(f"checkpoints.{kind}={tmp_path / kind / 'latest.pt'}" for kind in ("structure", "texture", "discriminator")),
        "checkpoints.width=4",
        "checkpoints.depth=1",
        "checkpoints.discriminator_width=4",
        "device=cpu",
    )
    assert "| all |" in " ".join(out.split())
    rows = list(csv.DictReader((tmp_path / "results" / "results.csv").open()))
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png"]
    assert read_image(tmp_path / "results" / "overview.png").shape == (16 + 4 + 16, 4 * 16 + 3 * 4, 3)
    trace = json.loads((tmp_path / "results" / "traces" / "0.json").read_text())
    assert [step["t"] for step in trace["steps"]] == [6, 5, 4, 3, 2, 1]
    assert sum(step["discriminator_evaluations"] for step in trace["steps"]) == int(rows[0]["discriminator_evaluations"])


def test_the_demo_cuts_disjoint_photographs(tmp_path, run):
    run("prepare_demo", tmp_path / "data")
    stems = {part: [p.stem.rstrip("0123456789_") for p in (tmp_path / "data" / part).iterdir()] for part in ("train", "test")}
    train, test = stems["train"], stems["test"]
    assert not set(train) & set(test)
    assert len(train) > 500 and len(test) == 12
    assert {read_image(p).shape for p in (tmp_path / "data" / "test").iterdir()} == {(64, 64, 3)}
    assert "is there already" in run("prepare_demo", tmp_path / "data")  # nothing is cut twice


def test_a_signal_does_not_end_a_loading_process_that_has_just_begun():
    """It waits until the process ignores it; to the main process it is delivered."""
    with StopRequest() as stop:
        with signals_wait():
            if not (child := os.fork()):
                time.sleep(0.3)
                ignore_signals(0)
                time.sleep(0.1)
                os._exit(7)
            for process in (child, os.getpid()):
                os.kill(process, signal.SIGTERM)
        end = time.monotonic() + 20
        while not stop.number and time.monotonic() < end:  # another thread may have been given it, and has to run first
            time.sleep(0.01)
        assert stop.number == signal.SIGTERM
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_interrupted_training_saves_and_goes_on(tmp_path, number):
    photographs(tmp_path / "train", 4)
    photographs(tmp_path / "held_out", 2)
    options = [*small(tmp_path, "structure"), "network.depth=1", "training.iterations=100000", "data.workers=1", "validation.images=null"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "train_structure.py"), *options]
    process = forked(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "structure").glob("tensorboard/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    os.killpg(process.pid, number)  # also to the loader's worker, as Ctrl-C and Slurm do
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + number, errors
    assert "resume=auto" in errors and "Traceback" not in errors
    assert list((tmp_path / "structure").glob("step_*.pt"))
