"""Serving the page, and the files of each session."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from strdiffusion.app.web import view
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.service import Service
from strdiffusion.app.web.session import ENDED, Session, Sessions
from strdiffusion.system.errors import UserError

# by default Gradio contacts its makers' servers (analytics, news, fonts) and stores what was done in the browser
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
THREADS = 40
SWEEP = 600  # seconds after which Gradio deletes its own files


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for all uploads and results, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="strdiffusion_web_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve(service: Service, host: str, port: int | None, open_browser: bool = False) -> Iterator[str]:
    """Serve the page while the context is open; yields its address.

    port: None: the first free one from 7860 on. Raises UserError if the port is taken or Gradio is missing.
    """
    sessions, limits = service.sessions, service.limits
    before = {name: os.environ.get(name) for name in (*OFFLINE, "GRADIO_TEMP_DIR")}
    os.environ.update(OFFLINE, GRADIO_TEMP_DIR=str(sessions.root / "gradio"))
    try:
        import gradio as gr
        from starlette.middleware import Middleware

        from strdiffusion.app.web.page import CSS, build_page

        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio requests its own address to check that it is up
        page = build_page(service)
        page.queue(max_size=limits.sessions, api_open=False)  # inpaintings wait in the service's own line, which is shorter
        page.delete_cache = (SWEEP, SWEEP)
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
                app_kwargs={"routes": routes(sessions), "middleware": [Middleware(LimitBody, limits=limits)]},
            )
        except OSError as error:
            raise UserError(f"cannot serve at {host}{f':{port}' if port else ''}: {error}; give another --port or --host") from None
        try:
            yield address
        finally:
            page.close(verbose=False)
            sessions.close_all()
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


class LimitBody:
    """ASGI middleware: refuse requests larger than the limit of an upload."""

    def __init__(self, app, limits: Limits):
        self.app, self.limits = app, limits

    async def __call__(self, scope, receive, send) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answered = False
        taken = 0

        async def limited_receive():
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limits.bytes:
                raise _TooLarge
            return message

        async def noted_send(message):
            nonlocal answered
            answered = True
            await send(message)

        try:
            if int(dict(scope["headers"]).get(b"content-length", b"0")) > self.limits.bytes:
                raise _TooLarge
            await self.app(scope, limited_receive, noted_send)
        except _TooLarge:
            if not answered:
                said = f"The file is too large: at most {self.limits.megabytes} MB are allowed."
                await PlainTextResponse(said, 413, {"Connection": "close"})(scope, receive, send)


class _TooLarge(Exception):
    """A request's body is larger than the limit."""


def routes(sessions: Sessions) -> list:
    """The routes of a session's files: pictures are uploaded, previews and results downloaded. Access needs the session's secret token."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def taking(take: Callable[[Session, Path, str], object]):
        """A route that writes the request's body to a file and gives it to `take`, with the name that the browser says."""

        async def upload(request) -> Response:
            try:
                session = sessions.with_token(request.path_params["token"])
                path = session.new_file()
            except UserError as error:
                return PlainTextResponse(str(error), 404)
            try:
                with path.open("wb") as file:
                    async for chunk in request.stream():
                        file.write(chunk)
                name = unquote(request.headers.get("x-name", "picture"))
                answer = await run_in_threadpool(take, session, path, name)
            except UserError as error:
                return PlainTextResponse(str(error), 422)
            except BaseException:  # too large, or the browser has disconnected
                path.unlink(missing_ok=True)
                raise
            return PlainTextResponse("ok") if answer is None else JSONResponse(answer)

        return upload

    def open_picture(session: Session, path: Path, name: str) -> None:
        session.open_upload(path, name)

    def add_cutout(session: Session, path: Path, name: str) -> dict:
        return view.cutout(session.token, session.add_cutout(path, name))

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
        Route("/session/{token}/{name}", download, methods=["GET"]),
    ]
