"""Torch's threads: how many processors are free, what limits them, and that the user's own variables stay."""

import io
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from strdiffusion.system import start, threads


@pytest.fixture
def machine(monkeypatch):
    """Set how many processors may be used, and how many of them are free. The choice is forgotten afterwards."""
    monkeypatch.setattr(threads, "_chosen", False)

    def become(allowed: int, free: float) -> dict[str, str]:
        monkeypatch.setattr(threads, "allowed", lambda: allowed)
        monkeypatch.setattr(threads, "free", lambda: free)
        return {}

    return become


def chosen(environment: dict[str, str]) -> dict[str, str]:
    threads.choose(environment)
    return environment


def test_a_free_machine_is_used_wholly(machine):
    assert chosen(machine(8, 7.8)) == {"OMP_NUM_THREADS": "8", "GOMP_SPINCOUNT": threads.SPINS}


@pytest.mark.parametrize("free, count", [(3.2, "3"), (0.3, "1"), (0, "1"), (-4, "1")])
def test_on_a_busy_machine_as_many_as_are_free_and_none_spins(machine, free, count):
    assert chosen(machine(8, free)) == {"OMP_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_users_number_of_threads_stays(machine, name):
    assert chosen(machine(8, 1) | {name: "5"}) == {name: "5", "OMP_WAIT_POLICY": "PASSIVE"}
    assert not threads.chosen()


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_the_users_way_of_waiting_stays(machine, name):
    assert chosen(machine(8, 1) | {name: "x"}) == {name: "x", "OMP_NUM_THREADS": "1"}


def test_processes_of_torchrun_divide_the_machine(machine):
    assert chosen(machine(8, 8) | {"LOCAL_WORLD_SIZE": "3"})["OMP_NUM_THREADS"] == "2"
    assert chosen(machine(2, 2) | {"LOCAL_WORLD_SIZE": "4"})["OMP_WAIT_POLICY"] == "PASSIVE"


def test_limits_of_control_groups(tmp_path):
    """Version 2 and version 1, of the group and of those above it; without a limit, and without a file."""
    groups, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "a" / "b").mkdir(parents=True)
    groups.write_text("0::/a/b\n")
    assert threads.quota(groups, root) == float("inf")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert threads.quota(groups, root) == float("inf")
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    assert threads.quota(groups, root) == 1.5
    (root / "cpu,cpuacct").mkdir()
    (root / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("50000\n")
    (root / "cpu,cpuacct" / "cpu.cfs_period_us").write_text("100000\n")
    groups.write_text("3:cpu,cpuacct:/of/the/host\n0::/a/b\n")
    assert threads.quota(groups, root) == 0.5
    (root / "cpu,cpuacct" / "cpu.cfs_quota_us").write_text("-1\n")
    assert threads.quota(groups, root) == 1.5
    assert threads.quota(tmp_path / "none", root) == float("inf")


def test_the_idle_share_counts_of_the_allowed_processors(monkeypatch):
    """Of three processors two may be used: one of them was idle for half of the time, the other for a tenth."""
    times = iter([{0: (100, 1000), 1: (0, 0), 2: (0, 500)}, {0: (105, 1010), 1: (10, 10), 2: (1, 510)}])
    monkeypatch.setattr(threads, "processors", lambda: {0, 2})
    monkeypatch.setattr(threads, "idle_times", lambda: next(times))
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 0, 0))
    assert threads.free() == pytest.approx(0.6)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))
    assert threads.free() == 2


def test_idle_times_of_a_system(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 1 2 3 40 5 6 7 8 9 9\ncpu1 0 0 0 7 0 0 0 0 0 0\nintr 5\n")
    assert threads.idle_times(stat) == {0: (45, 72), 1: (7, 7)}


def test_few_pixels_get_few_threads(machine, monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    threads.fit(64 * 64)  # nothing was chosen by this program
    assert used == []
    chosen(machine(16, 16))
    for pixels in (8 * 8, 64 * 64, 16 * 64 * 64):
        threads.fit(pixels)
    assert used == [1, 2, 16]


def test_a_training_goes_on_with_its_threads(machine, monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    threads.repeat(2)
    chosen(machine(4, 4))
    for count in (3, 5, "x"):
        threads.repeat(count)
    assert used == [3]


PRINT = "print(*map(os.environ.get, ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY')))"


def test_importing_the_package_chooses_nothing():
    assert in_a_process(f"import os, strdiffusion; {PRINT}", {}) == "None None"


def test_a_command_chooses_before_torch_is_loaded():
    count, _, used = in_a_process(
        f"import os, strdiffusion.commands.main; {PRINT}; import torch; print(torch.get_num_threads())", {}
    ).split()
    assert count == used
    mine = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "active"}
    assert in_a_process(f"import os, strdiffusion.commands.main; {PRINT}", mine) == "3 active"


def test_the_limit_of_a_machine_without_limits():
    assert 1 <= threads.allowed() <= os.cpu_count()


SCRIPTS = [
    path for path in sorted((ROOT / "scripts").glob("*.py")) if "import strdiffusion.system.start" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_chooses_before_it_imports_more(script):
    """Two scripts measure torch as it is, or without further threads."""
    text = script.read_text(encoding="utf-8")
    assert text.index("import strdiffusion.system.start") < text.index("\nfrom strdiffusion")
    assert ("\nimport torch" in text.split("import strdiffusion.system.start")[0]) == (script.stem in ("benchmark", "kill_test"))


def in_a_process(code: str, given: dict[str, str]) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in (*threads.COUNT, *threads.WAITING)}
    environment = kept | {"PYTHONPATH": str(ROOT)} | given
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout.strip()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_is_told_that_the_libraries_are_being_imported():
    said, quick, pipe = Terminal(), Terminal(), io.StringIO()
    start.announce(said, 0).join()
    assert said.getvalue() == start.LOADING + "\n"
    in_time = start.announce(quick, 60)
    in_time.cancel()
    in_time.join()
    assert quick.getvalue() == "" and start.announce(pipe, 0) is None and start.announce(None) is None
