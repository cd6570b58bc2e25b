"""Progress and results as HTML. Text from visitors is escaped."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from strdiffusion.app import Picture
from strdiffusion.app.web.composing import Cutout
from strdiffusion.app.web.job import Glimpse
from strdiffusion.app.web.photo import Example, as_png
from strdiffusion.app.web.results import Results

SMALL = 200  # pixels
SIDE = 256  # pixels, of the intermediate pictures


def address(token: str, name: str, download: str | None = None) -> str:
    """The address of a session's file. It is relative, so that the page also works behind a URL prefix."""
    return f"session/{token}/{name}" + (f"?as={quote(download)}" if download else "")


def cutout(token: str, one: Cutout) -> dict:
    """A cut-out as compose.js takes it."""
    height, width = one.size
    return {"number": one.number, "name": one.name, "width": width, "height": height, "address": address(token, one.preview)}


def examples(given: Sequence[Example]) -> str:
    """The examples as buttons with their pictures."""
    pictures = (f'<img alt="{escape(Path(one.name).stem)}" src="{data_url(one.pixels)}">' for one in given)
    buttons = "".join(f'<button type="button" data-number="{i}">{picture}</button>' for i, picture in enumerate(pictures))
    return f'<div class="sd-examples" role="group" aria-label="examples: click one to open it">{buttons}</div>' if given else ""


def small(width: int, height: int) -> str:
    """The class of a picture of so few pixels that each is shown as a square."""
    return " sd-small" if max(width, height) < SMALL else ""


def message(text: str, kind: str = "note") -> str:
    """A line of text. One of kind "error" is announced by screen readers."""
    return f'<p class="sd-{kind}" role="{"alert" if kind == "error" else "status"}">{escape(text)}</p>'


def spell_time(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def spell_duration(least: float, most: float) -> str:
    """The range from the least to the most seconds."""
    first, last = spell_time(least), spell_time(most)
    if first == last:
        return first if least < 1 else f"about {first}"
    return f"{first} to {last}"


def progress(glimpse: Glimpse, samples: int, seconds: float) -> str:
    """The progress of a job, with the states of texture and structure side by side."""
    percent = round(100 * glimpse.done)
    if glimpse.ahead:
        return message(f"Waiting for its turn: {glimpse.ahead} before this one.")
    said = "learning from the picture" if glimpse.learning else "beginning" if glimpse.t is None else f"t = {glimpse.t}"
    if glimpse.windows > 1:
        said += f", window {glimpse.number + 1} of {glimpse.windows}"
    if samples > 1 and glimpse.t is not None:
        said += f", sample {glimpse.sample + 1} of {samples}"
    if glimpse.done > 0.05:
        said += f", {spell_time(seconds * (1 - glimpse.done) / glimpse.done)} left"
    states = [("By now it would fill" if glimpse.learning else "Texture", glimpse.texture), ("Structure", glimpse.structure)]
    figures = "".join(
        f'<figure><img alt="" class="{small(*levels.shape[1::-1])}" src="{data_url(levels)}"><figcaption>{label}</figcaption></figure>'
        for label, levels in states
        if levels is not None
    )
    return (
        f'<div class="sd-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}">'
        f'<div style="width:{percent}%"></div></div><p class="sd-note">{percent} %, {said}</p>'
        f'<div class="sd-states">{figures}</div>'
    )


def data_url(levels: np.ndarray) -> str:
    """A small picture as a data URL: every n-th pixel of the given one."""
    step = -(-max(levels.shape[:2]) // SIDE)
    small = levels[::step, ::step]
    return "data:image/png;base64," + base64.b64encode(as_png(Picture(small if small.ndim == 3 else small[..., None]))).decode()


def finished(results: Results, chosen: int, token: str, before: str) -> str:
    """A slider between before and after, the structure, the trace, and the downloads. before: the preview's address."""
    sample = results.samples[chosen]
    height, width = results.photo.preview
    stem = Path(results.photo.name).stem
    number = f"_{chosen + 1}" if len(results.samples) > 1 else ""
    lossless = address(token, sample.files[-1])
    keep_on = f"{stem}{Path(sample.files[-1]).suffix}"
    links = (
        f'<button type="button" class="sd-button" data-continue data-address="{lossless}" data-name="{escape(keep_on)}"'
        " onclick=\"document.dispatchEvent(new CustomEvent('sd-continue', { detail: this.dataset }))\">Go on from this result</button>"
    )
    links += "".join(
        f'<a class="sd-button" download href="{address(token, name, f"{stem}_inpainted{number}{Path(name).suffix}")}">'
        f"Download {Path(name).suffix[1:].upper().replace('JPG', 'JPEG')}</a>"
        for name in sample.files
    )
    if results.bundle is not None:
        links += f'<a class="sd-button" download href="{address(token, results.bundle, f"{stem}.zip")}">Download the composition</a>'
    lossy = " (JPEG compresses the whole picture again; the PNG keeps every pixel outside of the hole)"
    full = results.photo.size
    compare = (
        f'<div class="sd-compare{small(width, height)}" style="--at:50%;--ratio:{width}/{height};--shape:{width / height:.4f}">'
        f'<img alt="before" src="{before}"><img class="sd-after" alt="after" src="{address(token, sample.preview)}">'
        '<span class="sd-tag">before</span><span class="sd-tag sd-right">after</span><span class="sd-line"></span>'
        '<input type="range" min="0" max="100" value="50" aria-label="before and after"'
        " oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\"></div>"
    )
    metadata = "" if results.bundle is not None else ", with the metadata of the original"
    said = (
        f'<p class="sd-links">{links}</p><p class="sd-note">{full[1]}x{full[0]} pixels{metadata}'
        f"{lossy if len(sample.files) > 1 else ''}. {escape(results.settings)}; it took {spell_time(results.seconds)}.</p>"
    )
    pictures = [("Structure that guided, with its noise", sample.structure, "sd-structure"), ("Resampling", sample.trace, "sd-trace")]
    figures = "".join(
        f'<figure class="{kind}{small(width, height)}"><figcaption>{label}</figcaption>'
        f'<img alt="{label}" src="{address(token, name)}"></figure>'
        for label, name, kind in pictures
        if name is not None
    )
    return f'<div class="sd-result"><div>{compare}{said}</div><div class="sd-more">{figures}</div></div>'
