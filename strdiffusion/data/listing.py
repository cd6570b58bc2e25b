"""Finding the images of a folder, with an index file so that a large folder is not listed at every start."""

import difflib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from strdiffusion.data.facades import is_virtual, list_facades
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import open_regular, read_regular, write_atomically

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
INDEX_FORMAT = "strdiffusion image index 1"
INDEX_BEGINS = b'{"format":"strdiffusionimageindex'  # without spaces
LARGEST_INDEX = 2**30  # bytes: some ten million names
# A folder changed this recently may change again within one tick of its file system's clock, unnoticed.
SETTLED_NS = 2_000_000_000


class Listing(NamedTuple):
    """What one folder holds. `mtime_ns` and `inode` are those of the folder before it was listed."""

    mtime_ns: int
    inode: int
    images: list[str]
    folders: list[str]
    links: list[str]


def find_images(folder: str | os.PathLike, index: str | os.PathLike | None = None) -> list[Path]:
    """All images below `folder`, sorted by their path relative to it (with "/", compared as text).

    Links to folders are followed, but every real folder is taken once, under its own name if it has one
    below `folder`; so loops end. Names starting with "." are skipped.
    `index` is a file that records each folder's content and modification time: at the next call only
    folders that changed are listed again. An unusable index costs a warning and a full listing. A file that is no
    index stays as it is.
    `facades:SIZE/SPLIT` is a folder, too: of drawn street facades (see `facades`).
    Raises UserError for a folder that is missing, is a file, is not readable or holds no image.
    """
    folder = Path(folder)
    if is_virtual(folder):
        return list_facades(folder)
    if not folder.exists():
        raise UserError(f"the folder {folder} does not exist; check the path")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, but a folder of images is needed; give the folder that holds it")
    known = {} if index is None else _load_index(Path(index), folder)
    listings = _walk(folder, known)
    if index is not None and listings != known:
        _save_index(Path(index), folder, listings)
    names = sorted(_join(at, name) for at, listing in listings.items() for name in listing.images)
    if not names:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"no image in {folder} or below; it must hold files ending in one of {suffixes}")
    return [folder / name for name in names]


def require_folders(given: Mapping[str, str | os.PathLike | None] | Iterable[tuple[str, str | os.PathLike | None]]) -> None:
    """Raise UserError that names all folders that do not exist at once. given: of each option, its folder; None if it has none."""
    absent = [
        (option, folder)
        for option, folder in (given.items() if isinstance(given, Mapping) else given)
        if folder is not None and not is_virtual(folder) and not Path(folder).expanduser().exists()
    ]
    if absent:
        named = ", ".join(f"{option}={folder}" for option, folder in absent)
        advice = near(Path(absent[0][1]).expanduser()) if len(absent) == 1 else ""
        raise UserError(f"{named} {'does' if len(absent) == 1 else 'do'} not exist; check the path{'s' * (len(absent) > 1)}{advice}")


def near(folder: Path) -> str:
    """A hint that names the folder beside a missing one whose name is nearest, or nothing."""
    try:
        beside = [entry.name for entry in os.scandir(folder.parent) if entry.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(folder.name, beside, n=1)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def default_index(folder: str | os.PathLike) -> Path:
    """Where the index of `folder` is kept by default: in the user's cache, by a hash of the real path."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):  # there is no home
        cache = tempfile.gettempdir()
    key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:24]
    return Path(cache) / "strdiffusion" / "index" / f"{key}.json"


def index_file(index: str | None, folder: str | os.PathLike) -> Path | None:
    """Where an option puts the index of `folder`: "auto" in the user's cache, None nowhere, else the path itself."""
    return default_index(folder) if index == "auto" else (Path(index).expanduser() if index else None)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _walk(root: Path, known: dict[str, Listing]) -> dict[str, Listing]:
    """The listings of `root` and all folders below, by relative path; taken from `known` where unchanged."""
    listings: dict[str, Listing] = {}
    visited: set[str] = set()
    folders, links = deque([("", os.path.realpath(root))]), deque()
    while folders or links:
        # Links come last, so that a folder reachable both ways appears under its own name.
        at, real = folders.popleft() if folders else links.popleft()
        if real in visited:
            continue
        visited.add(real)
        try:
            listing = _list_if_changed(real, known.get(at))
        except OSError as error:
            if not at:
                raise UserError(f"cannot read folder {root}: {error.strerror}; check its permissions") from error
            log.warning("folder %s is skipped, it cannot be read: %s", root / at, error.strerror)
            continue
        listings[at] = listing
        folders.extend((_join(at, name), os.path.join(real, name)) for name in listing.folders)
        links.extend((_join(at, name), os.path.realpath(os.path.join(real, name))) for name in listing.links)
    return listings


def _list_if_changed(real: str, known: Listing | None) -> Listing:
    """`known` if the folder `real` still has its modification time, else a new listing. Raises OSError."""
    status = os.stat(real)
    if known is not None and (known.mtime_ns, known.inode) == (status.st_mtime_ns, status.st_ino):
        return known
    settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
    images, folders, links = [], [], []
    with os.scandir(real) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():
                images.append(entry.name)
    mtime_ns = status.st_mtime_ns if settled else 0
    return Listing(mtime_ns, status.st_ino, sorted(images), sorted(folders), sorted(links))


def _load_index(path: Path, folder: Path) -> dict[str, Listing]:
    """The listings stored at `path`; empty, with a warning, if they are unusable or of another folder."""
    try:
        content = json.loads(read_regular(path, LARGEST_INDEX))
        if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
            raise ValueError("it is not an image index")
        if content["root"] != os.path.realpath(folder):
            raise ValueError(f"it belongs to {content['root']}")
        return {at: _checked(fields) for at, fields in content["folders"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("index %s cannot be used and is rebuilt: %s", path, error)
        return {}


def _checked(fields: list) -> Listing:
    listing = Listing(*fields)
    names = (*listing.images, *listing.folders, *listing.links)
    # A name that leads elsewhere would let results be written elsewhere, too.
    sound = all(
        isinstance(name, str) and name and "/" not in name and os.sep not in name and "\0" not in name and name[0] != "." for name in names
    )
    if not sound or not isinstance(listing.mtime_ns, int):
        raise ValueError("it is damaged")
    return listing


def _was_index(path: Path) -> bool:
    """Whether a file may be replaced by an index: it is one, perhaps a damaged one, or there is none. Raises OSError."""
    if not path.exists():
        return True
    with open_regular(path) as file:
        begin = b"".join(file.read(2 * len(INDEX_BEGINS)).split())[: len(INDEX_BEGINS)]
    return INDEX_BEGINS.startswith(begin)


def _save_index(path: Path, folder: Path, listings: dict[str, Listing]) -> None:
    content = {"format": INDEX_FORMAT, "root": os.path.realpath(folder), "folders": listings}
    try:
        if not _was_index(path):
            log.warning("index %s is a file of another kind and stays as it is, %s will be listed again: choose another name", path, folder)
            return
        write_atomically(path, json.dumps(content, separators=(",", ":")).encode())
    except OSError as error:
        log.warning("index %s cannot be written, %s will be listed again: %s", path, folder, error.strerror)
