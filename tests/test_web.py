"""The page in a real browser without a screen: paint with the mouse, run, wait, compare; cancel; bad uploads; leaving."""

import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from strdiffusion.app import open_picture
from strdiffusion.app.web.job import Job

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 20_000  # ms
BRUSH = 12  # as in paint.html: of 200 parts of the longer side
ORDER = ("paint", "run", "status", "result", "settings")  # from the top, on a phone
ROOT = Path(__file__).parents[1]


def missing():
    """Why the page cannot be tested here, or nothing."""
    packages = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
    if packages:
        return f"{' and '.join(packages)} missing: pip install -r requirements-web.txt"
    return "" if browser_path() else f"no Chromium: none of {', '.join(BROWSERS)} is installed (for example apt-get install chromium)"


def browser_path():
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.filterwarnings("ignore:::gradio")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, web_service):
    """Opens the page of a service: `visit(megapixels=1)`. Afterwards nothing was asked of other machines, and no script failed."""
    from strdiffusion.app.web.server import serve

    contexts, servers, problems = [], [], []

    def open_page(**limits):
        service = web_service(**limits)
        server = serve(service, "127.0.0.1", None)
        address = server.__enter__()
        servers.append(server)
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        context.set_default_timeout(TIMEOUT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith((address, "data:", "blob:")) or problems.append(request.url))
        page.goto(address)
        page.wait_for_function("document.querySelector('#examples img') && document.querySelector('#paint .sd-bar')")
        page.service = service
        while not service.sessions._open:
            page.wait_for_timeout(50)
        return page

    yield open_page
    for context in contexts:
        context.close()
    for server in servers:
        server.__exit__(None, None, None)
    assert problems == []


def wait_for_text(page, selector, text):
    page.wait_for_function("([s, text]) => document.querySelector(s)?.innerText.includes(text)", arg=[selector, text])


def upload(page, name, content):
    page.set_input_files("#paint input[name=file]", {"name": name, "mimeType": "image/png", "buffer": content})


def wait_until_open(page, width, height):
    page.wait_for_function(
        "([w, h]) => { const c = document.querySelector('#paint canvas'); return c.width === w && c.height === h"
        " && document.querySelector('.sd-paint').dataset.ready === 'yes' }",
        arg=[width, height],
    )


def paint(page, *points, pixels):
    """A stroke with the mouse through points (x, y) of the picture, of `pixels` = (width, height)."""
    page.locator("#paint canvas").scroll_into_view_if_needed()
    box = page.locator("#paint canvas").bounding_box()
    places = [(box["x"] + x / pixels[0] * box["width"], box["y"] + y / pixels[1] * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def choose_fast(page):
    page.get_by_label("Faster").check()


def fill(page):
    page.click("#run")
    page.wait_for_selector("#result .sd-compare")
    page.wait_for_selector("#run:not([disabled])")


def download(page, suffix):
    with page.expect_download() as info:
        page.locator("#result a.sd-button", has_text=suffix).click()
    return info.value


def encoded(pixels, kind="png", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def distances(height, width, *points):
    """Of every pixel's middle from a line through points (x, y), in pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    nearest = np.full((height, width), np.inf)
    for (ax, ay), (bx, by) in zip(points, points[1:]):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
    return nearest


def test_paint_run_and_compare(visit, tmp_path):
    page = visit()
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[271] = "Maker"
    upload(page, "my photo.png", encoded(pixels, exif=exif, dpi=(144, 144)))
    wait_until_open(page, 80, 60)
    wait_for_text(page, "#cost", "my photo.png, 80x60 pixels")
    stroke = [(20, 20), (50, 40), (62, 22)]
    paint(page, *stroke, pixels=(80, 60))
    wait_for_text(page, "#cost", "Expected: ")
    page.get_by_label("Adaptive resampling").check()
    fill(page)
    assert page.locator("#result img").count() == 4  # before, after, structure, trace
    assert page.evaluate("[...document.querySelectorAll('#result img')].every(i => i.complete && i.naturalWidth > 0)")
    got = download(page, "PNG")
    assert got.suggested_filename == "my photo_inpainted.png"
    got.save_as(tmp_path / "out.png")
    out = open_picture(tmp_path / "out.png")
    away = distances(60, 80, *stroke) - BRUSH / 200 * 80 / 2
    assert np.array_equal(out.levels[away > 1], pixels[away > 1])  # known pixels as they were
    assert (out.levels[away < -1] != pixels[away < -1]).any(axis=-1).mean() > 0.95  # the hole is new
    assert out.metadata.exif[271] == "Maker" and round(out.metadata.dpi[0]) == 144
    slider = page.locator("#result input[type=range]")
    slider.fill("20")
    assert page.evaluate("getComputedStyle(document.querySelector('.sd-after')).clipPath").endswith("20%)")


def test_example_hint_undo_and_samples(visit, tmp_path):
    page = visit()
    page.locator("#examples button").first.click()
    wait_until_open(page, 56, 40)
    paint(page, (5, 5), (50, 5), pixels=(56, 40))
    page.click("#paint [data-do=undo]")
    paint(page, (14, 20), (40, 20), pixels=(56, 40))
    page.click("#paint [data-mode=hint]")
    page.locator("#paint [name=colour]").fill("#0ac81e")
    page.locator("#paint [name=size]").fill("8")
    paint(page, (20, 20), (26, 20), pixels=(56, 40))
    page.locator("#samples input[type=number]").fill("2")
    fill(page)
    pictures = []
    for sample in ("1", "2"):
        page.locator("#chosen label", has_text=sample).click()
        page.wait_for_function("n => [...document.querySelectorAll('#result a')].some(a => a.href.includes('_inpainted_' + n))", arg=sample)
        download(page, "PNG").save_as(tmp_path / f"{sample}.png")
        pictures.append(open_picture(tmp_path / f"{sample}.png").levels)
    example = page.service.examples[0].pixels
    away = distances(40, 56, (14, 20), (40, 20)) - BRUSH / 200 * 56 / 2
    hint = distances(40, 56, (20, 20), (26, 20)) - 8 / 200 * 56 / 2
    for picture in pictures:
        assert np.array_equal(picture[away > 1], example[away > 1])  # the first stroke was taken back
        assert np.abs(picture[hint < -0.5].astype(int) - (10, 200, 30)).max() <= 2  # strokes have soft edges
    assert not np.array_equal(*pictures)


def kept(page):
    """What the browser keeps for when the page is loaded again: the strokes, and those taken back."""
    return page.evaluate("(({ strokes, undone }) => [strokes.length, undone.length])(JSON.parse(sessionStorage.getItem('strdiffusion')))")


def test_take_back_zoom_masks_reload_and_go_on(visit, tmp_path):
    page = visit()
    page.locator("#examples button").first.click()
    wait_until_open(page, 56, 40)
    paint(page, (10, 20), (20, 20), pixels=(56, 40))
    paint(page, (30, 20), (40, 20), pixels=(56, 40))
    assert kept(page) == [2, 0]
    page.keyboard.press("Control+z")
    assert kept(page) == [1, 1]
    page.keyboard.press("Control+Shift+z")
    page.click("#paint [data-do=clear]")
    assert kept(page) == [3, 0] and page.is_disabled("#paint [data-do=clear]") and page.is_disabled("#paint [data-do=save]")
    page.keyboard.press("Control+z")  # brings back what was cleared
    assert kept(page) == [2, 1] and page.is_enabled("#paint [data-do=clear]")
    # a hint where no hole is has no effect, and that is said
    page.keyboard.press("h")
    paint(page, (10, 35), (40, 35), pixels=(56, 40))
    page.wait_for_selector("#paint .sd-outside:not([hidden])")
    page.keyboard.press("Control+z")
    assert not page.is_visible("#paint .sd-outside")
    # zoomed, the mouse hits the same pixels
    box = page.locator("#paint canvas").bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    page.mouse.wheel(0, -100)
    assert float(page.get_attribute(".sd-paint", "data-zoom")) > 1
    page.keyboard.press("e")
    paint(page, (30, 20), (40, 20), pixels=(56, 40))
    page.keyboard.press("0")
    assert page.get_attribute(".sd-paint", "data-zoom") == "1.00" and kept(page) == [3, 0]
    with page.expect_download() as info:
        page.click("#paint [data-do=save]")
    info.value.save_as(tmp_path / "mask.png")
    mask = np.asarray(Image.open(tmp_path / "mask.png").convert("L"))
    radius = BRUSH / 200 * 56 / 2
    hole = distances(40, 56, (10, 20), (20, 20)) - radius
    assert mask.shape == (40, 56) and (mask[hole < -1] == 255).all() and not mask[hole > 1.5].any()
    # by keys alone: a stroke from the middle to the left
    page.keyboard.press("b")
    page.focus("#paint canvas")
    page.mouse.move(5, 5)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert kept(page) == [4, 0]
    page.keyboard.press("Enter")  # a stroke that is dropped; and one that ends when the keyboard leaves the picture
    page.keyboard.press("Escape")
    assert kept(page) == [4, 0]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert kept(page) == [5, 0]
    page.keyboard.press("Control+z")
    wait_for_text(page, "#cost", "Expected: ")
    choose_fast(page)
    page.keyboard.press("n")
    page.wait_for_function("document.querySelector('#seed input').value !== '0'")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result .sd-compare.sd-small")
    page.wait_for_selector("#run:not([disabled])")
    # loaded again: the same session, picture, strokes and result
    (session,) = page.service.sessions._open.values()
    page.reload()
    page.wait_for_selector("#result .sd-compare")
    wait_until_open(page, 56, 40)
    assert kept(page) == [4, 1] and list(page.service.sessions._open.values()) == [session]
    wait_for_text(page, "#cost", "Expected: ")
    page.click("#paint [data-do=undo]")
    assert kept(page) == [3, 2]
    # go on from the result, with the mask that was saved
    result = open_picture(session.folder / session.results.samples[0].files[0]).levels
    page.locator("#result [data-continue]").click()
    page.wait_for_function("JSON.parse(sessionStorage.getItem('strdiffusion')).number === 2")
    wait_until_open(page, 56, 40)
    assert kept(page) == [0, 0] and np.array_equal(session.photo.open().levels, result)
    page.set_input_files("#paint input[name=mask]", tmp_path / "mask.png")
    wait_for_text(page, "#cost", "Expected: ")
    page.click("#run")
    page.wait_for_selector("#result .sd-compare")
    page.wait_for_selector("#run:not([disabled])")
    again = open_picture(session.folder / session.results.samples[0].files[0]).levels
    assert np.array_equal(again[mask == 0], result[mask == 0]) and (again != result)[mask > 0].any()


def test_a_lost_session_loses_nothing(visit):
    """Nor does a connection that says nothing stay open meanwhile."""
    page = visit(head_time=2)
    silent = socket.create_connection(("127.0.0.1", urlsplit(page.url).port), timeout=15)
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    upload(page, "a.png", encoded(pixels))
    wait_until_open(page, 40, 30)
    paint(page, (10, 10), (20, 20), pixels=(40, 30))
    (key,) = page.service.sessions._open
    page.service.sessions.close(key)
    page.wait_for_function("document.querySelector('.sd-paint').dataset.lost")
    page.wait_for_function("!document.querySelector('.sd-paint').dataset.lost")
    wait_until_open(page, 40, 30)
    wait_for_text(page, "#cost", "Expected: ")
    (session,) = page.service.sessions._open.values()
    assert kept(page) == [1, 0] and np.array_equal(session.photo.open().levels, pixels)
    with silent:
        assert silent.recv(1) == b""


def test_on_a_phone_the_settings_are_below(visit):
    """And the result is between. By keys, all is reached, and nothing opens on the way."""
    page = visit()
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#examples button").first.click()
    wait_until_open(page, 56, 40)
    paint(page, (14, 20), (40, 20), pixels=(56, 40))
    choose_fast(page)
    fill(page)
    tops = [page.evaluate(f"document.querySelector('#{name}').getBoundingClientRect().top") for name in ORDER]
    assert tops == sorted(tops) and len(set(tops)) == len(ORDER)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.focus("#run")
    seen = []
    while "learn" not in seen and len(seen) < 40:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.closest('#model, #preset, #seed, #new-seed, #samples, #learn')?.id"))
        assert page.locator("[role=listbox]").count() == 0
    assert list(dict.fromkeys(filter(None, seen))) == ["model", "preset", "seed", "new-seed", "samples", "learn"]


def test_cancel_and_run_again(visit, monkeypatch):
    page = visit()
    page.locator("#examples button").first.click()
    wait_until_open(page, 56, 40)
    paint(page, (14, 20), (40, 20), pixels=(56, 40))
    after_step = Job._after_step

    def slowly(job, step):
        time.sleep(0.25)
        after_step(job, step)

    with monkeypatch.context() as slow:
        slow.setattr(Job, "_after_step", slowly)
        page.get_by_label("Recommended").check()
        page.click("#run")
        page.wait_for_function("document.querySelectorAll('#status .sd-states img').length === 2")  # texture and structure
        assert page.locator("#run").is_disabled()
        assert page.get_attribute("#status .sd-progress", "aria-valuenow") != "100"
        page.click("#cancel")
        wait_for_text(page, "#status", "Cancelled.")
        assert page.locator("#status [role=alert]").count() == 0  # it was asked for
        page.wait_for_selector("#run:not([disabled])")
        (session,) = page.service.sessions._open.values()
        session.job.join()
        assert page.locator("#cancel").is_disabled()
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#status .sd-states img")
        page.reload()  # ends it, and says so
        wait_for_text(page, "#status", "The page was loaded again, which ended the filling")
        session.job.join()
        wait_until_open(page, 56, 40)
    page.wait_for_timeout(500)
    assert session.results is None and page.locator("#result .sd-compare").count() == 0
    choose_fast(page)
    fill(page)
    assert session.results is not None


def test_bad_uploads_and_no_hole(visit):
    page = visit(megapixels=1, megabytes=1)
    for name, content, said in [
        ("notes.png", b"these are words", "notes.png is not a picture that can be read here"),
        ("wide.png", encoded(np.zeros((1000, 1001, 3), np.uint8)), "wide.png has 1001x1000 pixels, and at most 1 megapixels"),
        ("large.png", bytes(1_100_000), "large.png has 1.1 MB, and at most 1 MB"),
    ]:
        upload(page, name, content)
        wait_for_text(page, "#paint [role=alert]", said)
    assert not page.locator("#paint canvas").is_visible()
    page.locator("#examples button").first.click()
    wait_until_open(page, 56, 40)
    assert not page.locator("#paint [role=alert]").is_visible()
    page.click("#run")
    wait_for_text(page, "#status", "Paint a hole first")
    page.wait_for_selector("#run:not([disabled])")


def drag(page, start, end, pixels):
    """Drag with the mouse from a point (x, y) of the canvas for composing to another; it has `pixels` = (width, height)."""
    box = page.locator("#compose canvas").bounding_box()
    places = [(box["x"] + x / pixels[0] * box["width"], box["y"] + y / pixels[1] * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=5)
    page.mouse.up()


def test_compose_drag_and_paint(visit, tmp_path):
    """Two cut-outs on a blank canvas, one before the other; then one more in a hole of the open picture."""
    page = visit()
    assert not page.locator("#compose canvas").is_visible()
    page.get_by_label("Compose a scene").check()
    wait_for_text(page, "#run", "Paint the scene")
    red, blue = (np.full((16, 16, 4), (*colour, 255), np.uint8) for colour in ((200, 10, 10), (10, 10, 200)))
    files = [("red.png", red), ("flat.png", red[..., :3]), ("blue.png", blue)]
    page.set_input_files(
        "#compose input[type=file]", [{"name": name, "mimeType": "image/png", "buffer": encoded(pixels)} for name, pixels in files]
    )
    page.wait_for_function("document.querySelectorAll('#compose .sd-pool img').length === 2")
    wait_for_text(page, "#compose [role=alert]", "flat.png has no alpha, so it is no cut-out")
    for name, value in (("width", "40"), ("height", "32")):
        page.locator(f"#compose [name={name}]").fill(value)
        page.locator(f"#compose [name={name}]").dispatch_event("change")
    for name, end in (("red.png", (12, 16)), ("blue.png", (16, 16))):
        page.locator(f"#compose .sd-pool img[alt='{name}']").click()  # to the middle, 16 x 16: half of the canvas
        drag(page, (20, 16), end, (40, 32))
    page.click("#compose [data-do=back]")  # blue behind red
    wait_for_text(page, "#cost", "Expected: ")
    page.reload()  # the same scene
    page.wait_for_selector("#compose .sd-compose[data-objects='2']")
    wait_for_text(page, "#run", "Paint the scene")
    wait_for_text(page, "#cost", "Expected: ")
    fill(page)
    download(page, "PNG").save_as(tmp_path / "out.png")
    out = open_picture(tmp_path / "out.png").levels
    assert out.shape == (32, 40, 3)
    assert (out[9:23, 5:19] == (200, 10, 10)).all() and (out[9:23, 21:23] == (10, 10, 200)).all()  # the mouse hits a pixel or two off
    assert (out[:6] != (200, 10, 10)).any() and out[:6].std() > 1
    assert download(page, "composition").suggested_filename == "composition.zip"
    page.click("#compose [data-do=clear]")
    wait_for_text(page, "#cost", "Put a cut-out on the canvas first")
    page.evaluate("document.querySelector('#examples button').click()")  # the gallery of one picture reaches below the canvas
    page.wait_for_function("!document.querySelector('#compose [name=canvas]').options[1].disabled")
    page.locator("#compose [name=canvas]").select_option("picture")
    page.locator("#compose .sd-pool img[alt='red.png']").click()
    wait_for_text(page, "#cost", "Paint a hole into the open picture first")
    page.get_by_label("Fill a hole").check()
    wait_until_open(page, 56, 40)
    paint(page, (20, 20), (40, 20), pixels=(56, 40))
    page.get_by_label("Compose a scene").check()
    wait_for_text(page, "#cost", "Expected: ")
    fill(page)
    download(page, "PNG").save_as(tmp_path / "second.png")
    out, example = open_picture(tmp_path / "second.png").levels, page.service.examples[0].pixels
    assert (out[11:29, 19:37] == (200, 10, 10)).all() and np.array_equal(out[:8], example[:8]) and np.array_equal(out[-8:], example[-8:])


def test_nothing_is_left_when_the_page_is_closed(visit):
    page = visit(away=1)
    root = page.service.sessions.root
    upload(page, "a.png", encoded(np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)))
    wait_until_open(page, 40, 30)
    paint(page, (10, 10), (20, 20), pixels=(40, 30))
    fill(page)
    (folder,) = root.glob("session_*")
    assert len(list(folder.iterdir())) == 6  # picture, preview; result, its preview, structure, trace
    preview = next(folder.glob("preview.png"))
    assert page.request.get(f"{page.url}gradio_api/file={preview}").status == 404  # by the session's own address alone
    page.close()
    end = time.monotonic() + 15
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists()
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_a_method_without_steps_and_a_single_sample_have_a_page(web_service):
    """Gradio refuses a slider with one place."""
    import gradio as gr

    from strdiffusion.app.web.offers import Offers
    from strdiffusion.app.web.page import add_controls

    service = web_service(samples=1)
    service.offers = Offers({"telea": "telea"}, "cpu")
    with gr.Blocks():
        controls = add_controls(service)
    assert controls.steps.minimum == controls.steps.value == 2 and not controls.samples.visible


SLOWLY = """import sys, time
from strdiffusion.app.web.job import Job
from strdiffusion.commands.main import main
after_step = Job._after_step
Job._after_step = lambda job, step: (time.sleep(0.25), after_step(job, step))[1]
sys.exit(main(sys.argv[1:]))"""


def test_the_command_leaves_nothing_either(browser, runs, tmp_path):
    """SIGTERM ends it soon, in the middle of a fill, although a page in a browser is connected; it says nothing of it."""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", SLOWLY, "web", "--model", str(runs), "--device", "cpu"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline()
        assert address.startswith("http://127.0.0.1:"), process.stderr.read()
        assert [path.name.startswith("strdiffusion_web_") for path in tmp_path.iterdir()] == [True]
        with browser.new_page() as page:
            page.goto(address.split()[0])
            page.wait_for_function("document.querySelector('#cost')?.innerText.includes('Open a picture first')")
            upload(page, "a.png", encoded(np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)))
            wait_until_open(page, 40, 30)
            paint(page, (10, 10), (20, 20), pixels=(40, 30))
            page.get_by_label("Recommended").check()
            page.click("#run")
            page.wait_for_selector("#status .sd-states img")
            assert page.locator("#result .sd-compare").count() == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(6) == 0  # on a busy machine; else within two
    finally:
        process.kill()
    assert [line.split()[0] for line in process.stderr.read().splitlines()] == ["model"]  # what was loaded, and no traceback
    assert list(tmp_path.iterdir()) == []
