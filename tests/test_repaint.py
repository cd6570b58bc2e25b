"""RePaint as a method: its loop, its counts, its files and its options. The released numbers are in test_golden_repaint.py."""

import json
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SIZE, script, single_error, write_network

from strdiffusion.app import Composition, PlacedObject, StrDiffusion
from strdiffusion.app.tiles import Tiles
from strdiffusion.app.windows import Box
from strdiffusion.batch import Known
from strdiffusion.checkpoints import load_network, network_record, save_released, write_checkpoint
from strdiffusion.commands.main import main
from strdiffusion.data import read_image
from strdiffusion.ddpm import DDPM
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import METHODS, run
from strdiffusion.networks import GuidedUNet, NoiseClassifier, UNet
from strdiffusion.networks.guided_unet import GroupNorm
from strdiffusion.networks.inference import for_inference
from strdiffusion.samplers import SeededNoise
from strdiffusion.samplers.prior import Jumps, Prior, RepaintConfig, count_jumps, count_reverse_steps, repaint
from strdiffusion.system.errors import UserError
from strdiffusion.system.parser import build, load_config

CPU = torch.device("cpu")
OPTIONS = {"steps": 6, "jump_length": 2, "jump_n_sample": 2}
HEADS = {"head_channels": 32}


def random_weights(network, seed=0):
    """Weights that make every layer count; released networks start with layers of zeros."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(torch.randn_like(parameter) * scale)
    return network.eval()


def write_prior(path, kind, network, **process):
    write_checkpoint(path, network_record(kind, network, DDPM(**process)) | {"step": 7, "network": network.state_dict(), "ema": None})


@pytest.fixture(scope="module")
def priors(tmp_path_factory):
    """Small random networks: prior.pt, conditional.pt, classifier.pt, and the first two as released files (.pth)."""
    folder = tmp_path_factory.mktemp("priors")
    prior = random_weights(GuidedUNet(32, [32, 32], 1, [2], **HEADS))
    conditional = random_weights(GuidedUNet(32, [32, 32], 1, [], class_conditional=True, **HEADS), 1)
    classifier = random_weights(NoiseClassifier(SIZE, 32, [32, 32], 1, [2], **HEADS), 2)
    for name, kind, network in (("prior", "prior", prior), ("conditional", "prior", conditional), ("classifier", "classifier", classifier)):
        write_prior(folder / f"{name}.pt", kind, network)
        save_released(folder / f"{name}.pth", network)
    return folder


def open_method(priors, checkpoints, **more):
    paths = {kind: str(priors / file) for kind, file in checkpoints.items()}
    cls = METHODS["repaint"]
    options = build(cls.Options, {"checkpoints": paths, "repaint": OPTIONS, "unrecorded": HEADS} | more, "here")
    options.check()
    return cls.open(options, CPU)


def known_images(count=3, height=SIZE, width=SIZE):
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(count, 1, height, width)
    mask[:, :, 4:13, 6:15] = 0
    return Known(torch.rand(count, 3, height, width, generator=generator), mask)


# ---- the loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("T", "options", "reverse", "climbs"),
    [
        (250, {}, 2410, 2160),
        (250, {"jump_n_sample": 5}, 1210, 960),
        (250, {"jump_length": 5}, 2455, 2205),
        (250, {"jump_length": 1}, 2491, 2241),
        (100, {}, 910, 810),
        (100, {"jump_length": 5, "jump_n_sample": 9, "start_resampling": 50}, 500, 400),
        (50, {"jump_length": 5, "jump_n_sample": 5}, 230, 180),
    ],
)
def test_the_numbers_of_steps_in_the_document(T, options, reverse, climbs):
    times = Jumps(**options).times(T)
    assert count_reverse_steps(times) == reverse and len(times) - 1 - reverse == climbs
    assert times[0] == T - 1 and times[-1] == -1 and all(abs(i - k) == 1 for i, k in pairwise(times))


def released_times(T, length, samples, start, stop):
    """The schedule of Intelligent Painter, in its document's words: each of 0, L, 2L, ... below T - L gets n - 1 jumps."""
    left, t, times = {k * length: samples - 1 for k in range(T) if k * length < T - length}, T, []
    while t > 0:
        t -= 1
        times.append(t)
        if left.get(t, 0) and t >= stop and t <= start - length:
            left[t] -= 1
            for _ in range(length):
                t += 1
                times.append(t)
    return [*times, -1]


@pytest.mark.parametrize(("start", "stop", "reverse", "jumps"), [(None, 100, 1510, 126), (150, 0, 1600, 135), (200, 95, None, None)])
def test_where_resampling_stops(start, stop, reverse, jumps):
    times = Jumps(start_resampling=start, stop_resampling=stop).times(250)
    assert times == released_times(250, 10, 10, 250 if start is None else start, stop)
    assert reverse is None or (count_reverse_steps(times), count_jumps(times)) == (reverse, jumps)


def test_a_mask_between_0_and_1_mixes():
    """As at the rims of Intelligent Painter's program; where it is 0, anything may stand in the image."""
    process, x0 = DDPM(respacing="4"), torch.full((1, 3, 8, 8), 0.5)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :3], mask[..., 3] = 1, 0.25
    x0[..., 4:] = float("nan")
    seen = []

    def network(x, t, classes):
        seen.append(x)
        return torch.zeros(1, 6, 8, 8)

    tape = partial(SeededNoise([3]), [0])
    states = [transition.x for transition in repaint(Prior(network, process), x0, mask, [3, 2, 1], tape)]
    draw = partial(SeededNoise([3]), [0])
    for _ in range(3):
        draw(mask.expand(1, 3, 8, 8))  # the start, z of the first step and of the second
    known = process.sample_marginal(x0, 2, draw(mask.expand(1, 3, 8, 8)))
    assert torch.equal(seen[1][..., :3], known[..., :3]) and torch.equal(seen[1][..., 4:], states[1][..., 4:])
    torch.testing.assert_close(seen[1][..., 3], 0.25 * known[..., 3] + 0.75 * states[1][..., 3])


def test_without_jumps_it_is_plain_sampling_with_the_known_pixels_mixed_in():
    """jump_n_sample 1: T reverse steps; and where nothing is known, the DDPM's own ancestral sampling, written out here."""
    network, process = random_weights(GuidedUNet(32, [32], 1, [], **HEADS)), DDPM(respacing="5")
    nothing, tape = torch.zeros(1, 3, 8, 8), partial(SeededNoise([3]), [0])
    times = RepaintConfig(jump_n_sample=1).times(5)
    assert times == [4, 3, 2, 1, 0, -1]
    with torch.no_grad():
        *_, last = repaint(Prior(network, process), nothing, torch.zeros(1, 1, 8, 8), times, tape)
        draw = partial(SeededNoise([3]), [0])
        x = draw(nothing)
        for t in reversed(range(5)):
            z = draw(nothing)
            if t < 4:
                draw(nothing)  # that of the known pixels
            noise, v = network(x, process.network_times[t]).chunk(2, dim=1)
            a, before = process.a[t], process.a[t - 1] if t else torch.tensor(1.0)
            beta = 1 - a / before
            x0 = ((x - (1 - a).sqrt() * noise) / a.sqrt()).clamp(-1, 1)
            mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - a)
            share = (v + 1) / 2
            low = process.posterior_log_variance[t]
            x = mean + (t > 0) * torch.exp((share * beta.log() + (1 - share) * low) / 2) * z
            x = x.float()
    torch.testing.assert_close(last.x, x, rtol=0, atol=2e-5)


def test_a_perfect_prior_inpaints_perfectly():
    """A network that knows the image: the result is the image, whatever is known of it."""
    process, image = DDPM(respacing="8"), torch.rand(1, 3, 8, 8) * 2 - 1
    prior = Prior(lambda x, t, y: torch.cat([image, torch.zeros_like(x)], dim=1), process, "x0")
    *_, last = repaint(prior, image, torch.zeros(1, 1, 8, 8), Jumps(2, 2).times(8), torch.randn_like)
    torch.testing.assert_close(last.x, image)


def test_steps_without_noise():
    """With the true x0 a state keeps its noise on the way down, to x0 itself; and no noise is drawn into the hole."""
    process, x0, noise = (
        DDPM(respacing="8"),
        torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1,
        torch.randn(2, 3, 8, 8, dtype=torch.float64),
    )
    a = process.a
    for t in (7, 3, 1):
        found = process.step_without_noise(a[t].sqrt() * x0 + (1 - a[t]).sqrt() * noise, x0, t)
        torch.testing.assert_close(found, a[t - 1].sqrt() * x0 + (1 - a[t - 1]).sqrt() * noise)
    prior = Prior(lambda x, t, y: torch.cat([x0, torch.zeros_like(x)], dim=1), process, "x0", solver="ddim")
    states = [at.x for at in repaint(prior, x0, torch.zeros(2, 1, 8, 8), Jumps(jump_n_sample=1).times(8), lambda like: noise)]
    torch.testing.assert_close(states[3], process.sample_marginal(x0, 4, (states[0] - a[7].sqrt() * x0) / (1 - a[7]).sqrt()))
    assert torch.equal(states[-1], x0)


def error_on_a_gaussian(solver: str, stride: int) -> float:
    """How far a run from t = 900 to 100 ends from the exact flow without noise, in deviations, with a prior that knows N(0.3, 0.2^2)."""
    mean, variance, process = 0.3, 0.04, DDPM(respacing=f"ddim{1000 // stride}")
    signal = dict(zip(process.network_times, process.a, strict=True))

    def network(x: torch.Tensor, t: int, classes: None) -> torch.Tensor:
        a = signal[t]
        x0 = mean + a.sqrt() * variance / (a * variance + 1 - a) * (x - a.sqrt() * mean)
        return torch.cat([x0, torch.zeros_like(x)], dim=1)

    def deviation(x: torch.Tensor, t: int) -> torch.Tensor:
        return (x - signal[t].sqrt() * mean) / (signal[t] * variance + 1 - signal[t]).sqrt()

    prior, last = Prior(network, process, "x0", clip=False, solver=solver), None
    start = x = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(1, 3, 2, 2)
    for i in range(900 // stride, 100 // stride, -1):
        x, last = prior.reverse_step(x, i, torch.zeros_like(x), last)
    return float((deviation(x, 100) - deviation(start, 900)).abs().max())


def test_the_solvers_without_noise_converge_by_their_order():
    """Half the step: half the error of DDIM, a quarter of that of DPM-Solver++(2M)."""
    assert error_on_a_gaussian("ddim", 10) / error_on_a_gaussian("ddim", 5) == pytest.approx(2, abs=0.15)
    assert error_on_a_gaussian("dpm++2m", 10) / error_on_a_gaussian("dpm++2m", 5) == pytest.approx(4, abs=0.4)
    assert error_on_a_gaussian("dpm++2m", 20) < error_on_a_gaussian("ddim", 20) / 5


def test_after_a_jump_the_second_order_begins_again():
    """Without two steps down in a row there is nothing to continue: the same states as DDIM's."""
    process, x0, m = DDPM(respacing="8"), torch.rand(1, 3, 8, 8) * 2 - 1, torch.zeros(1, 1, 8, 8)

    def states(solver: str, times: list[int]) -> list[torch.Tensor]:
        prior = Prior(lambda x, t, y: torch.cat([x / 2 + t / 1000, torch.zeros_like(x)], dim=1), process, "x0", solver=solver)
        return [at.x for at in repaint(prior, x0, m, times, lambda like: torch.full_like(like, 0.5))]

    zigzag, straight = [5, 4, 5, 4, 5, 4], [5, 4, 3, 2]
    assert all(map(torch.equal, states("dpm++2m", zigzag), states("ddim", zigzag)))
    assert not torch.equal(states("dpm++2m", straight)[2], states("ddim", straight)[2])
    assert torch.equal(states("dpm++2m", straight)[1], states("ddim", straight)[1])


# ---- the method ---------------------------------------------------------------------------------------


def test_known_pixels_stay_bit_for_bit_and_are_the_networks_with_put_back_off(priors):
    method, known, steps = open_method(priors, {"prior": "prior.pt"}), known_images(), []
    result = run(method, known, [1, 2, 3], steps.append)
    where = known.mask.expand_as(known.image) > 0.5
    assert torch.equal(result.image[where], known.image[where]) and result.image.min() >= 0 and result.image.max() <= 1
    planned = method.cost()["prior"]
    assert planned.least == planned.most == 10 and result.evaluations == [{"prior": 10}] * 3
    assert steps[0].is_start and [step.left for step in steps[1:]] == [*range(len(steps) - 1, 0, -1)] and steps[-1].share == 1
    assert (steps[1].t, steps[1].to, steps[-1].to, steps[0].T) == (6, 5, 0, 6)
    released = open_method(priors, {"prior": "prior.pt"}, repaint=OPTIONS | {"put_back": False})
    free = run(released, known, [1, 2, 3]).image
    assert torch.equal(free[~where], result.image[~where]) and not torch.equal(free[where], known.image[where])


@pytest.mark.parametrize("checkpoints", [{"prior": "prior.pt"}, {"prior": "conditional.pth", "classifier": "classifier.pth"}], ids=str)
def test_an_image_gets_the_same_result_in_any_batch(priors, checkpoints):
    method, known = open_method(priors, checkpoints), known_images()
    together = run(method, known, [1, 2, 3])
    alone = [run(method, known.take([i]), [seed]).image for i, seed in enumerate([1, 2, 3])]
    torch.testing.assert_close(together.image, torch.cat(alone), rtol=0, atol=1e-5)
    assert not torch.allclose(run(method, known, [1, 2, 4]).image[2], together.image[2])
    assert set(together.evaluations[0]) == set(checkpoints) and set(together.evaluations[0].values()) == {10}


def test_a_class_is_drawn_from_the_seed_or_given(priors):
    method = open_method(priors, {"prior": "conditional.pt", "classifier": "classifier.pt"})
    assert torch.equal(method.classes([5, 6])[1:], method.classes([6])) and len(method.classes(range(20)).unique()) > 10
    given = open_method(priors, {"prior": "conditional.pt"}, repaint=OPTIONS | {"label": 9})
    assert given.classes([1, 2]).tolist() == [9, 9]
    unguided = open_method(priors, {"prior": "conditional.pt", "classifier": "classifier.pt"}, repaint=OPTIONS | {"classifier_scale": 0.0})
    known = known_images(1)
    plain = open_method(priors, {"prior": "conditional.pt"})
    assert torch.equal(run(unguided, known, [4]).image, run(plain, known, [4]).image)
    assert not torch.equal(run(method, known, [4]).image, run(plain, known, [4]).image)


def test_intelligent_painter_is_a_choice_of_resampling(priors):
    """Its stop is 100 of 250 and moves with the number of steps; RePaint's has none."""
    method = open_method(priors, {"prior": "prior.pt"}, repaint={})
    painter = method.varied(resampling="intelligent_painter")
    assert painter.config.stop_resampling == 100 and painter.cost()["prior"].least == 1510
    assert painter.describe() == "Intelligent Painter, 250 steps, 1510 evaluations"
    assert painter.choices().resampling == "intelligent_painter" and method.choices().resampling == "repaint"
    assert method.varied(resampling="intelligent_painter", steps=50).config.stop_resampling == 20
    assert painter.varied(steps=50).config.stop_resampling == 20
    assert painter.varied(resampling="repaint").cost() == method.cost()
    assert painter.varied(resampling="none").cost()["prior"].least == 250
    with pytest.raises(UserError, match="knows resampling none, repaint, intelligent_painter, not fixed"):
        method.varied(resampling="fixed")


def test_the_preset_is_intelligent_painters():
    config = load_config(TestConfig, ROOT / "configs" / "repaint" / "intelligent_painter.yml")
    times = config.options.repaint.times(250)
    assert count_reverse_steps(times) == 1510 and len(times) == 2771 and config.options.repaint.truncate


def test_truncation_is_of_what_the_network_painted(priors):
    known = known_images(1)
    image = run(open_method(priors, {"prior": "prior.pt"}), known, [1]).image
    released = run(open_method(priors, {"prior": "prior.pt"}, repaint=OPTIONS | {"truncate": True}), known, [1]).image
    hole = known.mask.expand_as(image) < 0.5
    assert torch.equal(released[~hole], known.image[~hole])
    assert torch.equal((released[hole] * 255).round(), (image[hole] * 255 + 1e-4).floor())


def test_a_scene_is_painted_around_cut_outs(priors):
    cutout = np.zeros((12, 12, 4), np.uint8)
    cutout[2:10, 2:10] = (200, 90, 30, 255)
    composition = Composition([PlacedObject(cutout, (10, 12), 1, 30), PlacedObject(cutout, (24, 18), 0.7)], 32, 24)
    model, composed = StrDiffusion.load({"prior": priors / "prior.pt"}, size=SIZE), composition.render()
    settings = {"steps": 6, "sampler": RepaintConfig(steps=6, jump_length=2, jump_n_sample=2, stop_resampling=2)}
    image = composition.paint(model, seed=1, **settings).images[0].levels
    assert np.array_equal(image[composed.known], composed.rgba[composed.known][:, :3]) and image[composed.hole].std() > 5
    assert np.array_equal(image, composition.paint(model, seed=1, **settings).images[0].levels)


def test_sizes_that_the_network_cannot_divide_are_continued(priors):
    method, known = open_method(priors, {"prior": "prior.pt"}), known_images(1, 15, 21)
    image = run(method, known, [1]).image
    assert image.shape == known.image.shape and torch.equal(known.put_back(image), image)


def test_tiles_and_a_run_from_an_estimate(priors):
    """One tile is the whole image; overlapping tiles of a prior that looks at single pixels give what the whole image gives."""
    method, known = open_method(priors, {"prior": "conditional.pt"}), known_images(2)
    one = Tiles([Box(0, 0, SIZE, SIZE)], 1, lambda: None)
    whole = run(method, known, [1, 2]).image
    torch.testing.assert_close(run(method, known, [1, 2], evaluate=one).image, whole, rtol=0, atol=1e-5)
    several = Tiles([Box(0, left, SIZE, 12) for left in (0, 4, SIZE - 12)], 3, lambda: None)
    pointwise = open_method(priors, {"prior": "prior.pt"})
    pointwise.network = lambda: lambda x, t, classes=None: torch.cat([0.3 * x.roll(1, 1), 0.1 * x], dim=1)
    torch.testing.assert_close(run(pointwise, known, [1, 2], evaluate=several).image, run(pointwise, known, [1, 2]).image)
    planned, late = method.cost()["prior"], method.cost(late=True)["prior"]
    estimate, steps = Known(torch.full_like(known.image, 0.5), torch.ones_like(known.mask)), []
    refined = run(method, known, [1, 2], steps.append, one, estimate)
    assert 0 < late.least < planned.least and refined.evaluations == [{"prior": late.least}] * 2
    a = method.process.a[steps[0].t - 1]
    noise = (2 * steps[0].image - 1) / (1 - a).sqrt()  # the estimate is 0 in [-1,1]
    assert a.sqrt() <= 0.4 and abs(noise.std() - 1) < 0.1 and steps[0].T == steps[0].t


def test_a_hole_larger_than_the_training_images_is_filled_in_tiles(priors):
    model = StrDiffusion.load({"prior": priors / "prior.pt"}, size=SIZE, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    hole = np.zeros((60, 100), np.uint8)
    hole[20:45, 15:85] = 255
    options = {"steps": 4, "resampling": "none", "shrink": 1}
    plan = model.plan(image, hole, **options)
    assert plan.tiles[0] > 3
    late = plan.evaluations["prior"].least - 4
    assert late % plan.tiles[0] == 0 and 0 < late < 4 * plan.tiles[0]
    result = np.asarray(model(image, hole, **options).images[0].levels)
    assert result.shape == image.shape and np.array_equal(result[hole == 0], image[hole == 0])
    assert (result[hole > 0] != image[hole > 0]).mean() > 0.9 and result[hole > 0].std() > 1


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 5e-6), ("bf16", 2e-2)])
def test_the_inference_form_computes_the_same(priors, precision, tolerance):
    for name in ("prior", "conditional"):
        network = load_network(priors / f"{name}.pt").network
        x, t, y = torch.randn(2, 3, 16, 24), torch.tensor([3, 700]), torch.tensor([1, 999])
        with torch.no_grad():
            expected, found = network(x, t, y), for_inference(network, precision)(x, t, y)
        assert found.dtype == torch.float32 and (found - expected).abs().max() < tolerance * expected.abs().max()
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_group_norm_of_bfloat16_sums_in_float32():
    norm, h = GroupNorm(64), (50 + torch.randn(2, 64, 12, 12)).bfloat16()
    expected = torch.nn.functional.group_norm(h.float(), 32, norm.weight, norm.bias)
    for form in (torch.contiguous_format, torch.channels_last):
        found = norm(h.contiguous(memory_format=form))
        assert found.dtype == torch.bfloat16 and (found.float() - expected).abs().max() < 2**-7 * expected.abs().max()


# ---- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prior", "conditional", "classifier"])
def test_released_files_load_by_their_names_and_export_again(priors, tmp_path, name):
    from strdiffusion.checkpoints.released_prior import Unrecorded

    loaded = load_network(priors / f"{name}.pth", unrecorded=Unrecorded(**HEADS))
    ours = load_network(priors / f"{name}.pt")
    assert loaded.released and loaded.kind == ours.kind and loaded.network.architecture() == ours.network.architecture()
    assert loaded.process == ours.process == {"steps": 1000, "schedule": "linear"}
    save_released(tmp_path / "again.pt", loaded.network)
    before, after = (torch.load(path, weights_only=True) for path in (priors / f"{name}.pth", tmp_path / "again.pt"))
    assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("channels", "blocks", "attention", "switches"),
    [
        ([32, 64], 1, [], {"scale_shift": False, "resblock_updown": False}),
        ([32, 32, 64], 3, [1, 4], {"learned_sigma": False, "heads": 2, "heads_upsample": 4, "head_channels": None, "new_order": True}),
        ([32], 2, [1], {"class_conditional": True, "head_channels": 32}),
        ([64, 32, 32, 96], 2, [8], {"head_channels": 32}),
    ],
)
def test_options_are_read_off_a_file(channels, blocks, attention, switches):
    from strdiffusion.checkpoints.released_prior import Unrecorded, detect_prior

    given = {name: switches[name] for name in ("heads", "heads_upsample", "head_channels", "new_order") if name in switches}
    with torch.device("meta"):
        network = GuidedUNet(32, channels, blocks, attention, **({"head_channels": 64} | switches))
    assert detect_prior(network.state_dict(), Unrecorded(**given)) == ("prior", network.architecture())


def test_a_model_folder_keeps_everything(priors, tmp_path, capsys):
    source = {"prior": priors / "conditional.pt", "classifier": priors / "classifier.pt"}
    model = StrDiffusion.load(source)
    assert model.method.name == "repaint" and model.size == SIZE
    folder = model.save(tmp_path / "model")
    again = StrDiffusion.load(folder)
    images = [run(found.method.varied(steps=12, resampling="none"), known_images(1), [1]).image for found in (model, again)]
    assert torch.equal(*images) and again.method.config == model.method.config
    assert main(["info", str(folder)]) in (0, None)
    said = capsys.readouterr().out
    assert "repaint" in said and "1000 steps, linear" in said and "24x24" in said and "heads of 32" in said


def test_packing_with_other_settings(priors, tmp_path, monkeypatch, capsys):
    def pack(folder, *settings):
        monkeypatch.setattr("sys.argv", ["pack_model.py", str(folder), f"prior={priors / 'prior.pt'}", *settings])
        return script("pack_model").main()

    assert pack(tmp_path / "cheap", "repaint.steps=25", "repaint.jump_n_sample=2", "provenance=[here]", "--dtype", "float16") == 0
    config = StrDiffusion.load(tmp_path / "cheap", device="cpu").method.model.config
    assert (config.repaint.steps, config.repaint.jump_n_sample, config.provenance) == (25, 2, ["here"])
    capsys.readouterr()
    for setting, said in (("repaint.steps=5000", "steps=5000 does not fit"), ("repaint.jumps=3", "unknown key"), ("T=3", "unknown key")):
        assert pack(tmp_path / "none", setting) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_photograph_and_a_test_folder(priors, photos, tmp_path, capsys):
    (tmp_path / "models").mkdir()
    folder = StrDiffusion.load({"prior": priors / "prior.pt"}, size=SIZE).save(tmp_path / "models" / "tiny")
    arguments = [str(photos / "a.png"), str(photos.parent / "masks" / "a.png"), "-o", str(tmp_path / "a.png"), "--model", str(folder)]
    assert main(["inpaint", *arguments, "--steps", "3", "--resampling", "none", "--sampler", "ddim"]) in (0, None)
    hole = read_image(photos.parent / "masks" / "a.png")[..., 0] > 0.5
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[~hole], read_image(photos / "a.png")[~hole])
    test = {"method": "repaint", "output": str(tmp_path / "out"), "checkpoints": {"folder": str(folder)}, "repaint": OPTIONS}
    data = {"images": str(photos), "size": SIZE, "index": None, "masks": {"folder": str(photos.parent / "masks")}}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test | {"data": data, "device": "cpu"}))
    assert main(["test", "-opt", str(tmp_path / "test.yml")]) in (0, None)
    assert "prior_evaluations" in (tmp_path / "out" / "results.csv").read_text().splitlines()[0]


# ---- bad input ----------------------------------------------------------------------------------------


def test_options_that_do_not_fit_are_one_line(priors, tmp_path):
    write_prior(tmp_path / "short.pt", "prior", random_weights(GuidedUNet(32, [32], 1, [], **HEADS)), steps=100)
    cases = [
        ({"prior": str(tmp_path / "short.pt")}, {"steps": 250}, "steps=250 does not fit a prior that was trained with 100 steps"),
        ({"prior": "prior.pt"}, {"steps": 10, "jump_length": 10}, "jump_length=10 is longer than the process of 10 steps"),
        ({"prior": "prior.pt"}, {"stop_resampling": 5}, "stop_resampling=5 must be below 5, where resampling begins"),
        ({"prior": "prior.pt"}, {"start_resampling": 2, "stop_resampling": 3}, "stop_resampling=3 must be below 2"),
        ({"prior": "prior.pt"}, {"respacing": "many"}, "'many' is no respacing"),
        ({"prior": "prior.pt"}, {"respacing": "600,600"}, "section 1 of it has 500"),
        ({"prior": "conditional.pt", "classifier": "classifier.pt"}, {"solver": "ddim"}, "repaint.solver=ddim takes no classifier"),
        ({"prior": "classifier.pt"}, {}, "is of the classifier network, not of the prior network"),
        ({}, {}, "checkpoints.prior is missing"),
    ]
    for checkpoints, more, message in cases:
        with pytest.raises(UserError, match=message):
            open_method(priors, checkpoints, repaint=OPTIONS | more)
    write_network(tmp_path / "texture.pt", "texture", UNet(3, 4, 2))
    with pytest.raises(UserError, match="is of the texture network, not of the prior network"):
        open_method(tmp_path, {"prior": "texture.pt"})
    save_released(tmp_path / "narrow.pth", GuidedUNet(32, [32], 1, [1], **HEADS))
    with pytest.raises(UserError, match="32 channels cannot be divided into heads of 64 channels: set unrecorded.head_channels"):
        load_network(tmp_path / "narrow.pth")
    blind = GuidedUNet(32, [32], 1, [], learned_sigma=False, **HEADS)
    write_prior(tmp_path / "blind.pt", "prior", blind)
    with pytest.raises(UserError, match="predicts no variance"):
        open_method(tmp_path, {"prior": "blind.pt"})


def test_sizes_that_do_not_fit_are_one_line(priors):
    with pytest.raises(UserError, match="is 23x24 pixels, and the prior takes multiples of 2 alone"):
        open_method(priors, {"prior": "prior.pt"}).require_size(24, 23)
    with pytest.raises(UserError, match="is 32x32 pixels, and the classifier takes 24x24 alone"):
        open_method(priors, {"prior": "conditional.pt", "classifier": "classifier.pt"}).require_size(32, 32)


def test_another_family_says_so_in_one_line(priors, capsys, tmp_path):
    data = {"images": str(tmp_path), "size": SIZE, "index": None}
    options = {"method": "repaint", "output": str(tmp_path / "out"), "data": data, "checkpoints": {"folder": str(tmp_path)}}
    (tmp_path / "model.yml").write_text(json.dumps({"method": "irsde"}))
    (tmp_path / "test.yml").write_text(yaml.safe_dump(options))
    line = single_error((main(["test", "-opt", str(tmp_path / "test.yml")]), *capsys.readouterr()))
    assert "describes a model of the method irsde, not of repaint" in line
