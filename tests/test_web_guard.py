"""What strangers send to the page: foreign names, other routes, calls that no script makes, slow and large requests, many at once;
pages that nobody looks at.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_web_service import FAST, KEY, encoded, files, layer, noise, painted, upload

from strdiffusion import UserError
from strdiffusion.app import open_picture
from strdiffusion.app.web import session as session_module
from strdiffusion.app.web.calls import MOST_BYTES, Function, Malformed, read_call
from strdiffusion.app.web.composing import Cutout
from strdiffusion.app.web.connections import hasten
from strdiffusion.app.web.guard import EVENTS, JOIN, PREDICT, Guard, Hosts
from strdiffusion.app.web.job import Busy, Line
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.photo import Photo
from strdiffusion.app.web.service import Settings
from strdiffusion.app.web.session import Sessions

HOST = (b"host", b"localhost:7860")
FUNCTIONS = {0: Function(0, False), 1: Function(2, False), 2: Function(1, True)}


def call(data=(), number=0, visit="abc123", **more):
    return {"data": list(data), "event_data": None, "fn_index": number, "trigger_id": 3, "session_hash": visit} | more


class Inner:
    """What stands behind the guard: it reads the whole request, and answers."""

    def __init__(self, fails=False):
        self.fails, self.bodies = fails, []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body")
        if self.fails:
            raise KeyError("of Gradio\nin lines")
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def ask(method, path, body=b"", headers=(HOST,), *, chunks=None, pause=0.0, inner=None, limits=None, knows=True, query=b"", guard=None):
    """The status and text of the guard's answer; `chunks` of the body come with a pause before each."""
    inner = inner or Inner()
    guard = guard or Guard(inner, limits or Limits(), Hosts("127.0.0.1"), FUNCTIONS, lambda visit: knows, lambda visit: visit == "abc123")
    sent, waiting = [], list(chunks if chunks is not None else [body])

    async def receive():
        if not waiting:
            return {"type": "http.disconnect"}
        await asyncio.sleep(pause)
        chunk = waiting.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "query_string": query}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize(
    ("host", "more", "taken", "refused"),
    [
        ("127.0.0.1", (), ["127.0.0.1:7860", "localhost", "LOCALHOST.:80", "[::1]:7860", "127.0.0.2"], ["192.168.1.4", "8.8.8.8:80"]),
        ("0.0.0.0", (), ["192.168.1.4:7860", "[fe80::1]", "localhost"], []),
        ("0.0.0.0", ("Gallery.Example",), ["gallery.example:443"], ["gallery.example.evil.net"]),
        ("box.lan", (), ["box.lan:7860"], []),
    ],
)
def test_the_names_under_which_it_is_served(host, more, taken, refused):
    hosts = Hosts(host, more)
    assert all(name in hosts for name in taken)
    for name in [
        *refused,
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "a b",
        "1.2.3",
        "localhost:99999999",
        "localhost\n",
    ]:
        assert name not in hosts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HOST], 200),
        ([(b"host", b"evil.example")], 403),
        ([], 403),
        ([HOST, HOST], 403),
        ([HOST, (b"origin", b"http://localhost:7860")], 200),
        ([HOST, (b"origin", b"http://evil.example")], 403),
        ([HOST, (b"origin", b"null")], 403),
        ([HOST, (b"origin", b"http://[")], 403),
        ([HOST, (b"x-forwarded-host", b"evil.example")], 403),
        ([HOST, (b"x-forwarded-host", b"localhost")], 200),
        ([HOST, (b"x-forwarded-proto", b"https\x00<script>")], 400),
        ([HOST, (b"content-length", b"-1")], 400),
    ],
)
def test_foreign_names_are_refused(headers, status):
    assert ask("POST", "/session/abc/picture", b"x", headers)[0] == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/call/run"),
        ("POST", "/gradio_api/run/show"),
        ("GET", "/gradio_api/file=http://evil.example/x.png"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://evil.example/"),
        ("GET", "/gradio_api/heartbeat/abc"),
        ("GET", "/monitoring"),
        ("GET", "/session/abc/../../etc/passwd"),
        ("GET", "//"),
        ("PUT", "/"),
        ("TRACE", "/"),
        ("POST", "/"),
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(method, path):
    inner = Inner()
    assert ask(method, path, inner=inner) == (404, "There is nothing here.") and not inner.bodies


FILE_DATA = {"path": "x.png", "url": "http://evil.example/x.png", "meta": {"_type": "gradio.FileData"}}
MALFORMED = [
    b"",
    b"words",
    b"\xff",
    b"[]",
    b"null",
    b"[" * 30_000,
    b"[" * 50_000,
    json.dumps(call([], 99)).encode(),
    json.dumps(call([], True)).encode(),
    json.dumps(call([], None)).encode(),
    json.dumps(call([], "0")).encode(),
    json.dumps(call([], 2)).encode(),
    json.dumps(call([1, 2])).encode(),
    json.dumps(call([1, 2, 3], 1)).encode(),
    json.dumps(call("ab", 1) | {"data": "ab"}).encode(),
    json.dumps(call(visit=None)).encode(),
    json.dumps(call(visit="../../x")).encode(),
    json.dumps(call(visit=["a"])).encode(),
    json.dumps(call(trigger_id="x")).encode(),
    json.dumps(call(simple_format=True)).encode(),
    json.dumps(call([None, FILE_DATA], 1)).encode(),
    json.dumps(call([{"hole": FILE_DATA}, None], 1)).encode(),
    json.dumps(call([{"objects": [FILE_DATA]}, None], 1)).encode(),
    json.dumps(call([[FILE_DATA], None], 1)).encode(),
    json.dumps(call([{"path": "x.png", "url": "http://evil.example/x.png"}, None], 1)).encode(),
    json.dumps(call([{"objects": [{"url": "http://evil.example/x.png"}]}, None], 1)).encode(),
    json.dumps(call()).encode() + b" " * 40_000,
    json.dumps(call([[], None], 1)).encode(),
    json.dumps(call([{"objects": [{"x": []}]}, None], 1)).encode(),
    json.dumps(call([{"objects": [{}] * 200}, None], 1)).encode(),
    json.dumps(call(["a" * 201, None], 1)).encode(),
    json.dumps(call([10**16, None], 1)).encode(),
    json.dumps(call([float("nan"), None], 1)).encode(),
    json.dumps(call([float("inf"), None], 1)).encode(),
    json.dumps(call(["\ud800", None], 1)).encode(),
    b'{"data": [' + b"0," * 40_000 + b"0]}",
    b'{"data": [1' + b"0" * 5000 + b"]}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_calls_that_no_script_makes_are_refused(body):
    inner = Inner()
    status, said = ask("POST", PREDICT, body, inner=inner)
    assert status == 400 and said.startswith("This is no call of the page: ") and "\n" not in said and not inner.bodies


def test_a_call_reaches_gradio_as_it_was_checked():
    inner, hole = Inner(), {"number": 1, "hole": "data:image/png;base64,AAAA", "hints": None}
    scene = {"canvas": "blank", "width": 9, "objects": [{"cutout": 1, "x": 0.5}]}
    sent = call([hole, scene], 1, event_data=FILE_DATA)
    assert ask("POST", PREDICT, json.dumps(sent).encode(), inner=inner)[0] == 200
    assert json.loads(inner.bodies[0]) == sent | {"event_data": None}
    twice = b'{"data": [], "fn_index": 99, "session_hash": "a", "fn_index": 0}'  # parsers differ in which one counts
    assert ask("POST", PREDICT, twice, inner=inner)[0] == 200 and inner.bodies[1].count(b"fn_index") == 1
    assert ask("POST", JOIN, json.dumps(call([None], 2)).encode(), inner=inner)[0] == 200
    assert ask("POST", PREDICT, json.dumps(call([hole, scene], 1)).encode(), inner=inner, knows=False)[0] == 200
    assert json.loads(inner.bodies[-1])["data"] == [None, None]  # of a visit that is not known nothing large is kept


def test_too_much_is_refused():
    assert ask("POST", PREDICT, headers=[HOST, (b"content-length", str(MOST_BYTES + 1).encode())])[0] == 413
    assert ask("POST", PREDICT, chunks=[bytes(MOST_BYTES), b"x"])[0] == 413
    assert ask("POST", "/session/a/picture", chunks=[bytes(600_000)] * 2, limits=Limits(megabytes=1))[0] == 413
    assert ask("GET", EVENTS, query=b"session_hash=other") == (404, "Nothing runs here.")
    assert ask("GET", EVENTS, query=b"session_hash=abc123")[0] == 200


def test_calls_at_once_are_limited(monkeypatch):
    monkeypatch.setattr("strdiffusion.app.web.guard.CALLS_AT_ONCE", 0)
    guard = Guard(Inner(), Limits(), Hosts("127.0.0.1"), FUNCTIONS, bool, bool)
    assert ask("POST", PREDICT, json.dumps(call()).encode(), guard=guard)[0] == 503
    monkeypatch.setattr("strdiffusion.app.web.guard.CALLS_AT_ONCE", 1)
    assert [ask("POST", PREDICT, json.dumps(call()).encode(), guard=guard)[0] for _ in range(3)] == [200] * 3
    assert guard._held == 0  # given back each time
    monkeypatch.setattr("strdiffusion.app.web.guard.STREAMS_EACH", 0)
    assert ask("GET", EVENTS, query=b"session_hash=abc123", guard=guard)[0] == 503


@pytest.mark.parametrize("path", [PREDICT, "/session/a/picture"])
@pytest.mark.parametrize(("pause", "limits"), [(1.5, Limits(patience=1)), (0.3, Limits(call_time=1, upload_time=1))])
def test_requests_that_trickle_end(path, pause, limits):
    began = time.monotonic()
    status, said = ask("POST", path, chunks=[b"x"] * 20, pause=pause, limits=limits)
    assert (status, said) == (408, "The request came too slowly: try again.") and time.monotonic() - began < 5


def speak(port, first, rest):
    """Say something, then one byte of `rest` after another. Returns what is answered, and the seconds until the connection is closed."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(first)
        connection.settimeout(0.1)
        said = b""
        for byte in rest:
            try:
                more = connection.recv(1 << 16)
                if not more:
                    break
                said += more
            except TimeoutError:
                connection.sendall(bytes([byte])) if byte else None
            except ConnectionError:
                break
        return said, time.monotonic() - began


@contextlib.contextmanager
def uvicorn_server(app):
    """A running server of an ASGI application; yields it and its port."""
    uvicorn = pytest.importorskip("uvicorn")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield server, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


async def answer(scope, receive, send):
    """Answers at once, or for /slow after more seconds than a request's head may take."""
    await asyncio.sleep(1.5 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_connections_that_ask_too_slowly_are_closed():
    """Silence, heads that trickle, first or after an answered request, and a body that nobody asked for; answers are never cut off."""
    get, slow, silent = b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"x" * 60, bytes(60)
    cases = [(b"", silent), (get, slow), (get + b"\r\n" + get, slow), (get + b"Content-Length: 9999\r\n\r\n", slow)]
    cases += [(get.replace(b"/", b"/slow", 1) + b"Connection: close\r\n\r\n", silent)]
    with uvicorn_server(answer) as (server, port), ThreadPoolExecutor() as threads:
        hasten(server, 1)
        found = list(threads.map(lambda case: speak(port, *case), cases))
    assert all(0.8 < seconds < 4 for _, seconds in found), found
    assert [said.count(b"200 OK") for said, _ in found] == [0, 0, 1, 1, 1] and found[-1][1] > 1.4


def test_an_error_behind_the_guard_is_one_line(caplog):
    assert ask("POST", PREDICT, json.dumps(call()).encode(), inner=Inner(fails=True)) == (500, "Something went wrong.")
    (record,) = caplog.records
    assert record.exc_info is None and "KeyError" in record.getMessage() and "\n" not in record.getMessage()


def test_read_call_knows_its_functions():
    with pytest.raises(Malformed, match="not 2 values"):
        read_call(json.dumps(call([1], 1)).encode(), FUNCTIONS, queued=False)


@pytest.mark.parametrize(
    "values",
    [
        [["tiny"], "model", "", 2, "", 0, 1, 0],
        ["tiny", {}, "", 2, "", 0, 1, 0],
        ["tiny", "model", "", "many", "", 0, 1, 0],
        ["tiny", "model", "", 2, "", 0.5, 1, 0],
        ["tiny", "model", "", 2, "", 0, True, 0],
        ["tiny", "other", "", 2, "", 0, 1, 0],
        ["tiny", "custom", "other", 2, "none", 0, 1, 0],
        ["tiny", "custom", "posterior", -5, "none", 0, 1, 0],
        ["tiny", "custom", "posterior", 10**14, "none", 0, 1, 0],
        ["tiny", "model", "", 2, "", 0, 1, -1],
        ["tiny", "model", "", 2, "", 0, 1, 10**9],
        ["tiny", "model", "", 2, "", 0, 1, 0.5],
    ],
)
def test_settings_of_strangers_are_checked(web_service, values):
    service = web_service()
    service.sessions.open(KEY)
    value = painted(service.open_example(KEY, 0).number, 40, 56, (4, 4, 9, 9))
    with pytest.raises(UserError) as error:
        service.expected(KEY, value, Settings.read(values))
    assert 10 < len(str(error.value)) < 300


# ---- many at once -------------------------------------------------------------------------------------


class Counted:
    """Counts how many are in a slow function at the same time."""

    def __init__(self, function):
        self.function, self.now, self.most = function, 0, 0

    def __call__(self, *arguments, **more):
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.05)
        try:
            return self.function(*arguments, **more)
        finally:
            self.now -= 1


def at_once(works):
    results = [None] * len(works)

    def run(i):
        try:
            results[i] = works[i]()
        except UserError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_one_picture_is_decoded_at_a_time(web_service, monkeypatch):
    """Uploads, estimates and runs of many pages: two never hold a decoded picture to prepare it."""
    service = web_service()
    content = encoded(noise(30, 40, 3), "png")
    counted = Counted(open_picture)
    monkeypatch.setattr(session_module, "open_picture", counted)
    monkeypatch.setattr(Photo, "open", lambda photo: counted(photo.path))
    pages = [service.sessions.open(f"page {i}") for i in range(6)]
    photos = at_once([lambda page=page: upload(page, "a.png", content) for page in pages])
    assert counted.most == 1 and not any(isinstance(photo, Exception) for photo in photos)
    values = [painted(photo.number, 30, 40, (4, 4, 9, 9)) for photo in photos]
    works = [lambda i=i: list(service.run(f"page {i}", values[i], FAST)) for i in range(3)]
    works += [lambda page=page: upload(page, "b.png", content) for page in pages[3:]]
    results = at_once(works)
    assert counted.most == 1 and not any(isinstance(result, Exception) for result in results)


def test_who_waits_in_the_line_holds_no_picture(web_service, monkeypatch):
    service = web_service()
    opened = []
    before = Photo.open
    monkeypatch.setattr(Photo, "open", lambda photo: opened.append(photo) or before(photo))
    service.sessions.open(KEY)
    value = painted(service.open_example(KEY, 0).number, 40, 56, (4, 4, 9, 9))
    first = object()
    service._line.join(first)  # somebody computes
    run = service.run(KEY, value, FAST)
    assert "Waiting" in next(run) and opened == []
    service._line.leave(first)
    list(run)
    assert len(opened) == 1
    assert service.expected(KEY, value, FAST).startswith("Expected") and len(opened) == 1  # the size is enough to plan


def test_the_plan_needs_no_pixels(web_service):
    service = web_service()
    model = service.offers["tiny"].model
    pixels, hole = noise(70, 90, 3), layer(70, 90, (10, 20, 30, 25))[..., 3] > 0
    hints = layer(70, 90, (12, 22, 10, 10))
    photo = Photo(None, "a.png", (70, 90), (70, 90), 1)
    for more in ({}, {"hints": hints}):
        assert model.plan(photo.blank(), hole, **more) == model.plan(pixels, hole.astype(np.uint8) * 255, **more)


def test_too_many_who_wait_are_sent_away():
    line, gone = Line(1), []
    with line.turn():
        member = object()
        line.join(member)
        with pytest.raises(Busy, match="All 1 places to wait are taken"):
            line.turn().__enter__()
        line.leave(member)
    with line.turn(lambda: False):
        gone.append(True)
    assert gone and line.ahead(object()) == 0


# ---- pages that nobody looks at -----------------------------------------------------------------------


def test_sessions_that_nobody_listens_to_end(tmp_path):
    sessions = Sessions(tmp_path, Limits(sessions=3, away=100))
    silent, here, left = (sessions.open(key) for key in ("silent", "here", "left"))
    here.listen()
    left.listen()
    left.lose()
    sessions.sweep()
    assert all(key in sessions for key in ("silent", "here", "left"))
    with pytest.raises(UserError, match="3 pages are open already"):
        sessions.open("new")  # all have just come
    for session in (silent, here, left):
        session._left -= 50
    sessions.sweep()
    assert not silent.folder.exists() and "here" in sessions and "left" in sessions
    left._left -= 100
    sessions.sweep()
    assert not left.folder.exists() and "here" in sessions


def test_pages_that_are_there_keep_their_places(tmp_path):
    """Of those that are not, one that never said that it is there goes first."""
    sessions = Sessions(tmp_path, Limits(sessions=3))
    here, left, bare = (sessions.open(key) for key in ("here", "left", "bare"))
    for session in (here, left):
        session.listen()
    left.lose()
    for session in (here, left, bare):
        session._left -= 10
    left._left -= 10
    for i, gone in enumerate((bare, left)):
        sessions.open(f"new {i}").listen()
        assert gone.closed
    with pytest.raises(UserError, match="3 pages are open already"):
        sessions.open("one more")
    assert not here.closed


def test_a_scene_takes_no_more_time_and_memory_than_a_picture(web_service, monkeypatch):
    """A hundred large objects on a large canvas; each cut-out is opened once."""
    service = web_service(megapixels=1)
    session = service.sessions.open(KEY)
    path = session.new_file()
    pixels = noise(30, 30, 4)
    pixels[..., 3] = 255
    path.write_bytes(encoded(pixels, "png"))
    number = session.add_cutout(path, "a.png").number
    opened = []
    before = Cutout.open
    monkeypatch.setattr(Cutout, "open", lambda cutout: opened.append(cutout) or before(cutout))
    objects = [{"cutout": number, "x": 500, "y": 500, "scale": 200} for _ in range(100)]
    scene = {"canvas": "blank", "width": 1000, "height": 1000, "objects": objects}
    with pytest.raises(UserError, match="The objects are too large for so many"):
        service.expected(KEY, None, FAST, scene)
    scene = {"canvas": "blank", "width": 100, "height": 100, "objects": [one | {"x": 50, "y": 50, "scale": 0.5} for one in objects]}
    opened.clear()
    assert service.expected(KEY, None, FAST, scene).startswith("Expected") and len(opened) == 1


def test_all_cut_outs_together_are_limited(web_service):
    service = web_service(megabytes=1)
    session = service.sessions.open(KEY)
    pixels = noise(400, 400, 4)
    pixels[..., 3] = 255
    content = encoded(pixels, "png")  # 0.6 MB of noise
    for number in range(2):
        path = session.new_file()
        path.write_bytes(content)
        if number:
            with pytest.raises(UserError, match="All cut-outs together may have 1 MB"):
                session.add_cutout(path, "b.png")
        else:
            session.add_cutout(path, "a.png")
    assert len(files(service)) == 2
