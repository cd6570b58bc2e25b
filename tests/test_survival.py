"""What a training survives: signals, full disks, damaged checkpoints, bad files; and that it can be followed."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import cv2
import kill_trainings
import numpy as np
import pytest
import torch
from conftest import ROOT, heeding
from forks import forked
from test_training import checkpoint, configure, metrics, photos, refusal, same, spy, steps  # noqa: F401
from torch import nn
from torch.utils.data import DataLoader, Dataset

from strdiffusion.checkpoints import files, read_checkpoint, write_checkpoint
from strdiffusion.config import TrainStructureConfig
from strdiffusion.data import decoding, read_image
from strdiffusion.data import images as images_module
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system import distributed
from strdiffusion.system.errors import Stopped, UserError, brief, one_line
from strdiffusion.system.files import inside
from strdiffusion.system.parser import build
from strdiffusion.system.terminal import duration
from strdiffusion.training import dry_run, loop, rehearsal, train
from strdiffusion.training.data import training_dataset, validation_batches
from strdiffusion.training.faults import FaultCounter, MaskFault, SkippingDataset
from strdiffusion.training.folder import CheckpointFolder
from strdiffusion.training.interrupt import StopRequest
from strdiffusion.training.journal import Journal, count_validations, forget_later_lines
from strdiffusion.training.loading import abandon, end, start
from strdiffusion.training.loop import Loop
from strdiffusion.training.optimizer import parameters_of
from strdiffusion.training.state import TrainingState
from strdiffusion.training.tasks import StructureTask, make_process, make_task
from strdiffusion.training.validation import validate

LOSSES = ("step", "kind", "loss", "gradient_norm")


def losses(config):
    return [{name: line[name] for name in LOSSES if name in line} for line in metrics(config)]


# ---- interruptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)])
def test_a_signal_finishes_the_iteration_and_the_resumed_run_is_the_same(configure, photos, monkeypatch, number, status):  # noqa: F811
    validation = {"images": str(photos), "every": 2, "samples": 1, "loss_images": 3}
    train("structure", configure(output="whole", validation=validation, training={"iterations": 6}))
    calls = spy(monkeypatch, StructureTask, lambda loss, network, count: (os.kill(os.getpid(), number) if count == 5 else 0, loss)[1])
    config = configure(resume="auto", validation=validation, training={"iterations": 6})
    with heeding(number):
        before = signal.getsignal(number)
        with pytest.raises(Stopped) as stopped:
            train("structure", config)
        assert stopped.value.status == status and signal.getsignal(number) == before
    assert len(calls) < 10 and 0 < max(steps(config)) < 6
    assert "stopped by" in (Path(config.output) / "status.txt").read_text()
    train("structure", config)
    whole = configure(output="whole")
    for key in ("network", "ema", "optimizer", "rng", "best", "validated", "step"):
        assert same(checkpoint(config, 6)[key], checkpoint(whole, 6)[key]), key
    assert losses(config) == losses(whole)


@pytest.mark.parametrize("due", [4, 6])
@pytest.mark.parametrize("again", [False, True])
def test_a_signal_does_not_cost_the_validation_that_is_due(configure, photos, monkeypatch, due, again):  # noqa: F811
    """SIGTERM in the iteration after which a validation is due (4: the best; 6: the last), and once more in the resumed one's."""
    validation = {"images": str(photos), "every": 4, "samples": 0}
    options = {"validation": validation, "training": {"iterations": 6, "save_every": 3, "keep": 9}}
    note = Loop.note_best
    monkeypatch.setattr(Loop, "note_best", lambda self, value: note(self, abs(self.state.step - due)))  # `due` is the best
    train("structure", configure(output="whole", **options))
    config, step = configure(resume="auto", **options), loop.train_step
    signals = [lambda state: state.step == due] + [lambda state: True] * again

    def interrupt(state):
        if signals and signals[0](state):
            signals.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    check = Loop.is_due
    monkeypatch.setattr(loop, "train_step", lambda model, state, *more: (step(model, state, *more), interrupt(state))[0])
    monkeypatch.setattr(Loop, "is_due", lambda self, finished: (len(signals) == again and interrupt(self.state), check(self, finished))[1])
    while True:
        try:
            train("structure", config)
            break
        except Stopped:
            continue
    assert not signals
    whole = Path(configure(output="whole").output)
    for name in ("latest.pt", "best.pt"):
        one, two = read_checkpoint(whole / name), read_checkpoint(Path(config.output) / name)
        assert all(same(one[key], two[key]) for key in one.keys() - {"config"}), name
    assert read_checkpoint(whole / "best.pt")["step"] == due and losses(config) == losses(configure(output="whole"))


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path):
    lines = [
        {"step": 0, "kind": "validation"},
        {"step": 1, "kind": "train"},
        {"step": 2, "kind": "train"},
        {"step": 2, "kind": "validation"},
        {"step": 3, "kind": "train"},
    ]
    path = tmp_path / "metrics.jsonl"
    for step, validated, kept in [(2, 2, 4), (2, 0, 3), (0, None, 0), (3, 2, 5)]:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "ki')
        forget_later_lines(path, step, validated)
        assert len(path.read_text().splitlines()) == kept
    path.write_bytes(b"\xff\n[]\n{}\n")
    forget_later_lines(path, 5, 5)
    assert path.read_text() == ""
    forget_later_lines(tmp_path / "absent.jsonl", 0, None)


def test_kill_test(tmp_path, pytestconfig):
    """The script that kills a training, with two kills; with --kills, of every kind of training."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    kills = pytestconfig.getoption("--kills")
    for kind in kill_trainings.KINDS if kills else ("structure",):
        command = [sys.executable, str(ROOT / "scripts" / "kill_test.py"), str(kills or 2), "--kind", kind, "--iterations", "20"]
        process = forked(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        told = process.communicate(timeout=1200 + 120 * kills)
        assert process.returncode == 0 and "bit for bit the same" in told[0], told


def test_differences_are_found(tmp_path, configure):  # noqa: F811
    validation = {"images": str(configure().data.images), "samples": 0}
    for output, seed in [("a", 0), ("b", 0), ("c", 1)]:
        train("structure", configure(output=output, seed=seed, validation=validation))
    folders = {name: Path(configure(output=name).output) for name in "abc"}
    assert kill_trainings.differences(folders["a"], folders["b"]) == []
    assert {"latest.pt: network", "best.pt: ema", "metrics.jsonl"} <= set(kill_trainings.differences(folders["a"], folders["c"]))


def test_a_second_control_c_acts_at_once(monkeypatch):
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGUSR1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    for name in distributed.LAUNCHED:
        monkeypatch.setenv(name, "0")
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.number == signal.SIGINT


# ---- checkpoints --------------------------------------------------------------------------------------


def test_the_best_by_validation_is_kept(configure, photos):  # noqa: F811
    validation = {"images": str(photos), "every": 2, "samples": 0}
    config = configure(validation=validation, training={"iterations": 12, "learning_rate": 5e-3, "save_every": 100, "keep": 1})
    train("structure", config)
    found = [(line["loss"], line["step"]) for line in metrics(config) if line["kind"] == "validation" and line["step"]]
    best = read_checkpoint(Path(config.output) / "best.pt")
    assert (best["best"][1], best["step"]) == min(found) and steps(config) == [12]
    psnr = configure(output="psnr", validation=validation | {"best": "psnr", "samples": 2}, training={"iterations": 6, "save_every": 100})
    train("structure", psnr)
    found = [(line["psnr"], line["step"]) for line in metrics(psnr) if line["kind"] == "validation" and line["step"]]
    best = read_checkpoint(Path(psnr.output) / "best.pt")
    assert best["best"][0] == "psnr" and (best["best"][1], best["step"]) == max(found)
    with pytest.raises(UserError, match="validation.best=psnr"):
        configure(validation={"best": "psnr", "samples": 0})


def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(configure, caplog):  # noqa: F811
    config = configure(resume="auto")
    train("structure", config)
    expected = checkpoint(config, 4)
    newest = Path(config.output) / "step_000000004.pt"
    content = bytearray(newest.read_bytes())
    place = bytes(content).find(expected["network"]["stem.weight"].numpy().tobytes()[:16])
    content[place + 2] ^= 1
    newest.write_bytes(content)
    assert "damaged" in str(pytest.raises(UserError, read_checkpoint, newest).value)
    train("structure", config)
    assert "skipped" in caplog.text and same(checkpoint(config, 4)["network"], expected["network"])


def test_the_best_is_continued_where_all_others_are_damaged(configure, photos, caplog):  # noqa: F811
    config = configure(resume="auto", training={"iterations": 4})
    train("structure", config)
    folder = Path(config.output)
    shutil.copy(folder / "step_000000002.pt", folder / "best.pt")
    expected = checkpoint(config, 4)
    for path in folder.glob("step_*.pt"):
        path.write_bytes(b"damaged")
    train("structure", config)
    assert "best.pt at iteration 2" in caplog.text and same(checkpoint(config, 4)["network"], expected["network"])
    for path in (folder / "best.pt", *folder.glob("step_*.pt")):
        path.write_bytes(b"damaged")
    assert "remove the folder" in refusal("structure", config)


@pytest.mark.parametrize("name", ["latest.pt", "best.pt", "metrics.jsonl", "status.txt", "log.txt", "config.yml", "tensorboard/a"])
def test_the_files_of_others_are_not_overwritten(configure, name):  # noqa: F811
    config = configure(resume="auto")
    theirs = Path(config.output) / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("x: 1")
    assert "not of a training" in refusal("structure", config)
    assert "not of a training" in str(pytest.raises(UserError, dry_run, "structure", config).value)
    assert theirs.read_text() == "x: 1" and len(list(Path(config.output).iterdir())) == 1


def test_what_is_written_wrongly_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"a": torch.zeros(3)})
    before = path.read_bytes()
    save = torch.save

    def spoil(content, file):
        save(content, file)
        file.seek(700)
        file.write(b"spoilt" * 20)

    monkeypatch.setattr(files.torch, "save", spoil)
    with pytest.raises(UserError, match="cannot be written.*read back"):
        write_checkpoint(path, {"a": torch.ones(3)})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_left_overs_are_removed_and_not_used(configure):  # noqa: F811
    config = configure(resume="auto")
    folder = Path(config.output)
    folder.mkdir()
    (folder / f".step_000000002.pt.{'0' * 32}.tmp").write_bytes(b"half a checkpoint")  # as earlier versions named them
    (folder / f".latest.pt.{2**22 + 1}-{'0' * 32}.tmp").write_bytes(b"")  # no process has such a number
    train("structure", config)
    assert not list(folder.glob(".*.tmp")) and steps(config) == [2, 4]


def test_best_is_restored_where_the_run_was_killed_before_linking_it(configure, photos):  # noqa: F811
    validation = {"images": str(photos), "every": 2, "samples": 0}
    config = configure(resume="auto", validation=validation, training={"iterations": 2})
    train("structure", config)
    best = Path(config.output) / "best.pt"
    best.unlink()
    train("structure", config)
    assert read_checkpoint(best)["step"] == 2


def test_two_runs_do_not_share_a_folder(tmp_path, configure):  # noqa: F811
    config = configure(resume="auto")
    Path(config.output).mkdir()
    code = (
        "import time; from strdiffusion.system.folders import output_folder\n"
        f"with output_folder({str(config.output)!r}, True, ''): print('locked', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        assert f"process {other.pid} on " in refusal("structure", config)
    finally:
        other.kill()
        other.wait()
    train("structure", config)


@pytest.mark.parametrize(("limit", "fails"), [(100_000, True), (400_000, True), (2_000_000, False)])
def test_a_full_disk_leaves_the_last_checkpoint_whole(configure, capfd, limit, fails):  # noqa: F811
    """RLIMIT_FSIZE: no file may grow beyond the limit, so that log and checkpoint cannot be written."""
    config = configure(resume="auto", network={"depth": 2})
    path = train("structure", config)
    whole = read_checkpoint(path)
    assert 500_000 < path.stat().st_size < 1_000_000
    (Path(config.output) / "log.txt").write_text("." * 99_990)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        more = configure(resume="auto", network={"depth": 2}, training={"iterations": 6, "keep": 1})
        if fails:
            assert "cannot be written: File too large" in refusal("structure", more)
        else:
            train("structure", more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert same(read_checkpoint(Path(config.output) / "latest.pt"), whole) == fails
    assert not list(Path(config.output).glob(".step*")) and "Traceback" not in capfd.readouterr().err


def test_a_folder_that_cannot_be_written(configure, tmp_path, monkeypatch):  # noqa: F811
    config = configure(resume="auto", training={"iterations": 2})
    train("structure", config)
    kept = (Path(config.output) / "step_000000002.pt").read_bytes()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    message = refusal("structure", configure(resume="auto"))
    assert "cannot be written" in message and "Permission denied" in message
    assert (Path(config.output) / "step_000000002.pt").read_bytes() == kept


# ---- numbers that are not finite ----------------------------------------------------------------------


def test_skipped_iterations_are_counted_logged_and_resumed(configure, monkeypatch):  # noqa: F811
    spy(monkeypatch, StructureTask, lambda loss, network, number: loss * torch.inf if number in (2, 3) else loss)
    config = configure(training={"iterations": 4})
    train("structure", config)
    log = (Path(config.output) / "log.txt").read_text()
    assert "iteration 2 was skipped: loss inf" in log and "skipped so far: 2" in log
    assert [line["skipped"] for line in metrics(config) if line["kind"] == "train"] == [0, 1, 2, 2]
    assert [line["step"] for line in metrics(config) if line["kind"] == "skipped"] == [2, 3]
    assert checkpoint(config, 4)["skipped"] == 2 and checkpoint(config, 2)["skipped_in_row"] == 1


def test_the_run_stops_after_too_many_in_a_row_and_can_be_resumed(configure, monkeypatch):  # noqa: F811
    spy(monkeypatch, StructureTask, lambda loss, network, number: loss * torch.nan if number > 2 else loss)
    config = configure(training={"iterations": 9, "max_skipped": 3, "save_every": 100})
    message = refusal("structure", config)
    for name in ("status.txt", "log.txt"):  # say why
        assert message in (Path(config.output) / name).read_text()
    assert "3 times in a row" in message and "learning_rate" in message and steps(config) == [5]
    monkeypatch.undo()
    train("structure", configure(resume="auto", training={"iterations": 9, "max_skipped": 3}))
    assert max(steps(config)) == 9


# ---- bad files ----------------------------------------------------------------------------------------


@pytest.fixture
def holidays(tmp_path):
    """Twenty-five photographs, most of them fine, with names as people give them."""
    folder = tmp_path / "holiday photos"
    (folder / "day 1").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"day 1/IMG_{i:04d}.png" for i in range(12)]
    names += ['it\'s "us".png', "new\nline.png", "Plage à Étretat.png", "日本.png", "a  b.png", "-rf.png", "%s%n.png"]
    names += [os.fsdecode(b"\xff\xfe.png")]  # not text
    for name in names:
        pixels = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (40, 36), interpolation=cv2.INTER_CUBIC)
        (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    whole = (folder / "日本.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("Dear diary")
    cv2.imwrite(str(folder / "pixel.png"), np.zeros((1, 1, 3), np.uint8))
    bomb = bytearray(cv2.imencode(".bmp", np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2  # width and height
    (folder / "bomb.bmp").write_bytes(bomb)
    (folder / "day 1" / "back").symlink_to(folder, target_is_directory=True)
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return folder


def test_training_on_holiday_photographs(holidays, configure, tmp_path):  # noqa: F811
    config = configure(data={"images": str(holidays)}, training={"iterations": 30, "save_every": 100, "log_every": 10})
    train("structure", config)
    log = (Path(config.output) / "log.txt").read_text()
    last = log.strip().splitlines()[-1]
    assert "5 of 25 files could not be used" in last
    assert all(f"{name}" in last for name in ("cut.png", "empty.jpg", "text.png", "pixel.png", "bomb.bmp")), last
    strict = configure(output="strict", data={"images": str(holidays), "max_bad_share": 0.1}, training={"iterations": 30})
    message = refusal("structure", strict)
    assert "3 of 25 training files" in message and "max_bad_share=0.1" in message
    kept = max(steps(strict))
    assert checkpoint(strict, kept)["step"] == kept > 0  # what was learnt until then


def test_a_replacement_depends_on_seed_number_and_bad_files_alone(holidays, configure):  # noqa: F811
    config = configure(data={"images": str(holidays)})
    one, two = SkippingDataset(training_dataset(config)), SkippingDataset(training_dataset(config))
    found = [one[n] for n in range(25)]
    for n in reversed(range(25)):
        assert same(two[n].tensors, found[n].tensors) and two[n].faults == found[n].faults
    assert sum(bool(sample.faults) for sample in found) == 5  # an epoch meets each of them
    dataset = training_dataset(config)
    untouched = [n for n in range(25) if not found[n].faults]
    assert all(same(dataset[n], found[n].tensors) for n in untouched)


def test_files_that_vanish_during_training(configure, photos, monkeypatch):  # noqa: F811
    spy(monkeypatch, StructureTask, lambda loss, network, count: ((photos / "0.png").unlink(missing_ok=True), loss)[1])
    config = configure(training={"iterations": 10})
    train("structure", config)
    assert "1 of 5 files could not be used" in (Path(config.output) / "log.txt").read_text()
    spy(monkeypatch, StructureTask, lambda loss, network, count: (shutil.rmtree(photos, ignore_errors=True), loss)[1])
    config = configure(output="all gone", training={"iterations": 10})
    assert "cannot read image" in refusal("structure", config) and steps(config)


def test_a_bad_mask_is_skipped_too(configure, tmp_path):  # noqa: F811
    (tmp_path / "masks").mkdir()
    for i in range(7):
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), np.eye(20, dtype=np.uint8) * 255)
    (tmp_path / "masks" / "3.png").write_bytes(b"")
    dataset = SkippingDataset(training_dataset(configure(data={"masks": {"folder": str(tmp_path / "masks")}})))
    samples = [dataset[n] for n in range(40)]
    assert all(sample.tensors for sample in samples)
    assert {fault for sample in samples for fault in sample.faults} and all("3.png" in f for sample in samples for f in sample.faults)


def test_the_share_of_bad_files():
    counter = FaultCounter(10, 0.2)
    counter.add(["a", "b", "a"])
    with pytest.raises(UserError, match="3 of 10.*the last: c"):
        counter.add(["c"])
    counter = FaultCounter(2, 0.2, masks=20)
    counter.add([MaskFault(name) for name in "abcd"])  # of the masks, not of the images
    with pytest.raises(UserError, match="5 of 20 training masks.*the last: e"):
        counter.add([MaskFault("e")])


def test_a_killed_loader_process_is_said_in_one_line(configure, monkeypatch):  # noqa: F811
    config = configure(data={"workers": 1}, training={"iterations": 1000})

    def kill(loss, network, count):
        if count == 3:
            children = Path(f"/proc/{os.getpid()}/task/{threading.main_thread().native_id}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            time.sleep(0.3)
        return loss

    spy(monkeypatch, StructureTask, kill)
    assert "data.workers" in refusal("structure", config)


def test_pixels_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((50, 50, 3), np.uint8))
    monkeypatch.setattr(decoding, "_decode", lambda data: pytest.fail("decoded"))
    assert "declares more than 1000 pixels" in str(pytest.raises(UserError, read_image, tmp_path / "large.png").value)
    monkeypatch.setattr(images_module, "MAX_BYTES", 50)
    assert "bytes" in str(pytest.raises(UserError, read_image, tmp_path / "large.png").value)


def test_narrow_images_do_not_grow_without_bound(tmp_path):
    narrow = np.zeros((1, 50_000, 3), np.float32)
    assert "too narrow" in str(pytest.raises(UserError, images_module.enlarge_to, narrow, 256).value)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_short(tmp_path, progressive):
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8), (400, 300))
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes()
    assert not decoding.is_cut_short(content + b"more after the end")
    for share in (0.3, 0.9, 0.999):
        assert decoding.is_cut_short(content[: int(share * len(content))])


# ---- files that are not to be trusted -----------------------------------------------------------------


def change(path, key, value):
    content = torch.load(path, weights_only=True)
    content[key] = value(content[key])
    torch.save(content, path)


def moment(optimizer, name, value):
    """The optimizer's state with another value for the first parameter."""
    return optimizer | {"state": optimizer["state"] | {0: optimizer["state"][0] | {name: value}}}


def fresh_state(config, folder):
    sde = MeanRevertingSDE(**vars(config.sde))
    return TrainingState(CheckpointFolder(folder, 1), StructureTask(config, sde), sde, config, torch.device("cpu"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", lambda old: old | {"stem.weight": old["stem.weight"] * torch.nan}),
        ("network", lambda old: old | {"stem.weight": torch.zeros(()).expand(10**6, 10**6)}),
        ("network", lambda old: list(old)),
        ("ema", lambda old: None),
        ("optimizer", lambda old: {}),
        ("optimizer", lambda old: old | {"state": {0: dict.fromkeys(("exp_avg", "exp_avg_sq", "step"), torch.zeros(1))}}),
        ("step", lambda old: -1),
        ("step", lambda old: "9" * 5000),
        ("step", lambda old: torch.tensor(4)),
        ("best", lambda old: "best"),
        ("rng", lambda old: old[:10]),
        ("optimizer", lambda old: 3),
        ("optimizer", lambda old: moment(old, "step", torch.tensor(torch.nan))),
        ("optimizer", lambda old: moment(old, "step", [])),
        ("optimizer", lambda old: moment(old, "exp_avg_sq", -old["state"][0]["exp_avg_sq"] - 1)),
        ("sde", lambda old: {"T": [[[["deep"]]]] * 10**5}),
    ],
)
def test_resuming_from_a_strange_checkpoint(configure, key, value):  # noqa: F811
    config = configure(training={"iterations": 2})
    path = train("structure", config)
    change(path, key, value)
    message = refusal("structure", configure(output="new", resume=str(path)))
    assert str(path) in message and len(message) < 1000


def test_only_the_state_of_optimizer_and_schedule_is_taken(configure):  # noqa: F811
    """How the optimizer steps is what the configuration says: a checkpoint cannot let weights grow, or the run fail later."""
    config = configure(resume="auto", training={"iterations": 2, "milestones": [1]})
    path = train("structure", config)
    content = torch.load(path, weights_only=True)
    for key, value in {"eps": "x", "maximize": True, "weight_decay": torch.nan, "betas": 3, "params": None, "foreach": True}.items():
        content["optimizer"]["param_groups"][0][key] = value
    content["scheduler"] = {"get_lr": 5, "step": 1, "_step_count": "a", "last_epoch": torch.zeros(2), "lr_lambdas": 3}
    changed = path.with_name("changed.pt")
    torch.save(content, changed)
    more = {"iterations": 4, "milestones": [1, 3]}
    train("structure", configure(output="new", resume=str(changed), training=more))
    train("structure", configure(resume="auto", training=more))
    for key in ("network", "optimizer"):
        assert same(checkpoint(configure(output="new"), 4)[key], checkpoint(config, 4)[key]), key


def test_only_a_scale_is_taken_for_the_loss(configure, tmp_path):  # noqa: F811
    config = configure(precision="fp16")
    state = fresh_state(config, tmp_path)
    start = state.scaler.state_dict()
    for found in (start | {"scale": torch.nan}, start | {"scale": "x"}, start | {"_growth_tracker": -1}, {"scale": 0.0}):
        pytest.raises((UserError, ValueError), state._load_scale, Path("a.pt"), found)
    state._load_scale(Path("a.pt"), start | {"scale": 4.0, "growth_factor": "x"})
    assert state.scaler.state_dict() == start | {"scale": 4.0}


def test_moments_are_laid_out_as_their_parameters(configure, tmp_path):  # noqa: F811
    """A GPU's fused optimizer takes nothing else, and a file may hold any layout."""
    state = fresh_state(configure(), tmp_path)
    parameters = parameters_of(state.optimizer)
    strides = [
        parameter.to(memory_format=torch.channels_last).stride() if parameter.dim() == 4 else parameter.stride() for parameter in parameters
    ]
    for parameter in parameters:
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    found = {i: {"exp_avg": torch.rand(p.shape), "exp_avg_sq": torch.rand(p.shape), "step": 3.0} for i, p in enumerate(parameters)}
    state._load_moments(Path("a.pt"), found)
    for parameter, stride, given in zip(parameters, strides, found.values(), strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            moment = state.optimizer.state[parameter][name]
            assert moment.stride() == stride and torch.equal(moment, given[name])


def test_a_checkpoint_that_would_grow_is_not_read(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "damaged" in str(pytest.raises(UserError, read_checkpoint, tmp_path / "bomb.pt").value)
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "wide.pt")
    assert "does not hold" in str(pytest.raises(UserError, read_checkpoint, tmp_path / "wide.pt").value)


def test_nested_pickles_do_not_hang(tmp_path):
    nested = ["x"]
    for _ in range(60):
        nested = [nested, nested]
    for name, content in [("a", {"format": nested}), ("b", {"format": "strdiffusion", "version": nested}), ("c", {"x": nested, "y": 1})]:
        torch.save(content, tmp_path / f"{name}.pt")
        config = build(TrainStructureConfig, {"output": str(tmp_path / "o"), "data": {"images": str(tmp_path)}}, "test")
        assert config
        from strdiffusion.checkpoints import load_network

        assert len(str(pytest.raises(UserError, load_network, tmp_path / f"{name}.pt").value)) < 1000
    assert len(brief(nested)) < 500 and brief(int("9" * 4000) ** 2) and one_line("a\nb\x1b[0m") == "a\\nb\\x1b[0m"


def test_a_malicious_pickle_writes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"network": Evil()}, tmp_path / "zip.pt")
    for name in ("plain.pt", "zip.pt"):
        assert "code" in str(pytest.raises(UserError, read_checkpoint, tmp_path / name).value)
    assert not (tmp_path / "owned").exists()


def test_results_do_not_leave_their_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "out", "a/b.png") == tmp_path / "out" / "a" / "b.png" and (tmp_path / "out" / "a").is_dir()
    for name in ("../b.png", "a/../../b.png", "/b.png", "link/b.png", ".", "a\0.png"):
        assert "outside" in str(pytest.raises(UserError, inside, tmp_path / "out", name).value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


# ---- a run one can follow -----------------------------------------------------------------------------


def test_log_metrics_and_status(configure, photos):  # noqa: F811
    config = configure(validation={"images": str(photos), "every": 2, "samples": 1}, training={"iterations": 4, "batch_size": 2})
    train("structure", config)
    folder = Path(config.output)
    log = (folder / "log.txt").read_text()
    facts = ("python ", f"torch {torch.__version__}", "5 images, 5 held out", "M parameters", "cpu", "batch_size: 2", "validation at 4")
    assert all(fact in log for fact in facts), log
    lines = metrics(config)
    lines = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["images_per_second"] > 0 and line["loss"] > 0 and line["learning_rate"] == 1e-3 for line in lines)
    status = (folder / "status.txt").read_text()
    assert status.count("\n") == 1 and "structure: finished, iteration 4 of 4" in status and "images/s" in status


def test_the_status_is_of_this_run_from_the_start(configure, monkeypatch):  # noqa: F811
    train("structure", configure())
    config, said = configure(resume="auto", training={"iterations": 5}), []
    status = Path(config.output) / "status.txt"
    spy(monkeypatch, StructureTask, lambda loss, network, number: (said.append(status.read_text()), loss)[1])
    train("structure", config)
    assert "running, iteration 4 of 5" in said[0]


def test_the_speed_leaves_start_validation_and_saving_out(configure, monkeypatch, tmp_path):  # noqa: F811
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    journal = Journal(tmp_path, "structure", configure(), 0, None, enabled=False)
    rates = []
    for step, seconds in [(10, 100), (20, 10), (30, 10), (40, 20)]:
        now[0] += seconds
        with journal.pause():
            now[0] += 1000
        journal._measure(step)
        rates.append(journal.rate)
    assert rates == pytest.approx([0.1, 1, 1, 1 / 1.2])


def test_another_configuration_is_said(configure, caplog):  # noqa: F811
    train("structure", configure())
    train("structure", configure(resume="auto", training={"iterations": 5}, seed=3))
    said = "not that of the checkpoint: "
    line = next(record.getMessage() for record in caplog.records if said in record.getMessage())
    assert sorted(line.split(said)[1].split(", ")) == ["seed=3 (was 0)", "training.iterations=5 (was 4)"]
    caplog.clear()
    train("structure", configure(resume="auto", training={"iterations": 5}, seed=3))
    assert said not in caplog.text


def test_the_validation_loss_is_the_mean_over_images(configure, photos):  # noqa: F811
    class Task:
        times = torch.arange(2, 5)
        evaluations = 0

        def loss(self, network, batch, t, draw):
            return batch.mask.mean(), {}

    config = configure(validation={"images": str(photos), "samples": 0})  # five in batches of two
    batches = validation_batches(config)
    found = validate(Task(), nn.Identity(), batches, config, torch.device("cpu"), lambda: False).scalars["loss"]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert found == pytest.approx(torch.cat([batch.mask for batch in batches]).mean().item(), rel=1e-6)


def test_a_validation_ends_at_once(configure, photos):  # noqa: F811
    """A stop during its losses or its samples: after one more evaluation of the network, and without a result."""
    config = configure(validation={"images": str(photos), "samples": 2})
    task, batches = make_task("structure", config, make_process(config)), validation_batches(config)
    seen = []
    hook = task.network.register_forward_hook(lambda *_: seen.append(None))

    def validated(after):
        seen.clear()
        return validate(task, task.network, batches, config, torch.device("cpu"), lambda: len(seen) >= after)

    assert validated(1000) is not None
    whole = len(seen)
    assert whole == len(batches) + task.evaluations
    for after in (1, len(batches) + 1, whole - 1):
        assert validated(after) is None and len(seen) == after
    hook.remove()
    assert not task.network._forward_hooks


def test_nothing_learnt_waits_for_the_first_validation(configure, photos, monkeypatch):  # noqa: F811
    """None before the first iteration; when the first one runs, its iteration is saved, and status.txt says what runs."""
    config = configure(validation={"images": str(photos), "every": 2, "samples": 0}, training={"iterations": 5, "save_every": 100})
    seen, real = [], loop.validate

    def watched(*arguments):
        status = (Path(config.output) / "status.txt").read_text()
        seen.append((steps(config), "validating" in status))
        return real(*arguments)

    monkeypatch.setattr(loop, "validate", watched)
    train("structure", config)
    assert seen[0] == ([2], True) and len(seen) == 3
    assert [line["step"] for line in metrics(config) if line["kind"] == "validation"] == [2, 4, 5]


def test_validations_that_are_left():
    for every in (2, 3, 10):
        due = [step for step in range(1, 8) if step % every == 0 or step == 7]
        assert [count_validations(step, 7, every) for step in range(8)] == [sum(d > step for d in due) for step in range(8)]


def test_what_a_stop_says_is_saved_is_saved(configure, photos, caplog):  # noqa: F811
    """A run that continues another folder's, stopped in the validation that it makes up for, before an iteration."""
    train("structure", configure(output="first"))
    before = Path(configure(output="first").output) / "latest.pt"
    validation = {"images": str(photos), "every": 4, "samples": 0}
    config = configure(output="second", resume=str(before), validation=validation, training={"iterations": 8})
    caplog.clear()
    with StopRequest() as stop, pytest.MonkeyPatch.context() as patch:
        patch.setattr("strdiffusion.training.run.StopRequest", lambda: stop)
        stop.number = signal.SIGTERM
        with pytest.raises(Stopped):
            train("structure", config)
    assert f"at iteration 4, saved in {config.output}" in caplog.text and steps(config) == [4]


def test_durations():
    assert [duration(s) for s in (5, 65, 3700, 200_000)] == ["0 min 5 s", "1 min 5 s", "1 h 1 min", "2 d 7 h"]


@pytest.mark.parametrize("kind", ["structure", "texture", "discriminator"])
def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(configure, photos, capsys, kind):  # noqa: F811
    validation = {"images": str(photos), "every": 2, "samples": 0 if kind == "discriminator" else 1}
    config = configure(kind, validation=validation, training={"iterations": 1000, "accumulate": 2})
    dry_run(kind, config)
    said = capsys.readouterr().out
    assert "hours" in said and "GB a checkpoint" in said and "one iteration" in said and "5 training images, 5 held out" in said
    assert not Path(config.output).exists()


def test_a_dry_run_finds_what_is_wrong(configure, photos, monkeypatch):  # noqa: F811
    def refused(**sections):
        return str(pytest.raises(UserError, dry_run, "structure", configure(**sections)).value)

    for i in range(3):
        (photos / f"{i}.png").write_bytes(b"")
    assert "max_bad_share" in refused()
    assert "multiple of" in refused(training={"batch_size": 3, "accumulate": 2})
    Path(configure().output).mkdir()
    (Path(configure().output) / "a").write_text("")
    assert "already holds files" in refused()
    assert "does not exist" in refused(output="new", data={"max_bad_share": 1.0}, resume="nothere.pt")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    assert "no place for files" in refused(output="new")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 10))
    assert "are free" in refused(output="new", data={"max_bad_share": 1.0})


def test_a_dry_run_counts_from_where_the_run_continues(configure, capsys, monkeypatch):  # noqa: F811
    train("structure", configure(training={"iterations": 10}))
    config = configure(resume="auto", training={"iterations": 12})
    monkeypatch.setattr(rehearsal, "timed", lambda action, device: 3600.0)
    load = rehearsal.load_parts
    monkeypatch.setattr(rehearsal, "load_parts", lambda *arguments: (load(*arguments)[0], 0.0))
    dry_run("structure", config)
    said = capsys.readouterr().out
    assert "continues at iteration 10 of 12" in said and "about 2 hours" in said
    for path in Path(config.output).glob("step_*.pt"):
        path.write_bytes(b"damaged")
    before = sorted(Path(config.output).iterdir())
    assert "can be read" in str(pytest.raises(UserError, dry_run, "structure", config).value)
    assert sorted(Path(config.output).iterdir()) == before


def test_the_size_of_a_checkpoint_is_estimated_well(configure, capsys):  # noqa: F811
    config = configure(network={"depth": 2}, training={"iterations": 1})
    path = train("structure", config)
    dry_run("structure", configure(output="new", network={"depth": 2}))
    said = float(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk")).split()[1])
    assert abs(said * 1e9 / path.stat().st_size - 1) < 0.2  # the rest is names


def test_checkpoint_folder_keeps_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, 2)
    for step in range(1, 5):
        folder.write(step, {"step": step}, best=step == 2)
    assert [path.name for path in folder.files()] == ["step_000000003.pt", "step_000000004.pt"]
    assert read_checkpoint(tmp_path / "best.pt") == {"step": 2} and read_checkpoint(tmp_path / "latest.pt") == {"step": 4}


class Numbers(Dataset):
    """The numbers from 0 on."""

    def __len__(self):
        return 10**6

    def __getitem__(self, n):
        return n


def assert_ends(workers, function, *arguments):
    """Neither the call waits for the loading processes, nor do these go on."""
    call = threading.Thread(target=function, args=arguments, daemon=True)
    call.start()
    call.join(timeout=20)
    assert not call.is_alive()
    assert workers
    for worker in workers:
        worker.join(timeout=20)
        assert not worker.is_alive()


def test_loading_processes_are_not_waited_for_where_one_was_killed():
    """One that was killed may have held a lock, here it is held by nobody who would ever give it back."""
    batches, workers = start(DataLoader(Numbers(), num_workers=2))
    next(batches)
    batches._workers_done_event._cond.acquire()
    abandon(batches, workers)
    assert_ends(workers, batches.__del__)


def test_the_others_end_at_once_where_one_was_killed_during_an_iteration():
    batches, workers = start(DataLoader(Numbers(), num_workers=2))
    next(batches)
    batches._workers_done_event._cond.acquire()  # as above
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        workers[0].kill()
        time.sleep(20)  # until torch hears of it
    assert_ends(workers, end, batches, workers)
