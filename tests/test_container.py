"""The Dockerfile. Tests have no builder: what it copies is there, its commands are commands, and what it installs is locked."""

import fnmatch
import json
import re
import subprocess

import pytest
from conftest import ROOT

from strdiffusion.commands import web
from strdiffusion.system.container import VARIABLE
from strdiffusion.system.folders import output_files, output_folder

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = re.findall(r"^([A-Z]+) (.*)$", re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.M)), flags=re.M)
RUNS = [text for step, text in STEPS if step == "RUN"]
FILTER = re.search(r"awk '([^']*)'", TEXT).group(1)
LOCK = (ROOT / "requirements-web.txt").read_text(encoding="utf-8")


def copied() -> list[str]:
    return [source for step, text in STEPS if step == "COPY" for source in text.split()[:-1]]


def test_what_it_copies_exists_and_reaches_the_builder():
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*" and len(copied()) > 5
    for source in copied():
        assert (ROOT / source).exists() and f"!{source}" in lines, source
        assert not any(fnmatch.fnmatch(source, line) for line in lines[1:] if not line.startswith("!")), source
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())  # and nothing else does


@pytest.mark.parametrize("commands", RUNS)
def test_its_commands_are_commands(commands):
    assert subprocess.run(["sh", "-n", "-c", commands], capture_output=True, text=True).stderr == ""


def packages(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", text, flags=re.M))


def test_without_a_gpu_all_but_cuda_is_installed_by_its_hash():
    kept = subprocess.run(["awk", FILTER], input=LOCK, capture_output=True, text=True, check=True).stdout
    out = packages(LOCK) - packages(kept)
    assert {"torch", "torchvision", "triton"} < out and {"gradio", "numpy", "setuptools", "torch-fidelity"} <= packages(kept)
    assert all(re.match("torch$|torchvision$|triton$|nvidia-|cuda-", name) for name in out)
    entries = re.split(r"\n(?=[a-z])", kept[re.search("^[a-z]", kept, flags=re.M).start() :])
    assert all("--hash=sha256:" in entry for entry in entries) and len(entries) >= len(packages(kept))
    for name in ("torch", "torchvision"):  # one version each: the sed of the Dockerfile takes all lines
        assert len(re.findall(rf"^{name}==[0-9.]+", LOCK, flags=re.M)) == 1


def test_it_refuses_another_device():
    """The first lines of the command that installs, up to the copy of the lock."""
    head = RUNS[0].split("cp requirements")[0]
    for device, status in (("cpu", 0), ("cuda", 0), ("gpu", 1)):
        assert subprocess.run(["sh", "-c", head], env={"DEVICE": device}, capture_output=True).returncode == status


def test_it_runs_the_page_as_nobody_in_particular():
    command = json.loads(next(text for step, text in STEPS if step == "CMD"))
    options = web.parse_arguments(command[2:], "strdiffusion web")
    assert command[:2] == ["strdiffusion", "web"] and (options.host, options.port) == ("0.0.0.0", 7860)
    assert dict(STEPS)["EXPOSE"] == "7860" and dict(STEPS)["USER"] != "root"


def test_what_is_written_outside_of_a_volume_is_told_once(monkeypatch, tmp_path, caplog):
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) in ("/", str(tmp_path / "volume")))
    for value, said in (("0", []), ("1", [tmp_path / "alone"])):
        monkeypatch.setenv(VARIABLE, value)
        for folder in ("alone", "alone", "volume/results"):
            with output_folder(tmp_path / folder, True, ""):
                pass
        with output_files([tmp_path / "alone" / "out.png", tmp_path / "volume" / "out.png"], True, ""):
            pass
        assert [record.args[0] for record in caplog.records] == said
    assert f"{VARIABLE}=1" in TEXT


@pytest.mark.parametrize(
    ("address", "host", "opened", "said"),
    [
        ("http://0.0.0.0:7860", "0.0.0.0", "http://localhost:7860", "only if the port is published, docker run -p 127.0.0.1:7860:7860"),
        ("http://[::]:7861/", "::", "http://localhost:7861/", "-p 127.0.0.1:7861:7861"),
        ("http://127.0.0.1:7862", "127.0.0.1", "http://127.0.0.1:7862", "give --host 0.0.0.0"),
    ],
)
def test_the_address_of_the_page_is_one_that_can_be_opened(address, host, opened, said):
    assert web.to_open(address) == opened
    assert said in web.reached_from_outside(address, host)
