"""The texture guided by the true structure and by that of another image."""

import numpy as np
import pytest
import torch
from conftest import SIZE, T, script, single_error

from strdiffusion.batch import Batch
from strdiffusion.config.common import SDEConfig, StructureConfig
from strdiffusion.data import TestDataset, gray_map, read_image, structure_maps
from strdiffusion.denoiser import GivenX0
from strdiffusion.evaluation.folder import look_at
from strdiffusion.methods.loading import CheckpointsConfig
from strdiffusion.methods.strdiffusion import StrDiffusionMethod, StrDiffusionOptions
from strdiffusion.samplers import Networks, SamplerConfig, Sampling, SeededNoise, Stepping, StructureAlone, sample
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
        **options,
    )


def test_the_other_image_is_the_next_one_in_the_hole(photos):
    items = dataset(photos)
    for i, name in enumerate("bca"):
        item = items[i]
        known, image = item.known() > 0.5, items.other_image(i, item)
        np.testing.assert_array_equal(image[known], item.image()[known])
        np.testing.assert_array_equal(image[~known], read_image(photos / f"{name}.png")[~known])
        assert (image != item.image()).any()


@pytest.mark.parametrize("guide", ["ground_truth", "other_image"])
def test_a_guide_comes_through_its_door(photos, weights, guide):
    """The oracle's structure is what the door shows; structure and edges that are sampled from are of the known pixels alone."""
    networks = CheckpointsConfig(texture=f"{weights}/texture.pt", structure=f"{weights}/structure.pt")
    structure, sampler = StructureConfig(edge_source="known", edge_sigma=1), SamplerConfig(resampling="none")
    options = StrDiffusionOptions(networks, sde=SDEConfig(T=T), structure=structure, sampler=sampler, guide=guide)
    method = StrDiffusionMethod.open(options, torch.device("cpu"))
    own, items = dataset(photos)[0], dataset(photos)
    item = look_at(items, 0, method)
    shown = own.image() if guide == "ground_truth" else items.other_image(0, own)
    np.testing.assert_array_equal(item.maps["true_structure"][0], gray_map(shown))
    x0, mean = structure_maps(own.image(), own.known(), "gray2edge", "known", 1)
    np.testing.assert_array_equal(item.maps["structure"][0], x0 * own.known())
    np.testing.assert_array_equal(item.maps["structure_mean"][0], mean)
    assert set(method.doors) == {"truth" if guide == "ground_truth" else "other_image"}


@pytest.mark.parametrize("solver", ["ancestral", "posterior", "mars_ode", "mars_sde"])
def test_the_oracle_leads_to_the_truth(solver):
    rng = torch.Generator().manual_seed(0)
    truth, mask = torch.rand(2, 1, 8, 8, generator=rng), (torch.rand(2, 1, 8, 8, generator=rng) > 0.5).float()
    batch = Batch(truth.expand(-1, 3, -1, -1), truth, truth * mask, mask)
    sde = MeanRevertingSDE(T)
    run = Sampling(Networks(structure=GivenX0(sde, truth)), batch.known(), SeededNoise([1, 2]), Stepping(solver))
    result = sample(StructureAlone(), run).structure
    np.testing.assert_allclose(result, truth, atol=0.25 if solver == "ancestral" else 1e-5)  # the Euler steps end beside it


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
    truth, known = gray_map(dataset(photos)[0].image()), dataset(photos)[0].known() > 0.5
    errors = [np.abs(result[..., 0] - truth)[~known].mean() for result in results]
    assert errors[1] < 0.9 * errors[2] and errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("override", ["sampler.resampling=fixed", "data.ground_truth=false"])
def test_a_guide_that_needs_the_truth(command, override):
    assert "guide=ground_truth needs" in single_error(command("guide=ground_truth", override))
