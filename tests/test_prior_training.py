"""The training of RePaint's prior: it learns, resumes, validates by short runs of RePaint, and its files are used by the method."""

import json

import pytest
import torch
import yaml
from conftest import SIZE, single_error

from strdiffusion.app import StrDiffusion
from strdiffusion.checkpoints import load_network
from strdiffusion.commands.main import main
from strdiffusion.ddpm import DDPM
from strdiffusion.networks import GuidedUNet
from strdiffusion.objectives import hybrid_loss


@pytest.fixture
def prior_yml(tmp_path, photos):
    """The configuration of a short training of a small prior."""
    tree = {
        "output": str(tmp_path / "runs" / "prior"),
        "device": "cpu",
        "process": {"steps": 50},
        "network": {"width": 32, "multipliers": [1, 1], "blocks": 1, "attention": [], "head_channels": 32},
        "sampling": {"steps": 4, "jump_length": 2, "jump_n_sample": 2},
        "data": {"images": str(photos), "size": SIZE, "index": None, "workers": 0},
        "validation": {"images": str(photos), "every": 3, "samples": 2, "index": None, "best": "hole_psnr"},
        "training": {"iterations": 6, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "save_every": 3},
    }
    path = tmp_path / "prior.yml"
    path.write_text(yaml.safe_dump(tree))
    return path


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_prior_trains_validates_resumes_and_inpaints(prior_yml, tmp_path, photos):
    runs = tmp_path / "runs"
    assert main(["train", "prior", "-opt", str(prior_yml)]) in (0, None)
    found = lines(runs / "prior")
    assert {"loss", "mse", "vb"} <= found[0].keys() and [line["step"] for line in found if line["kind"] == "validation"] == [3, 6]
    assert all(0 < line["hole_psnr"] < 60 for line in found if line["kind"] == "validation")
    parts = ["training.iterations=3", f"output={runs / 'parts'}"]
    assert main(["train", "prior", "-opt", str(prior_yml), *parts]) in (0, None)
    assert main(["train", "prior", "-opt", str(prior_yml), f"output={runs / 'parts'}", "resume=auto"]) in (0, None)
    whole, resumed = (torch.load(runs / name / "latest.pt", weights_only=True) for name in ("prior", "parts"))
    for part in ("network", "ema"):
        assert all(torch.equal(tensor, resumed[part][name]) for name, tensor in whole[part].items())
    assert load_network(runs / "prior" / "latest.pt").process == {"steps": 50, "schedule": "linear"}
    (tmp_path / "one").mkdir()
    (runs / "prior").rename(tmp_path / "one" / "prior")
    model = StrDiffusion.load(tmp_path / "one")  # a folder of runs
    assert model.method.name == "repaint" and model.size == SIZE and model.method.process.T == 50
    plan = model.plan(photos / "a.png", photos.parent / "masks" / "a.png", steps=4, resampling="none")
    assert plan.evaluations["prior"].most == 4


@pytest.mark.parametrize("prediction", ["noise", "x0"])
def test_a_step_along_the_gradient_lowers_the_loss(prediction):
    torch.manual_seed(0)
    network, process = GuidedUNet(32, [32], 1, [], head_channels=32), DDPM(50)
    x0, t, noise = torch.rand(4, 3, 8, 8) * 2 - 1, torch.tensor([0, 1, 20, 49]), torch.randn(4, 3, 8, 8)
    optimizer, losses = torch.optim.Adam(network.parameters(), 1e-3), []
    for _ in range(12):
        found = hybrid_loss(network, process, x0, t, noise, prediction)
        losses.append(found.loss.mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_the_bound_is_what_it_should_be_for_a_perfect_prediction():
    """With the true noise and the posterior's own variance (v = -1) the divergence is 0 at t > 0."""
    process, t = DDPM(50), torch.tensor([1, 20, 49])
    x0, noise = torch.rand(3, 3, 4, 4) * 2 - 1, torch.randn(3, 3, 4, 4)
    found = hybrid_loss(lambda x, t, y: torch.cat([noise, -torch.ones_like(x)], dim=1), process, x0, t, noise)
    assert found.mse.abs().max() == 0 and found.vb.abs().max() < 1e-5


def test_configurations_that_describe_no_prior_are_one_line(prior_yml, capsys):
    cases = {
        "network.multipliers=[1,1,1,1,1]": "data.size=24 cannot be halved 4 times",
        "network.multipliers=null": "network.multipliers has no default for data.size=24",
        "network.width=40": "channels must be multiples of 32, not 40, 40",
        "network.head_channels=64": "32 channels cannot be divided into heads of 64 channels",
        "sampling.steps=60": "sampling.steps=60 does not fit a prior that was trained with 50 steps",
        "sampling.jump_length=4": "sampling.jump_length=4 is longer than the process of 4 steps",
    }
    for override, message in cases.items():
        line = single_error((main(["train", "prior", "-opt", str(prior_yml), override]), *capsys.readouterr()))
        assert message in line


def test_a_rehearsal_of_the_training(prior_yml, capsys):
    assert main(["train", "prior", "-opt", str(prior_yml), "--dry-run"]) in (0, None)
    assert "prior network:" in capsys.readouterr().out
