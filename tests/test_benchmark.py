"""The benchmark: what it counts, and that it measures everything that it says. How fast things are is not tested."""

import json
import time
from pathlib import Path

import pytest
import torch
from conftest import script

from strdiffusion.bench import timing
from strdiffusion.bench.networks import Sizes, count_gflop
from strdiffusion.bench.timing import Stopwatch, Timing, measure
from strdiffusion.networks import KINDS

TINY = ["--size", "16", "--width", "4", "--depth", "1", "--discriminator-width", "4", "--repeats", "2", "--device", "cpu"]


@pytest.fixture
def benchmark(monkeypatch, capsys, tmp_path):
    """Run the script; returns its status, its report and what it printed."""
    module = script("benchmark")
    monkeypatch.setattr(timing, "CONVOLUTIONS", ((4, 8), (8, 4)))
    monkeypatch.setattr(timing, "MATRICES", {"cpu": (16, 32)})
    monkeypatch.setattr(module, "keep_memory", lambda device: None)

    def run(*arguments):
        file = tmp_path / "report.json"
        monkeypatch.setattr("sys.argv", ["benchmark.py", *TINY, "--output", str(file), *arguments])
        status = module.main()
        return status, json.loads(file.read_text()) if file.exists() else None, capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("kind", "attention", "gflop"),
    [
        ("texture", "linear", 834.6),
        ("structure", "linear", 759.7),
        ("texture", "none", 806.5),
        ("structure", "none", 731.6),
        ("discriminator", "none", 189),
    ],
)
def test_operations_are_those_of_the_specification(kind, attention, gflop):
    """Spec sec. 4 and 5: GFLOP of a 256x256 evaluation, 2 per multiply-add."""
    assert count_gflop(kind, Sizes(attention=attention)) == pytest.approx(gflop, abs=0.5 if kind == "discriminator" else 0.06)


def test_the_prior_of_the_benchmark(benchmark, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert count_gflop("prior", Sizes().of("prior")) == pytest.approx(2.61, abs=0.01)
    status, report, _ = benchmark("networks", "--kind", "prior", "--form", "plain", "inference")
    assert status == 0 and [row["size"] for row in report["networks"]] == [64, 64]
    assert report["networks"][1]["difference"] < 1e-4
    status, _, printed = benchmark("training", "--kind", "prior")
    assert status == 2 and "leave prior out of --kind" in printed.err


def test_networks(benchmark):
    status, report, printed = benchmark("networks", "--precision", "fp32", "bf16", "--batch", "2")
    rows = report["networks"]
    assert status == 0
    combinations = {(row["network"], row["form"], row["precision"]) for row in rows}
    assert combinations == {(k, f, p) for k in KINDS for f in ("plain", "channels_last", "inference") for p in ("fp32", "bf16")}
    for row in rows:
        time = row["milliseconds"]
        assert 0 < time["fastest"] <= time["median"] <= time["slowest"] and time["repeats"] == 2
        assert row["rate"] == pytest.approx(row["gflop"] / time["median"] * 1000)
        assert row["of_convolution"] == pytest.approx(row["rate"] / row["peak"]["convolution"])
        assert row["difference"] < (1e-5 if row["precision"] == "fp32" else 0.1)
    assert {row["difference"] for row in rows if (row["form"], row["precision"]) == ("plain", "fp32")} == {0}
    assert printed.out.count("| texture ") == 6 and "bf16: best 3x3 convolution" in printed.out


def test_samplers(benchmark):
    status, report, printed = benchmark("samplers", "--T", "12", "--batch", "2", "--sampler", "guided", "guided 10", "released")
    guided, fewer, released = report["samplers"]
    assert status == 0 and printed.out.count("\n| ") >= 5
    assert guided["evaluations"] == {"texture": 12, "structure": 9, "discriminator": 0}  # t = 12 to int(0.4 T) = 4
    assert fewer["evaluations"]["texture"] == 10
    assert released["evaluations"]["discriminator"] >= 9
    for row in report["samplers"]:
        assert 0 < row["outside"] < 1
        assert row["images_per_hour"] == pytest.approx(3600 / row["seconds_per_image"])


def test_training(benchmark):
    status, report, _ = benchmark("training", "--workers", "0", "--batch", "2", "--checkpoint")
    assert status == 0
    assert [row["network"] for row in report["training"]] == list(KINDS)
    for row in report["training"]:
        assert 0 < row["waiting"] < 1 and row["iterations_per_second"] > 0 and row["memory_gib"] > 0.01
        assert row["checkpoint"] and not row["compile"] and row["batch"] == 2


def test_what_cannot_be_measured_is_one_line(benchmark):
    for arguments in (["netwroks"], ["--size", "0"], ["--precision", "fp16"], ["--kind", "edges"]):
        status, report, printed = benchmark(*arguments)
        assert status == 2 and report is None
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1


def test_median_and_spread(monkeypatch):
    clock = iter([0, 5, 10, 11, 20, 22, 30, 40])
    monkeypatch.setattr(timing, "now", lambda: next(clock))
    calls = []
    assert measure(lambda: calls.append(1), torch.device("cpu"), repeats=4, warmup=2) == Timing(3500, 1000, 10000, 4)
    assert len(calls) == 6


def test_cpu_time_does_not_count_waiting(monkeypatch):
    monkeypatch.setattr(timing, "now", timing.now)  # restored at the end
    timing.count_cpu_time()
    assert measure(lambda: time.sleep(0.2), torch.device("cpu"), repeats=1).median < 100


def test_a_stopwatch_hands_the_result_on():
    watch = Stopwatch(torch.device("cpu"))
    assert watch.time(lambda: 7) == 7 and len(watch.milliseconds()) == 1
