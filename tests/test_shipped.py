"""The networks that ship with the repository, and the script that packed them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import script, single_error
from safetensors.torch import load_file

from strdiffusion import StrDiffusion
from strdiffusion.app.model import trained_on
from strdiffusion.data.facades import draw_facade
from strdiffusion.evaluation.folder import inpaint_folder
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.evaluation.table import read_rows
from strdiffusion.networks import KINDS
from strdiffusion.system import cli
from strdiffusion.system.parser import load_config

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "weights"


def test_sizes():
    files = sorted(SHIPPED.glob("*/*.safetensors"))
    assert len(files) == 8 and all(path.stat().st_size < 16e6 for path in files) and sum(path.stat().st_size for path in files) < 40e6
    assert (SHIPPED / "benchmark" / "README.md").is_file()


@pytest.mark.parametrize("share", ["[0.1, 0.3]", "[0.3, 0.5]"])
def test_better_than_classical_inpainting(tmp_path, monkeypatch, share):
    """On held-out facades, in the hole; docs/benchmark.md has this on 200 images."""
    monkeypatch.chdir(ROOT)
    options = [f"data.masks.hole_share={share}", "data.limit=6", "device=cpu", "sampler.steps=5"]
    found = {}
    given = {"dgts": ["checkpoints={folder: weights/benchmark_dgts}"]}
    for name, method in (("ours", "strdiffusion"), ("DGTS", "dgts"), ("Navier-Stokes", "navier_stokes"), ("Telea", "telea")):
        arguments = [*options[:3], f"output={tmp_path / name}", f"method={method}", *given.get(method, options[3:])]
        config = load_config(TestConfig, "configs/benchmark/test.yml", arguments)
        rows = read_rows(inpaint_folder(config) / "results.csv")
        found[name] = np.mean([[row.hole_psnr, row.hole_ssim] for row in rows], axis=0)
    for name in ("Navier-Stokes", "Telea"):
        for ours in ("ours", "DGTS"):
            psnr, ssim = found[ours] - found[name]
            assert psnr > 1 and ssim > 0.05, found


def test_in_larger_pictures_the_scene_is_seen_at_the_scale_of_training():
    """docs/photographs.md has this on more pictures; a window with less context shows the networks a scene twice as large as theirs."""
    model, found = StrDiffusion.load(SHIPPED / "benchmark", device="cpu"), {}
    hole = np.zeros((128, 128), bool)
    hole[50:86, 46:82] = True
    for name, options in (("default", {}), ("less context", {"context": 0.6})):
        errors = []
        for number in (0, 1, 4):
            truth = draw_facade("test", number, 128)
            filled = model(truth, hole, seed=0, steps=6, **options).images[0].levels
            errors.append(np.square(filled[hole] - truth[hole].astype(float)).mean())
        found[name] = -10 * np.log10(np.mean(errors) / 255**2)
    assert found["default"] > found["less context"] + 1, found


def test_the_unguided_baseline():
    model = StrDiffusion.load(SHIPPED / "benchmark_irsde", device="cpu")
    networks = model.method.model.networks
    assert model.method.name == "irsde" and not networks.texture.network.guided and networks.structure is None


# ---- packing ------------------------------------------------------------------------------------------


@pytest.fixture
def pack(monkeypatch, capsys):
    """pack(*arguments) runs scripts/pack_model.py; returns status, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["pack_model.py", *map(str, arguments)])
        status = script("pack_model").main()
        return status, *capsys.readouterr()

    return run


def test_pack(pack, weights, tmp_path):
    files = [f"{kind}={weights / kind}.pt" for kind in KINDS]
    settings = ["sampler.method=posterior", "sampler.resampling=none", "size=24", "--dtype", "float16"]
    status, said, _ = pack(tmp_path / "model", *files, *settings)
    assert status == 0 and "texture.safetensors" in said
    model = StrDiffusion.load(tmp_path / "model", device="cpu")
    config = model.method.model.config
    assert (config.sampler.solver, config.sampler.resampling, config.size) == ("posterior", "none", 24)
    original = StrDiffusion.load({kind: weights / f"{kind}.pt" for kind in KINDS}, device="cpu")
    for packed, loaded in zip(model.method.model.networks, original.method.model.networks, strict=True):
        stored = load_file(tmp_path / "model" / f"{packed.kind}.safetensors")
        for name, value in loaded.network.state_dict().items():
            assert stored[name].dtype == torch.float16 or value.ndim == 1  # vectors, spectral norm's among them, stay as they are
            assert torch.equal(packed.network.state_dict()[name], value.to(stored[name].dtype).float())


def test_mistakes(pack, weights, tmp_path):
    texture, structure = (f"{kind}={weights / kind}.pt" for kind in ("texture", "structure"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    for folder, settings, said in (
        ("new", [texture], "there is no structure network"),
        ("new", [texture, structure, "sampler.solvr=posterior"], "did you mean sampler.solver?"),
        ("new", [texture, structure, "posterior"], "KEY=VALUE"),
        ("new", [texture, structure, "sampler.resampling=released"], "networks.discriminator is missing"),
        ("new", ["texture=absent.pt", structure], "absent.pt"),
        ("full", [texture, structure], "full"),
    ):
        assert said in single_error(pack(tmp_path / folder, *settings))
        assert not (tmp_path / "new").exists()


def test_others_may_read_the_files(weights, tmp_path):
    StrDiffusion.load({kind: weights / f"{kind}.pt" for kind in KINDS}, device="cpu").save(tmp_path / "model")
    (tmp_path / "usual").write_text("")
    assert {path.stat().st_mode for path in (tmp_path / "model").iterdir()} == {(tmp_path / "usual").stat().st_mode}


@pytest.mark.parametrize("name", ["benchmark", "benchmark_irsde"])
def test_a_model_says_what_it_was_trained_on(name, tmp_path, caplog):
    """Once when it is loaded, and again from the folder to which it is saved; one that does not know says nothing."""
    model = StrDiffusion.load(SHIPPED / name, device="cpu")
    assert "facades of 64x64" in model.trained_on and [r.getMessage() for r in caplog.records if "was trained on" in r.getMessage()] != []
    assert len(caplog.records) == 1 and str(SHIPPED / name) in caplog.text
    saved = model.save(tmp_path / "copy")
    assert StrDiffusion.load(saved, device="cpu").trained_on == model.trained_on
    (saved / "trained_on.txt").unlink()
    caplog.clear()
    assert StrDiffusion.load(saved, device="cpu").trained_on is None and not caplog.records


def test_a_line_that_is_no_text_is_harmless(tmp_path):
    for content in (b"", b"\n", b"x" * 300, b"\x1b[31mred\nmore", b"\xff\xfe"):
        (tmp_path / "trained_on.txt").write_bytes(content)
        said = trained_on(tmp_path)
        assert said is None or said.isprintable()
    (tmp_path / "trained_on.txt").write_bytes(b"x" * 301)
    assert trained_on(tmp_path) is None


def test_the_default_model_is_found_in_an_installed_package(tmp_path, monkeypatch):
    """In the current folder, beside the package, in the package: the first that is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site" / "strdiffusion" / "system" / "cli.py"))
    inside, beside, here = (tmp_path / place / "weights/benchmark" for place in ("site/strdiffusion", "site", "."))
    for place, found in ((inside, inside), (beside, beside), (here, Path("weights/benchmark"))):
        place.mkdir(parents=True)
        assert cli.default_model() == found


def test_the_model_for_photographs_fills_them_better_than_that_of_facades(tmp_path):
    """docs/adapting.md has this on more photographs. It has learnt from drawn shapes alone."""
    from skimage.data import astronaut, camera, coffee

    def hole_psnr(name):
        model, errors = StrDiffusion.load(SHIPPED / name, device="cpu"), []
        for photo, (top, left) in ((coffee(), (150, 200)), (astronaut(), (150, 60)), (np.stack([camera()] * 3, -1), (100, 200))):
            truth = photo[top : top + 96, left : left + 96]
            filled = model(truth, hole, seed=0, steps=2).images[0].levels
            errors.append(np.square(filled[hole] - truth[hole].astype(float)).mean())
        return -10 * np.log10(np.array(errors) / 255**2).mean()

    hole = np.zeros((96, 96), bool)
    hole[20:26, 10:80] = hole[50:74, 40:64] = hole[30:90, 86:90] = True
    assert hole_psnr("photographs") > hole_psnr("benchmark_irsde") + 1
