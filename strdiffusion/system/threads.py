"""How many threads torch gets, and how they wait for each other: chosen before torch is loaded, by which processors are free.

While a thread has nothing to do it looks again and again whether there is work ("spinning"). On free processors that is fastest. On busy
ones it takes their time from the thread that has the work: a picture then takes ten times as long (docs/performance.md). A variable that
the user has set stays as it is. Nothing here happens when the package is imported in Python: only commands import `system/start.py`.
"""

import math
import os
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

COUNT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINS = "10000"  # of GNU's OpenMP, whose default is 300,000: nearly as fast on free processors, and bearable if they become busy
WINDOW = 0.1  # seconds
PIXELS = 2048  # a thread is not worth its waiting for fewer pixels of a batch: two for 64x64

_chosen = False


def choose(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that torch reads when it is loaded, unless the user has set them.

    All processors are free: as many threads as there are processors, which wait briefly. Some are not: only as many threads as
    are free, at least one, which do not spin at all. Processes of torchrun divide the machine and do not spin.
    """
    global _chosen
    limit = allowed()
    ranks = environment.get("LOCAL_WORLD_SIZE", "1")
    sharing = ranks.isascii() and ranks.isdecimal() and 1 < int(ranks) < 65_536
    count = max(limit // int(ranks), 1) if sharing else max(min(limit, round(free())), 1)
    if not any(name in environment for name in COUNT):
        environment["OMP_NUM_THREADS"] = str(count)
        _chosen = True
    if not any(name in environment for name in WAITING):
        environment.update({"OMP_WAIT_POLICY": "PASSIVE"} if sharing or count < limit else {"GOMP_SPINCOUNT": SPINS})


def chosen() -> bool:
    """Whether this program has chosen the number of threads, not the user."""
    return _chosen


def fit(pixels: int) -> None:
    """Let torch use fewer threads for a small work: batches of so many pixels. Nothing is changed that the user has chosen."""
    torch = sys.modules.get("torch")
    if _chosen and torch is not None:
        torch.set_num_threads(max(min(torch.get_num_threads(), pixels // PIXELS), 1))


def repeat(count: object) -> int:
    """Let torch use as many threads as an earlier run did, which rounds alike. Returns how many are used: others if the user has chosen
    them, or if there are not so many processors.
    """
    import torch

    if _chosen and isinstance(count, int) and 1 <= count <= allowed():
        torch.set_num_threads(count)
    return torch.get_num_threads()


def allowed() -> int:
    """How many processors this process may use: the machine's, its affinity, and the limits of its control groups (containers)."""
    return max(math.ceil(min(len(processors()), quota())), 1)


def processors() -> set[int]:
    """The processors on which the system lets this process run."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """The processors' time that the control groups of this process allow, in processors; infinity if there is no limit."""
    least = math.inf
    for line in read(groups).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        top = root if number == "0" else root / controllers
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):  # a limit holds for all groups below it; in a container the path may be that of the host
            if number == "0":
                most, _, period = read(folder / "cpu.max").strip().partition(" ")
            else:
                most, period = read(folder / "cpu.cfs_quota_us").strip(), read(folder / "cpu.cfs_period_us").strip()
            if most.isdecimal() and period.isdecimal() and int(period) > 0:
                least = min(least, int(most) / int(period))
            if folder == top:
                break
    return least


def free() -> float:
    """How many of the allowed processors have nothing to do, measured for a moment unless the load average is low.

    Where their idle time cannot be read, what the load average leaves.
    """
    mine = processors()
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):
        return len(mine)
    if load < 0.3:
        return len(mine)
    before = idle_times()
    time.sleep(WINDOW)
    after = idle_times()
    shares = [
        (after[n][0] - before[n][0]) / spent for n in mine & before.keys() & after.keys() if (spent := after[n][1] - before[n][1]) > 0
    ]
    return sum(shares) if shares else len(mine) - load


def idle_times(file: Path = Path("/proc/stat")) -> dict[int, tuple[int, int]]:
    """Of each processor: the ticks in which it was idle or waited for a disk, and all ticks."""
    found = {}
    for line in read(file).splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and len(ticks) >= 8 and all(map(str.isdecimal, ticks)):
            numbers = [int(tick) for tick in ticks[:8]]  # those after them, of guests, are parts of others
            found[int(name[3:])] = numbers[3] + numbers[4], sum(numbers)
    return found


def read(file: Path) -> str:
    """A text file of the system, empty if there is none."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
