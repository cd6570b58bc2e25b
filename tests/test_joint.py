"""The joint form: texture and structure denoised by one network, the structure ahead (spec sec. 11)."""

import numpy as np
import pytest
import torch
from conftest import write_network

from strdiffusion import StrDiffusion
from strdiffusion.batch import Batch, Known
from strdiffusion.checkpoints import load_network
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.data.tensors import structure_picture
from strdiffusion.denoiser import Denoiser
from strdiffusion.methods.irsde import IRSDEMethod, IRSDEOptions
from strdiffusion.methods.joint import JointMethod, JointOptions
from strdiffusion.methods.loading import CheckpointsConfig
from strdiffusion.methods.method import run
from strdiffusion.methods.strdiffusion import StrDiffusionMethod, StrDiffusionOptions
from strdiffusion.networks import UNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.objectives import joint_loss, structure_loss, weighted_distance
from strdiffusion.samplers import Joint, Networks, SamplerConfig, Sampling, Stepping, TimeGrid, Unguided, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError
from strdiffusion.training.tasks import joint_times

T = 20
SDE = MeanRevertingSDE(T)


def batch_of(images=2, channels=1, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    texture, structure = (torch.rand(images, c, size, size, generator=generator) for c in (3, channels))
    mask = (torch.rand(images, 1, size, size, generator=generator) > 0.4).float()
    return Batch(texture, structure, structure * mask * 0.5, mask)


class NoiseByKind:
    """Noise that depends on the number of draws of the same shape alone, so that a further process changes nothing for the others."""

    def __init__(self):
        self.drawn = {}

    def __call__(self, images, like):
        number = self.drawn[like.shape[1]] = self.drawn.get(like.shape[1], 0) + 1
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(1000 * like.shape[1] + number))


def joint_network(prediction="x0", channels=1, seed=0):
    torch.manual_seed(seed)
    return Denoiser(UNet(3, 4, 2, structure_channels=channels), SDE, prediction)


class TextureOfJoint:
    """An unguided texture denoiser: the texture's part of a joint one that ignores the structure."""

    def __init__(self, joint):
        self.sde, self.joint = joint.sde, joint

    def x0(self, x, mu, t, structure=None):
        zero = torch.zeros_like(x[:, :1])
        return self.joint.both_x0(x, mu, t, zero, zero, max(t, 1))[0]

    def noise(self, x, mu, t, structure=None):
        return self.sde.predict_noise(x, mu, self.x0(x, mu, t), t)


def deaf_to_structure(denoiser):
    """Make a joint network ignore the structure's state."""
    stem = denoiser.network.stem.weight.data  # (width, 2 x 4 channels, 7, 7): x - mu, then mu
    stem[:, [3, 7]] = 0
    return denoiser


# ---- the times ----------------------------------------------------------------------------------------


def test_the_parts_start_at_T_end_at_0_and_keep_their_distance():
    grid = TimeGrid(SDE, ahead=5)
    assert grid.N == grid.first == 25 and (grid.texture(25), grid.structure(25)) == (20, 20)
    assert (grid.texture(20), grid.structure(20)) == (20, 15) and (grid.texture(10), grid.structure(10)) == (10, 5)
    assert (grid.texture(3), grid.structure(3)) == (3, 1) and (grid.texture(0), grid.structure(0)) == (0, 0)
    for steps in (2, 7, 20):
        coarse = TimeGrid(SDE, steps, ahead=5)
        assert coarse.N == steps and coarse[steps] == 25
        assert {(coarse.texture(n), coarse.structure(n)) for n in range(1, steps + 1)} <= pairs(5, 5) | {(1, 1)}


def pairs(least, most):
    return set(map(tuple, joint_times(SDE, least, most).tolist()))


def test_training_draws_the_pairs_of_times_that_sampling_visits():
    for ahead in (0, 3, 20):
        grid = TimeGrid(SDE, ahead=ahead)
        visited = {(grid.texture(n), grid.structure(n)) for n in range(1, grid.N + 1)}
        assert pairs(ahead, ahead) == visited - {(1, 1)}  # as in the other trainings, the last step is not trained
    times = joint_times(SDE, 0, 3)
    assert set(map(tuple, times.tolist())) == set().union(*(pairs(a, a) for a in range(4)))
    assert len(times) == sum(19 + a for a in range(4))


def test_without_a_lead_the_grid_is_that_of_the_other_methods():
    for steps, spacing in ((None, "t"), (7, "t"), (7, "log_snr")):
        assert TimeGrid(SDE, steps, spacing, ahead=0).times == TimeGrid(SDE, steps, spacing).times


# ---- network and objective ----------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["x0", "noise"])
def test_both_predictions_come_from_one_evaluation_with_two_times(prediction):
    denoiser, batch = joint_network(prediction), batch_of()
    y, x = torch.rand(2, 3, 12, 12), torch.rand(2, 1, 12, 12)
    means = batch.texture_mean, batch.structure_mean
    output = denoiser.network(torch.cat([y, x], 1), torch.cat(means, 1), torch.tensor([[9, 4], [7, 2]]))
    y0, x0 = denoiser.both_x0(y, means[0], torch.tensor([9, 7]), x, means[1], torch.tensor([4, 2]))
    for found, part, state, mean, t in ((y0, output[:, :3], y, means[0], (9, 7)), (x0, output[:, 3:], x, means[1], (4, 2))):
        for i in range(2):
            B, s = SDE.decay[t[i]], SDE.sigma_bar[t[i]]
            wanted = mean[i] + part[i] if prediction == "x0" else mean[i] + (state[i] - mean[i] - s * part[i]) / B
            assert (found[i] - wanted).abs().max() < 1e-4


def test_each_time_matters_and_each_image_has_its_own():
    network = joint_network().network
    x, mu = torch.rand(2, 4, 12, 12), torch.rand(2, 4, 12, 12)
    both = network(x, mu, torch.tensor([[5, 3], [9, 2]]))
    assert (network(x, mu, torch.tensor([[5, 3]])) - network(x, mu, torch.tensor([[5, 3], [5, 3]]))).abs().max() == 0
    assert (both[:1] - network(x[:1], mu[:1], torch.tensor([[5, 3]]))).abs().max() < 1e-6
    assert (both[:1] - network(x[:1], mu[:1], torch.tensor([[6, 3]]))).abs().max() > 1e-5
    assert (both[:1] - network(x[:1], mu[:1], torch.tensor([[5, 4]]))).abs().max() > 1e-5


@pytest.mark.parametrize("times", [[[5, 3]], [[5, 3], [9, 2]]])
def test_the_inference_form_is_the_same_function(times):
    network = joint_network(channels=3).network.eval()
    x, mu = torch.rand(2, 6, 12, 20), torch.rand(2, 6, 12, 20)
    t = torch.tensor(times)
    with torch.no_grad():
        assert (for_inference(network)(x, mu, t) - network(x, mu, t)).abs().max() < 1e-5


def test_the_loss_compares_both_parts_at_their_times():
    denoiser, batch, t = joint_network(), batch_of(), torch.tensor([[9, 4], [20, 17]])
    noise, structure_noise = torch.randn(2, 3, 12, 12), torch.randn(2, 1, 12, 12)
    texture, structure = joint_loss(denoiser, batch, t, noise, structure_noise, "l1", "x0")
    y = torch.stack([SDE.sample_marginal(batch.texture[i], batch.texture_mean[i], int(t[i, 0]), noise[i]) for i in range(2)])
    x = torch.stack([SDE.sample_marginal(batch.structure[i], batch.structure_mean[i], int(t[i, 1]), structure_noise[i]) for i in range(2)])
    y0, x0 = denoiser.both_x0(y, batch.texture_mean, t[:, 0], x, batch.structure_mean, t[:, 1])
    assert (texture.loss - weighted_distance(y0 - batch.texture, batch.mask)).abs() < 1e-6
    assert (structure.loss - weighted_distance(x0 - batch.structure, batch.mask)).abs() < 1e-6
    step, _ = joint_loss(denoiser, batch, t, noise, structure_noise, "l1", "step")
    wanted = torch.stack([SDE.optimum_step(y[i], batch.texture[i], batch.texture_mean[i], int(t[i, 0])) for i in range(2)])
    assert (step.optimum - wanted).abs().max() < 1e-6


# ---- the sampler --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["ancestral", "posterior", "mars_ode", "mars_sde"])
@pytest.mark.parametrize("steps", [None, 6])
def test_without_a_lead_a_network_that_is_deaf_to_structure_gives_irsde(solver, steps):
    """The pinned path: where the joint form must equal IR-SDE, it does."""
    denoiser, batch = deaf_to_structure(joint_network()), batch_of()
    together = sample(Joint(), Sampling(Networks(denoiser), batch.known(), NoiseByKind(), Stepping(solver, steps=steps)))
    alone = sample(Unguided(), Sampling(Networks(TextureOfJoint(denoiser)), batch.known(), NoiseByKind(), Stepping(solver, steps=steps)))
    assert (together.texture - alone.texture).abs().max() < 1e-4


def test_with_a_lead_the_structure_is_done_first():
    """What a network that predicts from the times alone is asked: the sequence of pairs of times, and the steps of each part."""
    asked = []

    class Asked:
        sde = SDE

        def both_x0(self, y, mu_y, t_y, x, mu_x, t_x):
            asked.append((t_y, t_x, y.clone(), x.clone()))
            return torch.full_like(y, 0.25), torch.full_like(x, 0.75)

    moments = []
    batch = batch_of()
    result = sample(
        Joint(), Sampling(Networks(Asked()), batch.known(), NoiseByKind(), Stepping("posterior", steps=5, ahead=10)), moments.append
    )
    assert [(t, s) for t, s, *_ in asked] == [(20, 20), (20, 14), (18, 8), (12, 2), (6, 1)]
    assert torch.equal(asked[0][2], asked[1][2]) and not torch.equal(asked[0][3], asked[1][3])  # the texture waits, the structure moves
    assert (result.texture - batch.known().put_back(torch.full_like(batch.texture, 0.25))).abs().max() < 1e-6
    assert (result.structure - 0.75).abs().max() < 1e-6  # the last step of both leads to the prediction
    assert [trace.evaluations("texture") for trace in result.traces] == [5, 5]
    assert len(moments) == 6 and moments[0].n == moments[0].to == 5


def test_an_image_gets_the_same_result_in_any_batch(weights):
    method = JointMethod.open(options(weights), torch.device("cpu"))
    batch = batch_of(3)
    whole = run(method, with_mean(batch, [0, 1, 2]), [5, 6, 7]).image
    for i in range(3):
        assert (run(method, with_mean(batch, [i]), [5 + i]).image - whole[i : i + 1]).abs().max() < 1e-5


@pytest.mark.parametrize("sides", [(12, 12), (30, 37), (60, 80)], ids=["one window", "two holes", "a large hole, shrunk"])
@pytest.mark.parametrize("pair", ["gray2edge", "labels"])
def test_photographs_through_windows(weights, tmp_path, sides, pair):
    """Known pixels bit for bit, the hole unseen, the same seed the same picture; a large hole in one window, since there are no tiles."""
    if pair == "labels":
        torch.manual_seed(0)
        write_network(tmp_path / "joint.pt", "texture", UNet(3, 4, 2, structure_channels=5), pair="labels")
    model = StrDiffusion.load({"texture": f"{weights if pair == 'gray2edge' else tmp_path}/joint.pt"}, size=12, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    mask = np.zeros(sides, bool)
    mask[2:6, 1:5] = mask[-6:-2, -7:-3] = True
    if sides == (60, 80):
        mask[10:50, 10:60] = True
    other = np.where(mask[..., None], 255 - image, image)

    def filled(picture, ahead=2):
        sampler = SamplerConfig(resampling="none", solver="posterior", steps=3, ahead=ahead)
        return model(picture, mask, seed=4, sampler=sampler).images[0].levels

    outputs = [filled(picture) for picture in (image, image, other)]
    assert np.array_equal(outputs[0][~mask], image[~mask]) and (outputs[0][mask] != image[mask]).mean() > 0.5
    assert np.array_equal(outputs[0], outputs[1]) and np.array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], filled(image, ahead=0))


def with_mean(batch, rows):
    return batch.take(rows).known()


def options(weights, pair="gray2edge", network="joint.pt", **sampler):
    config = SamplerConfig(resampling="none", solver="posterior", steps=4, ahead=3, **sampler)
    structure = StructureConfig(pair, "known", 1)
    return JointOptions(CheckpointsConfig(texture=f"{weights}/{network}"), sde=SDEConfig(T=10), structure=structure, sampler=config)


# ---- labels as the structure --------------------------------------------------------------------------


def test_labels_are_drawn_from_nothing(tmp_path):
    network = UNet(3, 4, 2, structure_channels=5)
    write_network(tmp_path / "labels.pt", "texture", network, pair="labels")
    method = JointMethod.open(options(tmp_path, "labels", "labels.pt"), torch.device("cpu"))
    image, known = np.random.default_rng(0).random((12, 12, 3), np.float32), np.ones((12, 12), np.float32)
    mean = method.look(image, known, {})["structure_mean"]
    assert mean.shape == (12, 12, 5) and not mean.any()
    assert method.cost() == {**method.cost(), "texture": method.cost()["texture"]} and method.cost()["texture"].most == 4
    assert method.true_pictures(image) == {}


def test_the_picture_of_labels_has_a_tone_for_each_class():
    labels = torch.nn.functional.one_hot(torch.arange(4).view(1, 2, 2), 4).permute(0, 3, 1, 2).float()
    tones = structure_picture(labels)
    assert tones.shape == (1, 1, 2, 2) and tones.unique().numel() == 4
    one = torch.rand(2, 1, 3, 3)
    assert structure_picture(one) is one


# ---- refusals -----------------------------------------------------------------------------------------


def test_a_network_of_another_form_is_refused(weights):
    with pytest.raises(UserError, match="denoises a structure, too, so method must be joint"):
        sampler = SamplerConfig(resampling="none")
        IRSDEMethod.open(
            IRSDEOptions(CheckpointsConfig(texture=f"{weights}/joint.pt"), sde=SDEConfig(T=10), sampler=sampler), torch.device("cpu")
        )
    with pytest.raises(UserError, match="has no SPADE blocks, so method must be irsde"):
        JointMethod.open(options(weights, network="unguided.pt"), torch.device("cpu"))


def test_options_of_other_methods_are_refused():
    for change, words in (
        ({"resampling": "repaint"}, "resampling=none"),
        ({"spacing": "log_snr"}, "spacing=t"),
        ({"ahead": 11}, "at most T=10"),
    ):
        config = SamplerConfig(**{"resampling": "none"} | change)
        with pytest.raises(UserError, match=words):
            config.check(MeanRevertingSDE(10), False, joint=True)
    with pytest.raises(UserError, match="0 with other methods"):
        SamplerConfig(resampling="none", ahead=1).check(MeanRevertingSDE(10), False)


def test_the_checkpoint_remembers_its_form(tmp_path):
    write_network(tmp_path / "joint.pt", "texture", UNet(3, 4, 2, structure_channels=2))
    assert load_network(tmp_path / "joint.pt", "texture").network.structure_channels == 2
    assert "structure_channels" not in UNet(3, 4, 2).architecture()  # as before the joint form


# ---- a structure network that sees the known pixels ---------------------------------------------------


def test_a_structure_network_can_see_the_known_pixels(tmp_path, weights):
    torch.manual_seed(0)
    network = UNet(1, 4, 2, context=3)
    write_network(tmp_path / "structure.pt", "structure", network)
    assert load_network(tmp_path / "structure.pt").network.context == 3
    batch, t, noise = batch_of(), torch.tensor([7, 3]), torch.randn(2, 1, 12, 12)
    denoiser = Denoiser(network, SDE, "x0", sees_known=True)
    found = structure_loss(denoiser, batch, t, noise, loss_on="x0").expectation
    x = SDE.sample_marginal(batch.structure, batch.structure_mean, t, noise)
    assert torch.equal(found, batch.structure_mean + network(x, batch.structure_mean, t, batch.texture_mean))
    files = CheckpointsConfig(None, f"{weights}/texture.pt", f"{tmp_path}/structure.pt")
    sampler = SamplerConfig(resampling="none", solver="posterior", steps=4)
    structure = StructureConfig(edge_source="known", edge_sigma=1)
    method = StrDiffusionMethod.open(
        StrDiffusionOptions(files, sde=SDEConfig(T=10), structure=structure, sampler=sampler), torch.device("cpu")
    )
    known = batch.known()
    before = run(method, known, [1, 2]).pictures["structure"]
    brighter = Known(known.image * 0.5, known.mask, known.maps)
    hole = known.mask < 0.5
    assert (run(method, brighter, [1, 2]).pictures["structure"] - before)[hole].abs().max() > 1e-4
