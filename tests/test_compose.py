"""Compositions: how cut-outs are drawn, their files, painting around them, the command. Released numbers: golden_painter_checks.py."""

import numpy as np
import pytest
import yaml
from conftest import single_error
from PIL import Image
from scipy.ndimage import distance_transform_edt

from strdiffusion import Composition, PlacedObject, StrDiffusion, UserError
from strdiffusion.app import open_picture
from strdiffusion.commands.main import main

QUICK = {"sampler": "mars_sde", "steps": 2, "resampling": "none"}
OPTIONS = ("--sampler", "mars_sde", "--steps", "2", "--resampling", "none", "--device", "cpu")


def noise(height, width, seed=0, alpha=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] = 255 if alpha is None else alpha
    return pixels


def smooth(height, width, seed=0):
    """A soft picture whose alpha falls to nothing at its sides."""
    y, x = np.mgrid[:height, :width]
    a, b, c = np.random.default_rng(seed).uniform(0.05, 0.12, 3)
    colours = [127 + 120 * np.sin(a * x + 1), 127 + 120 * np.cos(b * y), 127 + 120 * np.sin(c * (x + y))]
    alpha = 255 * np.clip(np.minimum.reduce([y, x, height - 1 - y, width - 1 - x]) / 8, 0, 1)
    return np.rint(np.dstack([*colours, alpha])).astype(np.uint8)


def write(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


# ---- drawing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "angle, turned", [(0, lambda a: a), (90, lambda a: np.rot90(a, -1)), (180, lambda a: np.rot90(a, 2)), (-90, np.rot90)]
)
def test_at_its_own_size_every_pixel_is_as_it_was(angle, turned):
    pixels = noise(12, 20)
    composed = Composition([PlacedObject(pixels, (30, 25), 1, angle)], 64, 48).render()
    expected = turned(pixels)
    h, w = expected.shape[:2]
    assert np.array_equal(composed.rgba[25 - h // 2 : 25 + h // 2, 30 - w // 2 : 30 + w // 2], expected)
    assert composed.known.sum() == h * w and not composed.picture.levels[composed.hole].any()


@pytest.mark.parametrize("anchor", ["middle", "corner"])
@pytest.mark.parametrize("scale, angle", [(1.7, 25), (1.0, -70), (0.6, 140), (0.23, 10)])
def test_a_turned_and_scaled_object_is_where_it_should_be(scale, angle, anchor):
    """Against a mean over 64 points of each pixel, each of which takes the cut-out's nearest pixel."""
    pixels, (x0, y0), H, W = smooth(60, 90), (41.3, 37.8), 80, 84
    composed = Composition([PlacedObject(pixels, (x0, y0), scale, angle, anchor=anchor)], W, H).render()
    points = (np.arange(8) + 0.5) / 8
    y, x = np.meshgrid((np.arange(H)[:, None] + points).ravel(), (np.arange(W)[:, None] + points).ravel(), indexing="ij")
    turn = np.exp(-1j * np.radians(angle))  # back again
    at = ((x - x0) + 1j * (y - y0)) * turn / scale
    u, v = at.real + (45 if anchor == "middle" else 0), at.imag + (30 if anchor == "middle" else 0)
    inside = (u >= 0) & (u < 90) & (v >= 0) & (v < 60)
    values = pixels[np.clip(v, 0, 59).astype(int), np.clip(u, 0, 89).astype(int)].astype(float) * inside[..., None]
    values[..., :3] *= values[..., 3:] / 255
    mean = values.reshape(H, 8, W, 8, 4).mean(axis=(1, 3))
    found = composed.rgba.astype(float)
    found[..., :3] *= found[..., 3:] / 255
    assert mean.max() > 200 and np.abs(found - mean).max() < 9 and np.abs(found - mean).mean() < 1


def test_a_turned_object_is_as_pillow_draws_it():
    pixels = smooth(40, 50)
    composed = Composition([PlacedObject(pixels, (32, 30), 1.5, 30)], 64, 60).render()
    c, s = np.cos(np.radians(30)) / 1.5, np.sin(np.radians(30)) / 1.5
    back = (c, s, 25 - c * 32 - s * 30, -s, c, 20 + s * 32 - c * 30)
    drawn = Image.fromarray(pixels).convert("RGBa").transform((64, 60), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    expected = np.asarray(drawn.convert("RGBA")).astype(int)
    clear = expected[..., 3] > 128
    assert clear.sum() > 1500 and np.abs(composed.rgba.astype(int) - expected)[clear].max() <= 3


def test_colours_are_averaged_by_alpha():
    """Of four pixels, red that is opaque, green a third as much, and two that cannot be seen: by hand."""
    cutout = np.array([[[255, 0, 0, 255], [0, 255, 0, 85]], [[0, 0, 255, 0], [9, 9, 9, 0]]], np.uint8)
    composed = Composition([PlacedObject(cutout, (8.5, 8.5), 0.5)], 16, 16, opaque=1 / 3).render()
    assert composed.rgba[8, 8].tolist() == [191, 64, 0, 85]  # 3/4 red, 1/4 green; (255 + 85) / 4
    assert composed.known.sum() == 1 and composed.known[8, 8]
    with pytest.raises(UserError, match="no pixel of composition is known"):
        Composition([PlacedObject(cutout, (8.5, 8.5), 0.5)], 16, 16).render()


def test_order_and_rims_over_an_open_picture():
    """The upper object hides the lower; half alpha over a known pixel blends with it, over the hole it counts by `opaque`."""
    base = noise(20, 30, 1)[..., :3]
    hole = np.zeros((20, 30), np.uint8)
    hole[:, 15:] = 255
    red, blue = (np.full((4, 4, 4), (*colour, 255), np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    rim = np.full((2, 30, 4), (10, 20, 30, 128), np.uint8)
    objects = [PlacedObject(red, (20, 4), 1, order=2), PlacedObject(blue, (21, 4), 1), PlacedObject(rim, (15, 15), 1)]
    composed = Composition(objects, image=base, mask=hole).render()
    assert (composed.rgba[2:6, 18:22, :3] == (200, 0, 0)).all() and (composed.rgba[2:6, 22, :3] == (0, 0, 200)).all()
    alpha = 128 / 255
    blended = np.rint(np.array([10, 20, 30]) * alpha + base[14:16, :15] * (1 - alpha))
    assert np.abs(composed.rgba[14:16, :15, :3] - blended).max() <= 1
    assert np.array_equal(composed.known[14:16], np.ones((2, 30), bool)) and (composed.rgba[14, 20] == (10, 20, 30, 128)).all()
    untouched = np.ones((20, 30), bool)
    untouched[14:16], untouched[:, 15:] = False, False
    assert np.array_equal(composed.picture.levels[untouched], base[untouched])
    sharp = Composition(objects, image=base, mask=hole, opaque=1).render()
    assert not sharp.known[14:16, 15:].any() and sharp.known[14:16, :15].all()
    again = Composition(image=composed.rgba, opaque=1).render()  # the picture's own alpha is its hole
    assert np.array_equal(again.known, sharp.known)


@pytest.mark.parametrize("erode", [1, 2, 5])
def test_erosion_paints_the_rims_anew(erode):
    placed = [PlacedObject(noise(21, 31), (30.5, 20.5), 1)]
    before, after = (Composition(placed, 64, 48, erode=pixels).render() for pixels in (0, erode))
    assert np.array_equal(after.known, distance_transform_edt(before.known) > erode)


def test_without_a_scale_it_fits_into_the_canvas():
    rgba = Composition([PlacedObject(noise(10, 40), (30, 20))], 60, 40).render().rgba[..., 3]
    assert (rgba[13:27] == 255).all() and not rgba[:12].any() and not rgba[28:].any()


# ---- files --------------------------------------------------------------------------------------------


def test_a_file_is_read_and_written_again(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path / "a" / "cut.png", smooth(20, 20))
    tree = {"width": 40, "height": 30, "opaque": 1, "objects": [{"image": "../cut.png", "position": [12, 14], "scale": "5e-1", "order": 3}]}
    (tmp_path / "a" / "b" / "scene.yml").write_text(yaml.safe_dump(tree))
    composition = Composition.load(tmp_path / "a" / "b" / "scene.yml")
    assert composition.name == "scene" and composition.objects[0].scale == 0.5 and composition.opaque == 1.0
    composition.objects.append(PlacedObject(noise(5, 5, alpha=200), (30.25, 20), 1, angle=10))  # no file: it becomes one
    composition.save(tmp_path / "copy.yml")
    written = yaml.safe_load((tmp_path / "copy.yml").read_text())
    assert written["objects"][0]["image"] == "a/cut.png" and (tmp_path / "copy_object_2.png").exists()
    assert np.array_equal(Composition.load(tmp_path / "copy.yml").render().rgba, composition.render().rgba)


CUT = {"image": "cut.png", "position": [10, 10], "scale": 1}
BAD = {
    "unknown key objects[0].size": {"objects": [CUT | {"size": 2}]},
    "unknown key heigth; did you mean height?": {"heigth": 40, "objects": [CUT]},
    "objects[0].scale must be from 0.001 to 1000, not 0": {"objects": [CUT | {"scale": 0}]},
    "objects[0].scale must be from 0.001 to 1000, not 1000000000.0": {"objects": [CUT | {"scale": 1e9}]},
    "objects[0].scale must be a finite number": {"objects": [CUT | {"scale": float("nan")}]},
    "objects[0].position must hold 2 values": {"objects": [CUT | {"position": [1]}]},
    "the key objects[0].position is missing": {"objects": [{"image": "cut.png"}]},
    "objects[0].angle must be from -360 to 360, not 400": {"objects": [CUT | {"angle": 400}]},
    "width must be from 8 to 8192, not 100000": {"width": 100000, "objects": [CUT]},
    "the canvas has 8000x8000 pixels, and at most 25 megapixels": {"width": 8000, "height": 8000, "objects": [CUT]},
    "opaque must be above 0 to 1, not 0": {"opaque": 0, "objects": [CUT]},
    "erode must be from 0 to 1000, not -1": {"erode": -1, "objects": [CUT]},
    "cut.png lies wholly outside of the canvas of 512x512 pixels, at (-30, 10)": {"objects": [CUT | {"position": [-30, 10]}]},
    "flat.png has no alpha, so it is no cut-out": {"objects": [CUT | {"image": "flat.png"}]},
    "clear.png is transparent everywhere": {"objects": [CUT | {"image": "clear.png"}]},
    "absent.png": {"objects": [CUT | {"image": "absent.png"}]},
    "at most 100 are allowed": {"objects": [CUT] * 101},
    "the canvas is blank: place at least one object": {"width": 64},
    "width and height are of a blank canvas": {"width": 64, "image": "flat.png", "objects": [CUT]},
    "mask is the hole of an open picture, and there is none": {"mask": "flat.png", "objects": [CUT]},
    "flat.png has no hole": {"image": "flat.png", "objects": [CUT]},
    "nothing of scene is to be painted": {"width": 8, "height": 8, "objects": [CUT | {"position": [4, 4]}]},
    "erode took them away": {"erode": 9, "objects": [CUT]},
}


@pytest.mark.parametrize("said", BAD)
def test_what_is_wrong_is_said_in_one_line_before_anything_is_computed(said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("strdiffusion.commands.compose.open_model", None)  # it is not reached
    write(tmp_path / "cut.png", noise(16, 16))
    write(tmp_path / "flat.png", noise(16, 16)[..., :3])
    write(tmp_path / "clear.png", noise(16, 16, alpha=0))
    (tmp_path / "scene.yml").write_text(yaml.safe_dump(BAD[said]))
    status = main(["compose", str(tmp_path / "scene.yml"), "-o", str(tmp_path / "out")])
    assert said in single_error((status, *capsys.readouterr())) and not (tmp_path / "out").exists()


def test_only_a_composition_is_suggested_for_one_that_is_missing(tmp_path, capsys):
    for name, content in (
        ("scenes", "title: a table\n"),
        ("scene_1", "width: 40\n"),
        ("broken", "{"),
        ("listed", "compositions: [a.yml]\n"),
    ):
        (tmp_path / f"{name}.yml").write_text(content)
    for typed, near in (("scene", "scene_1"), ("lists", "listed"), ("brokn", None)):
        assert main(["compose", str(tmp_path / f"{typed}.yml"), "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and (f"did you mean {tmp_path / near}.yml?" in error if near else "did you mean" not in error)


def test_numbers_from_python_are_checked_too():
    with pytest.raises(UserError, match=r"objects\[0\].scale must be from 0.001"):
        Composition([PlacedObject(noise(4, 4), (5, 5), -1.0)]).render()
    with pytest.raises(UserError, match=r"objects\[0\].anchor must be one of middle, corner"):
        Composition([PlacedObject(noise(4, 4), (5, 5), 1, anchor="centre")]).render()


# ---- painting -----------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path):
    """A composition of two objects, as a file."""
    write(tmp_path / "one.png", smooth(30, 24))
    write(tmp_path / "two.png", smooth(20, 20, 1))
    objects = [
        CUT | {"image": "one.png", "position": [14, 18], "angle": 20},
        CUT | {"image": "two.png", "position": [36, 20], "scale": 0.8},
    ]
    (tmp_path / "scene.yml").write_text(yaml.safe_dump({"width": 48, "height": 36, "objects": objects}))
    return tmp_path / "scene.yml"


def test_known_pixels_stay_and_a_seed_gives_the_same_scene(scene, runs):
    model, composition = StrDiffusion.load(runs, device="cpu"), Composition.load(scene)
    composed = composition.render()
    first, again = (composition.paint(model, seed=4, num_samples=2, **QUICK).images for _ in range(2))
    other = composition.paint(model, seed=5, **QUICK).images[0]
    assert composed.hole.mean() > 0.4
    for image in (*first, other):
        assert np.array_equal(image.levels[composed.known], composed.rgba[composed.known][:, :3])
        assert image.levels[composed.hole].std() > 1
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other)


@pytest.fixture
def compose(capsys, runs):
    def run(*arguments):
        status = main(["compose", *map(str, arguments), "--model", str(runs), *OPTIONS])
        return status, *capsys.readouterr()

    return run


def test_the_command_gives_what_python_gives(scene, compose, runs, tmp_path):
    out = tmp_path / "out"
    assert compose(scene, "-o", out, "--samples", 2, "--seed", 3)[0] == 0
    names = ["composed.png", "mask.png", "painted_0.png", "painted_1.png", "sheet.png"]
    assert sorted(path.name for path in out.iterdir()) == ["scene.yml", *(f"scene_{name}" for name in names)]
    composition = Composition.load(scene)
    composed = composition.render()
    expected = composition.paint(StrDiffusion.load(runs, device="cpu"), seed=3, num_samples=2, **QUICK).images
    for i in (0, 1):
        assert np.array_equal(open_picture(out / f"scene_painted_{i}.png").levels, expected[i].levels)
    assert np.array_equal(open_picture(out / "scene_mask.png").levels[..., 0] == 255, composed.hole)
    assert np.array_equal(open_picture(out / "scene_composed.png").levels, composed.rgba)
    sheet = open_picture(out / "scene_sheet.png").levels
    assert sheet.shape == (36, 3 * 48 + 16, 3) and np.array_equal(sheet[:, -48:], expected[1].levels)
    assert np.array_equal(Composition.load(out / "scene.yml").render().rgba, composed.rgba)
    assert "nothing is overwritten" in single_error(compose(scene, "-o", out, "--samples", 2))
    assert compose(scene, "-o", out, "--samples", 1, "--overwrite")[0] == 0


def test_many_compositions(scene, compose, tmp_path):
    """A list, a folder, a picture with its mask as the authors' program names it, and options for all."""
    (tmp_path / "list.yml").write_text("compositions: [scene.yml, more/b.yml]")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.yml").write_text(scene.read_text().replace("one.png", "../one.png").replace("two.png", "../two.png"))
    assert compose(tmp_path / "list.yml", "-o", tmp_path / "out", "--erode", 2)[0] == 0
    painted = [open_picture(tmp_path / "out" / f"{name}_painted.png").levels for name in ("scene", "b")]
    assert np.array_equal(*painted) and Composition.load(tmp_path / "out" / "b.yml").erode == 2
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write(pictures / "x.png", noise(30, 30)[..., :3])
    keep = np.zeros((30, 30), np.uint8)
    keep[5:20, 5:20] = 255
    write(pictures / "x_mask.png", keep)
    write(pictures / "y.png", smooth(30, 30))  # its alpha is its mask
    assert compose(pictures, "-o", tmp_path / "third", "--polarity", "white_known")[0] == 0
    result = open_picture(tmp_path / "third" / "x_painted.png").levels
    assert np.array_equal(result[keep > 0], noise(30, 30)[keep > 0][:, :3]) and (result != noise(30, 30)[..., :3]).any()
    assert (tmp_path / "third" / "y_painted.png").exists()
    before = scene.read_text()
    assert compose(scene, "-o", tmp_path)[0] == 0 and (tmp_path / "scene_sheet.png").exists()
    assert scene.read_text() == before  # the file that was read stays as it is
    (tmp_path / "list.yml").write_text("compositions: [scene.yml, list.yml]")
    assert "lists itself" in single_error(compose(tmp_path / "list.yml", "-o", tmp_path / "fourth"))
    assert "written twice" in single_error(compose(scene, tmp_path / "more" / "b.yml", scene, "-o", tmp_path / "fourth"))
    assert "does not exist" in single_error(compose(tmp_path / "absent.yml", "-o", tmp_path / "fourth"))
    assert "--samples must be at least 1" in single_error(compose(scene, "-o", tmp_path / "fourth", "--samples", 0))
