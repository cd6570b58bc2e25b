"""A page in the browser: open a photograph, paint a hole, and see it filled.

    strdiffusion web                                                 with the model weights/benchmark
    strdiffusion web --model streets=runs/psv --model places=weights/places2 --open
    strdiffusion web --host 0.0.0.0 --port 8000 --megapixels 12      for others, too: there is no password

It listens on this machine only, unless --host names another address. Uploads stay in a temporary folder until the page is closed.
Gradio is needed: make web, or pip install gradio.
"""

import argparse
import errno
import importlib.util
import logging
import math
import re
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from strdiffusion.app.composition import open_cutout
from strdiffusion.app.web.guard import is_loopback
from strdiffusion.app.web.limits import Limits
from strdiffusion.config.common import Device
from strdiffusion.data.listing import find_images
from strdiffusion.denoiser import Precision
from strdiffusion.methods import METHODS
from strdiffusion.system.cli import DEFAULT_MODEL, PHOTOGRAPHS_MODEL, OneLineParser, default_model, exit_on_user_error
from strdiffusion.system.container import in_container
from strdiffusion.system.errors import UserError
from strdiffusion.system.terminal import leave

log = logging.getLogger(__name__)

STREETS = (2, 9, 14, 17, 20, 22)  # of the facades' test images, for the gallery
EXAMPLE_SIZE = 128
HOUSE = ("roof", "wall", "window", "door")
CUTOUTS = {  # name: (of the facades' test images, classes, columns)
    "house": (14, HOUSE, (0.0, 0.61)),
    "corner house": (14, HOUSE, (0.61, 1.0)),
    "tall house": (2, HOUSE, (0.71, 1.0)),
    "tree": (17, ("tree",), (0.0, 1.0)),
    "second tree": (20, ("tree",), (0.0, 1.0)),
    "third tree": (22, ("tree",), (0.0, 1.0)),
}
LIMITS = {
    "megabytes": "the largest file that is taken",
    "megapixels": "the largest picture that is taken",
    "samples": "the most samples at a time",
    "minutes": "the most minutes for which a model learns from a picture",
    "queue": "how many requests may wait",
    "sessions": "how many pages may be open",
    "cutouts": "how many cut-outs a visitor may have",
    "away": "how many seconds a page's files are kept after it was closed or lost",
}


def parse_arguments(arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    limits = Limits()
    parser = OneLineParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]FOLDER",
        help=f"a model to choose from, under this name; may be given several times ({DEFAULT_MODEL} and {PHOTOGRAPHS_MODEL})",
    )
    parser.add_argument("--T", type=int, help="the T of released checkpoints, which do not record it")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="what to compute on (auto)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the networks (fp32)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1: this machine only)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which browsers may ask for the page, beside localhost, --host and addresses; may be given several times",
    )
    parser.add_argument("--port", type=int, help="the port (the first free one from 7860 on)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--pool", type=Path, metavar="FOLDER", help="the first cut-outs for composing: pictures with alpha (some drawn ones)"
    )
    for name, text in LIMITS.items():
        default = getattr(limits, name)
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} ({default})")
    options = parser.parse_args(arguments)
    if options.port is not None and not 1 <= options.port <= 65_535:
        raise UserError(f"--port must be from 1 to 65535, not {options.port}")
    return options


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Serve the page until Ctrl-C or SIGTERM, and end the process then. If it was never served, return the exit status."""
    served = threading.Event()
    status = run(arguments, prog, served)
    return leave(status) if served.is_set() else status  # Python would take seconds to take torch and Gradio down


@exit_on_user_error(go_on=True)
def run(arguments: Sequence[str] | None, prog: str | None, served: threading.Event) -> None:
    """Serve the page until Ctrl-C or SIGTERM; `served` is set when it is."""
    options = parse_arguments(arguments, prog)
    limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    sources = model_sources(options.model)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: make web, or pip install gradio")
    require_free(options.host, options.port)

    from strdiffusion.app.web.offers import Offers
    from strdiffusion.app.web.server import serve, working_folder
    from strdiffusion.app.web.service import Service
    from strdiffusion.app.web.session import Sessions

    cutouts = first_cutouts(options.pool)
    if len(cutouts) > limits.cutouts:
        raise UserError(
            f"{options.pool or 'the pool'} has {len(cutouts)} cut-outs, and --cutouts allows {limits.cutouts}: give a larger number"
        )
    offers = Offers(sources, options.device, options.precision, options.T)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # the default would leave the visitors' files behind
    with working_folder() as root:
        service = Service(Sessions(root, limits), offers, example_streets(offers[offers.names[0]].model.size), limits, cutouts)
        with serve(service, options.host, options.port, options.open, options.allow_host) as address:
            served.set()
            print(f"{to_open(address)}  (Ctrl-C ends it)", flush=True)
            if not is_loopback(options.host):
                log.warning("%s is reached from other machines, too, and there is no password", options.host)
            if in_container():
                log.warning("%s", reached_from_outside(address, options.host))
            while not stop.wait(1):  # in short waits: Ctrl-C is noticed between them everywhere
                pass


def to_open(address: str) -> str:
    """The address for a browser on this machine: 0.0.0.0 and :: mean all addresses that it has, and are none."""
    return re.sub(r"//(0\.0\.0\.0|\[?::\]?)(?=[:/])", "//localhost", address)


def reached_from_outside(address: str, host: str) -> str:
    """How a browser outside of the container reaches the page, if it does."""
    port = urlsplit(address).port
    published = f"docker run -p 127.0.0.1:{port}:{port} ..."
    if is_loopback(host):
        return f"the page is in a container, which {host} does not leave: give --host 0.0.0.0, and publish the port: {published}"
    return f"the page is in a container: a browser finds it only if the port is published, {published}"


def require_free(host: str, port: int | None) -> None:
    """Raise UserError if nothing can listen there. Known now, not after the models were loaded. port: None: the server looks for one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port that was just left is free
            tried.bind(address)
    except OSError as error:
        if port is not None and error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "another program listens there" if error.errno == errno.EADDRINUSE else "ports below 1024 need rights of their own"
            raise UserError(f"--port {port}: {why}: give another, or leave it out") from None
        raise UserError(f"--host {host}: nothing can listen there ({error.strerror or error}): give an address of this machine") from None


def model_sources(given: Sequence[str]) -> dict[str, Path]:
    """The folder of each model, by its name: NAME=FOLDER, or FOLDER, named by its last part. UserError for a folder that does not exist."""
    sources = {}
    shipped = [default_model(), default_model(PHOTOGRAPHS_MODEL)]
    for text in given or [str(shipped[0]), *(str(model) for model in shipped[1:] if model.exists())]:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals else text).expanduser()
        name = name if equals else path.resolve().name
        if not name or name in sources:
            raise UserError(f"--model {text}: every model needs a name of its own: --model NAME=FOLDER")
        if not path.exists() and str(path) not in METHODS:
            raise UserError(
                f"there is no model {path}: give one that exists, --model NAME=FOLDER "
                "(a model folder, training runs, a test configuration such as configs/demo/test.yml, or a method such as telea)"
            )
        sources[name] = path
    return sources


def example_streets(size: int | None = None) -> list:
    """The pictures of the gallery, at the size of the networks that will fill them, or the nearest at which they are drawn."""
    from strdiffusion.app.web.photo import Example
    from strdiffusion.data.facades import SIZES, draw_facade

    side = min(SIZES, key=lambda side: abs(math.log(side / (size or EXAMPLE_SIZE))))
    return [Example(f"street {number}.png", draw_facade("test", number, side)) for number in STREETS]


def first_cutouts(pool: Path | None) -> list:
    """The cut-outs that a visitor finds: those below a folder, or of drawn facades. Pictures that are none are named, and left out."""
    from strdiffusion.app.web.photo import Example
    from strdiffusion.data.facades import draw_cutout

    if pool is None:
        return [Example(f"{name}.png", draw_cutout("test", n, EXAMPLE_SIZE, *what)) for name, (n, *what) in CUTOUTS.items()]
    found = []
    for path in find_images(pool):
        try:
            found.append(Example(path.name, open_cutout(path, path.name).eight_bits().levels))
        except UserError as error:
            log.warning("left out: %s", error)
    return found
