"""Read and write checkpoint files. Files from others are untrusted: nothing in them is ever run."""

import contextlib
import os
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from strdiffusion.errors import UserError

MAX_NAMED = 4


def read_checkpoint(path: str | Path) -> dict:
    """Load a checkpoint file onto the CPU; raises UserError where it is missing, damaged or holds more than data."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"the checkpoint {path} is a folder: give a file in it")
    try:
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
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, AssertionError, struct.error):
        raise UserError(f"the checkpoint {path} is truncated or damaged: get it again, or use an older one") from None
    if not isinstance(content, Mapping):
        raise UserError(f"the checkpoint {path} holds a {type(content).__name__}, not named weights: it is not one of this method")
    return dict(content)


def write_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint so that the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be written: {error.strerror or error}; free some space or change output") from None
    except RuntimeError as error:  # how torch reports a full disk
        raise UserError(f"the checkpoint {path} cannot be written: {' '.join(str(error).split())[:160]}") from None
    finally:
        with contextlib.suppress(OSError):  # the folder may be what is wrong
            temporary.unlink(missing_ok=True)


def compare_entries(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> str | None:
    """Say in one line how the entries found differ from those expected, by name and shape, or None where they agree."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = {name: (tuple(expected[name].shape), tuple(found[name].shape)) for name in expected if name in found}
    misshapen = [f"{name} {found_} instead of {wanted}" for name, (wanted, found_) in shapes.items() if wanted != found_]
    groups = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    parts = [f"{len(names)} {label}: {_some(names)}" for label, names in groups.items() if names]
    return "; ".join(parts) or None


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
