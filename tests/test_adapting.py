"""Adapting: networks learn from the known part of a photograph, and of nothing else."""

import argparse
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, SIZE, save, single_error
from forks import forked

from strdiffusion import StrDiffusion, UserError
from strdiffusion.app.adapting import AdaptOptions, adapt, largest_known_share
from strdiffusion.app.inputs import read_inputs
from strdiffusion.batch import Batch
from strdiffusion.checkpoints import network_record, write_checkpoint
from strdiffusion.commands.adapt import amount, take_learning_model
from strdiffusion.commands.main import main
from strdiffusion.config import TrainDiscriminatorConfig, TrainPriorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.config.training import TrainingConfig
from strdiffusion.data.datasets import TrainingDataset
from strdiffusion.data.mask_sources import GeneratedMasks
from strdiffusion.data.unknown import UnknownParts, shrunk_mask
from strdiffusion.denoiser import GivenX0
from strdiffusion.evaluation.metrics import psnr
from strdiffusion.networks import UNet
from strdiffusion.objectives import matching_loss
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.parser import build
from strdiffusion.training import loop, train

HEIGHT, WIDTH = 60, 90
KINDS = {"texture": ("texture", "structure"), "unguided": ("texture",), "joint": ("texture",)}


def stripes(seed=0):
    """A photograph (H, W, 3) whose texture goes on everywhere: slanted stripes with a little noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wave = 127 + 80 * np.sin((x + y)[..., None] / np.array([3.0, 4.0, 5.0]))
    return np.clip(wave + np.random.default_rng(seed).normal(0, 4, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)


def hole(*boxes):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


HOLE = hole((20, 30, 14, 14), (40, 70, 8, 8))


def model_of(weights, name):
    files = {"texture": weights / f"{name}.pt"} | ({"structure": weights / "structure.pt"} if name == "texture" else {})
    return StrDiffusion.load(files, size=SIZE, device="cpu")


def read(image=None, mask=HOLE):
    return read_inputs(stripes() if image is None else image, mask, None, "white_hole", 0)


def states(model):
    return {loaded.kind: loaded.network.state_dict() for loaded in model.method.model.networks}


def same(one, other):
    return all(torch.equal(one[kind][name], other[kind][name]) for kind in one for name in one[kind])


# ---- nothing of the hole is learnt -------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_the_hole_never_enters_the_learning(weights, name):
    marked = stripes()
    marked[HOLE] = (255, 0, 255)
    quick = AdaptOptions(iterations=2, batch_size=4, crop=SIZE)
    clean, other = (adapt(model_of(weights, name), [read(image)], quick) for image in (stripes(), marked))
    assert same(states(clean), states(other))
    changed = stripes()
    changed[~HOLE] = 255 - changed[~HOLE]
    assert not same(states(clean), states(adapt(model_of(weights, name), [read(changed)], quick)))


def test_samples_hold_no_colour_of_what_is_unknown(tmp_path):
    """With every scale and turn, and although colours are resized: a marker in the hole is in no sample."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[HOLE] = 255
    save(tmp_path / "photos" / "a.png", image)
    save(tmp_path / "masks" / "a.png", 255 * HOLE.astype(np.uint8))
    path, folder = tmp_path / "photos" / "a.png", tmp_path / "photos"
    options = dict(pair="gray2edge", edge_source="known", edge_sigma=1.0, seed=0, shrink=(1.0, 2.5), files=[path])
    masks, unknown = GeneratedMasks((0.05, 0.6), "mixed"), UnknownParts(tmp_path / "masks", [path], folder)
    dataset = TrainingDataset(folder=folder, size=SIZE, masks=masks, unknown=unknown, **options)
    seen = [dataset[n] for n in range(60)]
    assert max(float(sample["texture"].max()) for sample in seen) <= 40 / 255 + 1e-6
    for sample in seen:
        assert not (sample["mask"] * (1 - sample["counted"])).any()  # what is unknown is never shown as known
    assert 0.9 < np.mean([float(sample["counted"].mean()) for sample in seen]) < 1
    dataset.unknown = None
    dataset._kept.clear()
    assert max(float(dataset[n]["texture"].max()) for n in range(60)) > 0.99  # without it the marker is there


def test_only_what_is_known_counts_in_the_loss():
    sde, generator = MeanRevertingSDE(10), torch.Generator().manual_seed(0)
    x, clean, mean, guess = (torch.rand(2, 3, 8, 8, generator=generator) for _ in range(4))
    mask, counted = ((torch.rand(2, 1, 8, 8, generator=generator) > 0.4).float() for _ in range(2))
    t = torch.tensor([3, 7])
    found = matching_loss(GivenX0(sde, guess), x, clean, mean, mask, t, loss_on="x0", counted=counted).loss
    expected = ((guess - clean).abs() * counted * (mask + 10 * (1 - mask))).sum() / clean.numel()
    torch.testing.assert_close(found, expected)
    elsewhere = torch.where(counted > 0.5, clean, 7.0)
    torch.testing.assert_close(found, matching_loss(GivenX0(sde, guess), x, elsewhere, mean, mask, t, loss_on="x0", counted=counted).loss)
    whole = matching_loss(GivenX0(sde, guess), x, clean, mean, mask, t, counted=torch.ones_like(mask)).loss
    assert torch.equal(whole, matching_loss(GivenX0(sde, guess), x, clean, mean, mask, t).loss)
    rows = Batch(x, x[:, :1], x[:, :1], mask, counted=counted).take([1])
    assert torch.equal(rows.counted, counted[1:])


def test_a_smaller_mask_is_known_where_all_is_known():
    known = np.ones((8, 8), np.float32)
    known[3, 5] = 0
    smaller = shrunk_mask(known, 4, 4)
    assert smaller[1, 2] == 0 and smaller.sum() == 15


# ---- what is learnt ----------------------------------------------------------------------------------


def test_it_learns(tmp_path):
    """A new network of 4 channels, which predicts x0, fills the hole in the stripes at least 3 dB better after 60 iterations."""
    torch.manual_seed(0)
    network = UNet(3, 4, 2)
    record = network_record("texture", network, MeanRevertingSDE(10), dict(pair="gray2edge", edge_source="known", edge_sigma=1.0), "x0")
    write_checkpoint(tmp_path / "new.pt", record | {"step": 0, "network": network.state_dict(), "ema": None})
    model, image = StrDiffusion.load({"texture": tmp_path / "new.pt"}, size=SIZE, device="cpu"), stripes()
    adapted = adapt(model, [read(image)], AdaptOptions(iterations=60, batch_size=8, crop=SIZE, learning_rate=1e-2, shrink=1.0))

    def quality(model):
        out = model(image.copy(), HOLE, steps=2, sampler="posterior").images[0].levels
        assert np.array_equal(out[~HOLE], image[~HOLE])
        return psnr(out / np.float32(255), image / np.float32(255), HOLE)

    assert quality(adapted) > quality(model) + 3


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_gives_the_same_weights(weights, name, tmp_path):
    model, quick = model_of(weights, name), AdaptOptions(iterations=2, batch_size=4, crop=SIZE, seed=3)
    before = {kind: {name: value.clone() for name, value in state.items()} for kind, state in states(model).items()}
    adapted = adapt(model, [read()], quick)
    assert same(states(model), before)  # the model itself stays as it was
    assert same(states(adapted), states(adapt(model, [read()], quick)))
    assert not same(states(adapted), states(adapt(model, [read()], AdaptOptions(iterations=2, batch_size=4, crop=SIZE, seed=4))))
    changed = {kind for kind in before if not same({kind: before[kind]}, {kind: states(adapted)[kind]})}
    assert changed == set(KINDS[name])
    told = adapted.method.model.config.provenance[-len(changed) :]
    assert all(f"the {kind} network adapted to the image: 2 iterations, seed 3" in told for kind in changed)
    assert adapted.size == SIZE and adapted.method.largest == 512
    (window,) = adapted.plan(stripes(), HOLE, context=4.0).windows
    assert window.box == (0, 0, HEIGHT, WIDTH) and window.canvas == (HEIGHT, WIDTH)  # it sees the whole picture at once
    again = StrDiffusion.load(adapted.save(tmp_path / "adapted"), device="cpu")
    first, second = (each(stripes(), HOLE, steps=2).images[0].levels for each in (adapted, again))
    assert np.array_equal(first, second)


def test_a_watcher_sees_the_model_and_ends_the_learning(weights):
    seen = []

    def watch(adapting):
        seen.append((adapting.kind, adapting.step, adapting.done))
        if adapting.step == 3:
            picture = adapting.current()(stripes(), HOLE, steps=2).images[0]
            assert picture.levels.shape == (HEIGHT, WIDTH, 3)
            return False

    adapted = adapt(model_of(weights, "texture"), [read()], AdaptOptions(iterations=8, batch_size=4, crop=SIZE), watch=watch)
    assert [(kind, step) for kind, step, _ in seen] == [(kind, step) for kind in ("structure", "texture") for step in (1, 2, 3)]
    assert np.allclose([done for *_, done in seen], [1 / 16, 2 / 16, 3 / 16, 9 / 16, 10 / 16, 11 / 16])
    assert adapted.method.model.networks.texture.step == 3


# ---- what cannot be learnt ---------------------------------------------------------------------------


def test_what_cannot_be_learnt_is_said_in_one_line(weights):
    model = model_of(weights, "unguided")
    with pytest.raises(UserError, match="telea cannot learn from a picture"):
        adapt(StrDiffusion.load("telea"), [read()])
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    with pytest.raises(UserError, match="one colour"):
        adapt(model, [read(flat)])
    with pytest.raises(UserError, match="too little of the image is known"):
        adapt(model, [read(mask=hole((0, 5, HEIGHT, WIDTH - 5)))], AdaptOptions(crop=SIZE))
    for wrong in (dict(iterations=0), dict(minutes=0.0), dict(learning_rate=-1.0), dict(shrink=0.5), dict(seed=-1)):
        with pytest.raises(UserError, match=next(iter(wrong))):
            AdaptOptions(**wrong)


def test_the_largest_known_share():
    known = np.random.default_rng(0).random((13, 9)) > 0.3
    parts = [known[y : y + 5, x : x + 5].mean() for y in range(9) for x in range(5)]
    assert largest_known_share(known.astype(np.float32), 5) == pytest.approx(max(parts))


def test_amounts():
    assert amount(None, 2, "--for").iterations == AdaptOptions().iterations
    assert amount("250", 2, "--for") == AdaptOptions(iterations=250, seed=2)
    assert [amount(text, 0, "--for").minutes for text in ("90s", "1.5min", "2h")] == [1.5, 1.5, 120]
    for wrong in ("", "0", "5m", "-3", "1.5", "0s", "nan", "5 min 3 s"):
        with pytest.raises(UserError, match="--for must be a number of iterations"):
            amount(wrong, 0, "--for")


# ---- commands ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, weights):
    """photo.png, mask.png, and a model folder."""
    save(tmp_path / "photo.png", stripes()[..., ::-1])
    save(tmp_path / "mask.png", 255 * HOLE.astype(np.uint8))
    model_of(weights, "unguided").save(tmp_path / "model")
    return tmp_path


def run(capsys, *words):
    return main([str(word) for word in words]), *capsys.readouterr()


def test_adapt_writes_a_model_that_inpaint_takes(files, capsys):
    photo, mask, output = files / "photo.png", files / "mask.png", files / "adapted"
    given = [photo, mask, "--model", files / "model", "--device", "cpu"]
    assert run(capsys, "adapt", *given, "-o", output, "--for", "3")[0] == 0
    assert sorted(file.name for file in output.iterdir()) == ["model.yml", "texture.safetensors", "training"]
    one = [photo, mask, "--steps", "2", "--device", "cpu"]
    assert run(capsys, "inpaint", *one, "-o", files / "one.png", "--model", output)[0] == 0
    assert run(capsys, "inpaint", *one, "-o", files / "two.png", "--model", files / "model", "--adapt", "3")[0] == 0
    assert np.array_equal(cv2.imread(str(files / "one.png")), cv2.imread(str(files / "two.png")))
    assert "already holds files" in single_error(run(capsys, "adapt", *given, "-o", output, "--for", "3"))
    assert "--adapt must be" in single_error(run(capsys, "inpaint", *one, "-o", files / "three.png", "--adapt", "soon"))
    assert not (files / "three.png").exists()


def test_adapt_learns_from_a_folder_and_goes_on_after_it_was_killed(files, capsys, monkeypatch):
    for name in "ab":
        save(files / "photos" / f"{name}.png", stripes(seed=ord(name)))
        save(files / "masks" / f"{name}.png", 255 * HOLE.astype(np.uint8))
    quick = AdaptOptions(iterations=6, batch_size=2, crop=SIZE)
    monkeypatch.setattr("strdiffusion.commands.adapt.amount", lambda *arguments: quick)
    monkeypatch.setattr("strdiffusion.app.adapting.TrainingConfig", lambda **options: TrainingConfig(**options | {"save_every": 2}))
    words = ["adapt", files / "photos", files / "masks", "--model", files / "model", "--device", "cpu"]
    whole, killed = files / "whole", files / "killed"
    assert run(capsys, *words, "-o", whole)[0] == 0

    def dies():
        step = loop.train_step
        loop.train_step = lambda model, state, *more: os.kill(os.getpid(), signal.SIGKILL) if state.step == 3 else step(model, state, *more)

    command = [sys.executable, "-m", "strdiffusion", *map(str, words), "-o", str(killed)]
    assert forked(command, before=dies, stderr=subprocess.DEVNULL).wait() == -signal.SIGKILL
    assert (killed / "training" / "texture" / "latest.pt").exists()
    assert not (killed / "model.yml").exists() and (killed / "unfinished.txt").exists()
    (killed / "training" / "start" / "model.yml").unlink()  # as if it had been killed while it wrote these
    (killed / "training" / "model").mkdir()
    (killed / "training" / "model" / "texture.safetensors").write_bytes(b"half")
    assert run(capsys, *words, "-o", killed)[0] == 0
    assert (killed / "texture.safetensors").read_bytes() == (whole / "texture.safetensors").read_bytes()
    assert not (killed / "unfinished.txt").exists()


def test_ctrl_c_ends_the_learning_and_fills(files):
    words = [files / "photo.png", files / "mask.png", "-o", files / "out.png", "--model", files / "model", "--adapt", "1000000"]
    command = [sys.executable, "-m", "strdiffusion", "inpaint", *map(str, words), "--steps", "2", "--device", "cpu"]
    process = forked(command, stderr=subprocess.PIPE, start_new_session=True)
    shown = b""
    while b"it/s" not in shown and b"s/it" not in shown:  # the bar of the training
        shown += process.stderr.read1(4096)
        assert process.poll() is None, shown
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and b"goes on with what was learnt" in rest, rest
    out, before = cv2.imread(str(files / "out.png")), cv2.imread(str(files / "photo.png"))
    assert np.array_equal(out[~HOLE], before[~HOLE]) and not np.array_equal(out[HOLE], before[HOLE])


def test_unless_a_model_is_named_that_for_photographs_learns():
    for given, expected in (((None, None), ROOT / "weights" / "photographs"), (("m", None), "m"), ((None, "telea"), None)):
        options = argparse.Namespace(model=given[0], method=given[1])
        take_learning_model(options)
        assert options.model == expected or options.model.resolve() == expected


# ---- the options of trainings that it uses -----------------------------------------------------------


def config(files, **more):
    tree = {
        "data": {"images": str(files / "photo.png"), "size": SIZE, "workers": 0, "index": None},
        "output": str(files / "run"),
        "sde": {"T": 10},
        "structure": {"edge_source": "known", "edge_sigma": 1},
        "network": {"width": 4, "depth": 1},
        "objective": {"guidance": "none"},
        "training": {"iterations": 1, "batch_size": 2},
        "device": "cpu",
    }
    for key, value in more.items():
        part, _, name = key.rpartition("__")
        (tree[part] if part else tree)[name] = value
    made = build(TrainTextureConfig, tree, "the test")
    made.check()
    return made


def test_a_training_starts_from_given_weights(files, weights):
    """With a rate of next to nothing they stay what they were; from a model folder and from a checkpoint alike."""
    for number, start in enumerate((files / "model", weights / "unguided.pt")):
        made = config(files, start=str(start), output=str(files / f"run{number}"), training__learning_rate=1e-30)
        content = torch.load(train("texture", made), weights_only=True)
        expected = torch.load(weights / "unguided.pt", weights_only=True)["network"]
        assert all(torch.equal(content[part][name], value) for part in ("network", "ema") for name, value in expected.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"start": "nowhere"}, "nowhere"),
        ({"start": "{weights}"}, "folder without model.yml"),
        ({"start": "{weights}/wide.pt"}, "width 8, not 4"),
        ({"start": "{weights}/texture.pt"}, "guided True, not False"),
        ({"start": "{weights}/structure.pt"}, "structure network, not of the texture network"),
        ({"start": "{weights}/unguided.pt", "sde": {"T": 20}}, "T"),
        ({"data__unknown": "{files}/none.png"}, "none.png"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(files, weights, more, message):
    filled = {key: value.format(weights=weights, files=files) if isinstance(value, str) else value for key, value in more.items()}
    with pytest.raises(UserError, match=message):
        train("texture", config(files, **filled))


def test_only_losses_that_can_leave_it_out_take_images_with_holes(tmp_path):
    tree = {"data": {"images": str(tmp_path), "unknown": str(tmp_path)}, "output": str(tmp_path / "run")}
    build(TrainStructureConfig, tree, "the test").check()
    for cls in (TrainDiscriminatorConfig, TrainPriorConfig):
        with pytest.raises(UserError, match="data.unknown is for the trainings of structure and texture"):
            build(cls, tree, "the test").check()


def test_options_that_exclude_each_other(files):
    for more in ({"data__shrink": [3, 2]}, {"data__labels": "x", "data__unknown": "y"}, {"data__labels": "x", "data__shrink": [1, 2]}):
        with pytest.raises(UserError, match="data.shrink|data.labels"):
            config(files, **more)
    with pytest.raises(UserError, match="validation.masks.family"):
        config(files, validation={"images": str(files), "masks": {"family": "mixed"}})
