"""Output folders: results are never overwritten unless the user says so."""

import os
import uuid
from pathlib import Path

from strdiffusion.system.errors import UserError, one_line


def claim_output_folder(folder: str | Path, allow_existing: bool, how_to: str) -> Path:
    """Create the folder, or accept it where it is empty or `allow_existing`; else raise UserError ending with `how_to`."""
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
    """The path of a result below its folder; the folders between are created. Raises UserError where `name` leads out of it."""
    path = folder / name
    root = os.path.realpath(folder)
    if "\0" in name or os.path.commonpath([root, os.path.realpath(path)]) != root or os.path.realpath(path) == root:
        raise UserError(f"the result {one_line(name)} would lie outside of the output folder {folder}: rename its image")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the result {path} cannot be written: {error.strerror or error}") from None
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either the old content or all of the new. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
