"""Part 1: whether the device computes what the CPU computes: golden numbers, networks at full size, and the tests that need a GPU."""

import importlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from strdiffusion.bench.gpu.needs import no_compiler
from strdiffusion.bench.gpu.record import Session
from strdiffusion.bench.gpu.scale import ROOT, Scale
from strdiffusion.bench.networks import Form, evaluate, make_inputs, make_network
from strdiffusion.denoiser import Precision
from strdiffusion.networks import KINDS, Kind
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.markdown import markdown_table

# those of tests/test_gpu.py; of fp32 ten times as much, since cuDNN may sum in another order than the CPU. The discriminator is a sum
# over many pixels, and bfloat16 takes 0.09 on a CPU
TOLERANCES = {"fp32": 1e-4, "tf32": 0.01, "bf16": 0.05, "fp16": 0.01}
OF_DISCRIMINATOR = 3
TEST_PACKAGES = ("pytest", "cv2", "PIL", "skimage", "scipy", "yaml", "tqdm", "tensorboard", "safetensors")
NETWORKS_OF = {"golden": ("networks",), "golden_repaint": ("unet",)}  # in lower precision only networks are compared
EVERYTHING_OF = {"golden": ("sde", "networks", "losses", "sampler"), "golden_repaint": None}
FORMS: tuple[Form, ...] = ("plain", "inference")


def run(session: Session, scale: Scale) -> None:
    for precision in scale.precisions:
        for form in FORMS:
            for folder in NETWORKS_OF:
                session.measure(f"golden numbers/{folder}/{precision}/{form}", partial(golden, session, folder, precision, form), 20)
    for kind in KINDS:
        for precision in scale.precisions:
            for form in FORMS:
                session.measure(
                    f"as on the CPU/{kind}/{precision}/{form}", partial(as_on_the_cpu, session, scale, kind, precision, form), 10
                )
    EXPECTED.clear()
    if session.can("tests/test_gpu.py", *TEST_PACKAGES):
        names = session.measure("tests", gpu_tests, 60)
        for name in names["tests"] if names and names["status"] == "ok" else ():
            session.measure(f"tests/{name}", partial(one_test, name), 90)
    reason = no_compiler(session.device)
    if reason:
        session.say(f"tests: not run: golden numbers of compiled networks ({reason})")
    elif not session.quick:
        session.measure("golden numbers/golden/fp32/compiled", partial(golden, session, "golden", "fp32", "compiled"), 180)


def golden(session: Session, folder: str, precision: Precision, form: Form) -> dict:
    """How far the golden numbers of a folder are from what this device computes. In float32 all of them, else those of networks."""
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    checks, forms = importlib.import_module("golden_checks"), importlib.import_module("golden_forms")

    def call(network: nn.Module) -> Callable:
        return evaluate(network, form, precision, session.device)

    exact = precision == "fp32" and form != "compiled"
    set_float32_precision(precision)
    try:
        with checks.on_device(session.device):
            found = list(forms.check_folder(ROOT / "tests" / folder, call=call, files=(EVERYTHING_OF if exact else NETWORKS_OF)[folder]))
    finally:
        set_float32_precision("fp32")
    tolerances = [item.tolerance if precision == "fp32" else tolerance(precision, "discriminator" in item.name) for item in found]
    beyond = [item.name for item, allowed in zip(found, tolerances, strict=True) if not item.error <= allowed]
    worst = max(zip(found, tolerances, strict=True), key=lambda pair: pair[0].error / max(pair[1], 1e-30))
    return {
        "items": len(found),
        "within": len(found) - len(beyond),
        "beyond": beyond[:20],
        "worst": worst[0].name,
        "error": worst[0].error if worst[0].error < float("inf") else None,
        "tolerance": worst[1],
    }


def tolerance(precision: Precision, of_discriminator: bool) -> float:
    return TOLERANCES[precision] * (OF_DISCRIMINATOR if of_discriminator else 1)


@torch.no_grad()
def as_on_the_cpu(session: Session, scale: Scale, kind: Kind, precision: Precision, form: Form) -> dict:
    """max|a-b|/max|b| of a network at full size to the plain network on the CPU in float32."""
    if kind not in EXPECTED:
        EXPECTED.clear()
        torch.manual_seed(0)
        network, inputs = make_network(kind, scale.sizes), make_inputs(kind, scale.sizes, torch.device("cpu"))
        there = [v.to(session.device) if isinstance(v, torch.Tensor) else v for v in inputs]
        expected = network(*inputs)
        EXPECTED[kind] = network.to(session.device), there, expected
    network, there, expected = EXPECTED[kind]
    set_float32_precision(precision)
    try:
        found = evaluate(network, form, precision, session.device)(*there).float().cpu()
    finally:
        set_float32_precision("fp32")
    allowed = tolerance(precision, kind == "discriminator")
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    return {"items": 1, "within": int(error <= allowed), "worst": kind, "error": error if error == error else None, "tolerance": allowed}


EXPECTED: dict[Kind, tuple] = {}  # of one kind: the network and its inputs on the device, and the CPU's output, which takes seconds


def gpu_tests() -> dict:
    """The names of the tests that need a GPU."""
    listed = pytest("--collect-only", "-q")
    tests = sorted({line.partition("::")[2].partition("[")[0] for line in listed.stdout.splitlines() if "::" in line})
    if not tests:
        raise RuntimeError(f"pytest found no test: {listed.stdout[-200:]} {listed.stderr[-200:]}")
    return {"tests": tests}


def one_test(name: str) -> dict:
    """A test function in all its forms."""
    report = Path(os.environ.get("TMPDIR", "/tmp")) / f"strdiffusion_gpu_test_{os.getpid()}.xml"
    try:
        ran = pytest("-q", f"--junitxml={report}", "-k", name)
        cases = list(ElementTree.parse(report).iter("testcase"))
    finally:
        report.unlink(missing_ok=True)
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    within = len(cases) - len(failed) - len(skipped)
    row = {"items": len(cases), "within": within, "skipped": len(skipped), "beyond": [case.get("name") for case in failed]}
    if failed:
        problem = failed[0].find("failure") if failed[0].find("failure") is not None else failed[0].find("error")
        row["why"] = (problem.get("message") or "")[:500]
    if skipped and len(skipped) == len(cases):
        row |= {"status": "skipped", "reason": (skipped[0].find("skipped").get("message") or "")[:200]}
    if not cases:
        raise RuntimeError(ran.stdout[-300:] + ran.stderr[-300:])
    return row


def pytest(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, "tests/test_gpu.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def table(rows: list[dict]) -> str:
    lines = [["what", "within tolerance", "worst", "error", "tolerance", "beyond"]]
    for row in rows:
        if "items" not in row:
            lines += [[row["key"], row["status"], "", "", "", row.get("reason", "")[:120]]] if row["status"] != "ok" else []
            continue
        skipped = f", {row['skipped']} skipped" if row.get("skipped") else ""
        errors = [f"{row[name]:.1e}" if row.get(name) is not None else "" for name in ("error", "tolerance")]
        beyond = ", ".join(row.get("beyond", [])[:4]) + (f" ({row['why'][:120]})" if row.get("why") else "")
        lines.append([row["key"], f"{row['within']} of {row['items']}{skipped}", row.get("worst", ""), *errors, beyond])
    return markdown_table([[json.dumps(cell)[1:-1].replace("|", "/") for cell in line] for line in lines])


def failed(rows: list[dict]) -> int:
    """The numbers and tests that are not as they should be."""
    return sum(row["items"] - row["within"] - row.get("skipped", 0) for row in rows if "items" in row)
