"""Serving the page."""

import ctypes
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from strdiffusion.app.web.calls import Function
from strdiffusion.app.web.connections import hasten
from strdiffusion.app.web.guard import Guard, Hosts
from strdiffusion.app.web.service import Service
from strdiffusion.app.web.session import Sessions
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

# by default Gradio contacts its makers' servers (analytics, news, fonts) and stores what was done in the browser
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**23  # of glibc's malloc.h, and bytes
THREADS = 40
GRACE = 1  # second in which what is on its way to browsers is finished at the end
SWEEP = 600  # seconds after which Gradio deletes its own files
SWEEP_SESSIONS = 2.0  # seconds between two looks for pages that are gone


def give_back_memory() -> None:
    """Let the C library give large blocks back when they are free: glibc would keep those of decoded pictures, for each thread anew."""
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
    except (OSError, AttributeError, TypeError):  # another C library
        log.debug("memory is given back as the system does", exc_info=True)


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for all uploads and results, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="strdiffusion_web_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve(service: Service, host: str, port: int | None, open_browser: bool = False, allowed_hosts: Collection[str] = ()) -> Iterator[str]:
    """Serve the page while the context is open; yields its address.

    allowed_hosts: names beside `host` under which browsers may ask for it. port: None: the first free one from 7860 on.
    Raises UserError if the port is taken or Gradio is missing.
    """
    sessions = service.sessions
    give_back_memory()
    with environment({**OFFLINE, "GRADIO_TEMP_DIR": str(sessions.root / "gradio")}):
        page = built(service)
        address = launched(page, service, host, port, open_browser, Hosts(host, allowed_hosts))
        hasten(page.server, service.limits.head_time)
        try:
            with swept(sessions):
                yield address
        finally:
            sessions.close_all()  # which cancels what is computed, and ends what pages listen to
            end(page)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables while the context is open."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def built(service: Service):
    """The page as Gradio's Blocks, with a queue. Raises UserError if Gradio is missing."""
    try:
        from strdiffusion.app.web.page import build_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the page needs Gradio, which is not installed: make web, or pip install gradio") from None
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio requests its own address to check that it is up
    page = build_page(service)
    page.queue(max_size=service.limits.sessions, api_open=False)  # inpaintings wait in the service's own line, which is shorter
    page.delete_cache = (SWEEP, SWEEP)
    return page


def launched(page, service: Service, host: str, port: int | None, open_browser: bool, hosts: Hosts) -> str:
    """Begin to serve Blocks behind the guard; returns the address. Raises UserError if the port is taken."""
    import gradio as gr
    from starlette.middleware import Middleware

    from strdiffusion.app.web.page import CSS
    from strdiffusion.app.web.routes import routes

    limits = service.limits
    waits = page._queue.pending_messages_per_session.__contains__
    guard = Middleware(Guard, limits=limits, hosts=hosts, functions=functions_of(page), knows=service.sessions.__contains__, waits=waits)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            css_paths=CSS,
            footer_links=[],
            run_history=False,
            show_error=False,
            enable_monitoring=False,
            max_threads=THREADS + limits.queue,  # each job in the line keeps one
            max_file_size=1,  # pictures are uploaded by a separate route, into the session's folder
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            app_kwargs={"routes": routes(service), "middleware": [guard]},
            ssr_mode=False,
            state_session_capacity=2 * limits.sessions,  # Gradio keeps the last values of as many visits
        )
    except OSError as error:
        raise UserError(f"cannot serve at {host}{f':{port}' if port else ''}: {error}; give another --port or --host") from None
    return address


def end(page) -> None:
    """Stop serving, and do not wait for long: a page in a browser keeps its connections open."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would say how many it has cut off
    page.server.config.timeout_graceful_shutdown = GRACE
    page.close(verbose=False)


def functions_of(page) -> dict[int, Function]:
    """The functions of the page's Blocks that browsers call, as `calls` knows them: those that check what they are given themselves."""
    return {number: Function(len(fn.inputs), bool(fn.queue)) for number, fn in page.fns.items() if not fn.preprocess}


@contextmanager
def swept(sessions: Sessions) -> Iterator[None]:
    """Sessions whose pages are gone end while the context is open."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(SWEEP_SESSIONS):
            sessions.sweep()

    thread = threading.Thread(target=sweep, daemon=True, name="sessions")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
