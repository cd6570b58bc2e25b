"""The layout of the page, and the service's action for each button."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from strdiffusion.app import Cancelled
from strdiffusion.app.web import view
from strdiffusion.app.web.offers import CUSTOM
from strdiffusion.app.web.service import Service, Settings, spelled
from strdiffusion.methods.method import Choices
from strdiffusion.system.errors import UserError

HERE = Path(__file__).parent
CSS = HERE / "page.css"
NO_CHOICES = Choices((), "", 2, 2, (), "")
TOKEN = "() => { try { return [JSON.parse(sessionStorage.getItem('strdiffusion')).token || ''] } catch { return [''] } }"
SCROLL = "() => document.querySelector('#result .sd-compare')?.scrollIntoView({ behavior: 'smooth', block: 'nearest' })"
PAINT, COMPOSE = "paint", "compose"
MODES = {PAINT: "Fill a hole", COMPOSE: "Compose a scene"}
BUTTONS = {PAINT: "Fill the hole", COMPOSE: "Paint the scene"}
SHOW_MODE = """(mode) => {
  document.body.classList.toggle('sd-composing', mode === 'compose');
  document.dispatchEvent(new Event('sd-mode'));
}"""
MOST_SEEDS = 10**6
SIDE = 512  # of a blank canvas, for methods without a size of their own
TAKE_EXAMPLE = """element.addEventListener('click', (event) => {
  const number = event.target.closest('button')?.dataset.number;
  if (number !== undefined) document.dispatchEvent(new CustomEvent('sd-example', { detail: number }));
})"""
# what the browser sends is checked here, in one line for the visitor, and not by Gradio
QUIET = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
AT_ONCE = {"queue": False, **QUIET}


def build_page(service: Service) -> gr.Blocks:
    """The page as Gradio's Blocks. It offers no API."""
    handlers = _Handlers(service)
    first = service.offers[service.offers.names[0]]
    own = first.choices or NO_CHOICES
    with gr.Blocks(title="StrDiffusion", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(
            '<div class="sd-head"><h1>StrDiffusion</h1><p>Paint over what should go; the hole is filled from its surroundings, '
            "structure first. Or lay cut-outs on a canvas, and a scene is painted around them.</p></div>"
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="work"):
                gr.HTML(view.examples(service.examples), js_on_load=TAKE_EXAMPLE, apply_default_css=False, elem_id="examples")
                mode = gr.Radio(choices(MODES), value=PAINT, show_label=False, container=False, elem_id="mode")
                paint = gr.HTML(
                    None,
                    html_template=(HERE / "paint.html").read_text("utf-8"),
                    js_on_load=(HERE / "paint.js").read_text("utf-8"),
                    apply_default_css=False,
                    elem_id="paint",
                    token=None,
                    picture=None,
                    number=0,
                    megabytes=service.limits.megabytes,
                )
                compose = gr.HTML(
                    None,
                    html_template=(HERE / "compose.html").read_text("utf-8"),
                    js_on_load=(HERE / "compose.js").read_text("utf-8"),
                    apply_default_css=False,
                    elem_id="compose",
                    token=None,
                    picture=None,
                    number=0,
                    size=None,
                    pool=[],
                    side=min(2 * (first.model.size or SIDE // 2), SIDE),
                    megabytes=service.limits.megabytes,
                )
            with gr.Column(scale=3, min_width=300, elem_id="side"):
                model = gr.Dropdown(service.offers.names, value=first.name, label="Model", info=first.seen or None, elem_id="model")
                preset = gr.Radio(choices(first.presets()), value=next(iter(first.presets())), label="Sampler", elem_id="preset")
                with gr.Group(visible=False) as custom:
                    solver = gr.Dropdown(list(own.solvers), value=own.solver or None, label="Solver", elem_id="solver")
                    steps = gr.Slider(2, own.most_steps, value=own.steps, step=1, label="Steps", elem_id="steps")
                    resampling = gr.Dropdown(list(own.resamplings), value=own.resampling or None, label="Resampling", elem_id="resampling")
                with gr.Row():
                    with gr.Column(min_width=140):
                        seed = gr.Number(0, precision=0, label="Seed", elem_id="seed", info="The same seed, the same result")
                        new_seed = gr.Button("New seed", size="sm", elem_id="new-seed")
                    samples = gr.Slider(
                        1, service.limits.samples, value=1, step=1, label="Samples", min_width=140, elem_id="samples", info="Alternatives"
                    )
                learn = gr.Slider(
                    0,
                    service.limits.minutes,
                    value=0,
                    step=1,
                    label="Learn from the picture first (minutes)",
                    elem_id="learn",
                    info="For a picture unlike those that the model knows",
                )
                with gr.Column(elem_id="actions"):
                    cost = gr.HTML(elem_classes="sd-cost", elem_id="cost")
                    with gr.Row():
                        run = gr.Button(BUTTONS[PAINT], variant="primary", elem_id="run", scale=2, min_width=150)
                        cancel = gr.Button("Cancel", elem_id="cancel", interactive=False, min_width=90)
                    status = gr.HTML(elem_id="status")
        chosen = gr.Radio([], label="Sample", visible=False, elem_id="chosen")
        result = gr.HTML(elem_id="result", apply_default_css=False)

        settings: list[Any] = [model, preset, solver, steps, resampling, seed, samples, learn]
        task: list[Any] = [mode, paint, compose]
        estimate = {"fn": handlers.expected, "inputs": [*task, *settings], "outputs": cost, "trigger_mode": "always_last", **AT_ONCE}
        opened = [paint, compose, cost, status, chosen, result]
        arriving = {"fn": handlers.arrive, "inputs": [mode], "outputs": [paint, compose, status, chosen, result], "js": TOKEN, **AT_ONCE}
        page.load(**arriving)
        paint.submit(**arriving)
        paint.upload(handlers.take_upload, None, opened, **AT_ONCE)
        paint.input(**estimate)
        compose.input(**estimate)
        mode.input(None, mode, None, js=SHOW_MODE)
        mode.input(handlers.change_mode, mode, run, **AT_ONCE).then(**estimate)
        model.input(handlers.change_model, model, [model, preset, custom, solver, steps, resampling], **AT_ONCE).then(**estimate)
        preset.input(lambda preset: gr.update(visible=preset == CUSTOM), preset, custom, **AT_ONCE)
        new_seed.click(lambda: secrets.randbelow(MOST_SEEDS), None, seed, **AT_ONCE).then(**estimate)
        for control in settings[1:]:
            (control.release if isinstance(control, gr.Slider) else control.input)(**estimate)

        buttons = [run, cancel]
        begin = run.click(handlers.begin, None, [status, *buttons], **AT_ONCE)
        work = begin.then(handlers.run, [*task, *settings], [status, chosen, result], concurrency_limit=None, **QUIET)
        work.then(handlers.end, None, buttons, **AT_ONCE).then(**estimate)
        work.success(None, None, None, js=SCROLL)
        cancel.click(handlers.cancel, None, [status, *buttons], **AT_ONCE)
        chosen.input(handlers.show, chosen, result, **AT_ONCE)
    return page


def choices(labels: dict[str, str]) -> list[tuple[str, str]]:
    """Labels by name as Gradio's choices: pairs (label, name)."""
    return [(label, name) for name, label in labels.items()]


def choose_sample(samples: int) -> gr.Radio:
    """What chooses one of several samples."""
    return gr.Radio([(str(i + 1), i) for i in range(samples)], value=0, visible=samples > 1)


def in_mode(mode: str, arranged: object) -> object:
    """What was arranged, in the mode for composing; None in the other."""
    return None if mode != COMPOSE else {} if arranged is None else arranged


class _Handlers:
    """The handlers of events. A visit's key is Gradio's session hash."""

    def __init__(self, service: Service):
        self.service = service

    def arrive(self, request: gr.Request, token: object):
        """Open a session, or take up the one of this token, which the page had before it was loaded again."""
        key = request.session_hash
        try:
            token, pool, photo = self.service.arrive(key, token if isinstance(token, str) else "")
            paint, compose = {"token": token}, {"token": token, "pool": pool}
            if photo is not None:
                picture = {"picture": self.service.preview_address(key), "number": photo.number}
                paint, compose = paint | picture, compose | picture | {"size": photo.size[::-1]}
            results = self.service.sessions[key].results
            shown = (gr.skip(), gr.skip()) if results is None else (choose_sample(len(results.samples)), self.service.show(key))
        except Exception as error:
            return gr.skip(), gr.skip(), view.message(spelled(error), "error"), gr.skip(), gr.skip()
        return gr.HTML(**paint), gr.HTML(**compose), gr.skip(), *shown

    def change_mode(self, mode: object):
        return gr.Button(BUTTONS[COMPOSE if mode == COMPOSE else PAINT])

    def take_upload(self, request: gr.Request):
        try:
            photo = self.service.sessions[request.session_hash].photo
            picture = self.service.preview_address(request.session_hash)
        except Exception as error:
            return gr.skip(), gr.skip(), gr.skip(), view.message(spelled(error), "error"), gr.skip(), gr.skip()
        said = f"{photo.name}, {photo.size[1]}x{photo.size[0]} pixels. Now paint over what should be replaced."
        paint = gr.HTML(picture=picture, number=photo.number, value=None)
        compose = gr.HTML(picture=picture, number=photo.number, size=photo.size[::-1])
        return paint, compose, view.message(said), "", gr.Radio(visible=False), ""

    def expected(self, request: gr.Request, mode: str, painted: object, arranged: object, *settings) -> str:
        try:
            return view.message(self.service.expected(request.session_hash, painted, Settings.read(settings), in_mode(mode, arranged)))
        except Exception as error:
            return view.message(spelled(error))

    def change_model(self, name: object):
        try:
            offer = self.service.offers[name]
        except UserError:
            return (gr.skip(),) * 6
        own, labels = offer.choices or NO_CHOICES, offer.presets()
        return (
            gr.update(info=offer.seen or None),
            gr.Radio(choices(labels), value=next(iter(labels))),
            gr.update(visible=False),
            gr.Dropdown(list(own.solvers), value=own.solver or None),
            gr.Slider(maximum=own.most_steps, value=own.steps),
            gr.Dropdown(list(own.resamplings), value=own.resampling or None),
        )

    def begin(self):
        return view.message("Beginning."), gr.Button(interactive=False), gr.Button(interactive=True)

    def run(self, request: gr.Request, mode: str, painted: object, arranged: object, *settings) -> Iterator[tuple]:
        key = request.session_hash
        try:
            chosen = Settings.read(settings)
            for progress in self.service.run(key, painted, chosen, in_mode(mode, arranged)):
                yield progress, gr.skip(), gr.skip()
            yield "", choose_sample(chosen.samples), self.service.show(key)
        except Cancelled as error:  # requested by the visitor, so not an error
            yield view.message(spelled(error)), gr.skip(), gr.skip()
        except Exception as error:
            yield view.message(spelled(error), "error"), gr.skip(), gr.skip()

    def end(self):
        return gr.Button(interactive=True), gr.Button(interactive=False)

    def cancel(self, request: gr.Request):
        try:
            self.service.cancel(request.session_hash)
        except Exception as error:
            return view.message(spelled(error), "error"), *self.end()
        return view.message("Cancelled."), *self.end()

    def show(self, request: gr.Request, sample: object) -> str:
        try:
            if not isinstance(sample, int):
                raise UserError("There is no such sample.")
            return self.service.show(request.session_hash, sample)
        except Exception as error:
            return view.message(spelled(error), "error")
