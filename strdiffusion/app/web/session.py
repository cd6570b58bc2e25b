"""Sessions: the uploads and results of each open page, in a folder that is removed when the session ends."""

import re
import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from strdiffusion.app import Cancelled, Picture, open_picture
from strdiffusion.app.composition import open_cutout
from strdiffusion.app.web.composing import Cutout
from strdiffusion.app.web.job import Busy, Job, Line
from strdiffusion.app.web.limits import Limits
from strdiffusion.app.web.photo import Photo, as_png, preview_of
from strdiffusion.app.web.results import Results
from strdiffusion.system.errors import UserError

T = TypeVar("T")

# the formats of uploads, and the suffixes of their results; Pillow calls some JPEGs MPO after opening them
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".png"}
PREVIEW = "preview.png"
ENDED = "This page's session has ended: reload the page."
UNHEARD = 30  # seconds that a page has to say that it is there
RELOADING = 2.0  # seconds in which a page that is loaded again has closed its old connection
ARRIVING = 5  # of them, in which nobody takes its place


class Session:
    """One open page. token: the secret in the addresses of its files. decoding: the line of all who decode pictures.

    The page listens to `alive` as long as it is open. A session that nobody listens to ends after a while.
    """

    def __init__(self, folder: Path, limits: Limits, decoding: Line):
        self.folder, self.limits, self.decoding = folder, limits, decoding
        self.token = secrets.token_urlsafe(16)
        self.photo: Photo | None = None
        self.job: Job | None = None
        self.watched: Job | None = None  # the one whose progress the page shows
        self.results: Results | None = None
        self.pool: dict[int, Cutout] = {}
        self.closed = False
        self.sending = threading.Lock()  # held while a file comes
        self._opened = self._added = self._listeners = 0
        self._heard, self._left = False, time.monotonic()
        self._lock = threading.Lock()

    def listen(self) -> None:
        """The page is there, until `lose`."""
        self._listeners, self._heard = self._listeners + 1, True

    def lose(self) -> None:
        """The page was closed, or the connection was lost."""
        self._listeners, self._left = self._listeners - 1, time.monotonic()

    @property
    def listeners(self) -> int:
        """How many listen: one, if the page is open."""
        return self._listeners

    def silence(self) -> tuple[bool, float]:
        """Whether the page was ever there, and the seconds since it was."""
        return self._heard, 0.0 if self._listeners else time.monotonic() - self._left

    @property
    def is_left(self) -> bool:
        """Whether the page is gone for so long that the session should end."""
        heard, seconds = self.silence()
        return seconds > (self.limits.away if heard else min(UNHEARD, self.limits.away))

    def open_upload(self, path: Path, name: str) -> Photo:
        """Take an uploaded file as this session's picture. If it cannot be used, the file is removed and UserError is raised."""
        return self._upload(path, name, lambda name, kind: self._take(path, Path(name).stem + SUFFIXES[kind]))

    def add_cutout(self, path: Path, name: str) -> Cutout:
        """Put an uploaded file into the pool. If it cannot be used, for example without alpha, it is removed and UserError is raised."""
        return self._upload(path, name, lambda name, kind: self._pool(path, name))

    def _upload(self, path: Path, name: str, take: Callable[[str, str], T]) -> T:
        """take(name, format) of an uploaded file, or remove it and raise UserError, with the visitor's name for it."""
        name = tidy_name(name)
        try:
            with self.decoding.turn():
                if self.closed:
                    raise UserError(ENDED)
                return take(name, require_picture(path, name, self.limits))
        except Busy:
            path.unlink(missing_ok=True)
            raise
        except UserError as error:
            path.unlink(missing_ok=True)
            raise UserError(str(error).replace(str(path), name)) from None

    def _pool(self, path: Path, name: str) -> Cutout:
        picture = open_cutout(path, name)
        with self._lock:
            if self.closed:
                raise UserError(ENDED)
            if len(self.pool) >= self.limits.cutouts:
                raise UserError(f"There are {len(self.pool)} cut-outs already, which is as many as may be: reload the page to begin anew.")
            if sum(other.path.stat().st_size for other in self.pool.values()) + path.stat().st_size > self.limits.bytes:
                raise UserError(f"All cut-outs together may have {self.limits.megabytes} MB: make {name} smaller.")
            if sum(h * w for h, w in (other.size for other in self.pool.values())) > self.limits.megapixels * 10**6:
                raise UserError(f"All cut-outs together have more than {self.limits.megapixels} megapixels: reload the page to begin anew.")
            self._added += 1
            number = self._added
            cutout = self.pool[number] = Cutout(number, path, name, picture.size, f"cutout_{number}.png")
            (self.folder / cutout.preview).write_bytes(as_png(preview_of(picture)))
        return cutout

    def open_pixels(self, pixels: np.ndarray, name: str) -> Photo:
        """Take an example as this session's picture."""
        path = self.new_file()
        path.write_bytes(as_png(Picture(pixels)))
        with self.decoding.turn():
            return self._take(path, name)

    def new_file(self) -> Path:
        """A new path for an upload. Raises UserError if the session has ended."""
        if self.closed:
            raise UserError(ENDED)
        return self.folder / f"picture_{secrets.token_hex(8)}"

    def _take(self, path: Path, name: str) -> Photo:
        picture = open_picture(path)
        preview = preview_of(picture)
        with self._lock:
            if self.closed:
                raise UserError(ENDED)
            if self.job is not None:
                self.job.cancel()
            self._drop_results()
            if self.photo is not None:
                self.photo.path.unlink(missing_ok=True)
            (self.folder / PREVIEW).write_bytes(as_png(preview))
            self._opened += 1
            self.photo = Photo(path, name, picture.size, preview.size, self._opened)
            return self.photo

    def keep(self, photo: Photo | None, results: Callable[[], Results]) -> Results:
        """Replace the earlier results by new ones. photo: what was open when they were begun; raises Cancelled if it no longer is."""
        with self._lock:
            if self.closed or self.photo is not photo:
                raise Cancelled
            self._drop_results()
            self.results = results()
            return self.results

    def _drop_results(self) -> None:
        if self.results is not None:
            self.results.remove()
        self.results = None

    def close(self) -> None:
        """Cancel the running job and remove all files."""
        if self.job is not None:
            self.job.cancel()
        with self._lock:
            self.closed = True
            shutil.rmtree(self.folder, ignore_errors=True)
            self.photo = self.results = None
            self.pool = {}


class Sessions:
    """All open pages, by their keys."""

    def __init__(self, root: Path, limits: Limits):
        self.root, self.limits = root, limits
        self.decoding = Line(limits.decodings)
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, key: str) -> Session:
        """A new session for a page. If too many are open, one whose page is not there ends; otherwise raises UserError."""
        self.close(key)
        if len(self._open) >= self.limits.sessions:
            self._end_the_most_silent()
        with self._lock:
            if len(self._open) >= self.limits.sessions:
                raise UserError(f"{self.limits.sessions} pages are open already, which is as many as may be: come back later.")
            folder = self.root / f"session_{secrets.token_hex(8)}"
            folder.mkdir(mode=0o700)
            session = self._open[key] = Session(folder, self.limits, self.decoding)
        return session

    def take_up(self, key: str, token: str) -> Session | None:
        """The session of this token as this page's, once its own page is closed. None if there is none, or if that stays open."""
        end = time.monotonic() + RELOADING
        while True:
            try:
                before = self.key_of(token)
            except UserError:
                return None
            with self._lock:
                if (session := self._open.get(before)) is not None and (before == key or not session.listeners):
                    self._open[key] = self._open.pop(before)
                    return session
            if time.monotonic() > end:  # the page was doubled, and each has a session of its own
                return None
            time.sleep(0.05)

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def sweep(self) -> None:
        """End the sessions whose pages are gone."""
        for key, session in list(self._open.items()):
            if session.is_left:
                self.close(key)

    def _end_the_most_silent(self) -> None:
        """End a session whose page is not there: one whose page never was, before others."""
        silent = [(*session.silence(), key) for key, session in list(self._open.items())]
        silent = [(heard, -seconds, key) for heard, seconds, key in silent if seconds > ARRIVING]
        if silent:
            self.close(min(silent)[-1])

    def __getitem__(self, key: str) -> Session:
        """The session of a page. Raises UserError if it has ended."""
        if (session := self._open.get(key)) is None:
            raise UserError(ENDED)
        return session

    def with_token(self, token: str) -> Session:
        """The session whose files have this token in their address. Raises UserError if there is none."""
        return self[self.key_of(token)]

    def key_of(self, token: str) -> str:
        """The key of the page whose files have this token in their address. Raises UserError if there is none."""
        with self._lock:
            for key, session in self._open.items():
                if secrets.compare_digest(session.token.encode(), token.encode()):
                    return key
        raise UserError(ENDED)

    def close(self, key: str) -> None:
        """End the session of a page, if it has one."""
        with self._lock:
            session = self._open.pop(key, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        for key in list(self._open):
            self.close(key)


def require_picture(path: Path, name: str, limits: Limits) -> str:
    """The format of an uploaded picture, by its content, without decoding it. Raises UserError for other formats and large pictures."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[kind for kind in SUFFIXES if kind != "MPO"]) as image:
                kind, size = image.format, image.size
    except Exception as error:  # Pillow's parsers raise whatever broken bytes lead them to
        if isinstance(error, Image.DecompressionBombError):
            raise UserError(f"{name} has far too many pixels: at most {limits.megapixels} megapixels are allowed") from None
        raise UserError(f"{name} is not a picture that can be read here: use JPEG, PNG, TIFF, WebP, BMP or GIF") from None
    limits.require_pixels(*size, name)
    return kind


def tidy_name(name: str) -> str:
    """A file name from a browser without folders and odd characters."""
    kept = re.sub(r"[^\w. ()+-]", "_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip(". ")
    return kept[-80:] or "picture"
