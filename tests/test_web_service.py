"""What the page does, without a page: pictures that are taken and refused, paintings, results, sessions that leave nothing, limits."""

import base64
import io
import re
import time
import zlib
from dataclasses import replace
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
from conftest import single_error
from PIL import Image

from strdiffusion import Cancelled, Composition, PlacedObject, StrDiffusion, UserError
from strdiffusion.app import AdaptOptions, adapt, open_picture
from strdiffusion.app.web import view
from strdiffusion.app.web.job import Job, Line
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.offers import CUSTOM, PUBLISHED, QUICK, Offers, Pace
from strdiffusion.app.web.painting import read_painting
from strdiffusion.app.web.service import Settings, spelled
from strdiffusion.app.web.session import ENDED, tidy_name
from strdiffusion.commands.main import main as command
from strdiffusion.commands.web import example_streets, first_cutouts, is_loopback, model_sources

FAST = Settings("tiny", CUSTOM, "mars_sde", 2, "none", seed=3)
KEY = "page"


def layer(height, width, *boxes, colour=(224, 33, 138, 255)):
    pixels = np.zeros((height, width, 4), np.uint8)
    for top, left, h, w in boxes:
        pixels[top : top + h, left : left + w] = colour
    return pixels


def as_url(pixels, kind="png"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode()


def painted(number, height, width, *boxes, hints=None):
    return {"number": number, "hole": as_url(layer(height, width, *boxes)), "hints": None if hints is None else as_url(hints)}


def upload(session, name, content):
    path = session.new_file()
    path.write_bytes(content)
    return session.open_upload(path, name)


def encoded(pixels, kind, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def files(service):
    return sorted(path.name for path in service.sessions.root.rglob("*") if path.is_file())


# ---- pictures and paintings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, suffix", [("png", ".png"), ("jpeg", ".jpg"), ("tiff", ".tif"), ("webp", ".webp"), ("bmp", ".bmp"), ("gif", ".png")]
)
def test_a_picture_is_known_by_its_content(web_service, kind, suffix):
    session = web_service().sessions.open(KEY)
    photo = upload(session, "C:\\pictures\\my photo.doc", encoded(noise(30, 40, 3), kind))
    assert photo.name == "my photo" + suffix and photo.size == photo.preview == (30, 40)
    assert Image.open(session.folder / "preview.png").size == (40, 30)


def test_large_pictures_get_a_preview_and_turned_ones_stand_upright(web_service):
    session = web_service().sessions.open(KEY)
    exif = Image.Exif()
    exif[274] = 6
    photo = upload(session, "a.jpg", encoded(cv2.resize(noise(4, 5, 3), (2100, 700)), "jpeg", exif=exif))
    assert photo.size == (2100, 700) and photo.preview == (1024, 341)


def png_header(width, height):
    content = bytearray(encoded(noise(8, 8, 3), "png"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("notes.jpg", b"no picture at all", "notes.jpg is not a picture that can be read here"),
        ("empty.png", b"", "empty.png is not a picture"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "page.svg is not a picture"),
        (
            "wide.png",
            encoded(noise(1, 1, 3).repeat(1001, 0).repeat(1000, 1), "png"),
            "wide.png has 1000x1001 pixels, and at most 1 megapixels",
        ),
        ("bomb.png", png_header(60_000, 60_000), "bomb.png has far too many pixels"),
        ("cut.png", encoded(noise(60, 60, 3), "png")[:500], "cut.png is damaged or not an image"),
        ("film.gif", encoded(noise(9, 9, 3), "gif", save_all=True, append_images=[Image.new("RGB", (9, 9))]), "film.gif holds 2 frames"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line_and_not_kept(web_service, name, content, said):
    service = web_service(megapixels=1)
    session = service.sessions.open(KEY)
    with pytest.raises(UserError) as error:
        upload(session, name, content)
    assert str(error.value).removeprefix("image ").startswith(said) and str(session.folder) not in str(error.value)
    assert session.photo is None and files(service) == []


def test_names_from_browsers_are_tidied():
    assert tidy_name("../../etc/passwd") == "passwd"
    assert tidy_name('<script>"x".png') == "_script__x_.png"
    assert tidy_name("Ünïcode (1).jpg") == "Ünïcode (1).jpg"
    assert tidy_name("...") == "picture" and len(tidy_name("x" * 500)) == 80


def test_a_painting_is_a_mask_and_hints():
    hints = layer(20, 30, (6, 6, 2, 2), colour=(10, 200, 30, 255))
    painting = read_painting(painted(1, 20, 30, (5, 5, 10, 10), hints=hints), (20, 30), (40, 60))
    expected = np.zeros((40, 60), bool)
    expected[10:30, 10:30] = True
    assert np.array_equal(painting.hole, expected) and np.array_equal(painting.hints, hints)
    soft = layer(20, 30, (5, 5, 10, 10))
    soft[4, 5:15, 3], soft[15, 5:15, 3] = 127, 128  # the soft edge of a stroke
    hole = read_painting({"hole": as_url(soft)}, (20, 30), (20, 30)).hole
    assert not hole[4].any() and hole[15, 5:15].all()


@pytest.mark.parametrize(
    "value, said",
    [
        (None, "Paint a hole first"),
        ({"hole": None}, "Paint a hole first"),
        (painted(1, 20, 30), "Paint a hole first"),
        (painted(1, 20, 30, (0, 0, 20, 30)), "covers all"),
        (painted(1, 20, 31, (0, 0, 5, 5)), "does not belong"),
        ({"hole": "data:image/png;base64,AAAA"}, "does not belong"),
        ({"hole": "data:image/png;base64,?"}, "does not belong"),
        ({"hole": "file:///etc/passwd"}, "does not belong"),
        ({"hole": ["x"]}, "does not belong"),
        ({"hole": as_url(layer(20, 30, (0, 0, 5, 5)), "webp").replace("webp", "png")}, "does not belong"),
    ],
)
def test_what_is_no_painting_is_refused(value, said):
    with pytest.raises(UserError, match=said):
        read_painting(value, (20, 30), (20, 30))


# ---- inpainting ---------------------------------------------------------------------------------------


def test_the_same_pixels_as_in_python(web_service, runs):
    service = web_service()
    session = service.sessions.open(KEY)
    pixels = noise(50, 70, 3)
    photo = upload(session, "a.png", encoded(pixels, "png", dpi=(144, 144)))
    boxes = [(10, 20, 12, 9)]
    hints = layer(50, 70, (12, 22, 4, 4), colour=(10, 200, 30, 255))
    value = painted(photo.number, 50, 70, *boxes, hints=hints)
    steps = list(service.run(KEY, value, Settings("tiny", CUSTOM, "mars_sde", 4, "released", seed=3)))
    assert "progressbar" in steps[0]
    (sample,) = session.results.samples
    out = open_picture(session.folder / sample.files[0])
    mask = layer(50, 70, *boxes)[..., 3] > 0
    expected = StrDiffusion.load(runs, device="cpu")(pixels, mask, hints=hints, seed=3, sampler="mars_sde", steps=4, resampling="released")
    assert np.array_equal(out.levels, expected.images[0].levels)
    assert np.array_equal(out.levels[~mask], pixels[~mask]) and (out.levels[13, 23] == (10, 200, 30)).all()
    assert round(out.metadata.dpi[0]) == 144
    shown = service.show(KEY)
    for name in (sample.preview, sample.structure, sample.trace, sample.files[0]):
        assert f"session/{session.token}/{name}" in shown and (session.folder / name).stat().st_size > 100


def test_samples_formats_and_earlier_results(web_service):
    service = web_service()
    session = service.sessions.open(KEY)
    exif = Image.Exif()
    exif[271] = "Maker"
    pixels = cv2.resize(noise(5, 6, 3), (60, 48), interpolation=cv2.INTER_CUBIC)
    photo = upload(session, "photo.JPEG", encoded(pixels, "jpeg", quality=90, exif=exif))
    value = painted(photo.number, 48, 60, (10, 20, 12, 9))
    list(service.run(KEY, value, Settings("tiny", QUICK, "", 0, "", seed=1, samples=2)))
    first = {name for name in files(service) if name.startswith("run")}
    pictures = [open_picture(session.folder / sample.files[1]).levels for sample in session.results.samples]
    assert not np.array_equal(*pictures)
    assert [name.rsplit(".")[-1] for name in session.results.samples[0].files] == ["jpg", "png"]
    assert open_picture(session.folder / session.results.samples[0].files[0]).metadata.exif[271] == "Maker"
    decoded = np.asarray(Image.open(photo.path))
    mask = layer(48, 60, (10, 20, 12, 9))[..., 3] > 0
    assert all(np.array_equal(picture[~mask], decoded[~mask]) for picture in pictures)
    assert "photo_inpainted_2.jpg" in service.show(KEY, 1)
    with pytest.raises(UserError, match="no sample 3"):
        service.show(KEY, 2)
    list(service.run(KEY, value, FAST))
    assert not first & set(files(service))
    service.open_example(KEY, 0)
    assert session.results is None and not photo.path.exists() and len(files(service)) == 2
    with pytest.raises(UserError, match="Paint a hole first"):
        list(service.run(KEY, value, FAST))  # of the picture before


def test_the_expected_time_is_that_of_the_plan(web_service):
    service = web_service()
    offer = service.offers["tiny"]
    offer.seconds.update(texture=2.0, structure=1.0, discriminator=0.5)
    service.sessions.open(KEY)
    photo = service.open_example(KEY, 0)
    value = painted(photo.number, 40, 56, (10, 20, 6, 6))
    plain = Settings("tiny", CUSTOM, "posterior", 10, "none")
    (n,) = [int(n) for n in re.findall(r"(\d+) network", service.expected(KEY, value, plain))]
    plan = offer.model.plan(photo.open(), layer(40, 56, (10, 20, 6, 6))[..., 3] > 0, sampler="posterior", steps=10, resampling="none")
    texture, structure = (plan.evaluations[kind].least for kind in ("texture", "structure"))
    assert n == texture + structure and offer.duration(plan) == (2.0 * texture + structure,) * 2
    assert f"about {2 * texture + structure} s" in service.expected(KEY, value, plain)
    assert re.search(r"\d+ s to \d+ s|to \d+ min", service.expected(KEY, value, Settings("tiny", "model", "", 0, "")))


def test_the_least_of_some_measurements_counts():
    from strdiffusion.app.web.offers import measure

    class Timed:
        times = iter([{"texture": 9.0, "structure": 1.0}, {"texture": 2.0, "structure": 5.0}] + 3 * [{"texture": 3.0, "structure": 3.0}])

        def time_evaluations(self):
            return next(self.times)

    assert measure(Timed()) == {"texture": 2.0, "structure": 1.0}


def test_what_does_not_fit_is_said(web_service):
    service = web_service(samples=2)
    with pytest.raises(UserError, match=ENDED):
        service.expected(KEY, None, FAST)
    service.sessions.open(KEY)
    with pytest.raises(UserError, match="Open a picture first"):
        service.expected(KEY, None, FAST)
    value = painted(service.open_example(KEY, 0).number, 40, 56, (10, 20, 6, 6))
    for wrong, said in [
        (Settings("other", QUICK, "", 0, ""), "no model 'other'"),
        (Settings("tiny", CUSTOM, "mars_sde", 99, "none"), "steps must be from 2"),
        (Settings("tiny", QUICK, "", 0, "", samples=3), "Between 1 and 2"),
        (Settings("tiny", QUICK, "", 0, "", samples=0), "Between 1 and 2"),
    ]:
        with pytest.raises(UserError, match=said):
            list(service.run(KEY, value, wrong))


def test_a_model_offers_what_it_can_do(web_service, runs, tmp_path):
    offer = web_service().offers["tiny"]
    assert list(offer.presets()) == ["model", "quick", "careful", "custom"]  # the model's own settings are the default
    assert offer.arguments("careful", "", 0, "")["steps"] == offer.choices.most_steps == 10
    for kind in ("texture", "structure"):
        (tmp_path / "two" / kind).mkdir(parents=True)
        (tmp_path / "two" / kind / "latest.pt").write_bytes((runs / kind / "latest.pt").read_bytes())
    two = Offers({"two": tmp_path / "two"}, "cpu")["two"]  # no discriminator
    assert "careful" not in two.presets() and two.choices.resamplings == ("none", "repaint", "fixed")


def test_a_model_learns_from_the_picture_first(web_service, monkeypatch, capfd):
    """The result is that of `adapt` and a call; the progress says so; what cannot learn, or for too long, is refused. The terminal, which
    is the server's, shows no bar of the training."""
    from strdiffusion.app.web import learning

    monkeypatch.setattr(learning, "ENDLESS", 3)
    monkeypatch.setattr(learning, "EVERY", 0.0)
    service = web_service(minutes=5)
    service.arrive(KEY)
    photo = service.open_example(KEY, 0)
    value, chosen = painted(photo.number, 40, 56, (10, 20, 12, 9)), replace(FAST, learn=5)
    assert "5 min" in service.expected(KEY, value, chosen)
    shown = list(service.run(KEY, value, chosen))
    assert any("learning from the picture" in part and "By now it would fill" in part for part in shown)
    assert capfd.readouterr() == ("", "")
    picture, hole = photo.open(), np.zeros((40, 56), bool)
    hole[10:22, 20:29] = True
    model = adapt(service.offers["tiny"].model, [(picture, hole)], AdaptOptions(iterations=3, minutes=5.0, seed=3))
    expected = model(picture, hole, seed=3, sampler="mars_sde", steps=2, resampling="none").images[0]
    found = open_picture(service.sessions[KEY].folder / service.sessions[KEY].results.samples[0].files[-1])
    assert np.array_equal(found.levels[..., :3], expected.levels)
    with pytest.raises(UserError, match="at most 5 minutes"):
        list(service.run(KEY, value, replace(FAST, learn=6)))
    service.offers = Offers({"tiny": "telea"}, "cpu")
    with pytest.raises(UserError, match="telea cannot learn"):
        list(service.run(KEY, value, replace(FAST, preset="model", learn=1)))


def test_learning_is_cancelled(web_service, monkeypatch):
    from strdiffusion.app.web import learning

    monkeypatch.setattr(learning, "PREVIEWED", 0)
    service = web_service()
    service.arrive(KEY)
    value = painted(service.open_example(KEY, 0).number, 40, 56, (10, 20, 12, 9))
    run = service.run(KEY, value, replace(FAST, learn=10))
    while "learning from the picture" not in next(run):
        pass
    service.cancel(KEY)
    with pytest.raises(Cancelled):
        list(run)


def test_the_gallery_has_the_size_of_the_networks_as_far_as_it_is_drawn():
    found = {size: example_streets(size)[0].pixels.shape[:2] for size in (None, 24, 64, 128, 300, 512)}
    assert found == {None: (128, 128), 24: (64, 64), 64: (64, 64), 128: (128, 128), 300: (256, 256), 512: (256, 256)}


def test_an_offer_says_what_its_model_has_seen(web_service, runs, tmp_path):
    """And when another model is chosen, what the one before has seen is no longer said: the page takes None for "as it is"."""
    from strdiffusion.app.web.page import _Handlers

    folder = StrDiffusion.load(runs, device="cpu").save(tmp_path / "model")
    assert Offers({"m": folder}, "cpu")["m"].seen == ""
    (folder / "trained_on.txt").write_text("cats")
    service = web_service()
    service.offers = Offers({"cats": folder, "tiny": runs}, "cpu")
    said = [_Handlers(service).change_model(name)[0]["info"] for name in ("cats", "tiny")]
    assert said == ["Trained on cats: it fills every picture as if it were one of them.", ""]


def test_a_method_without_a_sampler(web_service, tmp_path):
    """No choices, no preset but its own; its result is that of Python."""
    service = web_service()
    service.offers = Offers({"classical": "telea", "saved": StrDiffusion.load("telea").save(tmp_path / "model")}, "cpu")
    assert service.offers.names == ["classical", "saved"]
    for name in service.offers.names:
        offer = service.offers[name]
        assert offer.choices is None and offer.presets() == {PUBLISHED: "Recommended: telea"}
        for preset in (QUICK, "careful", CUSTOM):
            with pytest.raises(UserError, match="the method telea has no sampler"):
                offer.arguments(preset, "posterior", 5, "none")
        session = service.sessions.open(KEY)
        pixels = noise(50, 70, 3)
        photo = upload(session, "a.png", encoded(pixels, "png"))
        value, settings = painted(photo.number, 50, 70, (10, 20, 12, 9)), Settings(name, PUBLISHED, "", 2, "", seed=3, samples=2)
        assert service.expected(KEY, value, settings) == "Expected: less than a second (1 window, 0 network evaluations)"
        list(service.run(KEY, value, settings))
        expected = StrDiffusion.load("telea")(pixels, layer(50, 70, (10, 20, 12, 9))[..., 3] > 0).images[0].levels
        (sample,) = session.results.samples  # it draws nothing: two would be the same
        assert np.array_equal(open_picture(session.folder / sample.files[0]).levels, expected)
        assert sample.structure is None and sample.trace is None
        assert f"{name}, telea, seed 3" in service.show(KEY)


def test_nothing_that_a_visitor_wrote_is_html(web_service):
    service = web_service()
    session = service.sessions.open(KEY)
    photo = upload(session, "a&b<i>.png", encoded(noise(30, 30, 3), "png"))
    list(service.run(KEY, painted(photo.number, 30, 30, (5, 5, 9, 9)), FAST))
    assert "<i>" not in service.show(KEY) and "<i>" not in view.message("<i>")


# ---- composing ----------------------------------------------------------------------------------------


def cutout_file(height=20, width=16, seed=3):
    pixels = noise(height, width, 4, seed=seed)
    pixels[..., 3] = 0
    pixels[2:-2, 2:-2, 3] = 255
    return pixels


def add_cutout(session, name, content):
    path = session.new_file()
    path.write_bytes(content)
    return session.add_cutout(path, name)


def arranged(*objects, canvas="blank", number=0, width=48, height=40, **more):
    listed = [{"cutout": one, "x": x, "y": y, "scale": scale, "angle": angle} for one, x, y, scale, angle in objects]
    return {"canvas": canvas, "number": number, "width": width, "height": height, "objects": listed} | more


def test_a_scene_is_painted_as_in_python(web_service, runs, tmp_path):
    """On a blank canvas, of which nothing is known but the objects; with files to go on with elsewhere."""
    service = web_service()
    session = service.sessions.open(KEY)
    pixels = cutout_file()
    one = add_cutout(session, "boat.png", encoded(pixels, "png"))
    assert one.size == (20, 16) and Image.open(session.folder / one.preview).mode == "RGBA"
    value = arranged((one.number, 12, 15, 1, 0), (one.number, 30, 22, 1.3, 40), erode=1)
    assert service.expected(KEY, None, FAST, value).startswith("Expected: ")
    assert "progressbar" in next(iter(list(service.run(KEY, None, FAST, value))))
    objects = [PlacedObject(pixels, (12, 15), 1), PlacedObject(pixels, (30, 22), 1.3, 40)]
    composition = Composition(objects, 48, 40, erode=1)
    expected = composition.paint(StrDiffusion.load(runs, device="cpu"), seed=3, sampler="mars_sde", steps=2, resampling="none")
    (sample,) = session.results.samples
    assert np.array_equal(open_picture(session.folder / sample.files[0]).levels, expected.images[0].levels)
    composed = composition.render()
    assert np.array_equal(expected.images[0].levels[composed.known], composed.rgba[composed.known][:, :3])
    shown = service.show(KEY)
    assert "composition_inpainted.png" in shown and "composition.zip" in shown and "metadata of the original" not in shown
    with ZipFile(session.folder / session.results.bundle) as bundle:
        bundle.extractall(tmp_path / "bundle")
    assert np.array_equal(Composition.load(tmp_path / "bundle" / "composition.yml").render().rgba, composed.rgba)
    assert np.array_equal(open_picture(tmp_path / "bundle" / "composition_mask.png").levels[..., 0] > 0, composed.hole)
    kept = {name for name in files(service) if name.startswith("run")}
    assert len(kept) == 5  # result, its preview, structure; what it was, and the files to go on with
    list(service.run(KEY, None, FAST, value))
    assert not kept & set(files(service))


def test_cut_outs_in_a_hole_of_the_open_picture(web_service):
    service = web_service()
    session = service.sessions.open(KEY)
    pixels, cutout = noise(50, 70, 3), cutout_file()
    photo, one = upload(session, "a.png", encoded(pixels, "png")), add_cutout(session, "boat.png", encoded(cutout, "png"))
    value = arranged((one.number, 38, 20, 1, 0), canvas="picture", number=photo.number)
    for hole in ((5, 15, 40, 50), (0, 0, 50, 70)):  # the second covers all of the picture
        list(service.run(KEY, painted(photo.number, 50, 70, hole), FAST, value))
        result = open_picture(session.folder / session.results.samples[0].files[0]).levels
        outside = layer(50, 70, hole)[..., 3] == 0
        assert np.array_equal(result[outside], pixels[outside])
        assert np.array_equal(result[12:28, 32:44], cutout[2:18, 2:14, :3])
    for other in (None, painted(photo.number + 1, 50, 70, hole)):
        with pytest.raises(UserError, match="Paint a hole into the open picture first"):
            service.expected(KEY, other, FAST, value)
    service.open_example(KEY, 0)
    with pytest.raises(UserError, match="Paint a hole into the open picture first"):
        list(service.run(KEY, painted(photo.number, 50, 70, hole), FAST, value))  # of the picture before


UNTRUSTED = [
    ({}, "Put a cut-out on the canvas first"),
    ("nonsense", "Put a cut-out on the canvas first"),
    (arranged(), "Put a cut-out on the canvas first"),
    ({"objects": "abc"}, "At most 100 objects"),
    (arranged(*[(1, 5, 5, 1, 0)] * 101), "At most 100 objects"),
    (arranged((7, 5, 5, 1, 0)), "no longer in the pool"),
    (arranged((1, 5, 5, 1e9, 0)), r"objects\[0\].scale must be from 0.001 to 1000"),
    (arranged((1, "x", 5, 1, 0)), r"objects\[0\].x must be a finite number"),
    (arranged((1, float("inf"), 5, 1, 0)), r"objects\[0\].x must be a finite number"),
    (arranged((1, 5, 5, 1, 0), width=100_000), "width must be from 8 to 8192"),
    (arranged((1, 5, 5, 1, 0), width=4000, height=4000), "The canvas has 4000x4000 pixels, and at most 1 megapixels"),
    (arranged((1, 5, 5, 1, 0), erode=-3), "erode must be from 0"),
    (arranged((1, 5, 5, 1, 0), path="/etc/passwd"), "unknown key path"),
    (arranged((1, -500, 5, 1, 0)), "boat.png lies wholly outside of the canvas"),
    (arranged((1, 5, 5, 1, 0), canvas="picture"), "Open a picture first"),
]


def test_what_was_arranged_is_not_trusted(web_service):
    service = web_service(megapixels=1)
    session = service.sessions.open(KEY)
    add_cutout(session, "boat.png", encoded(cutout_file(), "png"))
    for value, said in UNTRUSTED:
        with pytest.raises(UserError, match=said) as error:
            service.expected(KEY, None, FAST, value)
        assert str(session.folder) not in str(error.value) and "\n" not in str(error.value)


def test_a_visitor_finds_cut_outs(web_service, tmp_path, caplog):
    Image.fromarray(cutout_file()).save(tmp_path / "boat.png")
    Image.fromarray(noise(9, 9, 3)).save(tmp_path / "flat.png")
    service = web_service()
    service.cutouts = first_cutouts(tmp_path)
    assert "left out: " in caplog.text and "flat.png has no alpha" in caplog.text
    token, pool, photo = service.arrive(KEY)
    assert photo is None
    assert [(one["name"], one["width"], one["height"]) for one in pool] == [("boat.png", 16, 20)]
    assert pool[0]["address"] == f"session/{token}/cutout_1.png"
    assert service.expected(KEY, None, FAST, arranged((pool[0]["number"], 12, 15, 1, 0))).startswith("Expected: ")
    drawn = first_cutouts(None)
    assert len(drawn) == 6 and all(set(np.unique(one.pixels[..., 3])) == {0, 255} for one in drawn)


def test_a_hint_is_enough_to_go_by():
    hints = layer(20, 30, (6, 6, 2, 2), colour=(10, 200, 30, 255))
    painting = read_painting(painted(1, 20, 30, (0, 0, 20, 30), hints=hints), (20, 30), (20, 30))
    assert painting.hole.all() and painting.hints is not None


# ---- cancelling and leaving ---------------------------------------------------------------------------


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_jobs_wait_in_line_and_are_cancelled():
    line, order = Line(3), []

    def work(name):
        def run(callback, cancel):
            order.append(name)
            if name == "first":
                wait_for(cancel)
                raise Cancelled
            return name

        return run

    jobs = [Job(work(name), line) for name in ("first", "second", "third", "fourth")]
    with pytest.raises(UserError, match="All 3 places to wait are taken"):
        Job(work("fifth"), line)
    wait_for(lambda: order)
    assert [line.ahead(job) for job in jobs] == [0, 1, 2, 3] and order == ["first"]
    assert next(jobs[3].watch()).ahead == 3  # who looks, and goes, cancels
    with pytest.raises(Cancelled):
        jobs[3].result()  # at once, and not when it is its turn
    assert line.ahead(jobs[2]) == 2
    jobs[0].cancel()
    with pytest.raises(Cancelled):
        jobs[0].result()
    assert [job.result() for job in jobs[1:3]] == ["second", "third"] and order == ["first", "second", "third"]
    assert Job(work("later"), line).result() == "later" and spelled(Cancelled()) == "Cancelled."


def test_cancelling_and_another_picture_end_a_run(web_service):
    service = web_service(samples=8)
    session = service.sessions.open(KEY)
    for end in (lambda: service.cancel(KEY), lambda: service.open_example(KEY, 0)):
        value = painted(service.open_example(KEY, 0).number, 40, 56, (4, 4, 30, 40))
        run = service.run(KEY, value, Settings("tiny", "model", "", 0, "", samples=8))
        next(run)
        job = session.job
        end()
        assert job.cancelled
        with pytest.raises(Cancelled):
            list(run)
        assert session.results is None and not [name for name in files(service) if name.startswith("run")]


def test_nothing_outlives_its_session(web_service):
    service = web_service(samples=8)
    session = service.sessions.open(KEY)
    other = service.sessions.open("another page")
    value = painted(service.open_example(KEY, 0).number, 40, 56, (4, 4, 30, 40))
    list(service.run(KEY, value, FAST))
    assert session.folder.stat().st_mode & 0o077 == 0 and len(files(service)) == 5
    run = service.run(KEY, value, Settings("tiny", "model", "", 0, "", samples=8))
    next(run)
    service.sessions.close(KEY)
    with pytest.raises(Cancelled):
        list(run)
    assert not session.folder.exists() and files(service) == []
    with pytest.raises(UserError, match="ended"):
        session.new_file()
    with pytest.raises(UserError, match="ended"):
        service.sessions.with_token(session.token)
    assert service.sessions.with_token(other.token) is other
    service.sessions.open("another page")  # reloaded
    assert not other.folder.exists()
    service.sessions.close_all()
    assert list(service.sessions.root.iterdir()) == []


def test_a_page_that_is_loaded_again_goes_on(web_service):
    service = web_service()
    token, _, _ = service.arrive("before")
    photo = service.open_example("before", 0)
    session = service.sessions["before"]
    assert service.arrive("after", token) == (token, [], photo)
    assert service.sessions["after"] is session and "before" not in service.sessions
    session.listen()  # it is open in another tab, which keeps it
    other, _, nothing = service.arrive("double", token)
    assert other != token and nothing is None and service.sessions["after"] is session
    assert service.arrive("new", "a" * 22)[0] not in (token, other) and service.arrive("newer", "")[2] is None


def test_the_estimate_learns_from_runs(web_service):
    service = web_service()
    service.sessions.open(KEY)
    value = painted(service.open_example(KEY, 0).number, 40, 56, (4, 4, 9, 9))
    offer = service.offers["tiny"]
    offer.seconds.update(texture=1e-6, structure=1e-6, discriminator=1e-6)  # far too little
    plan = offer.model.plan(noise(40, 56, 3), layer(40, 56, (4, 4, 9, 9))[..., 3] > 0, steps=2, resampling="none")
    before = offer.duration(plan)[1]
    list(service.run(KEY, value, FAST))
    assert offer.duration(plan)[1] == pytest.approx(50 * before)  # as far as it goes
    pace = Pace()
    for _ in range(20):
        pace.learn(10 * pace.factor, 30)
    assert abs(pace.factor - 3) < 0.01
    pace.learn(0, 5)
    pace.learn(1e-9, 1e9)
    assert pace.factor <= 50


def test_the_faster_sampler_is_offered_where_it_is_faster(web_service):
    offer = web_service().offers["tiny"]
    slow, fast = offer.model.method, offer.model.method.varied(steps=2, resampling="none")
    assert QUICK in offer.presets()
    offer.model.method = fast
    assert QUICK not in offer.presets() and next(iter(offer.presets())) == "model"
    offer.model.method = slow


def test_as_many_pages_as_may_be(web_service):
    sessions = web_service(sessions=2).sessions
    sessions.open("a")
    sessions.open("b")
    with pytest.raises(UserError, match="2 pages are open already"):
        sessions.open("c")
    sessions.open("b")
    sessions.close("a")
    sessions.open("c")
    with pytest.raises(UserError, match="limit queue must be at least 1"):
        Limits(queue=0)


# ---- the routes ---------------------------------------------------------------------------------------


@pytest.fixture
def client(web_service):
    """The session's own routes, without Gradio."""
    pytest.importorskip("starlette", reason="Starlette is missing, which comes with Gradio: pip install -r requirements-web.txt")
    pytest.importorskip("httpx", reason="httpx is missing, which comes with Gradio: pip install -r requirements-web.txt")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.testclient import TestClient

    from strdiffusion.app.web.guard import Guard, Hosts
    from strdiffusion.app.web.routes import routes

    service = web_service(megabytes=1)
    guard = Middleware(Guard, limits=service.limits, hosts=Hosts("127.0.0.1"), functions={}, knows=bool, waits=bool)
    with TestClient(Starlette(routes=routes(service), middleware=[guard]), "http://localhost") as client:
        client.service = service
        yield client


def test_uploads_by_token(client):
    session = client.service.sessions.open(KEY)
    content = encoded(noise(30, 40, 3), "png")
    answer = client.post(f"/session/{session.token}/picture", content=content, headers={"X-Name": "%C3%BC%20b.png"})
    assert answer.status_code == 200 and session.photo.name == "ü b.png" and session.photo.path.read_bytes() == content
    preview = client.get(f"/session/{session.token}/preview.png?as=x.png")
    assert preview.status_code == 200 and preview.headers["cache-control"] == "no-store"
    assert "x.png" in preview.headers["content-disposition"]
    answer = client.post(f"/session/{session.token}/picture", content=b"text", headers={"X-Name": "b.png"})
    assert answer.status_code == 422 and answer.text.startswith("b.png is not a picture")
    assert len(files(client.service)) == 2
    for name in (session.photo.path.name, "..%2F..%2Fx", "none.png"):
        assert client.get(f"/session/{session.token}/{name}").status_code == 404
    assert client.get("/session/wrong/preview.png").status_code == 404
    assert client.post("/session/wrong/picture", content=content).status_code == 404
    client.service.sessions.close(KEY)
    assert client.get(f"/session/{session.token}/preview.png").status_code == 404
    assert client.post(f"/session/{session.token}/picture", content=content).text == ENDED


def test_cut_outs_by_http(client):
    session = client.service.sessions.open(KEY)
    address = f"/session/{session.token}/cutout"
    answer = client.post(address, content=encoded(cutout_file(), "png"), headers={"X-Name": "my%20boat.png"})
    said = answer.json()
    assert said["name"] == "my boat.png" and (said["width"], said["height"]) == (16, 20)
    assert client.get("/" + said["address"]).headers["content-type"] == "image/png"
    kept = files(client.service)
    for content, wrong in [
        (encoded(noise(9, 9, 3), "png"), "a.png has no alpha, so it is no cut-out"),
        (encoded(layer(9, 9), "png"), "a.png is transparent everywhere"),
        (b"words", "a.png is not a picture"),
    ]:
        answer = client.post(address, content=content, headers={"X-Name": "a.png"})
        assert answer.status_code == 422 and answer.text.startswith(wrong) and files(client.service) == kept
    for _ in range(client.service.limits.cutouts - 1):
        assert client.post(address, content=encoded(cutout_file(), "png")).status_code == 200
    answer = client.post(address, content=encoded(cutout_file(), "png"))
    assert answer.status_code == 422 and "which is as many as may be" in answer.text
    assert client.post("/session/wrong/cutout", content=b"").status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_request_is_cut_off(client, chunked):
    session = client.service.sessions.open(KEY)
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(12):
            sent += 1
            yield bytes(100_000)

    answer = client.post(f"/session/{session.token}/picture", content=chunks() if chunked else bytes(1_200_000))
    assert answer.status_code == 413 and answer.text == "The file is too large: at most 1 MB are allowed."
    assert files(client.service) == []


# ---- the command --------------------------------------------------------------------------------------


def test_models_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path)
    sources = model_sources(["one", "second=two"])
    assert {name: path.name for name, path in sources.items()} == {"one": "one", "second": "two"}
    assert list(model_sources([])) == ["benchmark", "photographs"]  # those that ship
    assert {name: str(source) for name, source in model_sources(["old=telea", "mean_fill"]).items()} == {
        "old": "telea",
        "mean_fill": "mean_fill",
    }
    wrongs = [(["x=none"], "no model none"), (["one", "one=two"], "name of its own"), (["=two"], "name")]
    for wrong, said in wrongs:
        with pytest.raises(UserError, match=said):
            model_sources(wrong)


def test_one_line_where_there_is_no_model(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status = command(["web", "--model", "absent"])
    assert "there is no model absent" in single_error((status, *capsys.readouterr()))
    status = command(["web", "--queue", "0"])
    assert "queue must be at least 1" in single_error((status, *capsys.readouterr()))


def test_one_line_without_gradio(capsys, runs, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status = command(["web", "--model", str(runs)])
    assert "needs Gradio" in single_error((status, *capsys.readouterr()))


def test_loopback():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.168.1.4") and not is_loopback("example")
