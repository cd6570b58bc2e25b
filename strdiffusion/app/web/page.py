"""The layout of the page, and the service's action for each button."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from strdiffusion.app import Cancelled
from strdiffusion.app.web import view
from strdiffusion.app.web.offers import CUSTOM
from strdiffusion.app.web.service import NO_PICTURE, Service, Settings, spelled
from strdiffusion.methods.method import Choices
from strdiffusion.system.errors import UserError

HERE = Path(__file__).parent
CSS = HERE / "page.css"
HEAD = """<div class="sd-head"><h1>StrDiffusion</h1><p>Paint over what should go; the hole is filled from its surroundings, structure first.
Or lay cut-outs on a canvas, and a scene is painted around them.</p></div>"""
NO_CHOICES = Choices((), "", 2, 2, (), "")
TOKEN = "() => { try { return [JSON.parse(sessionStorage.getItem('strdiffusion')).token || ''] } catch { return [''] } }"
SCROLL = "() => document.querySelector('#result .sd-result > div')?.scrollIntoView({ behavior: 'smooth', block: 'nearest' })"
PAINT, COMPOSE = "paint", "compose"
MODES = {PAINT: "Fill a hole", COMPOSE: "Compose a scene"}
BUTTONS = {PAINT: "Fill the hole", COMPOSE: "Paint the scene"}
SHOW_MODE = """(mode) => {
  document.body.classList.toggle('sd-composing', mode === 'compose');
  sessionStorage.setItem('strdiffusion mode', mode);
  document.dispatchEvent(new Event('sd-mode'));
}"""
LEFT = "The page was loaded again, which ended the filling: begin it once more."
MOST_SEEDS = 10**6
SIDE = 512  # of a blank canvas, for methods without a size of their own
TAKE_EXAMPLE = """element.addEventListener('click', (event) => {
  const number = event.target.closest('button')?.dataset.number;
  if (number !== undefined) document.dispatchEvent(new CustomEvent('sd-example', { detail: number }));
})"""
# what the browser sends is checked here, in one line for the visitor, and not by Gradio
QUIET = {"show_progress": "hidden", "api_visibility": "private", "preprocess": False}
AT_ONCE = {"queue": False, **QUIET}


@dataclass(frozen=True)
class Work:
    """What is worked on: a picture with its hole, or a scene."""

    mode: gr.Radio
    paint: gr.HTML
    compose: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        return [self.mode, self.paint, self.compose]


@dataclass(frozen=True)
class Actions:
    """The buttons, what is expected before, and the progress."""

    run: gr.Button
    cancel: gr.Button
    cost: gr.HTML
    status: gr.HTML

    @property
    def buttons(self) -> list[Any]:
        return [self.run, self.cancel]


@dataclass(frozen=True)
class Controls:
    """The settings. custom: the group that is shown for a sampler of one's own."""

    model: gr.Radio
    preset: gr.Radio
    custom: gr.Group
    solver: gr.Radio
    steps: gr.Slider
    resampling: gr.Radio
    seed: gr.Number
    new_seed: gr.Button
    samples: gr.Slider
    learn: gr.Slider

    @property
    def inputs(self) -> list[Any]:
        """In the order of Settings."""
        return [self.model, self.preset, self.solver, self.steps, self.resampling, self.seed, self.samples, self.learn]

    @property
    def of_the_model(self) -> list[Any]:
        """What another model changes."""
        return [self.model, self.preset, self.custom, self.solver, self.steps, self.resampling]


@dataclass(frozen=True)
class Outcome:
    """The result, and which of several samples is shown."""

    chosen: gr.Radio
    result: gr.HTML


def build_page(service: Service) -> gr.Blocks:
    """The page as Gradio's Blocks. It offers no API."""
    with gr.Blocks(title="StrDiffusion", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(HEAD)
        with gr.Column(elem_id="parts"):  # page.css has their order on a phone
            with gr.Row(equal_height=False, elem_id="above"):
                with gr.Column(scale=5, min_width=320, elem_id="work"):
                    work = add_work(service)
                with gr.Column(scale=3, min_width=300, elem_id="side"):
                    with gr.Column(elem_id="actions"):
                        actions = add_actions()
                    with gr.Column(elem_id="settings"):
                        controls = add_controls(service)
            with gr.Column(elem_id="outcome"):
                outcome = Outcome(
                    gr.Radio([], label="Sample", visible=False, elem_id="chosen"), gr.HTML(elem_id="result", apply_default_css=False)
                )
        connect(page, _Handlers(service), work, actions, controls, outcome)
    return page


def add_work(service: Service) -> Work:
    """The examples, the choice of the mode, and the canvas of each mode."""
    model = service.offers[service.offers.names[0]].model
    gr.HTML(view.examples(service.examples), js_on_load=TAKE_EXAMPLE, apply_default_css=False, elem_id="examples")
    mode = gr.Radio(choices(MODES), value=PAINT, show_label=False, container=False, elem_id="mode")
    known: dict[str, Any] = {"token": None, "picture": None, "number": 0, "megabytes": service.limits.megabytes}
    side = min(2 * (model.size or SIDE // 2), SIDE)
    return Work(mode, canvas(PAINT, **known), canvas(COMPOSE, size=None, pool=[], side=side, **known))


def canvas(name: str, **known: Any) -> gr.HTML:
    """The canvas of a mode: its HTML and JavaScript, and what the script knows from the server."""
    markup, script = ((HERE / f"{name}.{suffix}").read_text("utf-8") for suffix in ("html", "js"))
    return gr.HTML(None, html_template=markup, js_on_load=script, apply_default_css=False, elem_id=name, **known)


def add_actions() -> Actions:
    with gr.Row():
        run = gr.Button(BUTTONS[PAINT], variant="primary", elem_id="run", scale=2, min_width=150)
        cancel = gr.Button("Cancel", elem_id="cancel", interactive=False, min_width=90)
    return Actions(run, cancel, gr.HTML(elem_classes="sd-cost", elem_id="cost"), gr.HTML(elem_id="status"))


def add_controls(service: Service) -> Controls:
    """The settings, at first those of the first model. Radio buttons, because Gradio's lists stay open when the keyboard has left them."""
    first, limits = service.offers[service.offers.names[0]], service.limits
    own, presets = first.choices or NO_CHOICES, first.presets()
    model = gr.Radio(service.offers.names, value=first.name, label="Model", info=first.seen or None, elem_id="model")
    preset = gr.Radio(choices(presets), value=next(iter(presets)), label="Sampler", elem_id="preset")
    with gr.Group(visible=False) as custom:
        solver = gr.Radio(list(own.solvers), value=own.solver or None, label="Solver", elem_id="solver")
        steps = gr.Slider(2, max(own.most_steps, 3), value=own.steps, step=1, label="Steps", elem_id="steps")  # Gradio needs two places
        resampling = gr.Radio(list(own.resamplings), value=own.resampling or None, label="Resampling", elem_id="resampling")
    with gr.Row():
        with gr.Column(min_width=140):
            seed = gr.Number(0, precision=0, label="Seed", elem_id="seed", info="The same seed, the same result")
            new_seed = gr.Button("New seed", size="sm", elem_id="new-seed")
        several = dict(visible=limits.samples > 1, info="Alternatives")
        samples = gr.Slider(1, max(limits.samples, 2), value=1, step=1, label="Samples", min_width=140, elem_id="samples", **several)
    label, info = "Learn from the picture first (minutes)", "For a picture unlike those that the model knows"
    learn = gr.Slider(0, limits.minutes, value=0, step=1, label=label, elem_id="learn", info=info)
    return Controls(model, preset, custom, solver, steps, resampling, seed, new_seed, samples, learn)


def connect(page: gr.Blocks, handlers: "_Handlers", work: Work, actions: Actions, controls: Controls, outcome: Outcome) -> None:
    """Which event calls which handler."""
    paint, compose, status, shown = work.paint, work.compose, actions.status, [outcome.chosen, outcome.result]
    inputs, buttons = [*work.inputs, *controls.inputs], actions.buttons
    estimate = {"fn": handlers.expected, "inputs": inputs, "outputs": actions.cost, "trigger_mode": "always_last", **AT_ONCE}
    opened = [paint, compose, actions.cost, status, *shown]
    arriving = {"fn": handlers.arrive, "inputs": [work.mode], "outputs": opened, "js": TOKEN, **AT_ONCE}
    page.load(**arriving)
    paint.submit(**arriving)
    paint.upload(handlers.take_upload, None, opened, **AT_ONCE)
    paint.input(**estimate)
    compose.input(**estimate)
    work.mode.input(None, work.mode, None, js=SHOW_MODE)
    work.mode.input(handlers.change_mode, work.mode, actions.run, **AT_ONCE).then(**estimate)

    controls.model.input(handlers.change_model, controls.model, controls.of_the_model, **AT_ONCE).then(**estimate)
    controls.preset.input(lambda preset: gr.update(visible=preset == CUSTOM), controls.preset, controls.custom, **AT_ONCE)
    controls.new_seed.click(lambda: secrets.randbelow(MOST_SEEDS), None, controls.seed, **AT_ONCE).then(**estimate)
    for control in controls.inputs[1:]:
        (control.release if isinstance(control, gr.Slider) else control.input)(**estimate)

    begin = actions.run.click(handlers.begin, None, [status, *buttons], **AT_ONCE)
    working = begin.then(handlers.run, inputs, [status, *shown], concurrency_limit=None, **QUIET)
    working.then(handlers.end, None, buttons, **AT_ONCE).then(**estimate)
    working.success(None, None, None, js=SCROLL)
    actions.cancel.click(handlers.cancel, None, [status, *buttons], **AT_ONCE)
    outcome.chosen.input(handlers.show, outcome.chosen, outcome.result, **AT_ONCE)


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
            return gr.skip(), gr.skip(), gr.skip(), view.message(spelled(error), "error"), gr.skip(), gr.skip()
        cost = view.message(NO_PICTURE) if photo is None else gr.skip()
        status = view.message(LEFT) if self.service.left(key) else gr.skip()
        return gr.HTML(**paint), gr.HTML(**compose), cost, status, *shown

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
            gr.update(info=offer.seen),
            gr.Radio(choices(labels), value=next(iter(labels))),
            gr.update(visible=False),
            gr.Radio(list(own.solvers), value=own.solver or None),
            gr.Slider(maximum=max(own.most_steps, 3), value=own.steps),
            gr.Radio(list(own.resamplings), value=own.resampling or None),
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
