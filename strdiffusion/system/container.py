"""In a container (our Dockerfile says so by a variable): what is written outside of a volume is lost with it."""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "STRDIFFUSION_CONTAINER"
_warned: set[Path] = set()  # folders


def in_container() -> bool:
    """Whether the process runs in a container of our Dockerfile."""
    return os.environ.get(VARIABLE) == "1"


def warn_if_lost(folder: Path) -> None:
    """In a container, warn once if a folder that results go to is on no volume."""
    folder = Path(os.path.realpath(folder))
    if in_container() and folder not in _warned and not on_volume(folder):
        _warned.add(folder)
        log.warning(
            '%s is in the container alone and is lost with it: start it with -v "$PWD/NAME:%s", NAME a folder of yours', folder, folder
        )


def on_volume(folder: Path) -> bool:
    """Whether a folder, or one above it, is mounted from elsewhere, the root aside."""
    return any(os.path.ismount(above) for above in (folder, *folder.parents) if above != Path(folder.anchor))
