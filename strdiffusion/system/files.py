"""Files, which are written whole or not at all. Folders: see `folders`."""

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from strdiffusion.system.errors import UserError, one_line

BLOCK = 1 << 20  # bytes read at once
MOST_TEXT = 2**28
NO_FILE = "it is a folder, a device or a pipe, not a file"
NAME_KEPT = 32  # a temporary file's name begins with so many characters of the file's name
TEMPORARY = re.compile(r"\..*\.(?:([0-9]+)-)?[0-9a-f]{32}\.tmp", re.DOTALL)  # such a name; the number is the process's


def read_regular(path: str | Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises OSError or ValueError.

    A device or a pipe would have no end, or none to write to it.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most} bytes")
    return data


def read_table(path: str | Path) -> str:
    """The text of a regular file that holds a table or a log, of at most MOST_TEXT bytes. Raises OSError or ValueError.

    Bytes that are no text are kept as in file names.
    """
    return read_regular(path, MOST_TEXT).decode("utf-8", "surrogateescape")


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file to read its bytes. Raises OSError, also for folders, devices and pipes, which opening could block."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    return file


def require_regular(path: str | Path) -> None:
    """Raise OSError for what is there and is no regular file. What is missing is left to the reader."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, NO_FILE, str(path))


def inside(folder: Path, name: str) -> Path:
    """The path of a result below its folder; folders between are created. Raises UserError if `name` leads out of the folder."""
    path = folder / name
    root = os.path.realpath(folder)
    if "\0" in name or os.path.commonpath([root, os.path.realpath(path)]) != root or os.path.realpath(path) == root:
        raise UserError(f"the result {one_line(name)} would lie outside of the output folder {folder}: rename its image")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the result {path} cannot be written: {error.strerror or error}") from None
    return path


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses, and by which what a killed process left is known."""
    return path.with_name(f".{path.name[:NAME_KEPT]}.{os.getpid()}-{uuid.uuid4().hex}.tmp")


@contextlib.contextmanager
def replacing(path: Path, replace: bool = True) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in this context; at the end of the context it replaces `path`.

    So `path` holds either the old content or all of the new. After an error the temporary file is removed. Raises OSError; without
    `replace` FileExistsError if there is a file.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        (os.replace if replace else rename_new)(temporary, path)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # a write names no file: "No space left on device" would not say where
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the folder may be the cause of the error
            temporary.unlink(missing_ok=True)


class Together:
    """Files that appear at once, at the end of a context: until then they have temporary names, and after an error they are removed.

    All of them are on the disk before the first is renamed, and the names are on the disk when the context ends. So after a crash or a
    power cut each file is whole, or as it was before. The flushes of many files cost little more than that of one.

    replace: false if a file that exists must stay as it is; then FileExistsError is raised. Raises OSError.
    """

    def __init__(self, replace: bool = True):
        self.replace = replace
        self.waiting: list[tuple[Path, Path]] = []  # each file's temporary name, and its own
        self.folders: set[Path] = set()  # in which names change

    def write(self, path: Path, data: bytes) -> None:
        """Add a file. The folders above it are created."""
        self.folders |= make_folder(path.parent) | {path.parent}
        temporary = temporary_name(path)
        self.waiting.append((temporary, path))
        with naming(path):
            temporary.write_bytes(data)

    def finish(self) -> None:
        """Let the files appear, in the order in which they were written."""
        for temporary, path in self.waiting:
            with naming(path):
                sync_path(temporary, os.O_RDWR)  # Windows flushes only what may be written
        while self.waiting:
            temporary, path = self.waiting[0]
            (os.replace if self.replace else rename_new)(temporary, path)
            self.waiting.pop(0)
        for folder in self.folders:
            sync_folder(folder)
        self.folders.clear()

    def __enter__(self) -> "Together":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has not appeared."""
        for temporary, _ in self.waiting:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self.waiting.clear()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of a write, which names no file, name this one: "No space left on device" alone does not say where."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def rename_new(temporary: Path, path: Path) -> None:
    """Rename a file to a name that nothing has. Raises FileExistsError, also if another process takes the name at the same moment."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # an empty file reserves the name for a moment
        os.replace(temporary, path)
        return
    temporary.unlink()


def write_atomically(path: Path, data: bytes, durable: bool = False) -> None:
    """Write `data` so that `path` holds either the old content or all of the new; the folders above it are created. Raises OSError.

    durable: return only when the data is on the disk.
    """
    if durable:
        with Together() as files:
            files.write(path, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, into: Together | None = None) -> None:
    """Write a text in UTF-8, whole or not at all: to the disk, or with the other files of `into`. Raises UserError if that fails."""
    data = text.encode("utf-8", "surrogateescape")  # file names may not be UTF-8
    try:
        write_atomically(path, data, durable=True) if into is None else into.write(path, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def make_folder(path: Path) -> set[Path]:
    """Create a folder and those above it. Returns the folders in which names were added. Raises OSError."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    path.mkdir(parents=True, exist_ok=True)
    return {folder.parent for folder in missing}


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_file(file: IO) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_path(path: Path, flags: int = os.O_RDONLY) -> None:
    """Flush a closed file, or a folder, to the disk. flags: with which it is opened. Raises OSError."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all() -> None:
    """Flush everything that was written to the disk, if the system supports it."""
    if hasattr(os, "sync"):
        os.sync()


def sync_folder(folder: Path) -> None:
    """Flush the file names of a folder to the disk, if the system supports it."""
    with contextlib.suppress(OSError):
        sync_path(folder)
