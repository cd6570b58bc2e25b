"""IR-SDE as its authors run it (docs/spec.md sec. 12): a white mean, known pixels as the network leaves them, the plain loss, the ODE."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZE, T, write_network

from strdiffusion.app import StrDiffusion
from strdiffusion.batch import Batch, Known
from strdiffusion.checkpoints import load_network, save_released
from strdiffusion.config import TrainTextureConfig
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.denoiser import Denoiser
from strdiffusion.evaluation.metrics import inside, psnr
from strdiffusion.evaluation.run import without_later
from strdiffusion.methods import METHODS, run
from strdiffusion.methods.loading import CheckpointsConfig, load_for_test
from strdiffusion.networks import UNet
from strdiffusion.objectives import matching_loss, weighted_distance
from strdiffusion.samplers import SamplerConfig
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build
from strdiffusion.training.tasks import make_task

NAMES = Path(__file__).parent / "golden_repaint" / "released_state_dict_keys.json"


@pytest.fixture
def released(tmp_path):
    """A small released file of IR-SDE."""
    torch.manual_seed(0)
    path = tmp_path / "released" / "irsde.pth"
    path.parent.mkdir()
    save_released(path, UNet(3, 4, 2, "linear"))
    return path


def open_irsde(path, **more):
    cls = METHODS["irsde"]
    sde = SDEConfig(T=T, mean_fill=more.pop("mean_fill", None))
    options = cls.Options(CheckpointsConfig(texture=str(path)), sde=sde, sampler=SamplerConfig(resampling="none", **more))
    options.check()
    return cls.open(options, torch.device("cpu"))


def known_image():
    mask = torch.ones(1, 1, SIZE, SIZE)
    mask[:, :, 8:16, 8:16] = 0
    return Known(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), mask)


def test_the_released_celeba_form_loads(tmp_path):
    """nf 32, depth 4, with the names and shapes of the released program; with the prefix of DataParallel, too."""
    shapes = json.loads(NAMES.read_text())["irsde"]
    state = {f"module.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "celeba.pth")
    loaded = load_network(tmp_path / "celeba.pth")
    found = loaded.network.architecture()
    assert loaded.kind == "texture" and (found["width"], found["depth"], found["attention"], found["guided"]) == (32, 4, "linear", False)
    assert sum(p.numel() for p in loaded.network.parameters()) == 34_799_171


def test_a_released_file_is_asked_what_its_mean_is(released):
    with pytest.raises(UserError, match=r"released file of IR-SDE.*set sde\.mean_fill=white"):
        open_irsde(released)
    with pytest.raises(UserError, match=r"released file of IR-SDE.*set mean_fill=white"):
        StrDiffusion.load({"texture": released}, T=T)
    black, white = (open_irsde(released, mean_fill=fill) for fill in ("black", "white"))
    assert not torch.equal(run(black, known_image(), [1]).image, run(white, known_image(), [1]).image)


def test_the_mean_is_kept_in_checkpoints_and_model_folders(released, tmp_path):
    write_network(tmp_path / "white.pt", "texture", UNet(3, 4, 2), mean_fill="white", rounding="released")
    assert load_network(tmp_path / "white.pt").sde == vars(SDEConfig(T=T, rounding="released", mean_fill="white"))
    with pytest.raises(UserError, match=r"trained with rounding=released.*set sde.rounding=released"):
        open_irsde(tmp_path / "white.pt")
    folder = StrDiffusion.load({"texture": released}, T=T, mean_fill="white", size=SIZE).save(tmp_path / "model")
    assert StrDiffusion.load(folder).method.sde.mean_fill == "white"
    with pytest.raises(UserError, match="is a model of mean_fill=white, not black"):
        StrDiffusion.load(folder, mean_fill="black")
    write_network(tmp_path / "black.pt", "texture", UNet(3, 4, 2))
    black = StrDiffusion.load({"texture": tmp_path / "black.pt"}, size=SIZE).save(tmp_path / "black")
    test = SDEConfig(T=T), StructureConfig(edge_source="known"), SamplerConfig(resampling="none")
    assert load_for_test(CheckpointsConfig(folder=str(black)), *test, "irsde").config.sde == test[0]
    with pytest.raises(UserError, match=r"trained with mean_fill=white.*set sde.mean_fill=white"):
        load_for_test(CheckpointsConfig(folder=str(folder)), *test, "irsde")


def test_options_that_came_later_leave_finished_results_valid():
    before = {"sde": {"T": 10}, "sampler": {"steps": None}, "seed": 0}
    later = {"put_back": True, "steps": None}
    assert (
        without_later({"sde": {"T": 10, "rounding": "exact", "mean_fill": None}, "sampler": later, "seed": 0, "crop_border": 0}) == before
    )
    assert without_later({"sampler": {"put_back": False}, "crop_border": 4}) == {"sampler": {"put_back": False}, "crop_border": 4}


def test_known_pixels_are_the_networks_if_they_are_not_put_back(released):
    known = known_image()
    where = known.mask.expand_as(known.image) > 0.5
    free, pasted = (run(open_irsde(released, mean_fill="white", put_back=kept), known, [1]).image for kept in (False, True))
    assert torch.equal(pasted[where], known.image[where]) and not torch.equal(free[where], known.image[where])
    assert torch.equal(free[~where], pasted[~where])


def test_the_ode_draws_noise_once(released):
    """Two seeds differ by their start alone; and steps of one time are those of the SDE class."""
    method, known = open_irsde(released, mean_fill="white", solver="ode"), known_image()
    assert not torch.equal(run(method, known, [1]).image, run(method, known, [2]).image)
    sde, x, mu, score = method.sde, *torch.rand(3, 1, 3, 4, 4)
    assert torch.equal(sde.reverse_ode_step(x, mu, score, 5), sde.reverse_ode_step(x, mu, score, 5, 4))
    assert not torch.equal(sde.reverse_ode_step(x, mu, score, 5), sde.reverse_ode_step(x, mu, score, 5, 3))


def test_the_plain_loss_and_the_first_time():
    difference, mask = torch.randn(2, 3, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    torch.testing.assert_close(weighted_distance(difference, mask, hole_weight=1), difference.abs().mean())
    tree = {"data": {"images": "x"}, "output": "y", "network": {"width": 4, "depth": 1}, "sde": {"T": 5, "mean_fill": "white"}}
    config = build(TrainTextureConfig, tree | {"objective": {"guidance": "none", "hole_weight": 1, "first_t": 1}}, "here")
    task = make_task("texture", config, MeanRevertingSDE(**vars(config.sde)))
    assert task.times.tolist() == [1, 2, 3, 4, 5]
    batch = Batch(torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), mask)
    noise, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
    loss, _ = task.loss(task.network, batch, t, lambda like: noise)
    white, sde = batch.texture_mean + (1 - mask), task.sde
    x = sde.sample_marginal(batch.texture, white, t, noise)
    expected = matching_loss(Denoiser(task.network, sde), x, batch.texture, white, mask, t, hole_weight=1).loss
    assert torch.equal(loss, expected)


def test_the_border_is_left_out():
    truth = np.zeros((12, 16, 3))
    image = truth.copy()
    image[:4] = 1
    assert inside(truth, 4).shape == (4, 8, 3) and psnr(inside(image, 4), inside(truth, 4)) == np.inf
    assert inside(truth, 0).shape == truth.shape
