"""The routes of a session's files: pictures are uploaded, previews and results downloaded, and the page says that it is there.

Access needs the session's secret token, which stands in each address.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from strdiffusion.app.web import view
from strdiffusion.app.web.job import Busy
from strdiffusion.app.web.service import Service
from strdiffusion.app.web.session import ENDED, Session
from strdiffusion.system.errors import UserError

PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
MOST_LISTENERS = 4  # of a session: a page that reconnects may be counted twice for a while
BEAT, LOOK = 15.0, 0.5  # seconds between two lines to a page that listens, and between two looks whether its session has ended


def routes(service: Service) -> list[Route]:
    """All of them, for Gradio's application."""
    files = _Files(service)
    return [
        Route("/session/{token}/picture", files.taking(open_picture), methods=["POST"]),
        Route("/session/{token}/cutout", files.taking(add_cutout), methods=["POST"]),
        Route("/session/{token}/example/{number:int}", files.open_example, methods=["POST"]),
        Route("/session/{token}/alive", files.listen, methods=["GET"]),
        Route("/session/{token}/{name}", files.download, methods=["GET"]),
    ]


def open_picture(session: Session, path: Path, name: str) -> None:
    session.open_upload(path, name)


def add_cutout(session: Session, path: Path, name: str) -> dict:
    return view.cutout(session.token, session.add_cutout(path, name))


async def beats(session: Session) -> AsyncIterator[str]:
    """Lines for a page that listens, until its session ends."""
    session.listen()
    try:
        while not session.closed:
            yield ": here\n\n"
            end = asyncio.get_running_loop().time() + BEAT
            while not session.closed and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(LOOK)
    finally:
        session.lose()


class _Files:
    """The answers to requests. Of an unknown token, 404."""

    def __init__(self, service: Service):
        self.service, self.sessions = service, service.sessions

    def taking(self, take: Callable[[Session, Path, str], object]) -> Callable:
        """A route that writes the request's body to a file and gives it to `take`, with the name that the browser says."""

        async def upload(request) -> Response:
            try:
                session = self.sessions.with_token(request.path_params["token"])
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

    async def open_example(self, request) -> Response:
        try:
            key = self.sessions.key_of(request.path_params["token"])
            await run_in_threadpool(self.service.open_example, key, request.path_params["number"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        return PlainTextResponse("ok")

    async def listen(self, request) -> Response:
        try:
            session = self.sessions.with_token(request.path_params["token"])
        except UserError as error:
            return PlainTextResponse(str(error), 404)
        if session.listeners >= MOST_LISTENERS:
            return PlainTextResponse("This page is open too often.", 409)
        return StreamingResponse(beats(session), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def download(self, request) -> Response:
        name = request.path_params["name"]
        try:
            folder = self.sessions.with_token(request.path_params["token"]).folder
        except UserError:
            return PlainTextResponse(ENDED, 404)
        path = folder / Path(name).name
        if path.name.startswith("picture_") or not path.is_file():
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(path, headers=PRIVATE, filename=request.query_params.get("as"))
