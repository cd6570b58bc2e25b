"""What stands before Gradio: who may ask, for what, how much, and how long it may take.

Gradio has routes for much that this page does not do: uploads of its own, files by URL, a proxy, functions of components. Only what the
page's own scripts ask for is let through; all else is answered here, in one line.
"""

import asyncio
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Callable, Collection, Mapping
from urllib.parse import parse_qs, urlsplit

from strdiffusion.app.web.calls import MOST_BYTES, VISIT, Function, Malformed, read_call, without_layers
from strdiffusion.app.web.limits import Limits

log = logging.getLogger(__name__)

PREDICT, JOIN, EVENTS = "/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/queue/data"
FILE = r"/session/[\w-]{1,64}/[\w.-]{1,120}"
OPEN = {
    "GET": re.compile(
        r"/|/(assets|static)/[\w/.@+-]{1,200}|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)"
        rf"|/gradio_api/startup-events|{EVENTS}|{FILE}"
    ),
    "HEAD": re.compile("/"),  # Gradio looks whether it is up
    "POST": re.compile(rf"{PREDICT}|{JOIN}|{FILE}(/\d{{1,4}})?"),
}
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")
FORWARDED = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-forwarded-prefix")
FORWARDED_TEXT = re.compile(rb"[\w.,: /\[\]-]{0,500}")
STREAMS_EACH = 4  # open streams of events for each session that may be open
CALLS_AT_ONCE = 16  # how many calls of the largest size may be held at a time
REWRITTEN = (b"content-length", b"content-type", b"transfer-encoding")
HEADERS = {"Connection": "close", "X-Content-Type-Options": "nosniff"}


class Hosts:
    """The names under which the page is served. Others are refused: a foreign page could give its own name this machine's address.

    Addresses cannot be given away so. If only this machine is served, its own addresses are taken; otherwise all are.
    """

    def __init__(self, host: str, more: Collection[str] = ()):
        self.local = is_loopback(host)
        names = {"localhost", host, *more} | (set() if self.local else {socket.gethostname(), socket.getfqdn()})
        self.names = {name.lower().rstrip(".") for name in names}

    def __contains__(self, header: str) -> bool:
        """Whether a Host header, with or without a port, names this server."""
        if not (found := HOST.fullmatch(header)):
            return False
        name = found["name"].lower().rstrip(".")
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return not self.local or address.is_loopback


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Refused(Exception):
    """A request that is answered with this status and one line."""

    def __init__(self, status: int, said: str):
        super().__init__(said)
        self.status, self.said = status, said


class Guard:
    """ASGI middleware. functions: of the page, by number. knows: whether a visit has a session; waits: whether events wait for it."""

    def __init__(
        self,
        app,
        limits: Limits,
        hosts: Hosts,
        functions: Mapping[int, Function],
        knows: Callable[[str], bool],
        waits: Callable[[str], bool],
    ):
        self.app, self.limits, self.hosts, self.functions, self.knows, self.waits = app, limits, hosts, functions, knows, waits
        self._held = self._streams = 0  # bytes of calls, and streams of events

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        answered = False

        async def noted_send(message):
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._let_through(scope, receive, noted_send)
        except Refused as refused:
            await self._answer(scope, receive, send, answered, refused.status, refused.said)
        except Exception as error:  # of Gradio; in one line, because what a stranger sends can lead there
            log.debug("%s", scope["path"], exc_info=True)
            log.error("%s %.100s failed: %s %.200s", scope["method"], scope["path"], type(error).__name__, " ".join(str(error).split()))
            await self._answer(scope, receive, send, answered, 500, "Something went wrong.")

    async def _answer(self, scope, receive, send, answered: bool, status: int, said: str) -> None:
        from starlette.responses import PlainTextResponse

        if not answered:
            await PlainTextResponse(said, status, HEADERS)(scope, receive, send)

    async def _let_through(self, scope, receive, send) -> None:
        headers = [(name, value) for name, value in scope["headers"]]
        self._require_origin(headers)
        path, method = scope["path"], scope["method"]
        if (known := OPEN.get(method)) is None or not known.fullmatch(path):
            raise Refused(404, "There is nothing here.")
        if method != "POST":
            return await self._stream(scope, receive, send) if path == EVENTS else await self.app(scope, receive, send)
        declared = dict(headers).get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 15:
            raise Refused(400, "The length of the request is not a number.")
        if path in (PREDICT, JOIN):
            return await self._call(scope, receive, send, int(declared))
        if int(declared) > self.limits.bytes:
            raise self._too_large(self.limits.bytes)
        await self.app(scope, self._in_time(receive, self.limits.bytes, self.limits.patience, self.limits.upload_time), send)

    def _require_origin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Raise Refused for another host's name, another page's request, and headers of proxies that no proxy writes."""
        named = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(named) != 1 or named[0] not in self.hosts:
            name = named[0] if len(named) == 1 and HOST.fullmatch(named[0]) else "this name"
            raise Refused(403, f"The page is not served as {name}. Whoever runs it can allow the name: --allow-host NAME")
        for name, value in headers:
            if name == b"origin" and urlsplit_host(value.decode("latin-1")) not in self.hosts:
                raise Refused(403, "Another page asked for this.")
            if name in FORWARDED and not FORWARDED_TEXT.fullmatch(value):
                raise Refused(400, f"The header {name.decode()} is malformed.")
            if name == b"x-forwarded-host" and any(part.strip().decode("latin-1") not in self.hosts for part in value.split(b",")):
                raise Refused(403, "The page is not served under the name that the proxy says. It can be allowed: --allow-host NAME")

    async def _stream(self, scope, receive, send) -> None:
        """Events of a visit that waits for some, to as many as may listen."""
        visit = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[-1]
        if not VISIT.fullmatch(visit) or not self.waits(visit):
            raise Refused(404, "Nothing runs here.")
        if self._streams >= STREAMS_EACH * self.limits.sessions:
            raise Refused(503, "Too many listen at the moment: try again later.")
        self._streams += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._streams -= 1

    async def _call(self, scope, receive, send, declared: int) -> None:
        """A call of one of the page's functions, read and checked before Gradio sees it."""
        if declared > MOST_BYTES:
            raise self._too_large(MOST_BYTES)
        held = 0
        limited = self._in_time(receive, MOST_BYTES, self.limits.patience, self.limits.call_time)
        chunks = []
        try:
            while True:
                message = await limited()
                if message["type"] != "http.request":
                    return
                chunks.append(message.get("body", b""))
                held += len(chunks[-1])
                self._held += len(chunks[-1])
                if self._held > CALLS_AT_ONCE * MOST_BYTES:
                    raise Refused(503, "Too many ask at the moment: try again later.")
                if not message.get("more_body"):
                    break
            try:
                call = read_call(b"".join(chunks), self.functions, queued=scope["path"] == JOIN)
            except Malformed as error:
                raise Refused(400, f"This is no call of the page: {error}.") from None
            del chunks
            if not self.knows(call["session_hash"]):
                call = without_layers(call)  # Gradio keeps what it is given, also for strangers
            body = json.dumps(call).encode()
            kept = [(name, value) for name, value in scope["headers"] if name not in REWRITTEN]
            kept += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
            given = False

            async def replayed():
                nonlocal given
                if given:
                    return await receive()
                given = True
                return {"type": "http.request", "body": body, "more_body": False}

            await self.app({**scope, "headers": kept}, replayed, send)
        finally:
            self._held -= held

    def _in_time(self, receive, most: int, idle: float, whole: float) -> Callable:
        """`receive`, which raises Refused after too many bytes, after `idle` seconds without any, and after `whole` seconds in all."""
        loop = asyncio.get_running_loop()
        end, taken, complete = loop.time() + whole, 0, False

        async def limited():
            nonlocal taken, complete
            if complete:  # only the end of the connection is waited for
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(min(idle, end - loop.time()), 0.01))
            except asyncio.TimeoutError:
                raise Refused(408, "The request came too slowly: try again.") from None
            taken += len(message.get("body", b""))
            if taken > most:
                raise self._too_large(most)
            complete = not message.get("more_body")
            return message

        return limited

    def _too_large(self, most: int) -> Refused:
        return Refused(413, f"The file is too large: at most {most // 10**6} MB are allowed.")


def urlsplit_host(origin: str) -> str:
    """The host of an Origin header, with its port; an empty text if it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
