"""The command strdiffusion: every command, its help, inpainting files and folders, and one line for each mistake."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SIZE, T, script, single_error
from PIL import Image

from strdiffusion import StrDiffusion
from strdiffusion.checkpoints import save_released
from strdiffusion.commands import web
from strdiffusion.commands.main import COMMANDS, main
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.system.cli import default_model
from strdiffusion.system.errors import Option, UserError
from strdiffusion.system.parser import load_config

ROOT = Path(__file__).parents[1]
QUICK = ("--sampler", "mars_sde", "--steps", "2", "--resampling", "none", "--device", "cpu")


@pytest.fixture
def command(capsys, runs):
    """command(*arguments) runs strdiffusion; returns status, stdout and stderr. {runs} stands for a folder of training runs."""

    def run(*arguments):
        status = main([str(argument).replace("{runs}", str(runs)) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def photo(tmp_path):
    """A photograph of 40x50 and its mask, as files."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(cv2.resize(coarse, (50, 40), interpolation=cv2.INTER_CUBIC)).save(tmp_path / "photo.png")
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 12:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


# ---- inpaint ------------------------------------------------------------------------------------------


def test_one_photograph_gives_what_python_gives(command, photo, runs, tmp_path):
    mask = tmp_path / "mask.png"
    output, structure = tmp_path / "new" / "out.png", tmp_path / "structure.png"
    options = ("--model", "{runs}", "--seed", 3, "--device", "cpu", "--structure", structure)
    status, out, err = command("inpaint", photo, mask, "-o", output, *options)
    assert status == 0 and str(output) in out and "100%" in err
    expected = StrDiffusion.load(runs, device="cpu")(photo, mask, seed=3)
    assert np.array_equal(pixels(output), np.asarray(expected.images[0]))
    assert np.array_equal(pixels(structure), np.asarray(expected.structure[0]))
    hole = pixels(mask) > 0
    assert np.array_equal(pixels(output)[~hole], pixels(photo)[~hole])


def test_samples_hints_feather_and_a_folder_as_output(command, photo, runs, tmp_path):
    hints = np.zeros((40, 50, 4), np.uint8)
    hints[11:19, 14:24] = (255, 0, 0, 255)
    Image.fromarray(hints).save(tmp_path / "hints.png")
    (tmp_path / "out").mkdir()
    options = ("--model", "{runs}", "--samples", 2, "--hints", tmp_path / "hints.png", "--feather", 2, "--batch-size", 1)
    status, _, _ = command("inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out", *options, *QUICK)
    assert status == 0 and sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo_0.png", "photo_1.png"]
    first, second = (pixels(tmp_path / "out" / f"photo_{i}.png") for i in (0, 1))
    assert (first[14:16, 17:21] == (255, 0, 0)).all() and not np.array_equal(first, second)  # the rest of the hint is feathered
    same = {"num_samples": 2, "hints": hints, "feather": 2, "sampler": "mars_sde", "steps": 2, "resampling": "none"}
    expected = StrDiffusion.load(runs, device="cpu")(photo, tmp_path / "mask.png", **same)
    assert np.array_equal(second, np.asarray(expected.images[1]))


def test_folders(command, photo, tmp_path):
    for folder in ("photos/a", "masks/a"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("one.png", "a/two.jpg", "three.png"):
        Image.open(photo).save(tmp_path / "photos" / name)
        Image.open(tmp_path / "mask.png").save(tmp_path / "masks" / f"{name[:-4]}_mask.png")
    (tmp_path / "photos" / "three.png").write_text("no picture")
    status, out, err = command("inpaint", tmp_path / "photos", tmp_path / "masks", "-o", tmp_path / "out", "--model", "{runs}", *QUICK)
    assert "1 of 3 photographs were left out" in single_error((status, out, err))
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["a/two.jpg", "one.png", "unfinished.txt"]
    hole = pixels(tmp_path / "mask.png") > 0
    assert np.array_equal(pixels(tmp_path / "out" / "one.png")[~hole], pixels(photo)[~hole])
    # one mask for all, and nothing is overwritten
    again = ("inpaint", tmp_path / "photos", tmp_path / "mask.png", "-o", tmp_path / "out", "--model", "{runs}", *QUICK)
    assert "unfinished results of another command" in single_error(command(*again))
    assert command(*again, "--overwrite")[0] == 2  # the damaged one
    Image.open(photo).save(tmp_path / "photos" / "three.png")
    status, out, _ = command(*again)
    assert status == 0 and out.splitlines() == [str(tmp_path / "out" / "three.png")]  # the others are done already
    assert not (tmp_path / "out" / "unfinished.txt").exists() and "nothing is overwritten" in single_error(command(*again))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "absent"], "does not exist"),
        (["-o", "{tmp}/out.xyz"], "suffix"),
        (["-o", "{tmp}/photo.png"], "nothing is overwritten"),
        (["--sampler", "fast"], "--sampler"),
        (["--resampling", "released", "--steps", "99"], "--steps must be from 2 to sde.T="),
        (["--samples", "0"], "--samples must be from 1 to 1000, not 0"),
        (["--hints", "{tmp}/photo.png"], "no alpha"),
        (["--T", "20"], "leave --T out"),
        (["--polarity", "white"], "--polarity"),
        (["--device", "tpu"], "--device"),
        (["--feather", "-1"], "--feather must be from 0 to 1000000000, not -1"),
        (["--structure", "{tmp}/out.png"], "out.png would be written twice"),
        (["--samples", "2", "--structure", "{tmp}/out_1.png"], "out_1.png would be written twice"),
        (["-o", "{tmp}/photo.png/out.png"], "photo.png is a file"),
        (["--batch-size", "0"], "--batch-size must be from 1"),
        (["--context", "-1"], "--context must be from 0"),
        (["--sampler", "ddpm"], "error: --sampler must be one of"),
        (["--polarity", "white_known", "--feather", "500"], "the mask {tmp}/mask.png leaves no known pixel"),
        (["--precision", "tf32", "--device", "cpu"], "--precision tf32 is a way of NVIDIA's GPUs"),
        (["--polarity", "white_known", "--feather", "500"], "lower --feather, or if it is inverted: --polarity white_hole"),
        (["--seed", "-1", "--adapt", "1"], "error: --seed must be from 0"),
    ],
)
def test_mistakes(command, photo, tmp_path, change, said):
    change = [text.replace("{tmp}", str(tmp_path)) for text in change]
    arguments = ["inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out.png", "--model", "{runs}", *QUICK, *change]
    before = photo.read_bytes()
    assert said.replace("{tmp}", str(tmp_path)) in single_error(command(*arguments))
    assert photo.read_bytes() == before and sorted(path.name for path in tmp_path.iterdir()) == ["mask.png", "photo.png"]


def test_photographs_and_masks_that_do_not_go_together(command, photo, tmp_path):
    (tmp_path / "empty").mkdir()
    mask, absent = tmp_path / "mask.png", tmp_path / "x.png"
    cases = [
        (photo, tmp_path, "is a folder"),
        (tmp_path / "empty", mask, "no image"),
        (absent, mask, "cannot read"),
        (photo, absent, "cannot read"),
    ]
    for image, mask, said in cases:
        assert said in single_error(command("inpaint", image, mask, "-o", tmp_path / "out.png", "--model", "{runs}", *QUICK))


def test_all_files_that_are_missing_are_named_at_once(command, tmp_path):
    given = [tmp_path / name for name in ("photo.jpg", "m.png", "hints.png", "model")]
    error = single_error(command("inpaint", *given[:2], "-o", tmp_path / "out.png", "--hints", given[2], "--model", given[3]))
    assert all(str(path) in error for path in given) and "--hints" in error and "--model" in error


def test_an_option_of_a_file_keeps_its_name(command, photo, runs, tmp_path):
    """What the user did not type is not written as if."""
    text = f"output: x\nsde: {{T: {T}}}\ncheckpoints: {{texture: {runs / 'texture/latest.pt'}}}\nmethod: irsde\ndata: {{images: x}}\n"
    (tmp_path / "late.yml").write_text(text + "sampler: {steps: 500, resampling: none}\n")
    (tmp_path / "wrong.yml").write_text(text + "sampler: {steps: many}\n")
    for name, said in (("late", "sampler.steps must be from 2 to sde.T="), ("wrong", f"{tmp_path / 'wrong.yml'}: sampler.steps must be")):
        given = ("inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out.png", "--model", tmp_path / f"{name}.yml")
        assert said in single_error(command(*given)) and "--steps" not in single_error(command(*given))


def test_an_error_says_which_option_it_concerns():
    error = UserError(Option("steps", 5), " is wrong in\n", Option("sampler.steps", where="a.yml"), ", not ", 7)
    assert str(error) == "steps=5 is wrong in\\na.yml: sampler.steps, not 7"
    spelled = error.spelled(lambda option: f"<{option.name} {option.value} {option.where}>")
    assert str(spelled) == "<steps 5 > is wrong in\\n<sampler.steps None a.yml>, not 7"
    assert str(pickle.loads(pickle.dumps(error)).spelled(lambda option: "x")) == "x is wrong in\\nx, not 7"


def test_a_port_that_cannot_be(command):
    assert "--port must be from 1 to 65535, not 99999" in single_error(command("web", "--port", 99999))


def test_a_network_that_cannot_be_trained(command):
    assert "not textur" in single_error(command("train", "textur", "-opt", "x.yml"))


def test_what_cannot_be_written_is_refused_before_anything_is_computed(command, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(StrDiffusion, "__call__", lambda *_, **__: pytest.fail("it was computed"))
    Image.open(photo).convert("RGBA").save(tmp_path / "alpha.png")
    mask = tmp_path / "mask.png"
    assert "holds no alpha" in single_error(command("inpaint", tmp_path / "alpha.png", mask, "-o", tmp_path / "x.jpg", "--model", "{runs}"))
    (tmp_path / "photos").mkdir()
    photo.rename(tmp_path / "photos" / "a.png")
    into_a_file = ("inpaint", tmp_path / "photos", mask, "-o", mask, "--model", "{runs}", "--overwrite")
    assert "mask.png is a file" in single_error(command(*into_a_file))


def test_the_model_that_ships_is_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert default_model().resolve() == ROOT / "weights" / "benchmark"
    (tmp_path / "weights" / "benchmark").mkdir(parents=True)
    assert default_model().resolve() == tmp_path / "weights" / "benchmark"  # the user's own goes first


# ---- methods ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["telea", "navier_stokes", "mean_fill", "masked_input"])
def test_a_method_that_needs_no_model(command, photo, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder of this name is not what is meant
    mask, output = tmp_path / "mask.png", tmp_path / "out.png"
    status, out, err = command("inpaint", photo, mask, "-o", output, "--method", name)
    assert status == 0 and out == f"{output}\n" and "100%" in err
    hole = pixels(mask) > 0
    assert np.array_equal(pixels(output)[~hole], pixels(photo)[~hole])
    assert (pixels(output)[hole] == 0).all() == (name == "masked_input")
    (tmp_path / name).rmdir()
    assert np.array_equal(pixels(output), np.asarray(StrDiffusion.load(name)(photo, mask).images[0]))
    folder = StrDiffusion.load(name).save(tmp_path / "model")
    for more in ((), ("--method", name)):
        assert command("inpaint", photo, mask, "-o", tmp_path / "again.png", "--overwrite", "--model", folder, *more)[0] == 0
        assert np.array_equal(pixels(tmp_path / "again.png"), pixels(output))


def test_the_method_of_a_model(command, photo, tmp_path, weights):
    mask = tmp_path / "mask.png"
    unguided = StrDiffusion.load({"texture": weights / "unguided.pt"}, size=SIZE, device="cpu").save(tmp_path / "unguided")
    for model, name in (("{runs}", "strdiffusion"), (unguided, "irsde")):
        outputs = [tmp_path / f"{name}_{i}.png" for i in (0, 1)]
        for output, more in zip(outputs, ((), ("--method", name)), strict=True):
            assert command("inpaint", photo, mask, "-o", output, "--model", model, *QUICK, *more)[0] == 0
        assert np.array_equal(*map(pixels, outputs))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "telea", "--sampler", "posterior"], "the method telea has no --sampler: leave it out"),
        (["--method", "telea", "--steps", "5"], "the method telea has no --steps"),
        (["--method", "telea", "--resampling", "none"], "the method telea has no --resampling"),
        (["--method", "telea", "--precision", "bf16"], "the method telea has no --precision"),
        (["--method", "telea", "--T", "100"], "the method telea has no --T"),
        (["--method", "irsde"], "the method irsde needs trained networks"),
        (["--method", "irsde", "--model", "{runs}"], "is a model of the method strdiffusion, not of irsde: leave --method out"),
        (["--method", "telea", "--model", "{runs}"], "is a model of the method strdiffusion, not of telea"),
        (["--method", "tela"], "--method"),
    ],
)
def test_methods_that_do_not_fit(command, photo, tmp_path, options, said):
    error = single_error(command("inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out.png", *options))
    assert said in error and not (tmp_path / "out.png").exists()


def test_a_method_without_a_structure(command, photo, tmp_path):
    options = ("--method", "telea", "--structure", tmp_path / "structure.png")
    error = single_error(command("inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out.png", *options))
    assert "telea has no structure to write" in error and not (tmp_path / "out.png").exists()


# ---- info ---------------------------------------------------------------------------------------------


def test_info(command, runs, tmp_path):
    model = StrDiffusion.load(runs, device="cpu")
    folder = model.save(tmp_path / "model", "bfloat16")
    save_released(tmp_path / "released.pth", model.method.model.networks.structure.network)
    status, out, _ = command("info", folder)
    assert status == 0
    expected = (
        "model folder",
        f"{SIZE}x{SIZE}",
        "texture",
        "structure",
        "discriminator",
        "guided",
        "T              10",
        "0 iterations",
        "gray2edge",
        "parameters",
        "resampling released",
    )
    assert all(said in out for said in expected), out
    count = sum(parameter.numel() for parameter in model.method.model.networks.texture.network.parameters())
    status, out, _ = command("info", runs / "texture" / "latest.pt")
    assert status == 0 and f"texture, {count:,} parameters" in out and "width          4" in out and "attention      none" in out
    status, out, _ = command("info", tmp_path / "released.pth")
    assert status == 0 and "released" in out and "not recorded" in out and "structure, " in out
    status, out, _ = command("info", runs)
    assert status == 0 and out.count("parameters") == 3
    status, out, _ = command("info", StrDiffusion.load("telea").save(tmp_path / "telea"))
    assert status == 0 and "method         telea" in out and "radius         5" in out
    (tmp_path / "text.pt").write_text("x")
    cases = [("absent.pt", "does not exist"), ("text.pt", "damaged"), ("model/texture.safetensors", "give the folder")]
    for path, said in [(tmp_path / name, said) for name, said in cases]:
        assert said in single_error(command("info", path))


# ---- all of them --------------------------------------------------------------------------------------


def test_help(command, capsys):
    status, out, _ = command("--help")
    assert status == 0 and all(" ".join(words) in out for words in COMMANDS)
    assert command()[1] == out and command("--version")[1].startswith("strdiffusion ")
    for words in COMMANDS:
        with pytest.raises(SystemExit) as done:
            main([*words, "--help"])
        printed = capsys.readouterr().out
        assert done.value.code == 0 and f"usage: strdiffusion {' '.join(words)} " in printed
        assert f"    strdiffusion {words[0]} " in printed  # an example


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inpant"], "did you mean inpaint"),
        (["zzz"], "known: "),
        (["train"], "structure, texture"),
        (["train", "x"], "structure, texture"),
        (["test"], "missing: -opt/--opt; for example: strdiffusion test -opt configs/psv/test.yml (see"),
        (["train", "texture"], "for example: strdiffusion train texture -opt configs/"),
        (["info"], "missing: FILE; for example: strdiffusion info runs/psv/texture/latest.pt (see"),
        (["inpaint", "x.png", "y.png", "--outt", "z.png"], "unknown option --outt; did you mean --out"),
        (["inpaint", "x.png", "y.png", "-o", "z.png", "--seeds", "3"], "unknown option --seeds; did you mean --seed? (see"),
        (["inpaint", "x.png", "y.png", "-o", "z.png", "--samples", "two"], "--samples must be a whole number, not 'two' (see"),
        (["inpaint", "x.png"], "missing: mask, -o/--output; for example: strdiffusion inpaint photo.jpg mask.png -o out.png (see"),
        (
            ["reproduce"],
            "missing: TABLE.yml (configs/tables of the checkout holds those that ship: ls configs/tables); for example: strdiff",
        ),
        (["evaluate"], "missing: outputs=FOLDER, truths=FOLDER; for example: strdiffusion evaluate outputs="),
        (["reproduce", f"{ROOT}/configs/tables/dem.yml"], "did you mean " + f"{ROOT}/configs/tables/demo.yml?"),
        (
            ["reproduce", f"{ROOT}/configs/tables"],
            "it is a folder: give a YAML file; there is " + f"{ROOT}/configs/tables/benchmark_cheap.yml",
        ),
    ],
)
def test_commands_that_there_are_not(command, arguments, said):
    assert said in single_error(command(*arguments))


@pytest.mark.parametrize("name", ["test", "evaluate", "reproduce", "make_masks", "train_structure", "train_texture", "train_discriminator"])
def test_scripts_run_the_code_of_the_commands(name, monkeypatch, capsys, tmp_path):
    """The same words give the same answer."""
    words = {"make_masks": ["masks"]}.get(name, name.split("_"))
    arguments = {"make_masks": [str(tmp_path / "m"), "--count", "0"], "reproduce": [str(tmp_path / "absent.yml")]}.get(
        name, ["-opt", str(tmp_path / "absent.yml")]
    )
    by_command = single_error((main([*words, *arguments]), *capsys.readouterr()))
    monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
    assert single_error((script(name).main(), *capsys.readouterr())) == by_command
    assert len((ROOT / "scripts" / f"{name}.py").read_text().splitlines()) <= 12


def test_a_test_by_model_folder_and_by_files(command, photos, runs, tmp_path):
    """The same networks, so the same pictures; the folder's files are what decides whether a table's run is up to date."""
    folder = StrDiffusion.load(runs, device="cpu").save(tmp_path / "model")
    (tmp_path / "test.yml").write_text(
        f"output: x\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\nsampler: {{steps: 4}}\n"
        f"data: {{images: {photos}, masks: {{folder: {tmp_path / 'masks'}}}, size: {SIZE}, index: null}}\n"
    )
    files = ", ".join(f"{kind}: {runs / kind / 'latest.pt'}" for kind in ("texture", "structure", "discriminator"))
    for name, checkpoints in (("a", f"folder: {folder}"), ("b", files)):
        options = (f"checkpoints={{{checkpoints}}}", f"output={tmp_path / name}")
        assert command("test", "-opt", tmp_path / "test.yml", *options)[0] == 0
    for picture in "abc":
        assert np.array_equal(*(pixels(tmp_path / name / "inpainted" / f"{picture}.png") for name in ("a", "b")))
    named = load_config(TestConfig, tmp_path / "a" / "config.yml").options.checkpoints.files()
    assert sorted(named) == sorted(folder.iterdir())


def test_masks_by_command(command, tmp_path):
    status, out, _ = command("masks", tmp_path / "m", "--families", "center_box", "--count", 1, "--size", 16)
    assert status == 0 and "1 masks of 16x16" in out and (tmp_path / "m" / "center_box" / "00000.png").exists()


def test_in_a_process_of_its_own(photo, runs, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = ["inpaint", photo, tmp_path / "mask.png", "-o", tmp_path / "out.png", "--model", runs, *QUICK]
    done = subprocess.run([sys.executable, "-m", "strdiffusion", *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'out.png'}\n", done.stderr
    done = subprocess.run([sys.executable, "-m", "strdiffusion", "info", "absent"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_an_address_that_is_taken_is_refused_before_a_model_is_loaded(monkeypatch, command):
    monkeypatch.setattr(web.importlib.util, "find_spec", lambda name: name)  # also where there is no Gradio
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: another program listens there: give another" in single_error(command("web", "--port", port))
    web.require_free("127.0.0.1", port)
    assert "--host 203.0.113.7: nothing can listen there" in single_error(command("web", "--host", "203.0.113.7", "--port", port))
