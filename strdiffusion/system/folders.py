"""Output folders: one process at a time writes to each, nothing is overwritten unasked, and what is not whole is marked as such."""

import contextlib
import hashlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from strdiffusion.system.container import warn_if_lost
from strdiffusion.system.errors import UserError, one_line
from strdiffusion.system.files import NAME_KEPT, TEMPORARY, Together, make_folder, sync_file, sync_folder, write_text

log = logging.getLogger(__name__)

LOCK, UNFINISHED = ".lock", "unfinished.txt"
OLD = 24 * 3600  # seconds after which a temporary file is left over even if its process number is in use again
COMMAND_SHOWN = 120  # characters of the command that holds a lock
_held: set[str] = set()  # lock files of this process: the system would let it take them twice


@contextlib.contextmanager
def output_folder(folder: str | Path, allowed: bool | Callable[[Path], bool], how_to: str) -> Iterator[Path]:
    """Hold an output folder in this context: no other process writes to it. It is created if it does not exist.

    One that holds files is taken only if it is `allowed` (a function is called with the folder once it is locked); what a killed process
    left under temporary names is removed. Raises UserError if another process holds it, or, with `how_to` at its end, if it holds files.
    """
    folder = Path(folder).expanduser()
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LOCK, f"the output folder {folder}"))
            sweep(folder)
            warn_if_lost(folder)
            if not (allowed(folder) if callable(allowed) else allowed) and holds_files(folder):
                raise UserError(f"the output folder {folder} already holds files, and nothing is overwritten: {how_to}")
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"the output folder {folder} cannot be used: {reason}; choose another") from None
        yield folder


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` in this context. The lock ends with the process, however that ends; the file may stay then.

    Raises UserError, which says who holds it, if another process does, and OSError if the file cannot be made.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    name = os.path.realpath(path)
    if name in _held:
        raise UserError(f"this process already writes to {what}: choose another")
    while True:
        file = open(path, "a+", encoding="utf-8", errors="replace")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                raise UserError(f"{holder(file)} is writing to {what}: wait until it ends, or choose another") from None
        except OSError:  # a file system without locks
            log.info("the file system has no locks: make sure that no other process writes to %s", what)
        if same_file(file, path):
            break
        file.close()  # the process that held it removed it just now
    with file:
        _held.add(name)
        try:
            introduce(file)
            yield
        finally:
            _held.discard(name)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # while it is locked, so that no other process can have locked it


@contextlib.contextmanager
def locked_files(files: Sequence[Path]) -> Iterator[None]:
    """Hold single files in this context: no other process writes them. What a killed process left beside them is removed.

    The folders above them are created. Raises UserError, which says who holds one, or why it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for file in files:
            digest = hashlib.sha256(file.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            try:
                make_folder(file.parent)
                lock = file.with_name(f".{file.name[:NAME_KEPT]}.{digest}.lock")
                stack.enter_context(locked(lock, str(file)))
                sweep(file.parent, file.name)
                warn_if_lost(file.parent)
            except (OSError, ValueError) as error:  # ValueError: a name that no file can have
                reason = getattr(error, "strerror", None) or error
                raise UserError(f"{file} cannot be written: {reason}; choose another place") from None
        yield


@contextlib.contextmanager
def output_files(files: Sequence[Path], overwrite: bool, how_to: str) -> Iterator[Together]:
    """Hold single files in this context, into which they are written; at its end they appear together, flushed to the disk.

    Raises UserError if another process writes one of them, if one cannot be written, or, with `how_to` at its end, if one exists or
    appears meanwhile, unless `overwrite`.
    """
    require_new(files, overwrite, how_to)
    with locked_files(files):
        require_new(files, overwrite, how_to)  # now that nobody else writes them
        try:
            with Together(replace=overwrite) as together:
                yield together
        except FileExistsError as error:
            raise UserError(f"{error.filename2 or error.filename} appeared meanwhile, and nothing is overwritten: {how_to}") from None
        except OSError as error:
            raise UserError(f"{error.filename or files[0]} cannot be written: {error.strerror or error}; choose another place") from None


def require_new(files: Sequence[Path], overwrite: bool, how_to: str) -> None:
    """Raise UserError if one of the files exists and would be overwritten."""
    existing = next((file for file in files if os.path.lexists(file)), None)
    if existing is not None and not overwrite:
        raise UserError(f"{existing} exists, and nothing is overwritten: {how_to}")


def same_file(file: IO, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def introduce(file: IO[str]) -> None:
    """Write into a lock file whose it is."""
    about = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), (json.dumps(about) + "\n").encode())  # what stays in a buffer would fail once more when the file is closed


def holder(file: IO[str]) -> str:
    """Who holds a lock file, in words, as far as the file says it."""
    try:
        file.seek(0)
        about = json.loads(file.read(1 << 16))
        command = str(about["command"])[:COMMAND_SHOWN]
        return one_line(f"process {about['process']} on {about['host']}, started {about['since']} ({command}),")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "another process"


def holds_files(folder: Path) -> bool:
    """Whether a folder holds anything but its lock and what a killed process left under temporary names."""
    return any(entry.name != LOCK and not TEMPORARY.fullmatch(entry.name) for entry in os.scandir(folder))


def sweep(folder: Path, of: str | None = None) -> None:
    """Remove what processes that do not exist any more left under temporary names: in the folder and below it, or `of` one file in it."""
    for place, below, names in os.walk(folder):
        if of is not None:
            below.clear()
        for name in names:
            found = TEMPORARY.fullmatch(name)
            if found and (of is None or name.startswith(f".{of[:NAME_KEPT]}.")) and not in_use(Path(place, name), found[1]):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(place, name))


def in_use(path: Path, process: str | None) -> bool:
    """Whether another process may still write a temporary file: it exists, and the file is not old."""
    if process is None or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    try:
        return time.time() - path.stat().st_mtime < OLD
    except OSError:
        return False


class Mark:
    """unfinished.txt: says, while it is there, that its folder is not whole. A killed command leaves it; given again, it goes on.

    Its first line is for people. The second is the `key` of the work, by which a command knows that what is there is its own. Each
    further line is a note of what is done, as JSON.
    """

    def __init__(self, folder: Path, key: str, text: str = "it is being written, or the command that wrote it was interrupted"):
        self.path, self.key, self.text = folder / UNFINISHED, key, text

    def is_mine(self) -> bool:
        """Whether the folder is marked by the same work. Raises UserError if it is marked by other work."""
        found = found_key(self.path.parent)
        if found is not None and found != self.key:
            raise UserError(
                f"{self.path.parent} holds the unfinished results of another command, or of other options: give that command again to go "
                "on with it, or choose another output"
            )
        return found is not None

    def begin(self, key: str | None = None) -> None:
        """Mark the folder, with no notes. key: another than the work's own. Raises UserError."""
        key = self.key if key is None else key
        write_text(self.path, f"This folder is not whole: {one_line(self.text)}. The same command goes on with it.\n{key}\n")

    def note(self, **what: object) -> None:
        """Add a note, to the disk. Raises OSError."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(what))  # on a new line also after one that was cut off
            sync_file(file)

    def notes(self) -> list[dict]:
        """The notes, as far as they can be read: the last may be cut off."""
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines()[2:]:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [note for note in found if isinstance(note, dict)]

    def end(self) -> None:
        """The folder is whole: remove the mark."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)


def key_of(command: str, options: dict) -> str:
    """The key of a command's work: the same options, the same key."""
    return hashlib.sha256(json.dumps([command, options], sort_keys=True, default=str).encode("utf-8", "surrogateescape")).hexdigest()


def found_key(folder: Path) -> str | None:
    """The key of a folder's mark; None if it has none. Raises OSError."""
    try:
        lines = (folder / UNFINISHED).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return lines[1] if len(lines) > 1 else ""
