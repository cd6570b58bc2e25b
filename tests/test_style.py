"""The code is laid out and checked as ruff.toml says."""

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("ruff", reason="ruff is not installed: pip install -r requirements.txt")


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_code_obeys_its_formatter_and_linter(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_formatting_is_switched_off():
    sources = [path for folder in ("strdiffusion", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    switches = ["# fmt: " + word for word in ("skip", "off")]
    assert not [path for path in sources if any(switch in path.read_text(encoding="utf-8") for switch in switches)]
