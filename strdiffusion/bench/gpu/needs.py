"""Packages that a machine with torch and numpy may lack, and what needs them."""

import importlib.util
import sys
from collections.abc import Iterable

import torch

from strdiffusion.system.compiling import require_compiler
from strdiffusion.system.errors import UserError

PIP_NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
IMAGES = ("cv2", "PIL", "skimage", "scipy")  # to read pictures and find their edges
RUNS = ("yaml", "tqdm", "tensorboard", *IMAGES)  # to train from a configuration file


def missing(packages: Iterable[str]) -> list[str]:
    """Those that cannot be imported."""
    return [name for name in packages if not installed(name)]


def installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def pip_names(packages: Iterable[str]) -> list[str]:
    """The names under which pip knows them."""
    return [PIP_NAMES.get(name, name) for name in packages]


def no_compiler(device: torch.device) -> str | None:
    """Why torch.compile cannot work here; None if it can."""
    try:
        require_compiler(device)
    except UserError as error:
        return str(error)
    return None
