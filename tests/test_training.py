"""The training loop with each of the three objectives, in runs of seconds: checkpoints, resuming, schedules, gradients."""

import copy
import importlib.util
import json
import math
import multiprocessing
import shutil
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import load_network, network_record, read_checkpoint, write_checkpoint
from strdiffusion.config import TrainDiscriminatorConfig, TrainStructureConfig, TrainTextureConfig
from strdiffusion.config.training import TrainingConfig
from strdiffusion.networks import UNet
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build
from strdiffusion.training import loop, train
from strdiffusion.training.data import training_dataset, validation_batches
from strdiffusion.training.ema import EMA
from strdiffusion.training.state import rate_factor
from strdiffusion.training.tasks import TASKS, StructureTask

ROOT = Path(__file__).parents[1]
CLASSES = {"structure": TrainStructureConfig, "texture": TrainTextureConfig, "discriminator": TrainDiscriminatorConfig}
KINDS = tuple(CLASSES)
MAX_SKIPPED = TrainingConfig().max_skipped


@pytest.fixture
def photos(tmp_path):
    """A folder of five smooth colored images of 40x48."""
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_LINEAR))
    return tmp_path / "photos"


@pytest.fixture
def configure(tmp_path, photos):
    """configure(kind, output, section={...}) makes a small configuration; sections are merged into the defaults."""

    def make(kind="structure", output="run", **sections):
        tree = {
            "output": str(tmp_path / output),
            "device": "cpu",
            "sde": {"T": 10},
            "structure": {"edge_source": "known"},
            "network": {"width": 4} if kind == "discriminator" else {"width": 4, "depth": 1},
            "data": {"images": str(photos), "size": 32, "workers": 0, "index": None},
            "validation": {"index": None},
            "training": {"iterations": 4, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2, "log_every": 1},
        }
        for name, value in sections.items():
            tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
        config = build(CLASSES[kind], tree, "test")
        config.check()
        return config

    return make


def same(one, two):
    """Whether two trees of dictionaries, lists, tensors and values are bitwise equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def checkpoint(config, step):
    return read_checkpoint(Path(config.output) / f"step_{step:09d}.pt")


def steps(config):
    return [int(path.stem[5:]) for path in sorted(Path(config.output).glob("step_*.pt"))]


def metrics(config):
    return [json.loads(line) for line in (Path(config.output) / "metrics.jsonl").read_text().splitlines()]


def refusal(kind, config):
    with pytest.raises(UserError) as error:
        train(kind, config)
    assert "\n" not in str(error.value)
    return str(error.value)


def spy(monkeypatch, task, change=None):
    """Record (t, loss) of every call of a task's loss; `change(loss, network, number)` may replace the loss."""
    calls, original = [], task.loss

    def loss(self, network, batch, t, draw):
        value, scalars = original(self, network, batch, t, draw)
        calls.append((t.clone(), value.item()))
        return (change(value, network, len(calls)) if change else value), scalars

    monkeypatch.setattr(task, "loss", loss)
    return calls


# ---- runs and their checkpoints -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_run_writes_everything_and_resumes_bitwise(configure, tmp_path, kind):
    options = {"training": {"milestones": [3], "warmup": 1, "clip_gradient": 1.0}}
    config = configure(kind, **options)
    assert train(kind, config) == Path(config.output) / "step_000000004.pt"
    assert steps(config) == [2, 4] and (Path(config.output) / "config.yml").exists()
    assert any((Path(config.output) / "tensorboard").iterdir())

    whole = checkpoint(config, 4)
    assert same(read_checkpoint(Path(config.output) / "latest.pt"), whole)
    assert whole["step"] == 4 and whole["kind"] == kind and whole["sde"]["T"] == 10 and whole["ema_updates"] == 4
    assert whole["config"]["training"]["milestones"] == [3] and whole["config"]["sde"]["T"] == 10
    assert {"network", "ema", "optimizer", "rng"} <= whole.keys() and whole["optimizer"]["param_groups"][0]["lr"] == 0.5e-3
    assert not same(whole["network"], whole["ema"]) and not same(whole["network"], checkpoint(config, 2)["network"])
    assert load_network(Path(config.output) / "latest.pt", kind).step == 4

    Path(tmp_path / "again").mkdir()
    shutil.copy(Path(config.output) / "step_000000002.pt", tmp_path / "again")
    again = configure(kind, "again", resume="auto", **options)
    train(kind, again)
    resumed = checkpoint(again, 4)
    for key in ("network", "ema", "ema_updates", "optimizer", "rng", "step"):
        assert same(resumed[key], whole[key]), key


def test_the_state_of_the_generator_is_resumed(configure, monkeypatch, tmp_path):
    """Also a loss that draws from the global generator goes on as if it had not been interrupted."""
    spy(monkeypatch, StructureTask, lambda loss, network, number: loss * torch.rand(()))
    config = configure()
    train("structure", config)
    Path(tmp_path / "again").mkdir()
    shutil.copy(Path(config.output) / "step_000000002.pt", tmp_path / "again")
    again = configure(output="again", resume="auto")
    train("structure", again)
    assert same(checkpoint(again, 4)["network"], checkpoint(config, 4)["network"])


def test_a_failure_to_compile_is_one_line(configure, monkeypatch):
    def fail(*args, **options):
        raise torch._dynamo.exc.BackendCompilerFailed(print, RuntimeError("no such instruction"), [])

    monkeypatch.setattr(UNet, "forward", fail)
    with pytest.raises(UserError, match=r"^compile=true failed on this machine \(.*\): set compile=false$"):
        train("structure", configure())
    assert "compile=false" in (Path(configure().output) / "status.txt").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_others(configure):
    for output, seed in [("a", 1), ("b", 1), ("c", 2)]:
        train("structure", configure(output=output, seed=seed, training={"iterations": 1}))
    a, b, c = (checkpoint(configure(output=output), 1)["network"] for output in "abc")
    assert same(a, b) and not same(a, c)


def test_auto_continues_in_place_and_starts_where_there_is_nothing(configure, caplog):
    config = configure(resume="auto")
    train("structure", config)
    first = checkpoint(config, 4)
    caplog.set_level("INFO")
    train("structure", config)
    assert "nothing to do" in caplog.text and same(checkpoint(config, 4), first)
    train("structure", configure(resume="auto", training={"iterations": 5}))
    assert steps(config) == [2, 4, 5] and checkpoint(config, 5)["step"] == 5


def test_auto_skips_a_damaged_checkpoint(configure, caplog):
    config = configure(resume="auto")
    train("structure", config)
    expected = checkpoint(config, 4)
    newest = Path(config.output) / "step_000000004.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    train("structure", config)
    assert "skipped" in caplog.text and same(checkpoint(config, 4)["network"], expected["network"])


def test_only_the_newest_are_kept(configure):
    config = configure(training={"save_every": 1, "keep": 2})
    train("structure", config)
    assert steps(config) == [3, 4]
    assert sorted(path.name for path in Path(config.output).iterdir() if path.is_file()) == [
        "config.yml",
        "latest.pt",
        "log.txt",
        "metrics.jsonl",
        "status.txt",
        "step_000000003.pt",
        "step_000000004.pt",
    ]


def test_a_start_that_fails_on_its_data_blocks_no_other(configure, tmp_path):
    """Files that are no images: refused, and the same output can be used once they are. A folder with a foreign file stays refused."""
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.png").write_text("no image")
    broken = configure(data={"images": str(tmp_path / "texts")})
    for _ in range(2):
        assert "0.png" in refusal("structure", broken) or "no file could be used" in refusal("structure", broken)
    config = configure()
    Path(config.output, "notes.txt").write_text("mine")
    assert "already holds files" in refusal("structure", config)
    Path(config.output, "notes.txt").unlink()
    train("structure", config)
    assert steps(config) == [2, 4]


def test_folders_that_do_not_exist_are_named_at_once(configure):
    message = refusal("structure", configure(data={"images": "nowhere", "masks": {"folder": "neither"}}))
    assert "data.images=nowhere, data.masks.folder=neither do not exist" in message


def test_results_are_not_overwritten(configure):
    config = configure()
    train("structure", config)
    before = {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")}
    message = refusal("structure", config)
    assert str(config.output) in message and "resume=auto" in message
    assert {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*")} == before
    results = configure(output="results", resume="auto")
    Path(results.output).mkdir()
    Path(results.output, "config.yml").write_text("checkpoints: {texture: t.pt}\n")
    assert "not of a training" in refusal("structure", results)
    assert Path(results.output, "config.yml").read_text() == "checkpoints: {texture: t.pt}\n"
    Path(config.output, "a file").write_text("")
    assert "a file" in refusal("structure", configure(output="run/a file/below"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": {"width": 8}}, "architecture"),
        ({"network": {"depth": 2}}, "architecture"),
        ({"network": {"prediction": "x0"}}, "prediction"),
        ({"sde": {"T": 20}}, "sde"),
        ({"sde": {"schedule": "linear"}}, "sde"),
        ({"structure": {"pair": "gray2gray"}}, "structure"),
    ],
)
def test_resuming_with_other_settings_is_refused(configure, change, said):
    config = configure(training={"iterations": 1})
    train("structure", config)
    saved = (Path(config.output) / "config.yml").read_text()
    message = refusal("structure", configure(resume="auto", **change))
    assert "cannot be resumed" in message and f"its {said} is" in message
    assert (Path(config.output) / "config.yml").read_text() == saved


def test_resuming_another_network_or_no_training_is_refused(configure, tmp_path):
    train("texture", configure("texture", training={"iterations": 1}))
    assert "its kind is 'texture'" in refusal("structure", configure(resume="auto"))
    network = UNet(1, 4, 2)
    record = network_record("structure", network, MeanRevertingSDE(10), {"pair": "gray2edge", "edge_source": "known", "edge_sigma": 2.0})
    write_checkpoint(tmp_path / "weights.pt", record | {"step": 1, "network": network.state_dict(), "ema": None})
    assert "cannot be resumed" in refusal("structure", configure(output="new", resume=str(tmp_path / "weights.pt")))
    assert "does not exist" in refusal("structure", configure(output="newer", resume=str(tmp_path / "absent.pt")))


def test_resuming_from_a_file(configure):
    config = configure()
    train("structure", config)
    early = str(Path(config.output) / "step_000000002.pt")
    train("structure", configure(output="branch", resume=early))
    assert same(checkpoint(configure(output="branch"), 4)["network"], checkpoint(config, 4)["network"])
    message = refusal("structure", configure(resume=early))  # what came later would be mixed up, or deleted as too old
    assert "step_000000004.pt" in message and "output=FOLDER" in message and steps(config) == [2, 4]


def test_the_configured_rate_holds_after_resuming(configure):
    train("structure", configure(training={"iterations": 2}))
    config = configure(resume="auto", training={"iterations": 3, "learning_rate": 1e-5, "betas": [0.5, 0.9]})
    train("structure", config)
    (group,) = checkpoint(config, 3)["optimizer"]["param_groups"]
    assert group["lr"] == 1e-5 and tuple(group["betas"]) == (0.5, 0.9)
    before, after = (checkpoint(config, step)["network"] for step in (2, 3))
    assert 0 < max((after[key] - before[key]).abs().max() for key in after) < 1e-4


def test_the_time_limit_ends_a_run_with_a_checkpoint(configure):
    config = configure(training={"iterations": 100, "max_minutes": 1e-6})
    train("structure", config)
    assert steps(config) == [1]


def test_the_bar_shows_how_far_the_minutes_reach(configure, monkeypatch, capsys):
    """Not the iterations of the configuration, which may be a million: those that fit into the time at this pace."""
    totals, clock, report = [], iter(range(0, 10**6, 3)), loop.Loop.report
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(loop.Loop, "report", lambda self, values, bar: (report(self, values, bar), totals.append(bar.total)))
    train("structure", configure(training={"iterations": 10**6, "max_minutes": 1}))  # each look at the clock takes 3 seconds
    assert 5 <= len(totals) == totals[-1] and max(totals) <= 60 / 3
    assert "/1000000" not in capsys.readouterr().err  # nor before the first one


def test_a_run_that_blows_up_stops_and_leaves_the_last_checkpoint_whole(configure, monkeypatch):
    spy(monkeypatch, StructureTask, lambda loss, network, number: loss if number <= 5 else loss * math.nan)
    config = configure(training={"iterations": 100, "save_every": 5, "keep": 10})
    message = refusal("structure", config)
    assert "not finite" in message and "learning_rate" in message and "step_" in message
    assert max(steps(config)) == 5 + MAX_SKIPPED and min(steps(config)) == 5
    last = checkpoint(config, max(steps(config)))
    for key in ("network", "ema", "ema_updates"):  # a step that is not finite changes nothing
        assert same(last[key], checkpoint(config, 5)[key])
    assert all(value.isfinite().all() for value in last["network"].values())
    load_network(Path(config.output) / "latest.pt")


def test_single_bad_steps_are_survived(configure, monkeypatch):
    calls = spy(monkeypatch, StructureTask, lambda loss, network, number: loss * math.inf if number % 2 else loss)
    config = configure(training={"iterations": 2 * MAX_SKIPPED + 2, "save_every": 1000})
    train("structure", config)
    last = checkpoint(config, 2 * MAX_SKIPPED + 2)
    assert last["ema_updates"] == MAX_SKIPPED + 1 and len(calls) == 2 * MAX_SKIPPED + 2
    assert all(value.isfinite().all() for value in last["network"].values())


# ---- the pieces of an iteration -----------------------------------------------------------------------


def test_moving_average_against_a_loop_by_hand():
    torch.manual_seed(0)
    network = UNet(3, 4, 1, guided=True).train()
    ema = EMA(network, 0.4)
    expected = {name: value.double().clone() for name, value in network.named_parameters()}
    decays = []
    for n in range(8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network(torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8), 3, torch.randn(1, 1, 8, 8))  # moves buffers
        ema.update(network)
        decays.append(min(0.4, (1 + n) / (10 + n)))
        for name, value in network.named_parameters():
            expected[name] = expected[name] * decays[-1] + value.detach().double() * (1 - decays[-1])
    assert decays[0] == 0.1 and decays[-1] == 0.4 and ema.updates == 8
    for name, value in ema.network.named_parameters():
        assert (value - expected[name]).abs().max() < 1e-5
        assert not value.requires_grad
    theirs = dict(network.named_buffers())
    assert theirs and all(torch.equal(value, theirs[name]) for name, value in ema.network.named_buffers())


def test_learning_rate_in_steps():
    options = TrainingConfig(iterations=100, warmup=4, milestones=[10, 20, 30], lr_decay=0.5)
    factors = [rate_factor(step, options) for step in range(100)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert [factors[s] for s in (9, 10, 19, 20, 29, 30, 99)] == [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rate_factor(0, TrainingConfig()) == rate_factor(10**6, TrainingConfig()) == 1


def test_learning_rate_by_cosine():
    options = TrainingConfig(iterations=110, warmup=10, lr_schedule="cosine")
    assert [rate_factor(step, options) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1, 1]
    for step, expected in [(35, 0.5 + 0.5 * math.sqrt(0.5)), (60, 0.5), (85, 0.5 - 0.5 * math.sqrt(0.5)), (110, 0), (200, 0)]:
        assert abs(rate_factor(step, options) - expected) < 1e-12


def test_weights_move_by_the_scheduled_rate(configure, monkeypatch):
    """With a gradient of 1 everywhere, Adam moves each weight by the learning rate."""
    spy(monkeypatch, StructureTask, lambda loss, network, number: sum(p.sum() for p in network.parameters()))
    options = {"iterations": 4, "warmup": 2, "milestones": [3], "learning_rate": 1e-2, "save_every": 1, "keep": 10}
    config = configure(training=options)
    train("structure", config)
    torch.manual_seed(0)
    start = StructureTask(config, MeanRevertingSDE(10)).network.state_dict()
    for step, moved in [(1, 0.005), (2, 0.015), (3, 0.025), (4, 0.03)]:
        now = checkpoint(config, step)["network"]
        assert max((start[key] - moved - now[key]).abs().max() for key in now) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_uniform_in_2_to_T_per_image(configure, monkeypatch, kind):
    calls = spy(monkeypatch, TASKS[kind])
    train(kind, configure(kind, sde={"T": 4}, training={"iterations": 15, "batch_size": 4, "save_every": 100}))
    times = torch.stack([t for t, _ in calls])
    assert times.shape == (15, 4) and sorted(times.unique().tolist()) == [2, 3, 4]
    assert (times != times[:, :1]).any(dim=1).sum() > 5  # images of a batch have their own
    assert all(10 <= (times == t).sum() <= 32 for t in (2, 3, 4))


def test_workers_do_not_change_the_data(configure):
    for output, workers in [("none", 0), ("one", 1), ("two", 2)]:
        train("structure", configure(output=output, data={"workers": workers}, training={"iterations": 3}))
    none, one, two = (checkpoint(configure(output=output), 3)["network"] for output in ("none", "one", "two"))
    assert same(none, one) and same(none, two)


def test_masks_may_come_from_a_folder(configure, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "masks").mkdir()
    hole = np.zeros((20, 20), np.uint8)
    hole[5:10, :] = 255
    cv2.imwrite(str(tmp_path / "masks" / "m.png"), hole)
    config = configure(data={"masks": {"folder": str(tmp_path / "masks")}})
    masks = [training_dataset(config)[n]["mask"] for n in range(8)]
    assert all(mask.mean() == 0.75 for mask in masks) and not all(torch.equal(mask, masks[0]) for mask in masks)
    assert not (tmp_path / "cache").exists()  # data.index=null
    training_dataset(configure(data={"masks": {"folder": str(tmp_path / "masks")}, "index": "auto"}))
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 2


def first_loss(kind, config, seed=0):
    """The task and its loss on the first batch, with fixed times and noise."""
    torch.manual_seed(0)
    task = TASKS[kind](config, MeanRevertingSDE(**vars(config.sde)))
    dataset = training_dataset(config)
    samples = [dataset[n] for n in range(4)]
    batch = Batch(**{name: torch.stack([sample[name] for sample in samples]) for name in samples[0]})
    generator = torch.Generator().manual_seed(seed)
    loss, _ = task.loss(task.network.train(), batch, torch.tensor([2, 4, 7, 10]), lambda like: torch.randn(like.shape, generator=generator))
    return task, loss


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        ("structure", {}),
        ("structure", {"network": {"prediction": "x0", "attention": "linear"}, "objective": {"loss_on": "x0", "norm": "l2"}}),
        ("texture", {}),
        ("texture", {"network": {"attention": "linear"}, "objective": {"loss_on": "x0"}}),
        ("texture", {"objective": {"guidance": "none"}}),
        ("discriminator", {}),
    ],
)
def test_gradients_reach_every_parameter(configure, kind, sections):
    task, loss = first_loss(kind, configure(kind, **sections))
    assert loss.isfinite() and loss > 0
    loss.backward()
    assert all(p.requires_grad for p in task.network.parameters())
    dead = [name for name, p in task.network.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", KINDS)
def test_precision(configure, kind, precision):
    full = first_loss(kind, configure(kind))[1]
    loss = first_loss(kind, configure(kind, precision=precision))[1]
    assert loss.dtype == torch.float32 and abs(loss - full) < (0 if precision == "fp32" else 0.05) * full + 1e-9


# ---- the three objectives in the loop -----------------------------------------------------------------


def test_structure_learns(configure, monkeypatch):
    calls = spy(monkeypatch, StructureTask)
    options = {"iterations": 60, "batch_size": 4, "learning_rate": 3e-3, "save_every": 1000, "log_every": 1000}
    config = configure(network={"width": 8, "prediction": "x0"}, data={"augment": False}, objective={"loss_on": "x0"}, training=options)
    train("structure", config)
    losses = [loss for _, loss in calls]
    assert sum(losses[-10:]) / 10 < 0.4 * sum(losses[:3]) / 3


def test_texture_guidance(configure):
    train("structure", configure(output="structure"))
    losses = {}
    for guidance in ("none", "ground_truth", "denoised"):
        path = str(Path(configure(output="structure").output) / "latest.pt") if guidance == "denoised" else None
        config = configure("texture", guidance, objective={"guidance": guidance, "structure_checkpoint": path})
        train("texture", config)
        loaded = load_network(Path(config.output) / "latest.pt", "texture")
        assert loaded.network.guided == (guidance != "none")
        losses[guidance] = first_loss("texture", config)[1].item()
    assert losses["ground_truth"] != losses["denoised"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sde": {"T": 20}}, "sde.T"),
        ({"sde": {"schedule": "linear"}}, "sde.schedule"),
        ({"structure": {"pair": "edge2edge"}}, "structure.pair"),
    ],
)
def test_the_guiding_structure_network_must_fit(configure, change, said):
    path = train("structure", configure(output="structure", training={"iterations": 1}))
    config = configure("texture", objective={"guidance": "denoised", "structure_checkpoint": str(path)}, **change)
    assert said in refusal("texture", config) and not Path(config.output).exists()


def test_the_guiding_structure_network_is_not_trained(configure):
    path = train("structure", configure(output="structure", training={"iterations": 1}))
    config = configure("texture", objective={"guidance": "denoised", "structure_checkpoint": str(path)})
    task, loss = first_loss("texture", config)
    before = copy.deepcopy(task.structure.network.state_dict())
    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in task.structure.network.parameters())
    assert same(before, task.structure.network.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_validation_reports_and_leaves_the_training_alone(configure, photos, kind):
    train(kind, configure(kind, "without"))
    validation = {"images": str(photos), "every": 2, "samples": 2, "loss_images": 3}
    train(kind, configure(kind, "with", validation=validation))
    assert same(checkpoint(configure(kind, "with"), 4)["network"], checkpoint(configure(kind, "without"), 4)["network"])
    found = [line for line in metrics(configure(kind, "with")) if line["kind"] == "validation"]
    assert [line["step"] for line in found] == [2, 4]
    names = {"loss", "real", "fake", "triplet", "ranked"} if kind == "discriminator" else {"loss", "psnr", "ssim", "hole_psnr", "hole_ssim"}
    assert all(names <= line.keys() and math.isfinite(line["loss"]) for line in found)


def test_validation_set_is_the_same_in_every_run(configure, photos):
    config = configure(validation={"images": str(photos), "samples": 2, "loss_images": 3})
    one, two = validation_batches(config), validation_batches(config)
    assert [len(batch.mask) for batch in one] == [2, 1]
    assert all(same(vars(a), vars(b)) for a, b in zip(one, two, strict=True))
    other = validation_batches(configure(seed=1, validation={"images": str(photos), "samples": 2, "loss_images": 3}))
    assert not torch.equal(one[0].mask, other[0].mask)


# ---- mistakes on the command line ---------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, photos, monkeypatch, capsys):
    """command(*overrides) runs scripts/train_structure.py; returns status and what was written to stderr."""
    spec = importlib.util.spec_from_file_location("train_structure", ROOT / "scripts" / "train_structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "structure.yml").write_text(
        f"output: {tmp_path / 'run'}\ndata: {{images: {photos}, size: 32, workers: 0, index: null}}\nsde: {{T: 10}}\n"
        "network: {width: 4, depth: 1}\ntraining: {iterations: 3, batch_size: 2, save_every: 1}\n"
    )

    def run(*overrides):
        monkeypatch.setattr("sys.argv", ["train_structure.py", "-opt", str(tmp_path / "structure.yml"), *overrides])
        status = module.main()
        return status, capsys.readouterr().err

    return run


def test_command_line(command, tmp_path):
    status, err = command("training.iterations=1")
    assert status == 0 and "error" not in err and (tmp_path / "run" / "latest.pt").exists()
    status, err = command("resume=auto")
    assert status == 0 and (tmp_path / "run" / "step_000000003.pt").exists()
    assert "iterations: 3" in (tmp_path / "run" / "config.yml").read_text()


@pytest.mark.parametrize("ending", ["finished", "failed", "interrupted"])
def test_no_loading_process_outlives_a_training(configure, photos, monkeypatch, ending):
    """Not even while the error is kept: Python waits for them when it exits, and they ignore the signal by which it ends them."""

    def interrupt(loss, network, count):
        if ending == "interrupted":
            raise KeyboardInterrupt
        return loss

    spy(monkeypatch, StructureTask, interrupt)
    if ending == "failed":
        (photos / "text.png").write_text("this is no image")
    expected = {"finished": type(None), "failed": UserError, "interrupted": KeyboardInterrupt}[ending]
    kept = None
    try:
        train("structure", configure(data={"workers": 2, "max_bad_share": 0.01}, training={"iterations": 10}))
    except (UserError, KeyboardInterrupt) as error:
        kept = error
    assert isinstance(kept, expected)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_text_file_named_png(command, photos, tmp_path, workers):
    (photos / "text.png").write_text("this is no image")
    status, err = command(f"data.workers={workers}")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert status == 0 and "file 1 of 6 that cannot be used" in log and str(photos / "text.png") in log
    status, err = command(f"data.workers={workers}", "data.max_bad_share=0.1", f"output={tmp_path / 'strict'}")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and "data.max_bad_share" in errors[0]
    assert str(photos / "text.png") in errors[0] and "Traceback" not in err and "Error" not in err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.images=absent", "absent does not exist"),
        ("validation.images=absent", "absent does not exist"),
        ("data.masks.folder=absent", "absent does not exist"),
        ("training.batchsize=3", "did you mean training.batch_size?"),
        ("training.batch_size=many", "training.batch_size must be a whole number"),
        ("resume=absent.pt", "absent.pt does not exist"),
    ],
)
def test_mistakes_leave_one_line_and_no_output(command, tmp_path, override, said):
    status, err = command(override)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and len(errors) == 1 and said in errors[0] and "Traceback" not in err
    assert not list((tmp_path / "run").glob("*.pt"))
