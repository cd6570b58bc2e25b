"""Serving the page, and the files of each session."""

import asyncio
import ctypes
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from strdiffusion.app.web import view
from strdiffusion.app.web.calls import Function
from strdiffusion.app.web.connections import hasten
from strdiffusion.app.web.guard import Guard, Hosts
from strdiffusion.app.web.job import Busy
from strdiffusion.app.web.service import Service
from strdiffusion.app.web.session import ENDED, Session, Sessions
from strdiffusion.system.errors import UserError

log = logging.getLogger(__name__)

# by default Gradio contacts its makers' servers (analytics, news, fonts) and stores what was done in the browser
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 2**23  # of glibc's malloc.h, and bytes
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
THREADS = 40
MOST_LISTENERS = 4  # of a session: a page that reconnects may be counted twice for a while
SWEEP = 600  # seconds after which Gradio deletes its own files
SWEEP_SESSIONS = 2.0  # seconds between two looks for pages that are gone
BEAT, LOOK = 15.0, 0.5  # seconds between two lines to a page that listens, and between two looks whether its session has ended


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
    sessions, limits = service.sessions, service.limits
    before = {name: os.environ.get(name) for name in (*OFFLINE, "GRADIO_TEMP_DIR")}
    give_back_memory()
    os.environ.update(OFFLINE, GRADIO_TEMP_DIR=str(sessions.root / "gradio"))
    try:
        import gradio as gr
        from starlette.middleware import Middleware

        from strdiffusion.app.web.page import CSS, build_page

        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio requests its own address to check that it is up
        page = build_page(service)
        page.queue(max_size=limits.sessions, api_open=False)  # inpaintings wait in the service's own line, which is shorter
        page.delete_cache = (SWEEP, SWEEP)
        hosts, functions = Hosts(host, allowed_hosts), functions_of(page)
        waits = page._queue.pending_messages_per_session.__contains__
        guard = Middleware(Guard, limits=limits, hosts=hosts, functions=functions, knows=sessions.__contains__, waits=waits)
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
        hasten(page.server, limits.head_time)
        try:
            with swept(sessions):
                yield address
        finally:
            sessions.close_all()  # which ends what pages listen to, and so does not hold up the server
            page.close(verbose=False)
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise UserError("the page needs Gradio, which is not installed: make web, or pip install gradio") from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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


def routes(service: Service) -> list:
    """The routes of a session's files: pictures are uploaded, previews and results downloaded, and the page says that it is there.

    Access needs the session's secret token.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    sessions = service.sessions

    def taking(take: Callable[[Session, Path, str], object]):
        """A route that writes the request's body to a file and gives it to `take`, with the name that the browser says."""

        async def upload(request) -> Response:
            try:
                session = sessions.with_token(request.path_params["token"])
                path = session.new_file()
            except UserError as error:
                return PlainTextResponse(str(error), 404)
            if not session.sending.acquire(blocking=False):
                return PlainTextResponse("Another file is on its way: wait until it is there.", 409)
            try:
                with path.open("wb") as file:
                    async for chunk in request.stream():
                        file.write(chunk)
                name = unquote(request.headers.get("x-name", "picture"))
                answer = await run_in_threadpool(take, session, path, name)
            except UserError as error:
                return PlainTextResponse(str(error), 503 if isinstance(error, Busy) else 422)
            except BaseException:  # too large, or the browser has disconnected
                path.unlink(missing_ok=True)
                raise
            finally:
                session.sending.release()
            return PlainTextResponse("ok") if answer is None else JSONResponse(answer)

        return upload

    def open_picture(session: Session, path: Path, name: str) -> None:
        session.open_upload(path, name)

    def add_cutout(session: Session, path: Path, name: str) -> dict:
        return view.cutout(session.token, session.add_cutout(path, name))

    async def open_example(request) -> Response:
        try:
            key = sessions.key_of(request.path_params["token"])
            await run_in_threadpool(service.open_example, key, request.path_params["number"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        return PlainTextResponse("ok")

    async def listen(request) -> Response:
        try:
            session = sessions.with_token(request.path_params["token"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)

        async def beats() -> AsyncIterator[str]:
            session.listen()
            try:
                while not session.closed:
                    yield ": here\n\n"
                    end = asyncio.get_running_loop().time() + BEAT
                    while not session.closed and asyncio.get_running_loop().time() < end:
                        await asyncio.sleep(LOOK)
            finally:
                session.lose()

        if session.listeners >= MOST_LISTENERS:
            return PlainTextResponse("This page is open too often.", 409)
        return StreamingResponse(beats(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def download(request) -> Response:
        name = request.path_params["name"]
        try:
            folder = sessions.with_token(request.path_params["token"]).folder
        except UserError:
            return PlainTextResponse(ENDED, 404)
        path = folder / Path(name).name
        if path.name.startswith("picture_") or not path.is_file():
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(path, headers=PRIVATE, filename=request.query_params.get("as"))

    return [
        Route("/session/{token}/picture", taking(open_picture), methods=["POST"]),
        Route("/session/{token}/cutout", taking(add_cutout), methods=["POST"]),
        Route("/session/{token}/example/{number:int}", open_example, methods=["POST"]),
        Route("/session/{token}/alive", listen, methods=["GET"]),
        Route("/session/{token}/{name}", download, methods=["GET"]),
    ]
