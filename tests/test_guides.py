"""The texture guided by the true structure and by that of another image."""

import numpy as np
import pytest
import torch
from conftest import SIZE, T, script, single_error

from strdiffusion.batch import Batch
from strdiffusion.data import TestDataset, gray_map, read_image
from strdiffusion.denoiser import OracleStructure
from strdiffusion.samplers import Models, SeededNoise, sample_structure
from strdiffusion.sde import MeanRevertingSDE


def dataset(photos, **options):
    return TestDataset(
        images=photos,
        masks=photos.parent / "masks",
        pairing="name",
        polarity="white_hole",
        seed=0,
        size=SIZE,
        fit="none",
        hole_share=(0.1, 0.5),
        pair="gray2edge",
        edge_source="known",
        edge_sigma=1,
        **options,
    )


def test_the_foreign_structure_is_the_next_image_in_the_hole(photos):
    own, foreign = dataset(photos), dataset(photos, foreign_structure=True)
    for i, name in enumerate("bca"):
        known = own[i].mask.bool()
        torch.testing.assert_close(foreign[i].structure[known], own[i].structure[known], rtol=0, atol=0)
        other = torch.from_numpy(gray_map(read_image(photos / f"{name}.png")))[None]
        torch.testing.assert_close(foreign[i].structure[~known], other[~known], rtol=0, atol=0)
        assert (foreign[i].structure != own[i].structure).any()
        assert torch.equal(foreign[i].texture, own[i].texture) and torch.equal(foreign[i].structure_mean, own[i].structure_mean)


@pytest.mark.parametrize("method", ["ancestral", "posterior", "mars_ode", "mars_sde"])
def test_the_oracle_leads_to_the_truth(method):
    rng = torch.Generator().manual_seed(0)
    truth, mask = torch.rand(2, 1, 8, 8, generator=rng), (torch.rand(2, 1, 8, 8, generator=rng) > 0.5).float()
    batch = Batch(truth.expand(-1, 3, -1, -1), truth, truth * mask, mask)
    sde = MeanRevertingSDE(T)
    result = sample_structure(Models(structure=OracleStructure(sde, truth), method=method), batch, SeededNoise([1, 2])).structure
    np.testing.assert_allclose(result, truth, atol=0.25 if method == "ancestral" else 1e-5)  # the Euler steps end beside it


@pytest.fixture
def command(tmp_path, photos, weights, monkeypatch, capsys):
    """command(*overrides) runs scripts/test.py; returns status, stdout and stderr."""
    (tmp_path / "test.yml").write_text(
        f"output: {tmp_path / 'out'}\ndevice: cpu\nsde: {{T: {T}}}\nstructure: {{edge_source: known, edge_sigma: 1}}\n"
        f"checkpoints: {{texture: {weights}/texture.pt, structure: {weights}/structure.pt}}\n"
        f"data: {{images: {photos}, masks: {{folder: {tmp_path / 'masks'}}}, size: {SIZE}, index: null}}\nsampler: {{resampling: none}}\n"
    )

    def run(*overrides):
        monkeypatch.setattr("sys.argv", ["test.py", "-opt", str(tmp_path / "test.yml"), *overrides])
        return script("test").main(), *capsys.readouterr()

    return run


def test_the_true_structure_is_nearer_to_itself(command, photos, tmp_path):
    results = []
    for guide in ("denoised", "ground_truth", "other_image"):
        assert command(f"guide={guide}", f"output={tmp_path / guide}")[0] == 0
        results.append(read_image(tmp_path / guide / "structure" / "a.png"))
    truth, known = dataset(photos)[0].structure[0].numpy(), dataset(photos)[0].mask[0].numpy() > 0.5
    errors = [np.abs(result[..., 0] - truth)[~known].mean() for result in results]
    assert errors[1] < 0.9 * errors[2] and errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("override", ["sampler.resampling=fixed", "data.ground_truth=false"])
def test_a_guide_that_needs_the_truth(command, override):
    assert "guide=ground_truth needs" in single_error(command("guide=ground_truth", override))
