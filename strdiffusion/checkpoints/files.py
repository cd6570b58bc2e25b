"""Read and write checkpoint files. Files are untrusted: no code in them is ever run.

A file is written under a temporary name, flushed to the disk, read back and only then renamed. So the file always holds
either the old content or all of the new, even after a crash.
"""

import contextlib
import io
import mmap
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from strdiffusion.checkpoints.pickles import LEGACY, LEGACY_PICKLES, require_plain
from strdiffusion.system.errors import UserError, brief, one_line
from strdiffusion.system.files import open_regular, replacing, sync_file, sync_folder

MAX_NAMED = 4
ZIP = b"PK\x03\x04"
LARGEST_PICKLE = 2**26  # bytes, without the tensors
MOST_SHARED = 4  # how often, on average, tensors may name the same numbers
BLOCK = 1 << 20
DAMAGE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
)


class WriteError(UserError):
    """A file could not be written. An earlier file of that name is unchanged."""


def read_checkpoint(path: str | Path) -> dict:
    """Load a checkpoint file onto the CPU. Raises UserError if it is missing, damaged or holds anything but data."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"the checkpoint {path} is a folder: give a file in it")
    if path.suffix == ".safetensors" and path.exists():
        raise UserError(f"the checkpoint {path} holds weights alone: give the folder it is in, {path.parent} (checkpoints.folder)")
    try:
        check_records(path)
        check_pickles(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} does not exist: check the path, or train it first") from None
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|global|class) [`']?([\w.]+)", str(error))
        if culprit:
            raise UserError(
                f"the checkpoint {path} holds code or objects that are not weights ({culprit[1]}) and was not loaded: "
                "get it from a source you trust, saved as plain tensors"
            ) from None
        raise UserError(f"the checkpoint {path} is not a checkpoint file, or is damaged: get it again") from None
    except PermissionError:
        raise UserError(f"the checkpoint {path} may not be read: check its permissions") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror or brief(error)}") from None
    except DAMAGE:
        raise UserError(f"the checkpoint {path} is truncated or damaged: get it again, or use an older one") from None
    if not isinstance(content, Mapping):
        raise UserError(f"the checkpoint {path} holds a {type(content).__name__}, not named weights: it is not a checkpoint of this method")
    tensors = list(tensors_in(content))
    inflated = next((t for t in tensors if t.numel() * t.element_size() > t.untyped_storage().nbytes()), None)
    if inflated is not None:
        raise UserError(f"the checkpoint {path} declares a tensor of {brief(tuple(inflated.shape))} that it does not hold: do not use it")
    if sum(t.numel() * t.element_size() for t in tensors) > MOST_SHARED * path.stat().st_size:
        raise UserError(f"the checkpoint {path} declares the same numbers again and again, which would fill the memory: do not use it")
    return dict(content)


def check_pickles(path: Path) -> None:
    """Raise UnpicklingError if a checkpoint holds anything but named tensors and plain values, or would grow when it is read."""
    held = path.stat().st_size
    with open_regular(path) as file:
        begin = file.read(len(LEGACY))
        if not begin:
            raise EOFError("it is empty")
        if begin == LEGACY:  # the format before torch 1.6
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                require_plain(data, held, LEGACY_PICKLES)
            return
        if begin[:4] != ZIP:
            if begin[:1] == pickle.PROTO:  # a pickle of its own is refused, too; the message then says what it names
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, contextlib.suppress(*DAMAGE):
                    require_plain(data, held)
            raise pickle.UnpicklingError("it is neither of torch's formats")
    with zipfile.ZipFile(path) as archive:
        content = [record for record in archive.infolist() if record.filename.endswith("/data.pkl")]
        if len(content) != 1 or content[0].file_size > LARGEST_PICKLE:
            raise pickle.UnpicklingError("it has no content, or far too much")
        data = archive.read(content[0])
    if torch._C.PyTorchFileReader(str(path)).get_record("data.pkl") != data:  # an archive may show two readers two things
        raise pickle.UnpicklingError("it is ambiguous")
    require_plain(io.BytesIO(data), held)


def check_records(path: Path) -> None:
    """Raise BadZipFile if a record of a checkpoint in torch's zip format is damaged, or if its records expand when read.

    torch does not verify the checksums, and it would decompress a few kilobytes to any size.
    """
    with open_regular(path) as file:
        if file.read(4) != ZIP:
            return  # the format before torch 1.6, or no checkpoint
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise zipfile.BadZipFile("its records are larger than the file")
        if len({record.filename for record in records}) < len(records):
            raise zipfile.BadZipFile("it has two records of one name")
        for record in records:
            with archive.open(record) as content:
                while content.read(BLOCK):  # a wrong checksum raises BadZipFile at the end
                    pass


def tensors_in(content: object) -> Iterator[torch.Tensor]:
    """Every tensor in nested mappings, lists and tuples. Each container is visited once, because they may contain each other."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu":
                yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def write_checkpoint(path: Path, content: dict, replace: bool = True) -> None:
    """Write a checkpoint and verify it. Raises WriteError if that fails; the file is then as it was before.

    replace: false if a file that exists must stay as it is; then FileExistsError is raised.
    """
    try:
        with replacing(path, replace) as temporary:
            with open(temporary, "wb") as file:
                torch.save(content, file)
                sync_file(file)
                _forget_cached(file.fileno())
            verify(temporary, content)
        sync_folder(path.parent)
    except FileExistsError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: torch could not write its file
        reason = _write_failure(error)
        raise WriteError(f"the checkpoint {path} cannot be written: {reason}; free some space or change output") from None


def _write_failure(error: BaseException) -> str:
    """The system's reason, which torch's error hides."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            return below.strerror or str(below)
        below = below.__context__
    return "the disk is full, or the file system does not accept it (" + one_line(" ".join(str(error).split())[:100]) + ")"


def verify(path: Path, content: dict) -> None:
    """Read the file back. Raises OSError if it is not what was written."""
    try:
        check_records(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except DAMAGE + (pickle.UnpicklingError,) as error:
        raise OSError(f"what was written cannot be read back ({brief(error)})") from None
    if list(found) != list(content):
        raise OSError("what was written reads back differently")


def _forget_cached(descriptor: int) -> None:
    """Make the next read of the file come from the disk, not from memory, if the system supports it."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def compare_entries(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str | None:
    """How the entries found differ from those expected, by name and shape, in one line; None if they agree."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = {name: (tuple(expected[name].shape), tuple(found[name].shape)) for name in expected if name in found}
    misshapen = [f"{name} {found_} instead of {wanted}" for name, (wanted, found_) in shapes.items() if wanted != found_]
    groups = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    parts = [f"{len(names)} {label}: {_some(names)}" for label, names in groups.items() if names]
    return "; ".join(parts) or None


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(one_line(str(name))[:120] for name in names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
