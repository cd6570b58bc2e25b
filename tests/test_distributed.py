"""Several processes against one: torchrun with gloo on the CPU. And how a global batch is dealt out."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.run
from forks import forked
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.elastic.rendezvous import dynamic_rendezvous

from strdiffusion.batch import Batch
from strdiffusion.checkpoints import read_checkpoint
from strdiffusion.config.training import TrainingConfig
from strdiffusion.data import StepSampler, write_image
from strdiffusion.networks import CorrelationDiscriminator
from strdiffusion.objectives import discriminator_loss
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.distributed import LAUNCHED, fresh_store
from strdiffusion.system.errors import UserError
from strdiffusion.training.shares import Shares

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        ramp = np.linspace(0, 1, 36)[:, None, None] * rng.random(3) + 0.3 * rng.random((36, 36, 3))
        write_image(tmp_path / ("held_out" if i > 2 else "train") / f"{i}.png", ramp)
    return tmp_path


def arguments(data, script, output, *more):
    training = (
        []
        if script == "test"
        else [
            "network.width=8",
            "training.batch_size=8",
            "training.learning_rate=1e-3",
            "training.save_every=2",
            "training.log_every=1",
            "training.clip_gradient=1",
            "validation.every=3",
            "validation.samples=2",
            f"validation.images={data / 'held_out'}",
            "data.workers=0",
            "resume=auto",
            "validation.index=null",
            "training.keep=20",
        ]
    )
    kind = script.removeprefix("train_")
    return [
        str(ROOT / "scripts" / f"{script}.py"),
        "-opt",
        str(ROOT / "configs" / "psv" / f"{kind}.yml"),
        *training,
        "sde.T=6",
        "data.size=24",
        "data.index=null",
        "data.masks.folder=null",
        "device=cpu",
        f"data.images={data / 'train'}",
        f"output={output}",
        "structure.edge_source=known",
        *(["network.depth=1"] if kind in ("structure", "texture") else []),
        *more,
    ]


def run(*command, processes=1, restarts=0, launcher=(), largest_file=None, wait=True, new=False):
    """A script, or torchrun that starts it. new: with interpreters of their own; else torchrun and what it starts are forks."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}", *launcher]
    line = [sys.executable, *(torchrun if processes > 1 else []), *map(str, command)]
    options = dict(env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def begin():
        subprocess_handler.Popen = lambda args, **options: forked(list(args), **options)
        dynamic_rendezvous.inspect = types.SimpleNamespace(stack=lambda: [types.SimpleNamespace(function="")] * 2)  # pytest's is deep
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    process = subprocess.Popen(line, **options) if new else forked(line, before=begin, **options)
    if not wait:
        return process
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


def assert_close(one, two):
    a, b = (read_checkpoint(folder / "latest.pt") for folder in (one, two))
    assert a["step"] == b["step"] and a["best"][0] == b["best"][0] and a["best"][2] == b["best"][2]
    for part in ("network", "ema"):
        assert max((a[part][key] - b[part][key]).abs().max() for key in a[part]) < 1e-5
    first, second = numbers(one), numbers(two)
    assert len(first) == len(second) > 6
    for x, y in zip(first, second, strict=True):
        assert x.keys() == y.keys() and (x["step"], x["kind"]) == (y["step"], y["kind"])
        assert all(abs(x[k] - y[k]) <= 1e-5 * max(1, abs(x[k])) for k in x if isinstance(x[k], float))


# ---- shares of a global batch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "processes", "parts"), [(1, 1, 1), (8, 2, 1), (8, 1, 2), (16, 2, 2), (24, 3, 2), (6, 2, 1), (6, 6, 1), (12, 2, 3)]
)
def test_shares_are_a_partition_of_the_batch(batch, processes, parts):
    shares = [Shares(TrainingConfig(batch_size=batch, accumulate=parts), rank, processes) for rank in range(processes)]
    taken = torch.cat([share.positions.flatten() for share in shares])
    assert sorted(taken.tolist()) == list(range(batch))
    assert all(share.positions.shape == (parts, batch // processes // parts) for share in shares)
    if processes == parts == 1:
        assert taken.tolist() == list(range(batch))


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    with pytest.raises(UserError, match="multiple of 2 processes x training.accumulate=2"):
        Shares(TrainingConfig(batch_size=6, accumulate=2), 0, 2)


def test_sample_numbers_times_and_noise_are_those_of_one_process():
    one, device = Shares(TrainingConfig(batch_size=8)), torch.device("cpu")
    numbers = iter(StepSampler(3, 8))
    wanted = [next(numbers) for _ in range(16)]
    times, draw = one.noise(5, 3, 0, torch.arange(2, 101), device)
    first, second = draw(torch.zeros(8, 3, 4, 4)), draw(torch.zeros(8, 1, 4, 4))
    assert wanted == list(range(24, 40)) and 2 <= times.min() and times.max() <= 100
    for rank in range(2):
        share = Shares(TrainingConfig(batch_size=8, accumulate=2), rank, 2)
        numbers = iter(StepSampler(3, 8, share.positions.flatten().tolist()))
        positions = share.positions.flatten().tolist()
        assert [next(numbers) for _ in range(8)] == [24 + p for p in positions] + [32 + p for p in positions]
        for part in range(2):
            t, draw = share.noise(5, 3, part, torch.arange(2, 101), device)
            rows = share.positions[part]
            assert torch.equal(t, times[rows])
            assert torch.equal(draw(torch.zeros(2, 3, 4, 4)), first[rows]) and torch.equal(draw(torch.zeros(2, 1, 4, 4)), second[rows])


@pytest.mark.parametrize(("batch", "processes", "equal"), [(8, 2, True), (16, 4, True), (12, 2, False), (9, 3, True)])
def test_shares_keep_the_discriminators_groups(batch, processes, equal):
    """The mean of the shares' gradients is the gradient of the whole batch, minibatch statistic included."""
    torch.manual_seed(0)
    network, sde = CorrelationDiscriminator(4).double(), MeanRevertingSDE(6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.rand(batch, 6, 16, 16, dtype=torch.float64)
    whole = Batch(images[:, :3], images[:, 3:4], images[:, 4:5], images[:, 5:].round())
    t, noise = torch.randint(2, 7, (batch,)), torch.randn(batch, 3, 16, 16, dtype=torch.float64)

    def gradient(rows):
        network.zero_grad()
        discriminator_loss(network, sde, whole.take(rows), t[rows], noise[rows], images[rows, 4:5]).loss.backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    wanted = gradient(list(range(batch)))
    shares = [Shares(TrainingConfig(batch_size=batch), rank, processes) for rank in range(processes)]
    found = sum(gradient(share.positions[0].tolist()) for share in shares) / processes
    assert shares[0].keeps_groups == equal
    assert ((found - wanted).abs().max() < 1e-6 * wanted.abs().max()) == equal  # scores are float32 in the loss


def test_the_store_of_a_restart_is_a_fresh_one():
    """Processes that died have left their names; those that come after agree on new ones, in whatever order they come."""
    store = torch.distributed.HashStore()
    names = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        found = {}
        threads = [threading.Thread(target=lambda n=n, found=found: found.update({n: fresh_store(store, n, 3)})) for n in order]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join(timeout=20)
        found[0].set("where", "here")
        assert found[1].get("where") == found[2].get("where") == b"here"
        assert not any(old.check(["where"]) for old in [torch.distributed.PrefixStore("", store)])
        names.append(found[0])
    for i, one in enumerate(names):
        one.set("number", str(i))
    assert [one.get("number") for one in names] == [b"0", b"1", b"2"]


def test_a_process_of_torchrun_is_not_taken_down_by_what_python_does_as_it_exits():
    """Here a hook of Python's exit stands for the threads of torch that sometimes abort it."""
    code = """if True:
        import atexit, os
        from strdiffusion.system.cli import exit_on_user_error
        atexit.register(os.abort)
        @exit_on_user_error
        def main():
            print("done")
            return 2
        raise SystemExit(main())"""
    environments = ENVIRONMENT, ENVIRONMENT | dict.fromkeys(LAUNCHED, "0")
    alone, one_of_many = (subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True) for env in environments)
    assert alone.returncode == -signal.SIGABRT
    assert (one_of_many.returncode, one_of_many.stdout) == (2, "done\n")


# ---- torchrun -----------------------------------------------------------------------------------------


def test_two_processes_train_what_one_does(data):
    options = "training.iterations=6"
    run(*arguments(data, "train_texture", data / "one", options))
    run(*arguments(data, "train_texture", data / "two", options), processes=2, new=True)
    run(*arguments(data, "train_texture", data / "parts", options, "training.accumulate=4"))
    assert_close(data / "one", data / "two")
    assert_close(data / "one", data / "parts")
    assert sorted(p.name for p in (data / "one").iterdir()) == sorted(p.name for p in (data / "two").iterdir())
    assert len(list((data / "two" / "tensorboard").iterdir())) == 1  # one process writes


def test_a_killed_process_ends_the_run_and_the_restart_resumes(data):
    options = ["training.iterations=30", "validation.every=15"]
    run(*arguments(data, "train_structure", data / "whole", *options), processes=2)
    process = run(*arguments(data, "train_structure", data / "killed", *options), processes=2, restarts=1, wait=False)
    deadline = time.monotonic() + 300
    while len(list((data / "killed").glob("step_*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = list(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors
    assert "resumed" in (data / "killed" / "log.txt").read_text()
    whole, killed = (read_checkpoint(data / name / "latest.pt") for name in ("whole", "killed"))
    for part in ("network", "ema"):
        assert all(torch.equal(whole[part][key], killed[part][key]) for key in whole[part])
    assert numbers(data / "whole") == numbers(data / "killed")


@pytest.mark.parametrize(("number", "everyone"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_a_signal_to_torchrun_saves(data, number, everyone):
    """A signal to torchrun, which passes it on; or to all processes, as Slurm sends it, so that some get it twice."""
    launcher = ["--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]  # as in the README: SIGUSR1 else kills torchrun alone
    command = arguments(data, "train_structure", data / "run", "training.iterations=100000")
    process = run(*command, processes=2, launcher=launcher, wait=False)
    deadline = time.monotonic() + 300
    while len(list((data / "run").glob("step_*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [process.pid, *(map(int, children) if everyone else [])]:
        os.kill(pid, number)
    process.communicate(timeout=600)
    log = (data / "run" / "log.txt").read_text()
    stopped = int(log.split(f"stopped by {number.name} at iteration ")[1].split(",")[0])
    assert process.returncode != 0 and read_checkpoint(data / "run" / "latest.pt")["step"] == stopped
    assert not list((data / "run").glob(".step*"))


def test_a_mistake_is_said_once_and_ends_all(data):
    process = run(*arguments(data, "train_structure", data / "run", "resume=absent.pt"), processes=2, wait=False)
    errors = process.communicate(timeout=600)[1]
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert process.returncode != 0 and said == ["error: the checkpoint absent.pt does not exist: check the path, or train it first"]


def test_too_many_bad_files_are_said_once_and_the_state_is_saved(data):
    for i in range(3):
        (data / "train" / f"bad{i}.png").write_bytes(b"no image")
    process = run(*arguments(data, "train_structure", data / "run", "training.iterations=50"), processes=2, wait=False)
    errors = process.communicate(timeout=600)[1]
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert process.returncode != 0 and len(said) == 1 and "max_bad_share" in said[0], errors
    assert (data / "run" / "latest.pt").exists() and "SIGABRT" not in errors and "terminate called" not in errors


def test_a_full_disk_is_said_once_and_ends_all(data):
    """RLIMIT_FSIZE, under which the main process cannot write a checkpoint."""
    process = run(*arguments(data, "train_structure", data / "run", "training.iterations=50"), processes=2, wait=False, largest_file=50_000)
    errors = process.communicate(timeout=600)[1]
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert process.returncode != 0 and len(said) == 1 and "cannot be written" in said[0], errors
    assert "SIGABRT" not in errors and "Signal 6" not in errors and "terminate called" not in errors, errors


def test_images_are_shared_out_and_the_table_is_merged(data, weights):
    options = [f"checkpoints.{kind}={weights / f'{kind}.pt'}" for kind in ("texture", "structure")]
    options += ["sde.T=10", "sampler.resampling=none", "batch_size=1", "checkpoints.width=4", "checkpoints.depth=1"]
    (data / "train" / "broken.png").write_bytes(b"no image")
    rows = {}
    for processes in (1, 2):
        process = run(*arguments(data, "test", data / f"{processes}", *options), processes=processes, wait=False)
        errors = process.communicate(timeout=600)[1]
        assert process.returncode != 0 and "1 of 4 images were left out" in errors
        # a traceback of torchrun's own may name an environment below ROOT
        assert not any(f'  File "{ROOT / ours}' in errors for ours in ("scripts", "strdiffusion")), errors
        table = csv.DictReader((data / f"{processes}" / "results.csv").open())
        rows[processes] = [{k: v for k, v in row.items() if k != "seconds"} for row in table]
    assert len(rows[1]) == 3 and rows[1] == rows[2]
    names = [sorted(str(p.relative_to(data / folder)) for p in (data / folder).rglob("*")) for folder in ("1", "2")]
    assert names[0] == names[1] and "overview.png" in names[0]
