"""The first hour on a GPU, at tiny sizes on the CPU: every part, restarting, missing packages, no GPU."""

import dataclasses
import json
import subprocess
import sys
import time

import golden_checks
import pytest
import torch
from conftest import ROOT, script

from strdiffusion.bench.gpu import budget, checks, commands, needs, networks, report, samplers, scale, training
from strdiffusion.bench.gpu.record import Record, Session
from strdiffusion.bench.networks import Sizes
from strdiffusion.bench.training import CONFIGS
from strdiffusion.networks import KINDS
from strdiffusion.system.errors import UserError

CPU = torch.device("cpu")
ABOUT = {"device": "cpu", "sizes": "quick", "torch": "torch 1"}
TINY = dataclasses.replace(
    scale.quick(CPU, 1),
    sizes=Sizes(size=16, width=4, depth=1, discriminator_width=4),
    precisions=("fp32",),
    batches=(2,),
    sampled=(2,),
    T=5,
    repeats=1,
    prior={"width": 32, "multipliers": [1], "blocks": 1, "attention": [], "head_channels": 32},
    workers=0,
    convolutions=((4, 8),),
    matrices=(16,),
)


@pytest.fixture
def gpu(monkeypatch, capsys, tmp_path):
    """Do a part in this process; returns its status, its JSON and what it printed. Commands and compilers are left out."""
    module = script("gpu")
    monkeypatch.setattr(scale, "quick", lambda device, cores: TINY)
    monkeypatch.setattr(module, "keep_memory", lambda device: None)
    for part in (checks, networks, samplers, training):
        monkeypatch.setattr(part, "no_compiler", lambda device: "no compiler in this test")
    monkeypatch.setattr(checks, "NETWORKS_OF", {"golden": ("sde",)})
    monkeypatch.setattr(checks, "EVERYTHING_OF", {"golden": ("sde",)})
    monkeypatch.setattr(samplers, "EVALUATIONS", {"posterior 5": 5, "released": 20})
    monkeypatch.setattr(commands, "run", lambda arguments, log, seconds: pytest.fail(f"{arguments} was started"))
    monkeypatch.setattr(training, "processes", lambda *_: None)
    monkeypatch.setattr(training, "kill_and_resume", lambda *_: {"difference": 0.0})
    monkeypatch.setattr(budget, "spend", lambda *_: None)
    monkeypatch.setattr(budget, "PLAN", (budget.PLAN[1],))

    def run(part, *arguments):
        options = module.parse_arguments([part, "--device", "cpu", "--out", str(tmp_path / "out"), *arguments])
        status = module.work(part, options)
        found = json.loads((tmp_path / "out" / f"{part}.json").read_text())
        return status, found, capsys.readouterr().out

    run.module, run.folder = module, tmp_path / "out"
    return run


# ---- the parts --------------------------------------------------------------------------------------------


def test_tests(gpu, monkeypatch):
    xml = '<testsuite><testcase name="a[1]"/><testcase name="a[2]"><failure message="0.3 is not below 0.1"/></testcase></testsuite>'

    def pytest_of(*arguments):
        for argument in arguments:
            if argument.startswith("--junitxml="):
                open(argument.partition("=")[2], "w").write(xml)
        return subprocess.CompletedProcess(arguments, 0, "tests/test_gpu.py::a[1]\ntests/test_gpu.py::a[2]\n", "")

    monkeypatch.setattr(checks, "pytest", pytest_of)
    _, found, out = gpu("tests")
    rows = {row["key"]: row for row in found["rows"]}
    golden = rows["golden numbers/golden/fp32/inference"]
    assert golden["items"] > 20 and golden["within"] == golden["items"] and golden["error"] <= golden["tolerance"]
    assert {key for key in rows if key.startswith("as on the CPU")} == {f"as on the CPU/{k}/fp32/{f}" for k in KINDS for f in checks.FORMS}
    assert rows["as on the CPU/texture/fp32/plain"]["error"] == 0 < rows["as on the CPU/texture/fp32/inference"]["error"] < 1e-5
    assert rows["tests/a"]["within"] == 1 and rows["tests/a"]["beyond"] == ["a[2]"]
    assert "1 numbers or tests beyond their tolerance" in out and "0.3 is not below 0.1" in (gpu.folder / "tests.md").read_text()


def test_networks(gpu):
    status, found, out = gpu("networks")
    assert status == 0 and out.count("\n") == 8  # a line each, that there is no compiler, and the summary
    assert {(row["network"], row["form"], row["batch"]) for row in found["rows"]} == {
        (k, f, 2) for k in KINDS for f in ("inference", "plain")
    }
    for row in found["rows"]:
        assert row["tflops"] == pytest.approx(row["gflop"] / row["milliseconds"]["median"])
        assert row["of_matrix"] == pytest.approx(1000 * row["tflops"] / row["peak"]["matrix"])
        assert row["difference"] < 1e-5
    assert (gpu.folder / "report.md").read_text().count("\n| texture | fp32 |") == 2


def test_samplers(gpu):
    status, found, _ = gpu("samplers")
    rows = {row["sampler"]: row for row in found["rows"]}
    assert status == 0 and rows.keys() == {"posterior 5", "released", "RePaint, 5 steps"}
    assert rows["posterior 5"]["evaluations"]["texture"] == 5 and rows["RePaint, 5 steps"]["evaluations"] == {"prior": 5}
    assert all(0 < row["outside"] < 1 and row["images_per_hour"] == pytest.approx(3600 / row["seconds_per_image"]) for row in rows.values())


def test_training(gpu):
    status, found, _ = gpu("training")
    rows = [row for row in found["rows"] if "milliseconds" in row]
    assert status == 0 and {(row["network"], row["batch"], row["checkpoint"]) for row in rows} == {
        (kind, batch, checkpoint) for kind in KINDS for batch in (2, 4) for checkpoint in (False, True)
    }
    assert all(0 < row["waiting"] < 1 and row["images_per_second"] > 0 for row in rows)


def test_the_benchmark(gpu):
    status, found, _ = gpu("benchmark")
    (row,) = found["rows"]
    assert status == 0 and row["iterations"] == 120_000
    assert row["hours"] == pytest.approx(120_000 / row["iterations_per_second"] / 3600)
    assert row["command"] in (gpu.folder / "benchmark.md").read_text() and "objective.guidance=none" in row["command"]


def test_batches_grow_until_one_does_not_fit(gpu, monkeypatch):
    tried = []

    def time_steps(kind, config, *_):
        tried.append((kind, config.training.batch_size, config.training.checkpoint))
        if config.training.batch_size >= (8 if config.training.checkpoint else 4):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"iterations_per_second": 1.0}

    monkeypatch.setattr(training, "time_steps", time_steps)
    record = Record(gpu.folder, "training", ABOUT)
    training.run(
        Session(record, CPU, True, time.monotonic() + 100, gpu.folder, say=lambda text: None), dataclasses.replace(TINY, largest=64)
    )
    assert [batch for kind, batch, less in tried if kind == "texture" and not less] == [2, 4]
    assert [batch for kind, batch, less in tried if kind == "texture" and less] == [2, 4, 8]
    assert record.rows["texture/fp32/batch 4"]["status"] == "does not fit"


# ---- restarting -------------------------------------------------------------------------------------------


def session(folder, again=False, seconds=100.0):
    said = []
    record = Record(folder, "networks", ABOUT, again)
    return Session(record, CPU, True, time.monotonic() + seconds, folder, say=said.append), said


def never():
    pytest.fail("it was measured again")


def fails():
    raise ValueError("not now")


def test_what_is_measured_is_not_measured_again(tmp_path):
    first, _ = session(tmp_path)
    assert first.measure("a", lambda: {"value": 1})["value"] == 1
    first.record.begin("b")  # and is killed, in the middle of a line
    with open(first.record.path, "ab") as file:
        file.write(b'{"key": "c", "status": "o')
    second, _ = session(tmp_path)
    assert second.measure("a", never)["value"] == 1
    assert second.measure("b", lambda: {"value": 2})["value"] == 2
    assert second.measure("c", lambda: {"value": 3})["value"] == 3
    third, _ = session(tmp_path)
    assert [third.measure(key, never)["value"] for key in "abc"] == [1, 2, 3]


def test_what_ends_the_process_twice_is_given_up(tmp_path):
    for _ in range(2):
        session(tmp_path)[0].record.begin("a")
    row = session(tmp_path)[0].measure("a", never)
    assert row["status"] == "failed" and "begun 2 times" in row["reason"]


def test_what_failed_is_tried_again_but_not_in_the_same_run(tmp_path):
    first, said = session(tmp_path)
    assert first.measure("a", fails)["status"] == "failed" and "ValueError: not now" in said[0]
    assert session(tmp_path, again=True)[0].measure("a", never)["status"] == "failed"
    assert session(tmp_path)[0].measure("a", dict)["status"] == "ok"


def test_what_there_is_no_time_for_is_left_out_and_named(tmp_path):
    short, _ = session(tmp_path, seconds=20)
    assert short.measure("long", never, seconds=30) is None and short.measure("brief", dict, seconds=1)["status"] == "ok"
    assert short.left_out.keys() == {"long"} and "needs about 30 s" in short.left_out["long"]
    assert session(tmp_path)[0].measure("long", dict, seconds=30)["status"] == "ok"


def test_a_command_that_takes_too_long_is_left_out_and_tried_again(tmp_path):
    log, first = tmp_path / "log", session(tmp_path)[0]
    slow = ["-S", "-c", "import time; time.sleep(600)"]
    assert first.measure("a", lambda: commands.run(slow, log, 0.2))["status"] == "no time" and first.left_out.keys() == {"a"}
    assert session(tmp_path)[0].measure("a", dict)["status"] == "ok"
    failed = session(tmp_path)[0].measure("b", lambda: commands.run(["-S", "-c", "raise SystemExit('no such file')"], log, 60))
    assert failed["status"] == "failed" and "ended with status 1: no such file" in failed["reason"]


def test_measurements_of_another_device_are_not_mixed_in(tmp_path):
    session(tmp_path)
    with pytest.raises(UserError, match="device cpu, and this is NVIDIA H100: give another --out"):
        Record(tmp_path, "networks", ABOUT | {"device": "NVIDIA H100"})


def test_a_part_without_time_goes_on_later(gpu, monkeypatch):
    _, found, _ = gpu("networks", "--minutes", "0.001")
    assert found["rows"] == [] and len(found["left_out"]) == 6
    assert "Left out for want of time" in (gpu.folder / "networks.md").read_text()
    assert len(gpu("networks")[1]["rows"]) == 6
    monkeypatch.setattr(networks, "time_one", lambda *_: never())
    assert len(gpu("networks")[1]["rows"]) == 6


# ---- what is missing --------------------------------------------------------------------------------------


def test_what_needs_a_missing_package_is_one_line_and_the_rest_runs(gpu, monkeypatch):
    monkeypatch.setattr(needs, "installed", lambda name: name not in ("cv2", "skimage"))
    monkeypatch.setattr(training, "collectives", lambda *_: {})
    status, found, out = gpu("training")
    assert status == 0 and all(row["waiting"] is None for row in found["rows"] if "milliseconds" in row)
    (line,) = [line for line in out.splitlines() if "packages are missing" in line]
    assert "opencv-python-headless, scikit-image" in line and "kill and resume" in line
    assert "images in memory" in (gpu.folder / "training.md").read_text()
    monkeypatch.setattr(needs, "installed", lambda name: name != "yaml")
    status, found, out = gpu("benchmark")
    assert found["rows"] == [] and out.count("pyyaml") == 1


def test_nothing_but_torch_and_numpy_is_imported():
    """A bare checkout runs where only those are installed: all else is imported by what needs it."""
    program = f"""if True:
        import sys
        for name in ("cv2", "PIL", "skimage", "scipy", "yaml", "tqdm", "tensorboard", "safetensors", "torchvision", "matplotlib", "lpips"):
            sys.modules[name] = None
        sys.path[:0] = [{str(ROOT / "scripts")!r}, {str(ROOT / "tests")!r}]
        import gpu, golden_forms
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_without_a_gpu_each_part_is_one_line(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, parts in ((["networks"], ["networks"]), ([], list(report.PARTS))):
        assert gpu.module.main([*arguments, "--out", str(gpu.folder)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(":")[:2] for line in lines] == [["error", f" {part}"] for part in parts]
        assert all("no CUDA GPU" in line for line in lines) and not gpu.folder.exists()


@pytest.mark.parametrize("arguments", [["netwroks"], ["--minutes", "0"], ["--device", "tpu"]])
def test_wrong_arguments_are_one_line(gpu, capsys, arguments):
    assert gpu.module.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- processes --------------------------------------------------------------------------------------------


def test_a_part_that_hangs_is_ended(gpu):
    started = time.monotonic()
    assert gpu.module.wait_for([sys.executable, "-S", "-c", "import time; time.sleep(600)"], 0.5) is None
    assert time.monotonic() - started < 60
    assert gpu.module.wait_for([sys.executable, "-S", "-c", "raise SystemExit(3)"], 60) == 3


def test_a_part_whose_process_breaks_goes_on_in_another(gpu, monkeypatch, capsys):
    calls, statuses = [], [70, -11, 0]
    monkeypatch.setattr(gpu.module, "wait_for", lambda command, seconds: calls.append(command) or statuses[len(calls) - 1])
    options = gpu.module.parse_arguments(["networks", "--device", "cpu", "--out", str(gpu.folder)])
    assert gpu.module.supervise("networks", options) == 0
    assert [command[-1] == "--again" for command in calls] == [False, True, True]
    assert "the GPU's context broke" in capsys.readouterr().out


def test_what_a_command_logged(tmp_path):
    lines = [{"step": n, "kind": "train", "loss": 1 / n, "seconds": 2.0 * n} for n in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert commands.images_per_second(tmp_path, batch=6) == pytest.approx(3)
    assert commands.losses(tmp_path)[4] == 0.25


def test_configurations_of_short_trainings_are_accepted(tmp_path):
    from strdiffusion.config import load_config

    given = training.overrides(TINY, tmp_path, tmp_path / "out", CPU, 8, 2)
    config = load_config(CONFIGS["texture"], ROOT / "configs/psv/texture.yml", given)
    assert config.training.iterations == 8 and config.network.width == 4
    for planned in budget.PLAN:
        options = budget.options(TINY, planned, "x", 0)
        load_config(CONFIGS[planned.kind], ROOT / "configs/benchmark" / planned.file, options)


# ---- golden numbers on a device ---------------------------------------------------------------------------


def test_golden_networks_are_called_as_asked():
    folder = ROOT / "tests" / "golden"
    exact = list(golden_checks.check_folder(folder, files=("networks",)))
    scaled = list(golden_checks.check_folder(folder, files=("networks",), call=lambda network: lambda *a, **o: 1.001 * network(*a, **o)))
    assert len(exact) == len(scaled) == 6 and all(item.passed for item in exact) and not any(item.passed for item in scaled)


def test_golden_numbers_are_made_on_the_device():
    with golden_checks.on_device("meta"):
        assert golden_checks.rnd(1, 2, 3).is_meta and golden_checks.uni(1, 2).is_meta and golden_checks.sampler_mask(8, 0).is_meta
    assert golden_checks.rnd(1, 2).device.type == "cpu"
