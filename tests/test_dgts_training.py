"""The trainings of DGTS and of its enlarging network, in runs of seconds: from nothing, resumed, and with weights of others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, SMALL_DGTS, script, write_dgts
from test_distributed import run
from torch import nn

from strdiffusion.app import StrDiffusion
from strdiffusion.checkpoints import load_network, read_checkpoint
from strdiffusion.checkpoints.pretrained import load_resnet, load_vgg
from strdiffusion.config import load_config, save_config
from strdiffusion.config.dgts import TrainDGTSConfig, TrainUpsamplerConfig
from strdiffusion.networks.dgts import DGTS, Upsampler
from strdiffusion.networks.dgts.references import ResNet
from strdiffusion.networks.dgts.vgg import VGG19
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build
from strdiffusion.training import dry_run, train
from strdiffusion.training.data import validation_batches
from strdiffusion.training.dgts import nearest_colour, rate_groups
from strdiffusion.training.optimizer import make_optimizer
from strdiffusion.training.tasks import make_task
from strdiffusion.training.validation import validate

CLASSES = {"dgts": TrainDGTSConfig, "upsampler": TrainUpsamplerConfig}
ROOT = Path(__file__).parents[1]


@pytest.fixture
def configure(tmp_path, photos):
    """configure(kind, output, section={...}): a small configuration; sections are merged into the defaults."""

    def make(kind="dgts", output="run", check=True, **sections):
        tree = {
            "output": str(tmp_path / output),
            "device": "cpu",
            "network": dict(SMALL_DGTS) if kind == "dgts" else {"width": 4, "factor": 4, "dilations": [1, 2], "critic_width": 4},
            "objective": {"loss": "rec", "one_by_one": 3} if kind == "dgts" else {"loss": "l1"},
            "data": {"images": str(photos), "size": SIZE if kind == "dgts" else 48, "workers": 0, "index": None},
            "validation": {"images": str(photos), "index": None, "every": 2, "samples": 2},
            "training": {"iterations": 4, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2, "log_every": 1, "ema_decay": 0.9},
        }
        for name, value in sections.items():
            tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
        config = build(CLASSES[kind], tree, "test")
        if check:
            config.check()
        return config

    return make


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


FORMS = [("dgts", {}), ("dgts", {"precision": "bf16"}), ("upsampler", {}), ("upsampler", {"objective": {"loss": "adversarial"}})]


@pytest.mark.parametrize(("kind", "more"), FORMS, ids=["dgts", "dgts bf16", "upsampler", "upsampler adversarial"])
def test_a_resumed_training_ends_as_one_that_was_not_stopped(configure, kind, more):
    whole = read_checkpoint(train(kind, configure(kind, "whole", **more)))
    first = configure(kind, "parts", **more, training={"iterations": 2})
    train(kind, first)
    second = read_checkpoint(train(kind, configure(kind, "parts", **more, resume="auto")))
    assert same(whole["network"], second["network"]) and same(whole["ema"], second["ema"])
    assert load_network(Path(first.output) / "latest.pt", kind).kind == kind
    assert {"hole_psnr", "loss"} <= set((Path(first.output) / "metrics.jsonl").read_text().split('"'))


def validated(folder):
    """The losses of a run's validations."""
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [line["rec"] for line in lines if line["kind"] == "validation"]


def test_parts_of_a_batch_and_processes_train_as_one(configure, tmp_path):
    """Without dropout, which each process draws for itself; masks differ from image to image."""
    same_run = {"network": SMALL_DGTS | {"dropout": 0.0}, "training": {"batch_size": 4, "iterations": 2}, "validation": {"every": 1}}
    train("dgts", configure("dgts", "whole", **same_run))
    train("dgts", configure("dgts", "parts", **same_run | {"training": same_run["training"] | {"accumulate": 2}}))
    save_config(configure("dgts", "processes", **same_run), tmp_path / "config.yml")
    run(ROOT / "scripts" / "train_dgts.py", "-opt", tmp_path / "config.yml", processes=2)
    whole, parts, processes = (validated(tmp_path / name) for name in ("whole", "parts", "processes"))
    assert len(whole) == 2 and whole[1] < whole[0]
    assert parts == pytest.approx(whole, abs=1e-4) and processes == pytest.approx(whole, abs=1e-4)


def test_dropout_acts_in_every_part_of_a_batch(configure):
    task = make_task("dgts", configure(), None)
    for first in (True, False):
        task.set_mode(task.network, first)
        assert task.network.training


def test_it_learns(configure):
    training = {"iterations": 40, "learning_rate": 5e-3, "batch_size": 3, "save_every": 40}
    config = configure(training=training, validation={"every": 40})
    torch.manual_seed(config.seed)
    task = make_task("dgts", config, None)
    first = validate(task, task.network, validation_batches(config), config, torch.device("cpu"), lambda: False).scalars["rec"]
    train("dgts", config)
    (last,) = validated(config.output)
    assert last < 0.88 * first


def test_trained_runs_inpaint_a_photograph(configure, photos, tmp_path):
    core = train("dgts", configure("dgts", "runs/dgts"))
    config = configure("upsampler", "runs/upsampler", data={"size": SIZE}, objective={"core": str(core), "core_share": 0.5})
    train("upsampler", config)
    model = StrDiffusion.load(tmp_path / "runs", device="cpu")
    assert model.method.name == "dgts" and model.size == SIZE
    output = model(str(photos / "a.png"), str(photos.parent / "masks" / "a.png"))
    assert output.images[0].size == (SIZE, SIZE)


def test_a_dry_run_says_what_it_would_cost(configure, capsys):
    for kind in CLASSES:
        dry_run(kind, configure(kind))
    assert capsys.readouterr().out.count("the run would take about") == 2


def test_the_scripts_train_as_the_files_of_the_benchmark_say(photos, tmp_path, monkeypatch):
    shared = [
        f"data.images={photos}",
        "data.index=null",
        f"validation.images={photos}",
        "validation.index=null",
        "validation.loss_images=2",
    ]
    shared += ["validation.samples=1", "training.iterations=1", "training.warmup=0", "training.batch_size=1", "device=cpu"]
    core = tmp_path / "dgts"
    for kind, more in (("dgts", []), ("upsampler", [f"objective.core={core / 'latest.pt'}"])):
        given = ["-opt", str(ROOT / "configs" / "benchmark" / f"{kind}.yml"), f"output={tmp_path / kind}", *shared, *more]
        monkeypatch.setattr("sys.argv", [f"train_{kind}.py", *given])
        assert script(f"train_{kind}").main() == 0
    assert load_network(tmp_path / "upsampler" / "latest.pt").step == 1


@pytest.mark.parametrize("name", ["psv", "celeba", "places2"])
def test_the_released_configurations_are_of_the_released_size(name):
    config = load_config(TrainDGTSConfig, ROOT / "configs" / "dgts" / f"{name}.yml")
    assert config.network.size == 256 and config.network.bridge == (0.1 if name == "places2" else 0.3)
    assert load_config(TrainUpsamplerConfig, ROOT / "configs" / "dgts" / "upsampler.yml").network.width == 64


@pytest.mark.parametrize(
    ("kind", "sections", "said"),
    [
        ("dgts", {"data": {"size": 32}}, "data.size=32 must be"),
        (
            "dgts",
            {"network": {"backbone": "resnet50", "reduction": 4, "grid": 8}, "data": {"size": 96}},
            "multiples of 16|backbone is missing",
        ),
        ("dgts", {"objective": {"loss": "full"}}, "objective.vgg is missing"),
        ("dgts", {"objective": {"vgg": "vgg.pth"}}, "does not use it"),
        ("dgts", {"backbone": "resnet.pth"}, "starts from nothing"),
        ("dgts", {"network": {"width": 18}}, "multiple of 4"),
        ("dgts", {"network": {"heads": 3}}, "multiple of network.heads"),
        ("upsampler", {"objective": {"loss": "full"}}, "objective.vgg is missing"),
        ("upsampler", {"data": {"size": 40}, "objective": {"loss": "adversarial"}}, "at least 48"),
        ("upsampler", {"network": {"dilations": [16]}}, "above 64"),
    ],
)
def test_options_that_do_not_fit_are_one_line(configure, kind, sections, said):
    with pytest.raises(UserError, match=said) as error:
        configure(kind, **sections)
    assert "\n" not in str(error.value)


def test_files_of_others_are_checked(configure, tmp_path, weights):
    with pytest.raises(UserError, match=r"not of torchvision's VGG-19: 32 missing"):
        load_vgg(weights / "released.pth")
    with pytest.raises(UserError, match="does not exist"):
        make_task("dgts", configure("dgts", objective={"loss": "full", "vgg": str(tmp_path / "absent.pth")}), None)
    with pytest.raises(UserError, match="does not exist"):
        make_task("upsampler", configure("upsampler", objective={"core": str(tmp_path / "absent.pt")}), None)
    with pytest.raises(UserError, match=r"is of size 24, and data\.size=48"):
        make_task("upsampler", configure("upsampler", objective={"core": str(weights / "dgts.pt")}), None)
    np.save(tmp_path / "colours.npy", np.ones((4, 2)))
    with pytest.raises(UserError, match=r"must hold \(n,3\) colours"):
        make_task("upsampler", configure("upsampler", objective={"colours": str(tmp_path / "colours.npy")}), None)


def test_weights_of_others_are_taken_by_their_names(tmp_path):
    torch.manual_seed(0)
    for caffe in (False, True):
        vgg = VGG19(caffe)
        names = vgg.names_in_file()
        content = {theirs: vgg.state_dict()[ours] for ours, theirs in names.items()} | {"classifier.0.weight": torch.ones(1)}
        torch.save(content, tmp_path / "vgg.pth")
        loaded = load_vgg(tmp_path / "vgg.pth", caffe)
        assert same(loaded.state_dict(), vgg.state_dict())
    source, target = ResNet(), ResNet()
    nn.init.ones_(source.layer4[0].conv1.weight)
    torch.save(source.state_dict() | {"fc.bias": torch.ones(1), "bn1.num_batches_tracked": torch.tensor(3)}, tmp_path / "resnet.pth")
    load_resnet(tmp_path / "resnet.pth", target)
    assert same(source.state_dict(), target.state_dict())


def test_the_backbone_learns_slower(configure):
    config = configure("dgts", network={"backbone": "resnet50", "reduction": 4, "patch": 4, "grid": 4}, check=False)
    network = make_task("dgts", config, None).network
    optimizer = make_optimizer(rate_groups(network, config.training), config.training)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [1e-3, 1e-4]
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert (
        trained == {id(p) for p in network.parameters() if p.requires_grad} and id(network.references.backbone.conv1.weight) not in trained
    )


def test_the_nearest_colour():
    colours = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1]])
    image = torch.tensor([0.9, -0.8, -0.7]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.equal(nearest_colour(image, colours)[0, :, 1, 1], colours[2])


def test_checkpoints_are_converted_and_packed(weights, tmp_path, monkeypatch, capsys):
    for kind in CLASSES:
        released, back = tmp_path / f"{kind}.pth", tmp_path / f"{kind}.pt"
        network = DGTS(width=16, reference_width=8, encoder_layers=1, decoder_layers=1) if kind == "dgts" else Upsampler(4)
        write_dgts(tmp_path / "source.pt", kind, network)
        for source, target in ((tmp_path / "source.pt", released), (released, back)):
            monkeypatch.setattr("sys.argv", ["convert_checkpoint.py", str(source), str(target)])
            assert script("convert_checkpoint").main() == 0
        assert same(load_network(back).network.state_dict(), network.state_dict())
        monkeypatch.setattr("sys.argv", ["convert_checkpoint.py", f"{weights / kind}.pt", str(tmp_path / "lost.pth")])
        capsys.readouterr()
        assert script("convert_checkpoint").main() == 2 and not (tmp_path / "lost.pth").exists()
        lost = {"dgts": "reduction=2, grid=4, heads=2, backbone=small", "upsampler": "factor=4, dilations=[1, 2]"}[kind]
        assert f"has {lost}, which the released form does not record" in capsys.readouterr().err
    given = [f"{kind}={weights / kind}.pt" for kind in CLASSES]
    monkeypatch.setattr("sys.argv", ["pack_model.py", str(tmp_path / "packed"), *given, "--dtype", "float16"])
    assert script("pack_model").main() == 0
    assert StrDiffusion.load(tmp_path / "packed", device="cpu").method.upsampler.dilations == (1, 2)
    monkeypatch.setattr("sys.argv", ["pack_model.py", str(tmp_path / "other"), *given, "sampler.steps=3"])
    assert script("pack_model").main() == 2 and "no setting" in capsys.readouterr().err
