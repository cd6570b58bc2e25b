"""StrDiffusion as a program uses it: pictures of any size and kind, known pixels, seeds, hints, seams, memory, and model folders."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import SIZE, T, write_network
from PIL import ExifTags, Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from strdiffusion import Cancelled, StrDiffusion, UserError
from strdiffusion.app.canvas import put_back
from strdiffusion.app.inputs import read_inputs
from strdiffusion.app.windows import LayoutOptions, lay_out, tiles_of
from strdiffusion.batch import Batch, Known
from strdiffusion.checkpoints import LoadedNetwork, save_released
from strdiffusion.config.common import SDEConfig
from strdiffusion.config.model import ModelConfig, NetworksConfig, UNetRecord
from strdiffusion.data.masks import stable_hash
from strdiffusion.data.structure import structure_maps
from strdiffusion.data.tensors import sample_tensors
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import run
from strdiffusion.methods.counting import count_evaluations
from strdiffusion.methods.loading import LoadedNetworks, Model
from strdiffusion.methods.strdiffusion import StrDiffusionMethod
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.samplers import Begin, Released, Repaint, SamplerConfig, Sampling, SeededNoise, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.parser import load_config

ROOT = Path(__file__).parents[1]
FAST = {"sampler": "mars_sde", "steps": 2, "resampling": "none"}
KINDS = ("texture", "structure", "discriminator")


@pytest.fixture(scope="module")
def model(runs):
    return StrDiffusion.load(runs, device="cpu")


def networks_of(model):
    return model.method.model.networks


def config_of(model):
    return model.method.model.config


def photograph(height, width, channels=3, seed=0, dtype=np.uint8):
    coarse = np.random.default_rng(seed).random((5, 7, channels), dtype=np.float32)
    image = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1).reshape(height, width, channels)
    return (image * {np.uint8: 255, np.uint16: 65535}[dtype]).astype(dtype)


def hole(height, width, *boxes):
    mask = np.zeros((height, width), bool)
    for top, left, h, w in boxes:
        mask[top : top + h, left : left + w] = True
    return mask


def require_filled(out, image, mask):
    """Known pixels and alpha bit for bit; the hole changed, in the picture's own type."""
    image = image[..., None] if image.ndim == 2 else image
    levels = out.levels
    assert levels.shape == image.shape and levels.dtype == image.dtype
    assert np.array_equal(levels[~mask], image[~mask])
    colours = 3 if image.shape[2] >= 3 else 1
    assert np.array_equal(levels[..., colours:], image[..., colours:])
    assert (levels[mask][:, :colours] != image[mask][:, :colours]).mean() > 0.5


# ---- any picture --------------------------------------------------------------------------------------

CASES = {
    "the training size": (photograph(SIZE, SIZE), [(8, 8, 8, 8)]),
    "37x51": (photograph(37, 51), [(10, 20, 9, 12)]),
    "smaller than the training size": (photograph(13, 17), [(4, 4, 5, 5)]),
    "very small": (photograph(2, 3), [(0, 1, 1, 1)]),
    "a line": (photograph(1, 60), [(0, 20, 1, 9)]),
    "wide": (photograph(12, 200), [(2, 40, 8, 60)]),
    "a shrunk window": (photograph(100, 120), [(30, 40, 25, 22)]),
    "tiles": (photograph(150, 200), [(30, 40, 80, 110)]),
    "60 %": (photograph(90, 100), [(0, 0, 60, 90)]),
    "ten holes": (photograph(200, 240), [(20 * i, 23 * i, 5 + i, 14 - i) for i in range(10)]),
    "16 bits": (photograph(40, 50, dtype=np.uint16), [(10, 10, 9, 9)]),
    "gray": (photograph(40, 50, 1), [(10, 10, 9, 9)]),
    "gray of 16 bits": (photograph(40, 50, 1, dtype=np.uint16), [(10, 10, 9, 9)]),
    "gray with alpha": (photograph(40, 50, 2), [(10, 10, 9, 9)]),
    "alpha": (photograph(60, 80, 4), [(10, 10, 40, 50)]),
    "numbers": (photograph(40, 50).astype(np.float32) / 255, [(10, 10, 9, 9)]),
}


@pytest.mark.parametrize("name", CASES)
def test_any_picture(model, name):
    image, boxes = CASES[name]
    mask = hole(*image.shape[:2], *boxes)
    output = model(image, mask, seed=3, **FAST)
    (out,) = output.images
    require_filled(out, image, mask)
    (structure,) = output.structure
    assert structure.levels.shape == (*mask.shape, 1) and len(output.trace) == 1
    again = model(image, mask, seed=3, batch_size=1, **FAST).images[0]
    assert np.array_equal(out.levels, again.levels)
    assert not np.array_equal(out.levels, model(image, mask, seed=4, **FAST).images[0].levels)


@pytest.mark.parametrize("name", ["the training size", "smaller than the training size", "a shrunk window", "tiles", "16 bits"])
@pytest.mark.parametrize("feather", [0, 2])
def test_what_is_in_the_hole_has_no_influence(model, name, feather):
    image, boxes = CASES[name]
    mask = hole(*image.shape[:2], *boxes)
    other = image.copy()
    other[mask] = np.random.default_rng(1).integers(0, 256, other[mask].shape)
    outs = [model(picture, mask, feather=feather, **FAST).images[0].levels for picture in (image, other)]
    assert np.array_equal(*outs)


def test_a_window_is_what_the_sampler_makes_of_it(model):
    """A picture of the training size, against the core of the method called directly, with adaptive resampling."""
    image, mask = photograph(SIZE, SIZE), hole(SIZE, SIZE, (5, 6, 10, 9))
    known = 1 - mask.astype(np.float32)
    pixels = image.astype(np.float32) / 255 * known[..., None]
    tensors = sample_tensors(pixels, known, *structure_maps(pixels, known, "gray2edge", "known", 1.0, ground_truth=False))
    batch = Batch(**{name: tensor[None] for name, tensor in tensors.items()})
    sample = run(model.method, batch.known(), [stable_hash("5:0:0") % 2**62])
    expected = np.rint(255 * sample.image[0].clamp(0, 1).permute(1, 2, 0).numpy()).astype(np.uint8)
    output = model(image, mask, seed=5)
    assert np.array_equal(output.images[0].levels, np.where(mask[..., None], expected, image))
    assert output.trace[0][0].as_dict() == sample.traces[0].as_dict()
    structure = np.rint(255 * sample.pictures["structure"][0].clamp(0, 1).permute(1, 2, 0).numpy()).astype(np.uint8)
    assert np.array_equal(output.structure[0].levels, structure)


def test_every_window_fills_its_own_holes_alone():
    """Windows overlap; what one makes of another's hole is not used."""
    image, mask = photograph(60, 100), hole(60, 100, (10, 10, 16, 16), (14, 33, 16, 16))
    inputs = read_inputs(image, mask, None, "white_hole", 0)
    layout = lay_out(mask, 32, LayoutOptions())
    first, second = layout.windows
    assert mask[first.box.slices].sum() > 16 * 16  # it sees a part of the other
    levels = image.copy()
    put_back(levels, np.ones((*first.canvas, 3), np.float32), inputs, layout, first)
    changed = (levels != image).any(axis=2)
    assert changed[10:26, 10:26].all() and changed.sum() == 16 * 16


def test_kinds_of_arguments_agree(model, tmp_path):
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    pairs = [
        (image, mask),
        (tmp_path / "a.png", str(tmp_path / "m.png")),
        (Image.fromarray(image), Image.fromarray(mask)),
        (torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)),
        (image, mask.astype(np.uint8) * 255),
        (image, mask[None] * 1.0),
        (image, np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)),
    ]
    outs = [model(a, b, **FAST).images[0].levels for a, b in pairs]
    assert all(np.array_equal(outs[0], out) for out in outs)
    inverted = model(image, ~mask, polarity="white_known", **FAST).images[0].levels
    assert np.array_equal(outs[0], inverted)


def test_samples_and_batches(model):
    """A sample depends on seed and number alone: not on the batch, nor on how many there are. With adaptive resampling, on tiles too."""
    image, mask = photograph(70, 90), hole(70, 90, (5, 5, 8, 8), (30, 30, 36, 50))
    options = {"sampler": SamplerConfig(released=Released(3, 2, 1, 1)), "steps": 4}
    outs = {size: model(image, mask, seed=1, num_samples=3, batch_size=size, **options) for size in (1, 2, 8)}
    for output in outs.values():
        assert len(output.images) == len(output.structure) == len(output.trace) == 3
        for picture, first in zip(output.images, outs[1].images, strict=True):
            assert np.array_equal(picture.levels, first.levels)
    assert not np.array_equal(outs[1].images[0].levels, outs[1].images[1].levels)
    alone = model(image, mask, seed=1, **options)
    assert np.array_equal(alone.images[0].levels, outs[1].images[0].levels)


def test_files_of_every_kind(model, tmp_path):
    """From file to file: portrait EXIF, CMYK, palette with transparency, 16 bits."""
    image, mask = photograph(40, 30), hole(40, 30, (10, 10, 9, 9))
    Image.fromarray(mask).save(tmp_path / "mask.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.rot90(image).copy()).save(tmp_path / "portrait.png", exif=exif)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.tif")
    palette = Image.fromarray(image).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=3)
    cv2.imwrite(str(tmp_path / "deep.tif"), photograph(40, 30, dtype=np.uint16))
    for name in ("portrait.png", "cmyk.tif", "palette.png", "deep.tif"):
        picture = model(tmp_path / name, tmp_path / "mask.png", **FAST).images[0]
        picture.save(tmp_path / f"out_{name}")
        unread = {"deep.tif": cv2.IMREAD_UNCHANGED}.get(name)
        before = cv2.imread(str(tmp_path / name), unread)[..., ::-1] if unread else np.asarray(Image.open(tmp_path / name).convert("RGBA"))
        after = (
            cv2.imread(str(tmp_path / f"out_{name}"), unread)[..., ::-1]
            if unread
            else np.asarray(Image.open(tmp_path / f"out_{name}").convert("RGBA"))
        )
        before = np.rot90(before, -1) if name == "portrait.png" else before
        assert np.array_equal(before[~mask], after[~mask]), name
        assert not np.array_equal(before[mask], after[mask]), name


def test_feather(model):
    image, mask = photograph(60, 70), hole(60, 70, (20, 20, 20, 25))
    image[:] = 255  # random networks never answer with pure white
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    plain, out = (model(image, mask, feather=feather, **FAST).images[0].levels.astype(int) for feather in (0, 4))
    assert (plain[~mask] == 255).all()
    assert (out[distance > 4] == 255).all()
    ring = [np.abs(out - 255)[(distance > low) & (distance <= low + 1)].mean() for low in range(4)]
    assert min(ring) > 0 and ring[0] > ring[3]


# ---- hints --------------------------------------------------------------------------------------------


def test_hints_are_known(model):
    image, mask = photograph(60, 70), hole(60, 70, (20, 20, 20, 25))
    hints = np.zeros((60, 70, 4), np.uint8)
    hints[25:30, 25:35] = (255, 0, 128, 255)
    hints[30:34, 25:35] = (0, 255, 0, 100)  # not opaque
    hints[0:5, 0:5] = (9, 9, 9, 255)  # not in the hole
    placed = mask & (hints[..., 3] == 255)
    output = model(image, mask, hints=hints, num_samples=2, **FAST)
    for out in output.images:
        assert (out.levels[placed] == (255, 0, 128)).all()
        require_filled(out, np.where(placed[..., None], hints[..., :3], image), mask & ~placed)
    assert not np.array_equal(*(out.levels for out in output.images))
    plain = model(image, mask, **FAST).images[0].levels
    around = mask & ~placed
    assert not np.array_equal(plain[around], output.images[0].levels[around])  # the scene grows around them
    # of 16 bits, and of another size
    deep = model(photograph(60, 70, dtype=np.uint16), mask, hints=hints, **FAST).images[0].levels
    assert (deep[placed] == (65535, 0, 128 * 257)).all()
    small = cv2.resize(hints, (35, 30), interpolation=cv2.INTER_NEAREST)
    resized = model(image, mask, hints=small, **FAST).images[0].levels
    assert np.abs(resized[placed & (cv2.erode(placed.astype(np.uint8), np.ones((3, 3))) > 0)].astype(int) - (255, 0, 128)).max() <= 1


def test_hints_over_the_whole_hole(model):
    image, mask = photograph(30, 30), hole(30, 30, (5, 5, 10, 10))
    hints = np.full((30, 30, 4), 200, np.uint8)
    hints[..., 3] = 255
    out = model(image, mask, hints=hints, **FAST).images[0].levels
    assert (out[mask] == 200).all() and np.array_equal(out[~mask], image[~mask])


# ---- one clear line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mask": np.zeros((40, 50), bool)}, "no hole"),
        ({"mask": np.ones((40, 50), bool)}, "no known pixel"),
        ({"mask": np.ones((50, 40), bool)}, "turned"),
        ({"mask": np.ones((40, 80), bool)}, "need the same aspect ratio"),
        ({"mask": "absent.png"}, "cannot read"),
        ({"image": "absent.png"}, "cannot read"),
        ({"hints": np.zeros((40, 50, 3), np.uint8)}, "no alpha"),
        ({"feather": 60}, "no known pixel"),
        ({"feather": -1}, "feather"),
        ({"num_samples": 0}, "num_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"sampler": "mars"}, "did you mean mars_"),
        ({"resampling": "relased"}, "did you mean released"),
        ({"steps": 11}, "from 2 to sde.T=10"),
        ({"steps": 1}, "from 2 to 10000"),
        ({"context": -1}, "context"),
        ({"device": "cuda"}, "not available"),
    ],
)
def test_one_clear_line(model, arguments, said):
    if arguments.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = {"image": photograph(40, 50), "mask": hole(40, 50, (10, 10, 9, 9))} | arguments
    with pytest.raises(UserError, match=said) as error:
        model(**given)
    assert "\n" not in str(error.value)


def test_notices(model, caplog):
    image = photograph(40, 50, 4)
    mask = hole(40, 50, (0, 0, 40, 40))
    image[mask, 3] = 0
    small = cv2.resize(mask.astype(np.uint8) * 255, (25, 20), interpolation=cv2.INTER_NEAREST)
    out = model(image, small, **FAST).images[0]
    require_filled(out, image, mask)
    for said in ("resized", "covers 80 %", "transparent in the hole"):
        assert said in caplog.text


def seeing_widely(model, size, largest):
    """The same networks as ones that learnt from parts of pictures."""
    config = dataclasses.replace(config_of(model), size=size, largest=largest)
    return StrDiffusion(type(model.method)(model.method.model._replace(config=config), torch.device("cpu")))


def test_networks_that_see_a_whole_picture_give_what_their_training_size_would(model):
    """Where one window holds the picture and its hole is thin, a large window is that of networks trained at this size."""
    image, mask = photograph(64, 64), hole(64, 64, (30, 4, 5, 50))
    wide, trained = seeing_widely(model, 32, 64), seeing_widely(model, 64, None)
    (first,), (second,) = (each.plan(image, mask, context=2.0, **FAST).windows for each in (wide, trained))
    assert first.box == second.box == (0, 0, 64, 64) and first.canvas == second.canvas
    outs = [each(image, mask, context=2.0, seed=1, **FAST).images[0].levels for each in (wide, trained)]
    assert np.array_equal(*outs)


def test_what_learnt_from_parts_of_pictures_sees_widely(weights, tmp_path):
    """As the configuration beside a checkpoint says; where that is no more than the training size, windows are as before."""
    for shrink, largest in (([1.0, 3.0], 512), ([1.0, 1.0], None), ("[1, 3]", None), ([3.0], None), (None, None)):
        folder = tmp_path / str(largest) / str(shrink)
        folder.mkdir(parents=True)
        for kind in ("texture", "structure"):
            shutil.copy(weights / f"{kind}.pt", folder)
        (folder / "config.yml").write_text(yaml.safe_dump({"data": {"size": 32, "shrink": shrink}}))
        model = StrDiffusion.load({kind: folder / f"{kind}.pt" for kind in ("texture", "structure")}, device="cpu")
        assert (model.size, model.method.largest) == (32, largest)
    image, mask = photograph(150, 200), hole(150, 200, (30, 40, 80, 110))
    same, usual = seeing_widely(model, 32, 32), seeing_widely(model, 32, None)
    assert same.plan(image, mask, **FAST) == usual.plan(image, mask, **FAST)
    assert np.array_equal(*(each(image, mask, **FAST).images[0].levels for each in (same, usual)))


def test_thick_holes_begin_from_a_smaller_canvas(runs):
    """The networks see the whole window small first, then again at the picture's scale, as planned; known pixels stay."""
    model = seeing_widely(StrDiffusion.load(runs, device="cpu"), 16, 200)
    image, mask, seen, done = photograph(120, 120), hole(120, 120, (30, 30, 60, 60), (4, 4, 3, 3)), [], []
    networks_of(model).texture.network.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape[-2:])))
    plan = model.plan(image, mask, **FAST | {"steps": 6})
    out = model(image, mask, callback=lambda step: done.append(step.done), **FAST | {"steps": 6}).images[0]
    require_filled(out, image, mask)
    thick = [shape for shape in seen if shape != (35, 35)]  # the window of the thin hole
    assert sorted(set(thick)) == [(16, 16), (44, 44), (120, 120)] and thick == sorted(thick)  # in two equal parts of 60 / 8
    assert len(seen) == plan.evaluations["texture"].least == plan.evaluations["texture"].most
    assert plan.tiles == [1, 1] and np.isclose(plan.area["texture"], np.mean([h * w for h, w in seen]) / 16**2)
    assert done == sorted(done) and np.isclose(done[-1], 1)


# ---- while it runs ------------------------------------------------------------------------------------


def test_callback_and_plan(model):
    image, mask = photograph(150, 200), hole(150, 200, (10, 150, 5, 5), (30, 40, 80, 90))
    steps = []
    model(image, mask, num_samples=2, callback=lambda step: steps.append(step), **FAST | {"steps": 4})
    plan = model.plan(image, mask, num_samples=2, **FAST | {"steps": 4})
    assert len(plan.windows) == 2 and plan.tiles[0] == 1 and plan.tiles[1] > 1
    done = [step.done for step in steps]
    assert done == sorted(done) and 0 < done[0] < 0.5 and done[-1] == 1
    assert {(step.number, step.windows) for step in steps} == {(0, 2), (1, 2)}
    assert [steps[0].window, steps[-1].window] == plan.windows
    for step in steps:
        canvas = step.window.canvas
        assert step.texture.shape == (*canvas, 3) and step.structure.shape == canvas and step.t <= step.T == T
        assert step.texture.min() >= 0 and step.texture.max() <= 1
    rows, columns = steps[0].window.box.slices
    known = ~mask[rows, columns]
    assert np.array_equal(np.rint(255 * steps[0].texture[known]), image[rows, columns][known])


@pytest.mark.parametrize(
    "options",
    [
        FAST,
        {"resampling": "none"},
        {"resampling": "fixed", "steps": 6},
        {"resampling": "released"},
        {"resampling": "paper"},
        {"sampler": SamplerConfig(resampling="released")},
    ],
)
def test_planned_evaluations_are_those_that_happen(runs, options):
    model = StrDiffusion.load(runs, device="cpu")
    image, mask = photograph(60, 60), hole(60, 60, (5, 5, 8, 8), (30, 20, 28, 34))
    counts = dict.fromkeys(KINDS, 0)
    for loaded in networks_of(model):
        loaded.network.register_forward_hook(lambda *_, kind=loaded.kind: counts.update({kind: counts[kind] + 1}))
    plan = model.plan(image, mask, **options)
    assert sum(counts.values()) == 0
    model(image, mask, **options)
    for kind, planned in plan.evaluations.items():
        assert planned.least <= counts[kind] <= planned.most, kind
        assert options.get("resampling") not in ("none", "fixed") or planned.least == planned.most


@pytest.mark.parametrize(
    ("T", "options", "expected"),
    [  # spec sec. 7: least and most evaluations of texture, structure, discriminator
        (100, (25, 4, 2, 2), [(224, 844), (305, 1525), (185, 805)]),
        (400, (6, 3, 5, 5), [(547, 645), (964, 1446), (388, 486)]),
        (100, (10, 2, 1, 2), [(222, 649), (303, 1150), (183, 610)]),
    ],
)
def test_evaluation_counts_of_the_release(T, options, expected):
    sampler = SamplerConfig()
    sampler.released.u_max, sampler.released.u_min, sampler.released.jump, sampler.released.re = options
    counted = count_evaluations(sampler, MeanRevertingSDE(T=T), guided=True)
    assert [(counted[kind].least, counted[kind].most) for kind in KINDS] == expected


def test_times_of_evaluations(model):
    seconds = model.time_evaluations()
    assert set(seconds) == set(KINDS) and all(0 < value < 5 for value in seconds.values())


def test_cancelling(model):
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    seen = []
    with pytest.raises(Cancelled):
        model(image, mask, callback=lambda step: seen.append(step) or len(seen) < 3, **FAST | {"steps": 8})
    assert len(seen) == 3
    asked = []
    with pytest.raises(Cancelled):
        model(image, mask, cancel=lambda: asked.append(1) or len(asked) == 4, **FAST)
    assert len(asked) == 4


def test_progress_bar(model, capsys):
    model(photograph(40, 50), hole(40, 50, (10, 10, 9, 9)), progress=True, **FAST)
    assert "100%" in capsys.readouterr().err


# ---- seams --------------------------------------------------------------------------------------------


class Sky(torch.nn.Module):
    """A network that predicts, in the hole, the mean colour of what is known plus an error of its own for each tile, as x0 - mu.

    Where nothing is known it goes on from the state: its x0 is the mean of what the state says.
    """

    guided = True

    def __init__(self, error):
        super().__init__()
        self.error, self.tiles, self.sde = error, {}, MeanRevertingSDE(T=T)

    def forward(self, x, mu, t, structure=None):
        known = (mu.sum(dim=1, keepdim=True) > 0).float()
        count = known.sum(dim=(2, 3), keepdim=True)
        sky = mu.sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)
        state = x.mean(dim=(2, 3), keepdim=True) / self.sde.decay[t].item()
        key = round(float(mu.sum()), 3)
        sign = self.tiles.setdefault(key, (-1) ** len(self.tiles))
        return (torch.where(count > 0, sky, state) + sign * self.error) * (1 - known)


def sky_networks(error=0.0):
    """Networks of such a texture; tiles disagree by twice the error."""
    structure = LoadedNetwork("structure", UNet(1, 4, 1).eval(), Path("x"), False)
    return LoadedNetworks(LoadedNetwork("texture", Sky(error), Path("x"), False, "x0"), structure)


def sky_model(size, error=0.0):
    sampler = SamplerConfig(resampling="none", solver="mars_ode", order=1, steps=5)
    return StrDiffusion(sky_method(sky_networks(error), sampler, size))


def sky_method(networks, sampler, size=256):
    records = NetworksConfig(UNetRecord(guided=True), UNetRecord())
    config = ModelConfig(networks=records, method="strdiffusion", size=size, sde=SDEConfig(T=T), sampler=sampler)
    return StrDiffusionMethod(Model(networks, config), torch.device("cpu"))


def test_no_seam_at_the_borders_of_tiles():
    """On smooth sky, where tiles disagree, the step across the borders of tiles is not larger than inside of them."""
    size = 64
    model = sky_model(size, 0.2)
    ramp = np.linspace(100, 180, 260)[:, None, None] * np.ones((1, 300, 3))
    image, mask = ramp.astype(np.uint8), hole(260, 300, (60, 60, 150, 180))
    options = {"shrink": 1, "max_tiles": 100}
    out = model(image, mask, **options).images[0].levels.astype(float).mean(axis=2)
    (window,) = model.plan(image, mask, **options).windows
    assert window.canvas == window.box[2:]  # nothing is resized here
    tiles = tiles_of(~mask[window.box.slices], size)
    assert len(tiles) > 6 and set(networks_of(model).texture.network.tiles.values()) == {1, -1}
    borders = {window.box.left + column for tile in tiles for column in (tile.left, tile.left + tile.width)}
    gradient = np.abs(np.diff(out, axis=1))[70:200]
    at_border, elsewhere = (gradient[:, [c - 1 for c in range(70, 230) if (c in borders) == here]] for here in (True, False))
    assert np.ptp(out[70:200, 70:230]) > 60  # of 102 that tiles disagree by
    assert at_border.size and at_border.mean() < 1.0 and at_border.mean() <= elsewhere.mean() + 0.2
    assert gradient[:, 70:230].max() < 15  # cut hard, it would be 102


def test_the_middle_of_a_large_hole_is_told_of_what_is_known():
    """A tile that sees nothing known goes on from what was made of the whole, at the size of one tile."""
    model, options = sky_model(32), {"shrink": 1, "max_tiles": 200}
    image, mask = np.full((300, 300, 3), 200, np.uint8), hole(300, 300, (40, 40, 220, 220))
    out = model(image, mask, **options).images[0].levels.astype(float)
    plan = model.plan(image, mask, **options)
    (window,) = plan.windows
    inside = mask[window.box.slices]
    assert any(inside[tile.slices].all() for tile in tiles_of(~inside, 32))
    assert np.abs(out[mask] - 200).mean() < 10 and abs(out[140:160, 140:160].mean() - 200) < 20
    assert plan.evaluations["texture"].least == 5 + plan.tiles[0] * 3  # the grid is 10, 8, 6, 4, 2; at 6, exp(-theta_bar) falls below 0.4


def test_sampling_begins_where_it_is_told():
    """The first state is a draw from the marginal of the estimate, and only later times follow."""
    sde, seen, networks = MeanRevertingSDE(T=T), [], sky_networks()
    networks.texture.network.register_forward_hook(lambda _, inputs, output: seen.append(inputs))
    texture, structure = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    batch = Batch(texture, structure, structure * 0, (torch.rand(1, 1, 16, 16) > 0.4).float())
    known, estimate = batch.known(), Known(texture, torch.ones(1, 1, 16, 16), {"structure": structure})
    for resampling in ("none", "fixed", "repaint"):
        sampler = SamplerConfig(resampling=resampling, repaint=Repaint(jump_length=1, resamplings=1))
        method = sky_method(networks, sampler)
        told = Sampling(method.predictors(known), known, SeededNoise([7]), sampler, Begin(6, texture, structure))
        runs = {6: lambda: sample(sampler.sampler(True), told), 5: lambda: run(method, known, [7], begin=estimate)}  # noqa: B023
        for begin, start in runs.items():  # the method itself begins where exp(-theta_bar) falls below 0.4
            seen.clear()
            start()
            first, _, t, _ = seen[0]
            expected = sde.sample_marginal(texture, batch.texture_mean, begin, SeededNoise([7])([0], texture))
            assert t == begin and torch.equal(first, expected)
            assert [inputs[2] for inputs in seen] == list(range(begin, 0, -1))


# ---- memory -------------------------------------------------------------------------------------------

MEMORY = """
import re, sys, numpy as np, torch
torch.set_num_threads(1)
from strdiffusion import StrDiffusion
model = StrDiffusion.load(sys.argv[1], size=256, device="cpu")
image = np.random.default_rng(0).integers(0, 256, (4000, 6000, 3), dtype=np.uint8)
mask = np.zeros((4000, 6000), bool)
mask[1200:2600, 1000:3500] = mask[100:160, 5000:5090] = True
out = model(image, mask, sampler="mars_sde", steps=2, resampling="none", max_tiles=4).images[0].levels
assert np.array_equal(out[~mask], image[~mask]) and (out[mask] != image[mask]).mean() > 0.9
print(int(re.search("VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024)  # getrusage's counts what the starting process had
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_24_megapixels_within_4_gigabytes(runs, tmp_path):
    for kind in KINDS:  # of a larger training size
        (tmp_path / kind).mkdir()
        shutil.copy(runs / kind / "latest.pt", tmp_path / kind)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4096 - 2048, done.stdout  # full-size networks take no more than 2 GB above these


# ---- model folders ------------------------------------------------------------------------------------


def test_save_and_load(model, tmp_path):
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    expected = model(image, mask, seed=2).images[0].levels
    folder = model.save(tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "discriminator.safetensors",
        "model.yml",
        "structure.safetensors",
        "texture.safetensors",
    ]
    loaded = StrDiffusion.load(folder, device="cpu")
    assert config_of(loaded) == config_of(model) and loaded.size == SIZE and config_of(loaded).sde.T == T
    assert np.array_equal(loaded(image, mask, seed=2).images[0].levels, expected)
    for kind in KINDS:
        ours, theirs = (getattr(networks_of(m), kind).network.state_dict() for m in (model, loaded))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(UserError, match="already holds files"):
        model.save(folder)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_storage(model, tmp_path, dtype, error):
    folder = model.save(tmp_path / "half", dtype)
    loaded = StrDiffusion.load(folder, device="cpu")
    for before, after in zip(networks_of(model), networks_of(loaded), strict=True):
        with safe_open(folder / f"{before.kind}.safetensors", "pt") as file:
            types = {file.get_slice(name).get_dtype() for name in file.keys() if len(file.get_slice(name).get_shape()) > 1}
        assert types == {{"float16": "F16", "bfloat16": "BF16"}[dtype]}
        stored = after.network.state_dict()
        for name, value in before.network.state_dict().items():
            assert stored[name].dtype == torch.float32
            assert (stored[name] - value).abs().max() <= (error * value.abs().max() + 1e-7 if value.dim() > 1 else 0), name
    require_filled(loaded(photograph(40, 50), hole(40, 50, (10, 10, 9, 9))).images[0], photograph(40, 50), hole(40, 50, (10, 10, 9, 9)))


def test_values_beyond_half_precision(runs, tmp_path):
    model = StrDiffusion.load(runs, device="cpu")
    with torch.no_grad():
        networks_of(model).texture.network.final_conv.weight[0, 0, 0, 0] = 1e6
    with pytest.raises(UserError, match="final_conv.weight holds values beyond"):
        model.save(tmp_path / "m", "float16")
    assert not (tmp_path / "m" / "model.yml").exists()
    model.save(tmp_path / "n", "bfloat16")


def test_unguided_models_hold_the_texture_alone(weights, tmp_path):
    model = StrDiffusion.load({"texture": weights / "unguided.pt", "structure": weights / "structure.pt"}, size=SIZE, device="cpu")
    folder = model.save(tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["model.yml", "texture.safetensors"]
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    outs = [m(image, mask, steps=3) for m in (model, StrDiffusion.load(folder, device="cpu"))]
    assert outs[0].structure is None and np.array_equal(outs[0].images[0].levels, outs[1].images[0].levels)
    require_filled(outs[0].images[0], image, mask)
    assert set(model.time_evaluations()) == {"texture"}
    with pytest.raises(UserError, match="IR-SDE has none: set sampler.resampling=none"):
        model(image, mask, resampling="released")


def test_released_checkpoints(runs, tmp_path):
    ours = StrDiffusion.load(runs, device="cpu")
    for loaded in networks_of(ours):
        save_released(tmp_path / f"{loaded.kind}.pth", loaded.network)
    with pytest.raises(UserError, match="does not record its T"):
        StrDiffusion.load(tmp_path)
    released = StrDiffusion.load(tmp_path, T=T, size=SIZE, device="cpu")
    image, mask = photograph(SIZE, SIZE), hole(SIZE, SIZE, (5, 5, 9, 9))
    config_of(released).structure.edge_sigma = config_of(ours).structure.edge_sigma
    assert np.array_equal(*(m(image, mask).images[0].levels for m in (ours, released)))
    mapping = {kind: tmp_path / f"{kind}.pth" for kind in KINDS}
    assert StrDiffusion.load(mapping, T=T).size == 256
    with pytest.raises(UserError, match="must be from 2"):
        StrDiffusion.load(tmp_path, T=1)


def test_folders_that_are_no_model(runs, weights, tmp_path):
    (tmp_path / "empty").mkdir()
    structure = weights / "structure.pt"
    whole_run = shutil.copytree(runs / "texture", tmp_path / "run")
    for name in ("best.pt", "step_000000001.pt"):
        shutil.copy(whole_run / "latest.pt", whole_run / name)
    cases = [
        (tmp_path / "absent", {}, "does not exist"),
        (weights / "texture.pt", {}, "is a file"),
        (tmp_path / "empty", {}, "holds no model"),
        ({"structure": structure}, {}, "texture"),
        (runs, {"T": 20}, "leave T out"),
        (runs / "texture", {}, "no structure network"),
        (whole_run, {}, "no structure network"),  # of a run's checkpoints the newest is taken
        ({"texture": weights / "other_T.pt", "structure": structure}, {}, "trained with T=10"),
    ]
    for source, options, said in cases:
        with pytest.raises(UserError, match=said) as error:
            StrDiffusion.load(source, **options)
        assert "\n" not in str(error.value)
    for name in ("a", "b"):
        shutil.copytree(runs / "texture", tmp_path / "two" / name)
    with pytest.raises(UserError, match="both of the texture network"):
        StrDiffusion.load(tmp_path / "two")


def damage(folder, what):
    path, description = folder / "texture.safetensors", folder / "model.yml"
    tree = yaml.safe_load(description.read_text())
    if what == "missing":
        path.unlink()
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "text":
        path.write_text("no weights")
    elif what in ("shape", "name", "integers", "nan"):
        state = load_file(path)
        first = next(iter(state))
        value = state.pop(first)
        change = {"shape": lambda: value[:1], "integers": lambda: value.to(torch.int64), "nan": lambda: value * float("nan")}
        state[first + "x" * (what == "name")] = change.get(what, lambda: value)()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    elif what == "width":
        tree["networks"]["texture"]["width"] = 8
    elif what == "depth":
        tree["networks"]["texture"]["depth"] = 99
    elif what == "key":
        tree["siz"] = 3
    elif what == "no structure":
        tree["networks"]["structure"] = None
    elif what == "no discriminator":
        tree["networks"]["discriminator"] = None
    description.write_text(yaml.safe_dump(tree))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "do not exist"),
        ("truncated", "damaged"),
        ("text", "damaged"),
        ("shape", "misshapen"),
        ("name", "unexpected"),
        ("integers", "hold I64"),
        ("nan", "not finite"),
        ("width", "do not fit"),
        ("depth", "depth"),
        ("key", "did you mean size"),
        ("no structure", "networks.structure is missing"),
        ("no discriminator", "networks.discriminator is missing"),
    ],
)
def test_damaged_folders(model, tmp_path, what, said):
    folder = model.save(tmp_path / "model")
    damage(folder, what)
    with pytest.raises(UserError, match=said) as error:
        StrDiffusion.load(folder, device="cpu")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_a_test_configuration_names_a_folder(model, tmp_path):
    """The same networks by folder or by files, and what does not fit is refused."""
    folder = model.save(tmp_path / "model")
    text = "data: {images: x, size: 24}\noutput: y\ndevice: cpu\nsde: {T: 10}\nstructure: {edge_source: known, edge_sigma: 1}\n"
    (tmp_path / "test.yml").write_text(text + f"checkpoints: {{folder: {folder}}}\n")
    by_folder = StrDiffusion.from_config(load_config(TestConfig, tmp_path / "test.yml"))
    batch = Batch(torch.rand(1, 3, 24, 24), torch.rand(1, 1, 24, 24), torch.rand(1, 1, 24, 24), (torch.rand(1, 1, 24, 24) > 0.3).float())
    assert torch.equal(run(by_folder.method, batch.known(), [1]).image, run(model.method, batch.known(), [1]).image)
    plain = StrDiffusion.from_config(load_config(TestConfig, tmp_path / "test.yml", ["sampler.resampling=none"]))
    assert networks_of(plain).discriminator is None  # not loaded where it is not needed
    cases = [
        ("sde.T=20", "set sde.T=10"),
        ("checkpoints.width=64", "checkpoints.width=4"),
        ("checkpoints.texture=x.pt", "beside separate files"),
        ("checkpoints={folder: absent}", "has no model.yml"),
        ("checkpoints={}", "checkpoints.texture is missing"),
        ("sampler={guidance: false, resampling: none}", "method must be strdiffusion"),
    ]
    for override, said in cases:
        with pytest.raises(UserError, match=said):
            StrDiffusion.from_config(load_config(TestConfig, tmp_path / "test.yml", [override]))
    (folder / "discriminator.safetensors").unlink()
    tree = yaml.safe_load((folder / "model.yml").read_text())
    tree["networks"]["discriminator"], tree["sampler"]["resampling"] = None, "none"
    (folder / "model.yml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="no discriminator network"):
        StrDiffusion.from_config(load_config(TestConfig, tmp_path / "test.yml"))


def test_a_run_of_another_width_beside(tmp_path, runs):
    """Widths differ between networks: each is built as its own checkpoint says."""
    shutil.copytree(runs, tmp_path / "runs")
    torch.manual_seed(0)
    write_network(tmp_path / "runs" / "structure" / "latest.pt", "structure", UNet(1, 8, 1))
    write_network(tmp_path / "runs" / "discriminator" / "latest.pt", "discriminator", CorrelationDiscriminator(8))
    model = StrDiffusion.load(tmp_path / "runs", device="cpu")
    again = StrDiffusion.load(model.save(tmp_path / "model"), device="cpu")
    assert networks_of(again).structure.network.architecture() == {
        "channels": 1,
        "width": 8,
        "depth": 1,
        "attention": "none",
        "guided": False,
    }


# ---- methods without networks -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "mean_fill"])
def test_methods_that_need_no_weights(name, tmp_path):
    """By name, by a saved folder, and in Python: the whole picture is one window at its own size."""
    image, mask = photograph(60, 80, 4), hole(60, 80, (10, 10, 9, 9), (30, 40, 20, 30))
    model = StrDiffusion.load(name, device="cpu")
    assert model.method.name == name and model.size is None
    steps = []
    output = model(image, mask, callback=steps.append)
    require_filled(output.images[0], image, mask)
    assert output.structure is None and output.trace == [[]] and steps == []
    plan = model.plan(image, mask)
    assert plan.tiles == [1] and plan.windows[0].canvas == (60, 80) and plan.evaluations == {} and model.time_evaluations() == {}
    folder = model.save(tmp_path / "model")
    assert [path.name for path in folder.iterdir()] == ["model.yml"]
    tree = yaml.safe_load((folder / "model.yml").read_text())
    assert tree["method"] == name and tree["format"] == "strdiffusion model 1"
    again = StrDiffusion.load(folder, device="cpu")
    assert again.method.options == model.method.options
    assert np.array_equal(again(image, mask).images[0].levels, output.images[0].levels)
    with pytest.raises(UserError, match="already holds files"):
        model.save(folder)
    with pytest.raises(UserError, match=f"num_samples=2: {name} draws nothing"):
        model(image, mask, num_samples=2)


def test_telea_is_what_opencv_makes_of_the_picture():
    image, mask = photograph(50, 70), hole(50, 70, (10, 10, 9, 30))
    out = StrDiffusion.load("telea", device="cpu")(image, mask).images[0].levels
    blank = np.where(mask[..., None], np.uint8(0), image)
    assert np.array_equal(out, cv2.inpaint(blank, mask.astype(np.uint8) * 255, 5, cv2.INPAINT_TELEA))


def test_options_of_a_method_in_its_folder(tmp_path):
    image, mask = photograph(50, 70), hole(50, 70, (10, 10, 20, 30))
    folder = StrDiffusion.load("telea").save(tmp_path / "model")
    description = folder / "model.yml"
    outs = []
    for radius in (5, 12):
        description.write_text(f"method: telea\nradius: {radius}\n")
        outs.append(StrDiffusion.load(folder)(image, mask).images[0].levels)
    assert not np.array_equal(*outs)
    cases = [
        ("method: telea\nradus: 3", "unknown key radus; did you mean radius"),
        ("method: telea\nradius: 0", "radius must be from 1 to 100"),
        ("method: tella", "method must be one of .*telea"),
        ("method: [telea]", "method must be one of"),
        ("method: telea\nformat: strdiffusion model 9", "format must be"),
    ]
    for text, said in cases:
        description.write_text(text + "\n")
        with pytest.raises(UserError, match=said) as error:
            StrDiffusion.load(folder)
        assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "posterior"}, "method telea has no sampler"),
        ({"sampler": SamplerConfig()}, "method telea has no sampler"),
        ({"steps": 5, "resampling": "none"}, "has no steps and no resampling"),
        ({"precision": "bf16"}, "has no precision"),
    ],
)
def test_what_a_method_does_not_have_is_refused(options, said):
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    with pytest.raises(UserError, match=said) as error:
        StrDiffusion.load("telea", device="cpu")(image, mask, **options)
    assert "\n" not in str(error.value)


def test_names_that_are_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options, said in (({"T": 100}, "telea has no T"), ({"size": 64}, "no size"), ({"weights": "raw"}, "no weights")):
        with pytest.raises(UserError, match=said):
            StrDiffusion.load("telea", **options)
    for name in ("strdiffusion", "irsde"):
        with pytest.raises(UserError, match=f"{name} needs trained networks"):
            StrDiffusion.load(name)


def test_the_earlier_keys_of_a_model_folder(model, tmp_path):
    """sampler.method is sampler.solver, sampler.guidance is the method."""
    image, mask = photograph(40, 50), hole(40, 50, (10, 10, 9, 9))
    config = config_of(model)
    folder = model.save(tmp_path / "model")
    tree = yaml.safe_load((folder / "model.yml").read_text())
    assert tree.pop("method") == "strdiffusion"
    tree["sampler"] = {"guidance": True, "method": tree["sampler"].pop("solver")} | tree["sampler"]
    (folder / "model.yml").write_text(yaml.safe_dump(tree))
    loaded = StrDiffusion.load(folder, device="cpu")
    assert config_of(loaded) == config and loaded.method.name == "strdiffusion"
    assert np.array_equal(*(m(image, mask, **FAST).images[0].levels for m in (model, loaded)))
    tree["sampler"]["guidance"] = False
    (folder / "model.yml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match="does not fit networks.texture.guided=true"):
        StrDiffusion.load(folder, device="cpu")


# ---- arguments that do not fit ------------------------------------------------------------------------


def test_another_T_size_or_set_of_weights_than_recorded_is_refused(runs, tmp_path):
    folder = StrDiffusion.load(runs, device="cpu").save(tmp_path / "model")
    for options, said in (({"T": 400}, "leave T out"), ({"size": 128}, "leave size out"), ({"weights": "raw"}, "one set of weights")):
        with pytest.raises(UserError, match=said):
            StrDiffusion.load(folder, device="cpu", **options)
    assert config_of(StrDiffusion.load(folder, device="cpu", T=T, size=SIZE)).sde.T == T
    (tmp_path / "test.yml").write_text(
        f"output: x\nsde: {{T: {T}}}\ndata: {{images: x, size: {SIZE}}}\ncheckpoints: {{folder: {folder}}}\n"
        "structure: {edge_source: known, edge_sigma: 1}\nsampler: {released: {u_max: 3, u_min: 2}}\n"
    )
    with pytest.raises(UserError, match="leave T out"):
        StrDiffusion.load(tmp_path / "test.yml", device="cpu", T=400)


def test_of_two_texture_networks_the_one_that_is_named_so(runs, tmp_path, caplog):
    """As the recipes leave them: runs/psv/texture, and runs/psv/texture_unguided for the IR-SDE baseline."""
    caplog.set_level("INFO")
    folder = shutil.copytree(runs, tmp_path / "psv")
    for extra in ("a_texture", "texture_unguided"):
        shutil.copytree(folder / "structure", folder / extra)
        write_network(folder / extra / "latest.pt", "texture", UNet(3, 4, 2))
    model = StrDiffusion.load(folder, device="cpu")
    assert networks_of(model).texture.path == folder / "texture" / "latest.pt" and "texture_unguided" in caplog.text
    shutil.rmtree(folder / "texture")
    with pytest.raises(UserError, match="are both of the texture network"):
        StrDiffusion.load(folder, device="cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"polarity": "white-known"},
        {"precision": "half"},
        {"device": "gpu"},
        {"num_samples": 1.5},
        {"num_samples": 0},
        {"batch_size": "x"},
        {"feather": -1},
    ],
)
def test_misspelt_options_are_refused(runs, options):
    (name,) = options
    image, mask = np.zeros((24, 24, 3), np.uint8), np.eye(24, dtype=np.float32)
    with pytest.raises(UserError, match=name):
        StrDiffusion.load(runs, device="cpu")(image, mask, **options)
    if name in ("precision", "device"):
        with pytest.raises(UserError, match=name):
            StrDiffusion.load(runs, **({"device": "cpu"} | options))


def test_a_misspelt_storage_type_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="dtype must be one of float32, float16, bfloat16"):
        StrDiffusion.load(runs, device="cpu").save(tmp_path / "model", dtype="half")
    assert not (tmp_path / "model").exists()
