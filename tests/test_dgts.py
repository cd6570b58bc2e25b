"""DGTS: the released program's numbers (tests/golden_dgts/README.md), and what its networks promise beside them."""

import math
from pathlib import Path

import pytest
import torch
from golden_forms import check_folder

from strdiffusion.checkpoints import load_network, save_released
from strdiffusion.networks.dgts import DGTS, AdversarialPair, Critic, Upsampler, build_upsampler
from strdiffusion.networks.dgts.filling import NONE
from strdiffusion.networks.dgts.losses import filling_loss, region_distance
from strdiffusion.networks.dgts.references import TextureReferences
from strdiffusion.networks.dgts.structure import cut, join, known_counts
from strdiffusion.system.errors import UserError

GOLDEN = Path(__file__).parent / "golden_dgts"
SMALL = dict(reduction=2, patch=4, grid=4, width=16, reference_width=8, heads=2, encoder_layers=1, decoder_layers=2, backbone="small")

SHALLOW = dict(width=16, reference_width=16, heads=2, encoder_layers=1, decoder_layers=1)


def test_every_golden_item_is_within_its_tolerance():
    items = list(check_folder(GOLDEN))
    assert len(items) > 200
    assert [(item.name, item.error) for item in items if not item.passed] == []


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DGTS(**SMALL).double().eval()


def masks(size=32):
    """Five masks: a square, nothing known in any patch, all known, everything missing, scattered pixels."""
    mask = torch.ones(5, 1, size, size, dtype=torch.float64)
    mask[0, :, 5:20, 3:22] = 0
    mask[1, :, ::8] = 0
    mask[1, :, :, ::8] = 0
    mask[3] = 0
    mask[4] = (torch.rand(1, size, size, generator=torch.Generator().manual_seed(2)) > 0.05).double()
    return mask


def images(size=32):
    return torch.rand(5, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("order", ["raster", "known", "confidence"])
@pytest.mark.parametrize("one_by_one", [None, 3, 0])
@torch.no_grad()
def test_each_image_of_a_batch_has_its_own_mask(network, order, one_by_one):
    x, m = images(), masks()
    together = network(x, m, order, one_by_one)
    for i in range(5):
        alone = network(x[i : i + 1], m[i : i + 1], order, one_by_one)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=0, atol=1e-12)
        steps = alone.order.shape[1]
        assert together.order[i, :steps].tolist() == alone.order[0].tolist() and (together.order[i, steps:] == NONE).all()
    assert torch.equal(together.image[2], network.reduced(x)[2])  # nothing was missing


@torch.no_grad()
def test_the_orders(network):
    x, m = images()[:2], masks()[[0, 4]]
    counts = known_counts(network.reduced(m), network.patch)
    for i in range(2):
        missing = (counts[i] < 16).nonzero().flatten().tolist()
        raster, known, confident = (network(x, m, order).order[i].tolist()[: len(missing)] for order in ("raster", "known", "confidence"))
        assert raster == missing and sorted(known) == sorted(confident) == missing
        assert known == sorted(missing, key=lambda p: (-counts[i, p], p))
        for order in (raster, known, confident):
            given = torch.tensor([order])
            result = network(x[i : i + 1], m[i : i + 1], given)
            assert result.order.tolist() == [order]
    filled = network(x, m, "confidence")
    given = network(x, m, filled.order)
    torch.testing.assert_close(given.image, filled.image, rtol=0, atol=1e-12)
    torch.testing.assert_close(given.attention, filled.attention, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_decoder_runs_at_most_once_a_patch(network):
    runs = []
    network.decoder.register_forward_hook(lambda *_: runs.append(1))
    result = network(images()[3:4], masks()[3:4])
    assert len(runs) == result.passes == 16 and result.order.shape == (1, 16)


@pytest.mark.parametrize("order", [[[0, 1]], [[5, 5, 6, 9, 10, 1]], [[99, 0, 0, 0]], [0, 1]])
def test_a_wrong_order_is_one_line(network, order):
    with pytest.raises(UserError, match="order of filling"):
        network(images()[:1], masks()[:1], torch.tensor(order))


def test_images_of_another_size_are_refused(network):
    for x, m in ((images(30), masks(30)), (images(), masks()[:1])):
        with pytest.raises(UserError, match="DGTS fills images of 32x32 pixels"):
            network(x, m)


@torch.no_grad()
def test_attention_is_a_distribution_over_references(network):
    result = network(images()[:1], masks()[:1])
    assert result.attention.shape == (1, result.order.shape[1], network.references.side**2)
    torch.testing.assert_close(result.attention.sum(dim=2), torch.ones_like(result.attention[..., 0]))


@torch.no_grad()
def test_references_of_a_new_network_tell_places_apart():
    """With torch's own initial values they are all alike (0.01 of their size), and attention has nothing to choose from."""
    torch.manual_seed(0)
    references = TextureReferences("small", 64, 16, 96, 4, 2, 0.1).eval()
    found = references(torch.rand(2, 3, 64, 64) * 2 - 1, torch.ones(2, 1, 64, 64))
    assert found.std(dim=1).mean() > 0.1 * found.std()


def test_nothing_is_learnt_from_the_hole(network):
    x, m = images(), masks()
    other = torch.where(m > 0.5, x, -x)
    assert torch.equal(network(x, m).image, network(other, m).image)


def test_gradients_are_finite_and_reach_every_parameter(network):
    x, m = images(), masks()
    network.train()
    filled = network(x, m, "known", 3).image
    filling_loss(filled, network.reduced(x), network.reduced(m), None).total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_an_image_without_a_hole_has_no_loss():
    x = torch.rand(1, 3, 8, 8)
    assert region_distance(x, 2 * x, torch.zeros(1, 1, 8, 8)) == 0


def test_patches_are_cut_and_joined():
    x = torch.rand(2, 3, 12, 12)
    patches = cut(x, 4)
    assert torch.equal(patches[1, 5], x[1, :, 4:8, 8:12]) and torch.equal(join(patches), x)


@pytest.mark.parametrize(
    ("network", "prefix"),
    [(DGTS(width=16, reference_width=16, heads=2, encoder_layers=1, decoder_layers=1), "module."), (Upsampler(4), "")],
)
def test_released_files_load_and_export(network, prefix, tmp_path):
    save_released(tmp_path / "a.pth", network)
    content = torch.load(tmp_path / "a.pth")
    assert all(name.startswith(prefix) for name in content) and prefix == ("module." if isinstance(network, DGTS) else "")
    loaded = load_network(tmp_path / "a.pth")
    assert loaded.released and type(loaded.network) is type(network)
    for ours, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[ours], value), ours
    content.popitem()
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(UserError, match="1 missing"):
        load_network(tmp_path / "c.pth")


def test_critic_and_upsampler_are_not_trained_through_each_other():
    pair = build_upsampler(critic_width=4, width=4, factor=4, dilations=[1, 2])
    assert isinstance(pair, AdversarialPair) and isinstance(pair.critic, Critic)
    y, x, m = torch.rand(1, 3, 12, 12), torch.rand(1, 3, 48, 48), torch.ones(1, 1, 48, 48)
    m[..., 8:20, 8:20] = 0
    scored = pair(y, x, m)
    sum(s.sum() for s in scored.for_upsampler).backward(retain_graph=True)
    assert all(p.grad is None for p in pair.critic.parameters()) and pair.upsampler.out.weight.grad is not None
    pair.zero_grad()
    sum(s.sum() for s in [*scored.of_fake, *scored.of_real]).backward()
    assert all(p.grad is None for p in pair.upsampler.parameters()) and pair.critic.scales[0].stages[0][0].weight.grad is not None


def test_the_released_size_is_a_configuration():
    with torch.device("meta"):
        released = DGTS()
    assert released.size == 256 and math.isclose(sum(p.numel() for p in released.parameters()), 35_396_491)
