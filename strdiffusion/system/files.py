"""Output folders, in which nothing is overwritten unless the user asks for it, and files, which are written whole or not at all."""

import contextlib
import errno
import hashlib
import os
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


def claim_output_folder(folder: str | Path, allow_existing: bool, how_to: str) -> Path:
    """Create the folder, or accept it if it is empty or `allow_existing`; otherwise raise UserError ending with `how_to`."""
    folder = Path(folder).expanduser()
    try:
        if not allow_existing and folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"the output folder {folder} already holds files, and nothing is overwritten: {how_to}")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the output folder {folder} cannot be used: {reason}; choose another with output=FOLDER") from None
    return folder


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written in this context; at the end of the context it replaces `path`.

    So `path` holds either the old content or all of the new. After an error the temporary file is removed. Raises OSError.
    """
    temporary = path.with_name(f".{path.name[:NAME_KEPT]}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a write names no file: "No space left on device" would not say where
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the folder may be the cause of the error
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes, durable: bool = False) -> None:
    """Write `data` so that `path` holds either the old content or all of the new; the folders above it are created. Raises OSError.

    durable: return only when the data is on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        if durable:
            sync_file(file)
    if durable:
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all. Raises UserError if it cannot be written."""
    try:
        write_atomically(path, text.encode("utf-8", "surrogateescape"))  # file names may not be UTF-8
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


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


def sync_folder(folder: Path) -> None:
    """Flush the file names of a folder to the disk, if the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
