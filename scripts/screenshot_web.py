"""Take the picture of the page in docs/photographs.md: an example, a painted hole, and the result.

    python scripts/screenshot_web.py docs/web.png --model weights/benchmark

Needs Gradio and Playwright (pip install -r requirements-web.txt) and a Chromium of the system.
"""

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import strdiffusion.system.start  # noqa: F401  first, for Ctrl-C while the rest is imported
from strdiffusion.commands.web import example_streets, model_sources
from strdiffusion.system.cli import DEFAULT_MODEL, OneLineParser, exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDTH, HEIGHT = 1280, 900
STROKES = [
    [
        (0.56, 0.48),
        (0.64, 0.42),
        (0.74, 0.48),
        (0.78, 0.60),
        (0.74, 0.69),
        (0.56, 0.69),
        (0.52, 0.60),
        (0.56, 0.48),
        (0.65, 0.52),
        (0.66, 0.62),
    ],
    [(0.655, 0.60), (0.655, 0.94)],
]  # over the tree of EXAMPLE
EXAMPLE = 4


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="FILE", help="the PNG to write; one that exists is replaced")
    parser.add_argument("--model", action="append", default=[], metavar="[NAME=]FOLDER", help=f"as of strdiffusion web ({DEFAULT_MODEL})")
    parser.add_argument("--sampler", default="Recommended", help="the first words of a sampler's label (Recommended)")
    parser.add_argument("--seconds", type=int, default=600, help="how long to wait for the result (600)")
    options = parser.parse_args(arguments)
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        raise UserError(f"no Chromium: install one of {', '.join(BROWSERS)}")

    from playwright.sync_api import sync_playwright

    from strdiffusion.app.web.limits import Limits
    from strdiffusion.app.web.offers import Offers
    from strdiffusion.app.web.server import serve, working_folder
    from strdiffusion.app.web.service import Service
    from strdiffusion.app.web.session import Sessions

    limits = Limits()
    with working_folder() as root, sync_playwright() as playwright:
        offers = Offers(model_sources(options.model))
        service = Service(Sessions(root, limits), offers, example_streets(offers[offers.names[0]].model.size), limits)
        with serve(service, "127.0.0.1", None) as address:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(address)
            paint_and_fill(page, options.sampler, options.seconds)
            shot = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            browser.close()
    content = io.BytesIO()
    shot.convert("RGB").save(content, "PNG", optimize=True)
    write_atomically(options.output, content.getvalue(), durable=True)
    print(f"{options.output}: {shot.width}x{shot.height}, {options.output.stat().st_size / 1000:.0f} kB")


def paint_and_fill(page, sampler: str, seconds: int) -> None:
    """Open an example, paint over its tree, and wait for the result."""
    page.wait_for_selector("#examples img")
    page.wait_for_timeout(1000)
    page.locator("#examples button").nth(EXAMPLE).click()
    page.wait_for_selector('.sd-paint[data-ready="yes"]')
    page.locator("#paint [name=size]").fill("34")
    box = page.locator("#paint canvas").bounding_box()
    for stroke in STROKES:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
    page.mouse.move(5, 5)
    page.locator("#preset label", has_text=sampler).click()
    page.wait_for_function("document.querySelector('#cost').innerText.includes('Expected: ')")
    page.click("#run")
    page.wait_for_selector("#result .sd-compare", timeout=1000 * seconds)
    page.wait_for_selector("#run:not([disabled])")
    page.evaluate("const slider = document.querySelector('#result input'); slider.value = 30; slider.dispatchEvent(new Event('input'))")
    page.wait_for_function("[...document.querySelectorAll('#result img')].every(i => i.complete)")
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(800)


if __name__ == "__main__":
    sys.exit(main())
