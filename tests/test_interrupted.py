"""Commands that write folders: killed at any write, also by a power cut, they go on to the same results; two never write one folder; a
lost terminal ends nothing. Training: test_survival.py. More kills: python scripts/kill_test.py 100 --kind test.
"""

import contextlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import time

import kill_trainings
import numpy as np
import pytest
from conftest import ROOT, heeding, script, single_error
from forks import fork
from kill_commands import COMMANDS, folder_differences, kill_commands

from strdiffusion.commands.main import main as strdiffusion
from strdiffusion.data import is_whole_png, read_image, write_image
from strdiffusion.system import files as files_module
from strdiffusion.system import folders
from strdiffusion.system.cli import exit_on_user_error
from strdiffusion.system.errors import UserError
from strdiffusion.system.files import Together, rename_new, write_text
from strdiffusion.system.folders import Mark, found_key, locked, locked_files, output_folder, sweep
from strdiffusion.system.terminal import enduring_streams
from strdiffusion.training.interrupt import StopRequest

NOBODY = 2**22 + 1  # the number of no process


@pytest.fixture
def words(quick, tmp_path):
    """words(kind, output): the words of a command that writes tmp_path/output, by a method that needs no network."""

    def make(kind, output="out"):
        found = quick(kind, tmp_path / output)
        return [*found, "buckets=[{name: all, options: []}]"] if kind == "reproduce" else found

    return make


@pytest.fixture
def ended(tmp_path):
    """ended(words, before): run a command in a process of its own; returns its status, negative if a signal killed it."""

    def run(words, before=lambda: None):
        _, status = os.waitpid(fork(words, tmp_path / "log", before), 0)
        return os.waitstatus_to_exitcode(status)

    return run


def crash(output, at, power):
    """Let the process be killed at its file operation number `at`. power: what it has not flushed to the disk is then empty."""
    flushed = {path.stat().st_ino for path in output.rglob("*")}
    count = 0

    def spied(name):
        original = getattr(os, name)

        def operation(*arguments, **options):
            nonlocal count
            count += 1
            if count == at:
                if power:
                    lost = [path for path in output.rglob("*") if path.is_file() and path.stat().st_ino not in flushed]
                    for path in lost:
                        os.truncate(path, 0)
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "fsync":
                flushed.add(os.fstat(arguments[0]).st_ino)
            if name == "sync":
                flushed.update(path.stat().st_ino for path in output.rglob("*"))
            return original(*arguments, **options)

        return operation

    for name in ("fsync", "sync", "replace", "link", "unlink"):
        setattr(os, name, spied(name))


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_that_was_interrupted_goes_on_to_the_same_results(words, ended, tmp_path, kind, power):
    """Each start is killed at a later file operation than the one before, so that operations of all sorts are met."""
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert ended(words(kind, "whole")) == 0
    at, marked = 1, 0
    while True:
        status = ended(words(kind), lambda at=at: crash(output, at, power))
        if status == 0 or (status == 2 and found_key(output) is None):  # 2: it was killed after its last write
            break
        assert status == -signal.SIGKILL, (tmp_path / "log").read_text()[-2000:]
        marked += found_key(output) is not None
        at += 3 if at < 8 else 9 if kind != "reproduce" else 19
    assert marked >= 2 and found_key(output) is None
    assert folder_differences(whole, output) == []


def test_the_kill_test_kills_commands(tmp_path, pytestconfig):
    """The loop of the script, and that it sees differences; with --kills, for every command."""
    kills = pytestconfig.getoption("--kills")
    for kind in COMMANDS if kills else ("masks",):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        assert kill_commands(kind, kills or 4, 6, random.Random(0), tmp_path) == []
    write_image(tmp_path / "whole" / "wide" / "00000.png", np.ones((4, 4)))
    (tmp_path / "whole" / "masks.csv").touch()
    (tmp_path / "copy").mkdir()
    write_image(tmp_path / "copy" / "wide" / "00000.png", np.zeros((4, 4)))
    found = folder_differences(tmp_path / "whole", tmp_path / "copy")
    assert {"wide/00000.png", "only in one: masks.csv"} <= set(found)


# ---- two processes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def elsewhere(context):
    """Hold a context in another process."""
    told, tell = os.pipe()
    number = os.fork()
    if not number:
        with contextlib.suppress(BaseException), context():
            os.write(tell, b"x")
            time.sleep(60)
        os._exit(1)
    try:
        assert os.read(told, 1) == b"x"
        yield number
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        os.close(told)
        os.close(tell)


@pytest.mark.parametrize("kind", [*COMMANDS, "evaluate", "compose"])
def test_two_processes_do_not_write_one_folder(words, work, tmp_path, capsys, kind):
    if kind == "evaluate":
        arguments = ["evaluate", f"outputs={work}/photos", f"truths={work}/photos", f"output={tmp_path}/out", "metrics=[psnr]"]
    elif kind == "compose":
        shutil.copy(work / "photos" / "a" / "0.png", tmp_path / "x.png")
        shutil.copy(work / "mask.png", tmp_path / "x_mask.png")
        arguments = ["compose", str(tmp_path / "x.png"), "-o", f"{tmp_path}/out", "--model", "telea"]
    else:
        arguments = words(kind)
    with elsewhere(lambda: output_folder(tmp_path / "out", True, "")) as number:
        error = single_error((strdiffusion(arguments), *capsys.readouterr()))
        assert f"process {number} on " in error and str(tmp_path / "out") in error
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert strdiffusion(arguments) == 0  # the lock ended with the process
    assert not (tmp_path / "out" / ".lock").exists()


def test_two_processes_do_not_write_one_file(work, tmp_path, capsys, monkeypatch):
    """The second is refused; a file that appears while one computes is not overwritten, also where there are no hard links."""
    from strdiffusion.app.outputs import outputs_at

    out = tmp_path / "out.png"
    arguments = ["inpaint", str(work / "photos" / "a" / "0.png"), str(work / "mask.png"), "-o", str(out), "--method", "telea"]
    with elsewhere(lambda: outputs_at([out], False)) as number:
        assert f"process {number} on " in single_error((strdiffusion(arguments), *capsys.readouterr()))
        assert strdiffusion([*arguments[:4], str(tmp_path / "other.png"), *arguments[5:]]) == 0
    for links in (True, False):
        if not links:
            monkeypatch.setattr(files_module.os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no hard links")))
        temporary = tmp_path / "temporary"
        temporary.write_text("new")
        rename_new(temporary, tmp_path / f"free {links}")
        assert (tmp_path / f"free {links}").read_text() == "new" and not temporary.exists()
        temporary.write_text("new")
        out.write_text("theirs")
        with pytest.raises(FileExistsError):
            rename_new(temporary, out)
        assert out.read_text() == "theirs"
    out.unlink()
    compute = sys.modules["strdiffusion.commands.inpaint"].open_picture

    def appears(path):
        out.write_text("theirs")
        return compute(path)

    monkeypatch.setattr("strdiffusion.commands.inpaint.open_picture", appears)
    assert "appeared meanwhile" in single_error((strdiffusion(arguments), *capsys.readouterr()))
    assert out.read_text() == "theirs" and sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@pytest.fixture(params=["figures", "convert_checkpoint"])
def single(request, work, tmp_path, monkeypatch):
    """A script that writes one thing: its main function, the files, and what it calls before it writes."""
    program = script(request.param)
    if request.param == "figures":
        importlib.import_module("matplotlib.pyplot")  # once, and not in each process
        arguments, files = ["histogram", str(work / "photos"), "--out", str(tmp_path / "out")], ["out.png", "out.pdf"]
        before = (program.figures, "histogram_figure")
    else:
        arguments, files = [str(work / "networks" / "structure.pt"), str(tmp_path / "out.pth")], ["out.pth"]
        before = (program, "save_released")
    monkeypatch.setattr(sys, "argv", [request.param, *arguments])
    return program.main, [tmp_path / name for name in files], before


def test_single_files_are_written_by_one_process_and_whole_or_not_at_all(single, tmp_path, capsys, monkeypatch):
    main, files, before = single
    with elsewhere(lambda: locked_files(files[-1:])) as number:
        assert f"process {number} on " in single_error((main(), *capsys.readouterr()))
    at, killed = 1, 0
    while True:
        number = os.fork()
        if not number:
            with contextlib.suppress(BaseException):
                crash(tmp_path, at, True)
                os._exit(main() or 0)
            os._exit(70)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert all(file.stat().st_size > 500 for file in files if file.exists())
        for file in files:
            file.unlink(missing_ok=True)
        at, killed = at + 3, killed + 1
    assert killed >= 2 and sorted(tmp_path.iterdir()) == sorted(files)
    place, name = before
    said = "exists and is not overwritten" if name == "save_released" else "exists, and nothing is overwritten"
    assert said in single_error((main(), *capsys.readouterr()))
    compute = getattr(place, name)
    for file in files:
        file.unlink()

    def appears(*arguments, **options):
        files[0].write_text("theirs")
        return compute(*arguments, **options)

    monkeypatch.setattr(place, name, appears)
    assert f"{files[0]} appeared meanwhile" in single_error((main(), *capsys.readouterr()))
    assert files[0].read_text() == "theirs" and list(tmp_path.iterdir()) == files[:1]


def test_a_lock_says_who_holds_it_and_is_held_once(tmp_path):
    with locked(tmp_path / ".lock", "the folder"):
        again = locked(tmp_path / ".lock", "the folder")
        with pytest.raises(UserError, match="this process already writes to the folder: choose another"):
            again.__enter__()
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()

    def spoiled():
        folders.introduce = lambda file: (file.write('{"process": 1, "host": "\x1b[2J"'), file.flush())
        return locked(tmp_path / ".lock", "the folder")

    with elsewhere(spoiled), pytest.raises(UserError, match="^another process is writing"):
        locked(tmp_path / ".lock", "the folder").__enter__()


def test_a_full_disk_neither_hides_an_error_nor_ends_what_is_done(tmp_path):
    """What a lock file says of its holder does not fit on the disk: that is no error, not even when it is closed."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with locked(tmp_path / ".lock", "the folder"):
            pass
        with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock", "the folder"):
            raise ZeroDivisionError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("target", ["nowhere", "out.png"], ids=["dangling", "loop"])
def test_a_link_in_the_way_of_a_result_is_seen_before_anything_is_computed(work, tmp_path, capsys, monkeypatch, target):
    (tmp_path / "out.png").symlink_to(target)
    monkeypatch.setattr("strdiffusion.commands.inpaint.open_picture", lambda path: pytest.fail("it has begun"))
    arguments = [
        "inpaint",
        str(work / "photos" / "a" / "0.png"),
        str(work / "mask.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--method",
        "telea",
    ]
    assert "out.png exists" in single_error((strdiffusion(arguments), *capsys.readouterr()))


def test_what_is_left_over_is_swept_and_nothing_else(tmp_path):
    digits = "0123456789abcdef" * 2
    theirs = [".vimrc.tmp", f"a.{digits}.tmp", f".a.{os.getppid()}-{digits}.tmp"]
    mine = [f".a.png.{NOBODY}-{digits}.tmp", f".b.{digits}.tmp", f".c.{os.getpid()}-{digits}.tmp"]
    (tmp_path / "below").mkdir()
    for name in [*theirs, *mine]:
        (tmp_path / "below" / name).write_text("x")
    sweep(tmp_path / "below", "a.png")
    assert len(list((tmp_path / "below").iterdir())) == 5
    sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == sorted(theirs)
    os.utime(tmp_path / "below" / theirs[2], (0, 0))  # too old to be of the process that has its number now
    sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == sorted(theirs[:2])


# ---- whole or not at all ------------------------------------------------------------------------------


def test_files_appear_together_after_all_are_on_the_disk(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, original=original, name=name: (done.append((name, a)), original(*a))[1])
    with Together() as files:
        for name in ("a/1", "a/2", "b/c/3"):
            write_text(tmp_path / name, name, files)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".tmp"] and not done
    assert [name for name, _ in done[:6]] == ["fsync"] * 3 + ["replace"] * 3
    assert {name for name, _ in done[6:]} == {"fsync"} and len(done) == 6 + 4  # the folders a, c, b, and the one that holds a and b
    assert all((tmp_path / name).read_text() == name for name in ("a/1", "a/2", "b/c/3"))
    with pytest.raises(ZeroDivisionError), Together() as files:
        write_text(tmp_path / "a" / "1", "new", files)
        raise ZeroDivisionError
    assert (tmp_path / "a" / "1").read_text() == "a/1" and not list(tmp_path.rglob("*.tmp"))


def test_a_picture_that_is_not_whole_is_seen(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, np.random.default_rng(0).random((9, 9, 3)))
    assert is_whole_png(path) and read_image(path).shape == (9, 9, 3)
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[: len(content) // 2], content[:-8] + bytes(8), b"\0" * len(content), content[:4]):
        path.write_bytes(damaged)
        assert not is_whole_png(path)
    assert not is_whole_png(tmp_path / "absent.png") and not is_whole_png(tmp_path / "a\0b.png")


def test_the_mark_of_a_folder_and_its_notes(tmp_path):
    mark = Mark(tmp_path, "key")
    assert not mark.is_mine()
    mark.begin()
    mark.note(a=1)
    with open(mark.path, "a") as file:
        file.write('\n{"b": 2, "cu')  # a process that was killed while it wrote
    mark.note(c=3)
    assert mark.is_mine() and mark.notes() == [{"a": 1}, {"c": 3}] and "not whole" in mark.path.read_text()
    with pytest.raises(UserError, match="unfinished results of another command"):
        Mark(tmp_path, "other").is_mine()
    mark.path.write_bytes(b"")  # not flushed before a power cut
    with pytest.raises(UserError, match="another command"):
        mark.is_mine()
    mark.end()
    assert not mark.is_mine()


def test_an_interrupted_test_is_continued_by_the_same_options_alone(words, ended, tmp_path, capsys):
    output = tmp_path / "out"
    at = 30
    assert ended(words("test"), lambda: crash(output, at, False)) == -signal.SIGKILL
    assert "not whole" in (output / "unfinished.txt").read_text() and not (output / "finished.txt").exists()
    pictures = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    assert len(pictures) >= 6 and (output / "results.csv").exists()
    for other in (["seed=1"], ["method=mean_fill"]):
        error = single_error((strdiffusion([*words("test"), *other]), *capsys.readouterr()))
        assert "unfinished run of other options" in error and "overwrite=true" in error
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.png")} == pictures
    assert strdiffusion([*words("test"), "batch_size=1"]) == 0
    kept = [path for path, written in pictures.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= 6 and "3" in (output / "finished.txt").read_text() and not (output / "unfinished.txt").exists()
    assert "already holds files" in single_error((strdiffusion(words("test")), *capsys.readouterr()))
    (output / "inpainted" / "b" / "1.png").write_bytes(b"")
    assert strdiffusion(words("test")) == 0 and is_whole_png(output / "inpainted" / "b" / "1.png")


def test_what_replaces_a_finished_test_never_mixes_with_it(words, ended, tmp_path):
    """overwrite=true, killed before, while and after the old results are removed; then continued without it."""
    assert ended([*words("test", "old"), "seed=1"]) == ended(words("test", "whole")) == 0
    for at, status in ((2, 2), (4, 0), (9, 0), (40, 0)):  # 2: the finished test is still there, and is not overwritten
        shutil.copytree(tmp_path / "old", tmp_path / "out")
        assert ended([*words("test"), "overwrite=true"], lambda at=at: crash(tmp_path / "out", at, False)) == -signal.SIGKILL
        assert ended(words("test")) == status
        assert folder_differences(tmp_path / ("old" if status else "whole"), tmp_path / "out") == []
        shutil.rmtree(tmp_path / "out")


# ---- terminals and signals ----------------------------------------------------------------------------


def gone():
    """Let nobody read stdout and stderr."""
    for stream in (1, 2):
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, stream)


def closed():
    for stream in (0, 1, 2):
        os.close(stream)


@pytest.mark.parametrize("lose", [gone, closed])
def test_a_lost_terminal_ends_no_run(words, ended, work, tmp_path, lose):
    assert ended(words("test"), lose) == 0
    assert (tmp_path / "out" / "finished.txt").exists()
    if lose is closed:
        return
    options = [
        *kill_trainings.SETTINGS.split(),
        *kill_trainings.words_of(kill_trainings.SDE),
        "training.iterations=2",
        "training.warmup=0",
        "validation.every=2",
    ]
    places = [f"output={tmp_path / 'run'}", f"data.images={work / 'photos'}", f"validation.images={work / 'photos'}"]
    training = ["train", "structure", "-opt", str(ROOT / "configs" / "psv" / "structure.yml"), *options, *places, "data.size=16"]
    assert ended([*training, "data.workers=0"], lose) == 0
    assert "finished" in (tmp_path / "run" / "status.txt").read_text()
    # a command that only prints ends quietly, with the status of other programs then
    assert ended(["info", str(work / "networks" / "texture.pt")], lose) == ended(["--help"], lose) == 141
    assert ended(["inpaint", "--help"], lose) == 0 and not (tmp_path / "log").read_text()


def test_files_do_not_get_the_numbers_of_closed_streams(tmp_path):
    """Or else a checkpoint could get what a library prints to stderr."""
    number = os.fork()
    if not number:
        for stream in (0, 1, 2):
            os.close(stream)
        with enduring_streams(go_on=True), open(tmp_path / "a", "w") as file:
            os._exit(file.fileno())
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) > 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_in_order(tmp_path, capsys, number, status):
    @exit_on_user_error
    def main():
        with output_folder(tmp_path / "out", False, ""):
            os.kill(os.getpid(), number)
            time.sleep(5)

    with heeding(number):
        assert main() == status and capsys.readouterr().err == f"stopped by {number.name}\n"
        assert not list((tmp_path / "out").iterdir()) and signal.getsignal(number) == signal.SIG_DFL


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.number
        main = exit_on_user_error(lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert main() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
