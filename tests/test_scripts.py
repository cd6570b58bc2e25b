"""scripts/test.py as a user meets it: the whole way from a folder to results, and one line for each mistake."""

import csv
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SIZE, T, save, script, single_error
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from strdiffusion.config import load_config
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.system.cli import exit_on_user_error

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


@pytest.fixture
def configuration(tmp_path, photos, weights):
    (tmp_path / "test.yml").write_text(
        f"output: {tmp_path / 'out'}\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\n"
        f"checkpoints: {{texture: {weights}/texture.pt, structure: {weights}/structure.pt, discriminator: {weights}/discriminator.pt}}\n"
        f"data: {{images: {photos}, masks: {{folder: {tmp_path / 'masks'}}}, size: {SIZE}, index: null}}\n"
        "sampler: {released: {u_max: 3, u_min: 2, jump: 2, re: 1}, repaint: {jump_length: 2, resamplings: 2}}\n"
    )
    return tmp_path / "test.yml"


@pytest.fixture
def command(configuration, monkeypatch, capsys):
    """command(*overrides) runs scripts/test.py; returns status, stdout and stderr."""

    def run(*overrides, opt=configuration):
        monkeypatch.setattr("sys.argv", ["test.py", "-opt", str(opt), *map(str, overrides)])
        status = script("test").main()
        return status, *capsys.readouterr()

    return run


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def picture(path):
    """An image as RGB uint8."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None, path
    return pixels[..., ::-1]


# ---- what comes out -----------------------------------------------------------------------------------


def test_the_whole_way(command, photos, tmp_path):
    out = tmp_path / "out"
    status, printed, err = command("process=5", "batch_size=2")
    assert status == 0 and "error" not in err and str(out) in printed
    expected = {"config.yml", "inpainted", "masked", "process", "results.csv", "side_by_side", "structure", "summary.md", "traces"}
    assert expected <= {p.name for p in out.iterdir()}

    table = rows(out)
    required = {"image", "mask", "hole_share", "psnr", "ssim", "hole_psnr", "hole_ssim", "seconds"}
    assert required | {f"{network}_evaluations" for network in ("texture", "structure", "discriminator")} <= table[0].keys()
    assert [Path(row["image"]).name for row in table] == ["a.png", "b.png", "c.png"]
    for row in table:
        name = Path(row["image"]).stem
        assert row["image"] == str(photos / f"{name}.png") and row["mask"] == str(tmp_path / "masks" / f"{name}.png")
        hole = cv2.imread(row["mask"], cv2.IMREAD_GRAYSCALE) > 127
        truth, result = picture(row["image"]), picture(out / "inpainted" / f"{name}.png")
        assert np.array_equal(result[~hole], truth[~hole]) and not np.array_equal(result[hole], truth[hole])
        assert abs(float(row["hole_share"]) - hole.mean()) < 1e-5 and float(row["seconds"]) > 0
        check_metrics(row, result, truth, hole)
        check_trace(row, json.loads((out / "traces" / f"{name}.json").read_text()))

        masked, structure, beside = (picture(out / kind / f"{name}.png") for kind in ("masked", "structure", "side_by_side"))
        assert (masked[hole] == 255).all() and np.array_equal(masked[~hole], truth[~hole])
        gap = np.full((SIZE, 4, 3), 255, np.uint8)
        assert np.array_equal(beside, np.concatenate([masked, gap, structure, gap, result, gap, truth], axis=1))
        assert sorted(p.name for p in (out / "process" / name).iterdir()) == ["t0001.png", "t0005.png", "t0010.png"]

    summary = (out / "summary.md").read_text()
    assert summary.strip() in printed and "10-20 %" in summary and "20-30 %" in summary and "0-10 %" not in summary
    config = load_config(TestConfig, out / "config.yml")
    assert config.batch_size == 2 and config.options.sde.T == T and config.options.sampler.released.u_max == 3


def check_metrics(row, result, truth, hole):
    """PSNR and SSIM against scikit-image, of the 8-bit pictures."""
    assert abs(float(row["psnr"]) - peak_signal_noise_ratio(truth, result)) < 1e-3
    assert abs(float(row["hole_psnr"]) - peak_signal_noise_ratio(truth[hole], result[hole])) < 1e-3
    masked = np.where(hole[..., None], 0, truth)
    assert abs(float(row["masked_hole_psnr"]) - peak_signal_noise_ratio(truth[hole], masked[hole].astype(np.uint8))) < 1e-3
    # with an explicit data range, SSIM on 0..255 equals SSIM on 0..1
    options = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    mean, values = structural_similarity(truth, result, full=True, **options)
    assert abs(float(row["ssim"]) - mean) < 2e-6 and abs(float(row["hole_ssim"]) - values[hole].mean()) < 2e-6


def check_trace(row, trace):
    """Evaluations of the released algorithm at T=10 (early stage t = 10..4, resampled at even t), from the recorded decisions."""
    assert [step["t"] for step in trace["steps"]] == list(range(T, 0, -1))
    for network in ("texture", "structure", "discriminator"):
        assert int(row[f"{network}_evaluations"]) == sum(step[f"{network}_evaluations"] for step in trace["steps"])
    for step in trace["steps"]:
        tries = len(step["decisions"])
        early = step["t"] >= 4
        assert tries == 0 or early and step["t"] % 2 == 0 and tries <= 2
        assert step["texture_evaluations"] == 1 + tries
        assert step["structure_evaluations"] == (1 + tries if early else 0)
        assert step["discriminator_evaluations"] == len(step["scores"]) == (1 + tries if early else 0)
        for score, decision in zip(step["scores"][1:], step["decisions"], strict=True):
            assert (decision == "accepted") == (score < step["scores"][0])
    assert sum(len(step["decisions"]) for step in trace["steps"]) >= 4  # 10, 8, 6, 4


def test_nothing_is_overwritten_unless_asked(command, tmp_path):
    assert command()[0] == 0
    out = tmp_path / "out"
    first = {name: picture(out / "inpainted" / f"{name}.png") for name in "abc"}
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    error = single_error(command())
    assert str(out) in error and "overwrite=true" in error
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert command("overwrite=true", "batch_size=1")[0] == 0  # and images do not depend on their batch
    for name in "abc":
        assert np.abs(picture(out / "inpainted" / f"{name}.png").astype(int) - first[name]).max() <= 1
    assert command("overwrite=true", "seed=1")[0] == 0
    assert not np.array_equal(picture(out / "inpainted" / "a.png"), first["a"])


@pytest.mark.parametrize("size", [SIZE, 16])
def test_real_holes(command, photos, tmp_path, size):
    """Without ground truth there are no metrics, and what lies in the hole has no influence."""
    options = ("data.ground_truth=false", f"data.size={size}")
    assert command(*options)[0] == 0
    rng = np.random.default_rng(1)
    for name in "abc":
        hole = cv2.imread(str(tmp_path / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE) > 127
        pixels = picture(photos / f"{name}.png")[..., ::-1].copy()
        pixels[hole] = rng.integers(0, 256, (hole.sum(), 3))
        save(photos / f"{name}.png", pixels)
    assert command(*options, f"output={tmp_path / 'noise'}")[0] == 0
    for one, two in zip(rows(tmp_path / "out"), rows(tmp_path / "noise"), strict=True):
        assert one["psnr"] == one["ssim"] == one["hole_psnr"] == one["hole_ssim"] == one["masked_hole_psnr"] == ""
        assert one["texture_evaluations"] == two["texture_evaluations"]
    for kind in ("inpainted", "masked", "structure", "side_by_side"):
        for name in "abc":
            one, two = (picture(tmp_path / run / kind / f"{name}.png") for run in ("out", "noise"))
            assert np.array_equal(one, two)
    assert picture(tmp_path / "out" / "side_by_side" / "a.png").shape[1] == 3 * size + 2 * 4  # no truth beside it
    assert "n/a" in (tmp_path / "out" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "evaluations"),
    [
        (["sampler.resampling=none"], (T, 7, 0)),  # structure in the early stage, t = 10..4
        (["sampler.resampling=none", "sampler.solver=posterior"], (T, 7, 0)),
        (
            [
                "sampler.resampling=none",
                "method=irsde",
                "checkpoints.texture={unguided}",
                "checkpoints.structure=null",
                "checkpoints.discriminator=null",
            ],
            (T, 0, 0),
        ),
        # times 10, 8, .., 2, of which 10 to 4 are the early stage
        (["sampler.resampling=none", "sampler.solver=mars_ode", "sampler.steps=5"], (5, 4, 0)),
        (
            ["sampler.resampling=none", "sampler.solver=mars_sde", "sampler.order=1", "sampler.steps=5", "sampler.spacing=log_snr"],
            (5, 4, 0),
        ),
        (["sampler.resampling=released", "sampler.solver=posterior", "sampler.steps=4"], None),
        # five jumps back by 2, from t = 8, 6, 4, 2, 0
        (["sampler.resampling=repaint", "sampler.guidance=false", "checkpoints.texture={unguided}"], (T + 2 * 5, 0, 0)),
        (["sampler.resampling=repaint"], None),
        (["sampler.resampling=paper", "sampler.paper.u_max=2", "sampler.paper.threshold=1000"], None),
        (["sampler.resampling=released", "checkpoints.structure={released}", "precision=bf16"], None),
        (["sampler.resampling=released", "sampler.released.accept=higher", "data.fit=center_crop", "data.limit=1"], None),
    ],
)
def test_every_sampler_runs(command, weights, tmp_path, overrides, evaluations):
    paths = {"{unguided}": str(weights / "unguided.pt"), "{released}": str(weights / "released.pth")}
    for placeholder, path in paths.items():
        overrides = [text.replace(placeholder, path) for text in overrides]
    assert command(*overrides)[0] == 0
    for row in rows(tmp_path / "out"):
        found = tuple(int(row[f"{network}_evaluations"]) for network in ("texture", "structure", "discriminator"))
        assert found[0] >= load_config(TestConfig, tmp_path / "out" / "config.yml").options.grid().N and evaluations in (None, found)
        assert math.isfinite(float(row["psnr"]))


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["structure.edge_source=full"], "truth (structure.edge_source=full)"),
        (["guide=ground_truth"], "truth (guide=ground_truth)"),
        (["guide=other_image"], "other_image (guide=other_image)"),
        (["structure.edge_source=full", "guide=ground_truth"], "truth (structure.edge_source=full and guide=ground_truth)"),
        (["structure.edge_source=full", "guide=other_image"], "truth (structure.edge_source=full), other_image (guide=other_image)"),
        ([], None),
        (["method=telea"], None),
        (["structure.edge_source=full", "method=irsde", "checkpoints.texture={unguided}"], None),
    ],
)
def test_results_record_what_was_shown_of_the_hole(command, weights, tmp_path, overrides, shown):
    overrides = [text.replace("{unguided}", str(weights / "unguided.pt")) for text in overrides]
    sampler = [] if "method=telea" in overrides else ["sampler.resampling=none"]  # Telea's has no such option
    assert command(*sampler, "data.limit=1", *overrides)[0] == 0
    assert [row.get("shown") for row in rows(tmp_path / "out")] == [shown]


def test_a_method_without_networks(command, tmp_path):
    """It needs no checkpoints, takes no steps, and leaves neither traces nor other pictures."""
    status, printed, _ = command("method=telea", "process=1")
    assert status == 0 and "evaluations" not in printed
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "config.yml",
        "fingerprint.txt",
        "finished.txt",
        "inpainted",
        "masked",
        "overview.png",
        "results.csv",
        "side_by_side",
        "summary.md",
    }
    assert not any(column.endswith("_evaluations") for column in rows(out)[0])
    assert "checkpoints" not in (out / "config.yml").read_text() and "radius: 5" in (out / "config.yml").read_text()
    assert command("method=telea", f"output={tmp_path / 'again'}", opt=out / "config.yml")[0] == 0
    assert (out / "inpainted" / "a.png").read_bytes() == (tmp_path / "again" / "inpainted" / "a.png").read_bytes()


def test_pictures_of_the_process_with_fewer_steps(command, tmp_path):
    """Every second step, counted from the end, and the last; named after the t of the step."""
    assert command("sampler.resampling=none", "sampler.solver=mars_ode", "sampler.steps=5", "process=2", "data.limit=1")[0] == 0
    (folder,) = (tmp_path / "out" / "process").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["t0002.png", "t0004.png", "t0008.png"]


def test_generated_masks_and_names_of_subfolders(command, photos, tmp_path):
    (photos / "deep").mkdir()
    (photos / "a.png").rename(photos / "deep" / "a.png")
    overrides = ("data.masks.folder=null", "data.masks.hole_share=[0.2, 0.3]", "sampler.resampling=none")
    assert command(*overrides)[0] == 0
    table = rows(tmp_path / "out")
    assert len(table) == 3 and all(0.2 <= float(row["hole_share"]) <= 0.3 and row["mask"].startswith("generated") for row in table)
    assert (tmp_path / "out" / "inpainted" / "deep" / "a.png").exists()


def test_masks_of_another_size_are_resized_with_a_notice(command, tmp_path, caplog):
    for name in "abc":
        mask = cv2.imread(str(tmp_path / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        save(tmp_path / "masks" / f"{name}.png", cv2.resize(mask, (3 * SIZE, 2 * SIZE), interpolation=cv2.INTER_NEAREST))
    assert command("sampler.resampling=none")[0] == 0
    assert sum(record.getMessage().count("masks of another size are resized") for record in caplog.records) == 1
    assert [round(float(row["hole_share"]) * SIZE**2) for row in rows(tmp_path / "out")] == [64, 120, 144]


# ---- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.images=absent", "absent does not exist"),
        ("data.images=setup.py", "is a file"),
        ("data.images={empty}", "no image in"),
        ("data.masks.folder=absent", "absent does not exist"),
        ("data.masks.folder={empty}", "no image in"),
        ("data.masks.foldr=x", "did you mean data.masks.folder?"),
        ("batch_size=many", "batch_size must be a whole number"),
        ("sampler.resampling=realeased", "did you mean released?"),
        ("batch_size", "not of the form key=value"),
        ("checkpoints.texture={weights}/absent.pt", "does not exist"),
        ("checkpoints.texture={weights}/other_T.pt", "set sde.T=20"),
        ("sde.T=20", "set sde.T=10"),
        ("sde.schedule=linear", "set sde.schedule=cosine"),
        ("structure.pair=edge2edge", "set structure.pair=gray2edge"),
        ("checkpoints.texture={weights}/structure.pt", "is of the structure network, not of the texture network"),
        ("checkpoints.structure={weights}/discriminator.pt", "is of the discriminator network"),
        ("checkpoints.discriminator={weights}/texture.pt", "is of the texture network"),
        ("checkpoints.texture={weights}/released.pth", "is of the structure network"),
        ("checkpoints.texture={weights}/cut.pt", "truncated or damaged"),
        ("checkpoints.texture={weights}/text.pt", "damaged"),
        ("checkpoints.texture={weights}", "is a folder"),
        ("checkpoints.texture={weights}/unguided.pt", "has no SPADE blocks"),
        ("output={weights}/cut.pt", "cannot be used"),
    ],
)
def test_mistakes_that_stop_everything(command, weights, tmp_path, override, said):
    (tmp_path / "empty").mkdir()
    override = override.replace("{weights}", str(weights)).replace("{empty}", str(tmp_path / "empty"))
    assert said in single_error(command(override))
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_another_width(command, weights, tmp_path):
    wide = f"checkpoints.texture={weights / 'wide.pt'}"
    error = single_error(command(wide, "checkpoints.width=4"))
    assert "wide.pt has width 8" in error and "checkpoints.width=4" in error
    assert "checkpoints.depth=3" in single_error(command("checkpoints.depth=3"))
    assert "checkpoints.discriminator_width=64" in single_error(command("checkpoints.discriminator_width=64"))
    assert not (tmp_path / "out").exists()
    assert command(wide, "sampler.resampling=none", "data.limit=1")[0] == 0  # widths may differ where none is asked for


class SideEffect:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_checkpoint_is_not_run(command, tmp_path):
    torch.save({"weight": SideEffect(tmp_path / "ran")}, tmp_path / "bad.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": SideEffect(tmp_path / "ran")}, protocol=2))
    for name in ("bad.pt", "plain.pt"):
        error = single_error(command(f"checkpoints.texture={tmp_path / name}"))
        assert "posix.mkdir" in error and "not loaded" in error and not (tmp_path / "ran").exists()


def test_missing_configuration(command, tmp_path):
    assert "absent.yml does not exist" in single_error(command(opt=tmp_path / "absent.yml"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_device(command):
    assert "device=cuda is not available" in single_error(command("device=cuda"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("photos/b.png", "text", "photos/b.png is damaged or not an image"),
        ("photos/b.png", "", "photos/b.png is an empty file"),
        ("masks/b.png", 0, "masks/b.png of image"),
        ("masks/b.png", 255, "masks/b.png of image"),
    ],
)
def test_what_is_wrong_with_one_image_leaves_the_others_done(command, tmp_path, file, content, said):
    if isinstance(content, str):
        (tmp_path / file).write_text(content)
    else:
        save(tmp_path / file, np.full((SIZE, SIZE), content, np.uint8))
    error = single_error(command("sampler.resampling=none", "batch_size=1"))
    assert "1 of 3 images were left out" in error and said in error
    assert [Path(row["image"]).name for row in rows(tmp_path / "out")] == ["a.png", "c.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "inpainted").iterdir()) == ["a.png", "c.png"]


def test_masks_that_are_all_useless(command, tmp_path, caplog):
    for value, said in [(0, "no hole"), (255, "data.masks.polarity=white_known")]:
        for name in "abc":
            save(tmp_path / "masks" / f"{name}.png", np.full((SIZE, SIZE), value, np.uint8))
        error = single_error(command("overwrite=true"))
        assert "3 of 3 images were left out" in error and said in error
    assert "look inverted" in caplog.text


def test_images_too_small_for_the_discriminator(command, photos, tmp_path):
    save(photos / "b.png", np.full((7, 9, 3), 99, np.uint8))
    error = single_error(command("data.fit=none"))
    assert "photos/b.png is smaller than 8 pixels" in error and len(rows(tmp_path / "out")) == 2


def test_unpaired_masks(command, tmp_path):
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "x.png")
    error = single_error(command())
    assert "b.png" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.startswith("train_")])
def test_training_scripts_need_their_configuration(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", [f"{name}.py", "-opt", str(tmp_path / "absent.yml")])
    assert "absent.yml does not exist" in single_error((script(name).main(), *capsys.readouterr()))


def test_overrides_may_stand_anywhere(configuration, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["test.py", "batch_size=2", "-opt", str(configuration), "sde.T=20"])
    assert "set sde.T=10" in single_error((script("test").main(), *capsys.readouterr()))


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "-opt"), (("-opt",), "-opt"), (("-opt", "x.yml", "--batch_size", "8"), "--batch_size")]
)
def test_command_lines_that_cannot_be_read(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.argv", ["test.py", *arguments])
    assert said in single_error((script("test").main(), *capsys.readouterr()))


def test_interruption(capsys):
    @exit_on_user_error
    def main():
        raise KeyboardInterrupt

    assert main() == 130 and capsys.readouterr().err == "interrupted\n"


def test_in_a_process_of_its_own(configuration, tmp_path):
    """Status and lines as a shell sees them."""
    (tmp_path / "photos" / "b.png").write_text("text")
    command = [sys.executable, str(ROOT / "scripts" / "test.py"), "-opt", str(configuration), "sampler.resampling=none"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    error = single_error((done.returncode, done.stdout, done.stderr))
    assert "1 of 3 images were left out" in error and any(line.split()[:4] == ["|", "all", "|", "2"] for line in done.stdout.splitlines())
    notices = [line.strip() for line in done.stderr.replace("\r", "\n").splitlines() if "left out" in line]
    assert len(notices) == 1 and notices[0].startswith("error: ")
