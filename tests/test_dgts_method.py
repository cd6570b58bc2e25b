"""`method: dgts` on the seam: known pixels, sizes, model folders, the released procedure, and bad input in one line."""

import csv

import numpy as np
import pytest
import torch
from conftest import SIZE, SMALL_DGTS, save, script, single_error, write_dgts

from strdiffusion import StrDiffusion, figures
from strdiffusion.batch import Known
from strdiffusion.checkpoints import save_released
from strdiffusion.commands.main import main
from strdiffusion.config import load_config
from strdiffusion.data import read_image
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.methods import run
from strdiffusion.methods.dgts import DGTSMethod, DGTSOptions
from strdiffusion.methods.dgts_loading import DGTSCheckpoints, FillingOptions
from strdiffusion.networks.dgts import DGTS, Upsampler
from strdiffusion.system.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def test_yml(tmp_path, photos, weights):
    path = tmp_path / "test.yml"
    path.write_text(
        f"method: dgts\noutput: {tmp_path / 'out'}\ndevice: cpu\n"
        f"checkpoints: {{dgts: {weights}/dgts.pt, upsampler: {weights}/upsampler.pt}}\n"
        f"data: {{images: {photos}, masks: {{folder: {photos.parent / 'masks'}}}, size: {SIZE}, index: null}}\n"
    )
    return path


def method_of(weights, upsampler=True, **settings):
    files = DGTSCheckpoints(dgts=f"{weights}/dgts.pt", upsampler=f"{weights}/upsampler.pt" if upsampler else None)
    options = DGTSOptions(files, dgts=FillingOptions(**settings))
    options.check()
    return DGTSMethod.open(options, CPU)


def batch(size=SIZE):
    image = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(3, 1, size, size)
    mask[0, :, 4:17, 6:15] = mask[1] = 0
    mask[2, :, ::5] = 0
    return Known(image, mask)


def test_a_test_writes_its_results_with_known_pixels_as_they_were(test_yml, photos, tmp_path):
    assert main(["test", "-opt", str(test_yml)]) == 0
    rows = list(csv.DictReader(open(tmp_path / "out" / "results.csv")))
    assert [(row["dgts_evaluations"], row["upsampler_evaluations"]) for row in rows] == [("1", "1")] * 3
    for name in "abc":
        hole = read_image(photos.parent / "masks" / f"{name}.png")[..., 0] > 0.5
        found, given = read_image(tmp_path / "out" / "inpainted" / f"{name}.png"), read_image(photos / f"{name}.png")
        np.testing.assert_array_equal(found[~hole], given[~hole])
        assert found[hole].std() > 0


@pytest.mark.parametrize("upsampler", [True, False])
@pytest.mark.parametrize("order", ["raster", "known"])
def test_a_result_does_not_depend_on_the_batch(weights, order, upsampler):
    method, known = method_of(weights, upsampler, order=order), batch()
    together = run(method, known, [1, 2, 3]).image
    for i in range(3):
        torch.testing.assert_close(run(method, known.take([i]), [9]).image[0], together[i], rtol=0, atol=2e-4)
    assert torch.equal(together[known.mask.expand_as(together) > 0.5], known.image[known.mask.expand_as(together) > 0.5])


@pytest.mark.parametrize("upsampler, most", [(False, 0.002), (True, 0.04)])  # a random one amplifies what its input differs by
def test_half_precision_gives_nearly_the_same(weights, upsampler, most):
    method, known = method_of(weights, upsampler), batch()
    half = run(method.varied(precision="bf16"), known, [0] * 3).image
    assert half.dtype == torch.float32 and 0 < (half - run(method, known, [0] * 3).image).abs().mean() < most
    with pytest.raises(UserError, match="no steps"):
        method.varied(steps=3)


def test_a_given_order_is_followed(weights):
    listed = list(range(15, -1, -1))
    method = method_of(weights, order="given", given=listed)
    order = method.fill(batch()).order
    assert order[1].tolist() == listed and all(p == -1 or p in listed for p in order[0].tolist())
    few = method_of(weights, order="given", given=listed, one_by_one=2).fill(batch()).order
    assert few.tolist()[1] == [15, 14]
    with pytest.raises(UserError, match="each of the patches 0 to 15 once"):
        method_of(weights, order="given", given=[1, 2]).fill(batch())


def test_images_of_other_sizes_are_brought_to_the_networks(weights):
    known = batch(37)
    result = run(method_of(weights), known, [0, 0, 0]).image
    assert result.shape == (3, 3, 37, 37)
    assert torch.equal(known.put_back(result), result)


def test_a_photograph_of_any_size(weights, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8)
    mask = np.zeros((50, 71), np.uint8)
    mask[20:29, 30:45] = mask[3:6, 3:60] = 255
    save(tmp_path / "image.png", levels), save(tmp_path / "mask.png", mask)
    folder = tmp_path / "runs"
    for kind in ("dgts", "upsampler"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "latest.pt").write_bytes((weights / f"{kind}.pt").read_bytes())
    arguments = [str(tmp_path / "image.png"), str(tmp_path / "mask.png"), "-o", str(tmp_path / "out.png"), "--model", str(folder)]
    assert main(["inpaint", *arguments]) == 0
    found = read_image(tmp_path / "out.png")
    np.testing.assert_array_equal(found[mask == 0], read_image(tmp_path / "image.png")[mask == 0])
    # the same from a model folder
    StrDiffusion.load(folder).save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["dgts.safetensors", "model.yml", "upsampler.safetensors"]
    arguments[3] = str(tmp_path / "again.png")
    assert main(["inpaint", *arguments[:-1], str(tmp_path / "model")]) == 0
    np.testing.assert_array_equal(read_image(tmp_path / "again.png"), found)
    assert main(["info", str(tmp_path / "model")]) == 0 and main(["info", str(weights / "dgts.pt")]) == 0


def test_the_released_procedure_changes_known_pixels_and_says_so(weights, caplog):
    method, known = method_of(weights, released=True), batch()
    result = run(method, known, [0, 0, 0]).image
    assert "has changed known pixels by" in caplog.text
    assert not torch.equal(known.put_back(result), result)
    assert torch.allclose(result * 255, (result * 255).round(), atol=1e-3)  # 8 bits


def test_released_files_do_not_record_lambda(tmp_path):
    torch.manual_seed(0)
    network = DGTS(width=16, reference_width=16, heads=8, encoder_layers=1, decoder_layers=1)
    save_released(tmp_path / "released.pth", network)
    options = DGTSOptions(DGTSCheckpoints(dgts=str(tmp_path / "released.pth")), dgts=FillingOptions(bridge=0.3))
    method = DGTSMethod.open(options, CPU)
    assert method.size == 256 and method.model.core.decoder.share == 0.3
    method.model.core.eval()
    known = Known(torch.rand(1, 3, 256, 256), (torch.rand(1, 1, 256, 256) > 0.001).float())
    assert run(method, known, [0]).image.shape == (1, 3, 256, 256)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["checkpoints.dgts=null"], "checkpoints.dgts is missing"),
        (["checkpoints.dgts={weights}/texture.pt"], "of the texture network, not of the dgts network"),
        (["checkpoints.upsampler={weights}/dgts.pt"], "of the dgts network, not of the upsampler network"),
        (["checkpoints.dgts={weights}/absent.pt"], "does not exist"),
        (["dgts.order=given"], "dgts.given"),
        (["dgts.order=given", "dgts.given=[0, 1]"], "each of the patches 0 to 15 once"),
        (["dgts.released=true", "checkpoints.upsampler=null"], "needs the enlarging network"),
        (["dgts.released=true", "dgts.enlarge=false"], "set dgts.enlarge=true"),
        (["data.size=32"], "data.size=32 does not fit: an image is not of 24x24 pixels, which the patches divide"),
        (["checkpoints={folder: {weights}}"], "has no model.yml"),
        (["sampler.steps=3", "dgts.steps=3"], "dgts.steps"),
    ],
)
def test_bad_input_is_one_line(test_yml, weights, capsys, overrides, said):
    overrides = [override.replace("{weights}", str(weights)) for override in overrides]
    assert said in single_error((main(["test", "-opt", str(test_yml), *overrides]), *capsys.readouterr()))


def test_networks_that_do_not_fit_are_refused(tmp_path, weights):
    write_dgts(tmp_path / "wide.pt", "upsampler", Upsampler(4, 8, (1, 16)))
    files = DGTSCheckpoints(dgts=f"{weights}/dgts.pt", upsampler=str(tmp_path / "wide.pt"))
    with pytest.raises(UserError, match="needs images above 64 pixels"):
        DGTSMethod.open(DGTSOptions(files), CPU)
    with pytest.raises(UserError, match="dgts.given must name each of the patches 0 to 15 once"):  # before an image is read
        options = DGTSOptions(DGTSCheckpoints(dgts=f"{weights}/dgts.pt"), dgts=FillingOptions(order="given", given=[0, 1]))
        DGTSMethod.open(options, CPU)
    assert DGTS(**SMALL_DGTS).size == SIZE


# ---- the figure of filling ----------------------------------------------------------------------------


def test_the_figure_of_filling(test_yml, tmp_path, monkeypatch, capsys):
    config = load_config(TestConfig, test_yml)
    picture = figures.record_filling(config, "a", 2)
    method = figures.filling.open_method(config)
    assert picture.patch == picture.order[1] and picture.grid == 4 and picture.masked.shape == picture.filled.shape == (12, 12, 3)
    assert picture.attention.shape == (method.model.core.references.side,) * 2 and picture.attention.sum() == pytest.approx(1, abs=1e-5)
    assert sorted(picture.order) == [5, 6, 9, 10]  # the square hole of 8..16 of 24
    figure = figures.filling_figure(picture)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2", "3", "4"]
    given = ["figures.py", "filling", "--out", str(tmp_path / "filling"), "-opt", str(test_yml)]
    monkeypatch.setattr("sys.argv", given)
    assert script("figures").main() == 0 and (tmp_path / "filling.pdf").exists()
    for more, said in ((["--patch", "99"], "99 is asked for"), (["dgts.one_by_one=0"], "one by one"), (["--image", "x"], "no image x")):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", [*given, "--overwrite", *more])
        assert said in single_error((script("figures").main(), *capsys.readouterr()))
