"""LPIPS, FID and KID through random weights against independent computations; nothing here needs a network connection."""

import hashlib
import inspect
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from strdiffusion.evaluation import perceptual, weights
from strdiffusion.evaluation.compare import Measures, compare_arrays
from strdiffusion.evaluation.perceptual import Inception, Lpips, frechet_distance, kernel_distance
from strdiffusion.evaluation.weights import PUBLISHED, Unavailable, find_weights
from strdiffusion.system.errors import UserError

# torchvision's `features`: (number of the layer, channels in, out, kernel, stride, padding, max pooling before it)
ALEX = [
    (0, 3, 64, 11, 4, 2, None),
    (3, 64, 192, 5, 1, 2, (3, 2)),
    (6, 192, 384, 3, 1, 1, (3, 2)),
    (8, 384, 256, 3, 1, 1, None),
    (10, 256, 256, 3, 1, 1, None),
]
VGG_WIDTHS = [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)]


def vgg_layers():
    layers, number, before = [], 0, 3
    for block, widths in enumerate(VGG_WIDTHS):
        for i, width in enumerate(widths):
            layers.append((number, before, width, 3, 1, 1, (2, 2) if block and not i else None))
            number, before = number + 2, width
        number += 1
    return layers


LAYERS = {"alex": ALEX, "vgg": vgg_layers()}
TAPPED = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}  # the layers whose activations are compared


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """An empty cache, and an error where anything tries to download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *args, **options: pytest.fail("a download was tried"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with random weights in torchvision's layout: alex.pth, vgg.pth."""
    path = tmp_path_factory.mktemp("pretrained")
    generator = torch.Generator().manual_seed(0)
    for net, layers in LAYERS.items():
        state = {}
        for number, before, width, kernel, *_ in layers:
            scale = math.sqrt(2 / (before * kernel**2))
            state[f"features.{number}.weight"] = scale * torch.randn(width, before, kernel, kernel, generator=generator)
            state[f"features.{number}.bias"] = 0.1 * torch.randn(width, generator=generator)
        torch.save(state, path / f"{net}.pth")
    return path


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """A file of random weights for torch-fidelity's Inception."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **options):
            pass

    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    torch.save(Untrained("untrained", ["2048"], str(path)).state_dict(), path)
    return path


@pytest.fixture
def images():
    """An image (40,56,3), a truth and a hole (40,56)."""
    rng = np.random.default_rng(0)
    truth = rng.random((40, 56, 3), np.float32)
    image = np.clip(truth + 0.2 * rng.standard_normal(truth.shape, np.float32), 0, 1)
    hole = np.zeros((40, 56), bool)
    hole[3:17, 20:50] = True
    return image, truth, hole


def lpips_maps(net, path, image, truth):
    """LPIPS by its definition: a map (h,w) per tapped layer, in float64, with the heads that the package brings along."""
    import lpips

    heads = torch.load(Path(inspect.getfile(lpips)).parent / "weights" / "v0.1" / f"{net}.pth", map_location="cpu", weights_only=True)
    state = torch.load(path, weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]).double(), torch.tensor([0.458, 0.448, 0.450]).double()
    x = torch.stack([torch.from_numpy(i).double() for i in (image, truth)])
    x = ((2 * x - 1 - shift) / scale).permute(0, 3, 1, 2)
    maps = []
    for number, _, _, _, stride, padding, pooling in LAYERS[net]:
        x = F.max_pool2d(x, *pooling) if pooling else x
        x = F.relu(F.conv2d(x, *(state[f"features.{number}.{name}"].double() for name in ("weight", "bias")), stride, padding))
        if number in TAPPED[net]:
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            head = heads[f"lin{len(maps)}.model.1.weight"].double()[0]  # (C,1,1)
            maps.append(((unit[0] - unit[1]).square() * head).sum(0))
    return maps


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips(net, folder, images):
    image, truth, hole = images
    maps = lpips_maps(net, folder / f"{net}.pth", image, truth)
    enlarged = sum(F.interpolate(m[None, None], hole.shape, mode="bilinear", align_corners=False)[0, 0] for m in maps)
    measure = Lpips(net, str(folder / f"{net}.pth"))
    whole, in_hole = measure(image, truth, hole)
    assert abs(whole - float(sum(m.mean() for m in maps))) < 1e-5 * whole and whole > 0.01
    assert abs(in_hole - float(enlarged[torch.from_numpy(hole)].mean())) < 1e-5 * in_hole and abs(in_hole - whole) > 1e-3 * whole
    assert measure(truth, truth, hole) == (0, 0) and math.isnan(measure(image, truth)[1])
    measure.model.spatial = False  # the package's own average
    tensors = [torch.from_numpy(i).permute(2, 0, 1)[None] for i in (image, truth)]
    assert abs(whole - measure.model(*tensors, normalize=True).item()) < 1e-6


@pytest.mark.parametrize(("net", "side"), [("alex", 31), ("vgg", 16)])
def test_lpips_of_small_images(net, side, folder):
    measure = Lpips(net, str(folder / f"{net}.pth"))
    black, white = np.zeros((side, 64, 3), np.float32), np.ones((side, 64, 3), np.float32)
    assert measure(black, white)[0] > 0 and math.isnan(measure(black[1:], white[1:])[0])


def test_frechet_distance_of_gaussians_in_closed_form():
    """Features whose sample mean and covariance are exactly those wanted."""
    rng = np.random.default_rng(0)
    d, n = 6, 50
    first, second = (rng.standard_normal((d, d)) for _ in range(2))
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    variances = rng.uniform(0.5, 3, (2, d))
    shift = rng.standard_normal(d)

    def features(variance, mean):
        z = rng.standard_normal((n, d))
        z -= z.mean(0)
        z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T  # identity covariance
        return z * np.sqrt(variance) @ rotation.T + mean

    one, two = features(variances[0], 0), features(variances[1], shift)
    expected = shift @ shift + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()  # covariances that commute
    assert abs(frechet_distance(one, two) - expected) < 1e-9
    one, two = one @ first, two @ second  # and those that do not: tr (S1 S2)^(1/2) through a symmetric square root
    s1, s2, mean = np.cov(one, rowvar=False), np.cov(two, rowvar=False), one.mean(0) - two.mean(0)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values) @ vectors.T
    expected = mean @ mean + np.trace(s1 + s2) - 2 * np.sqrt(np.linalg.eigvalsh(root @ s2 @ root)).sum()
    assert abs(frechet_distance(one, two) - expected) < 1e-9 * expected
    assert abs(frechet_distance(one, one)) < 1e-9


@pytest.mark.parametrize("n", [(12, 20), (60, 90)])
def test_frechet_distance_is_torch_fidelitys(n):
    """Also where there are fewer images than features, where singular values give tr (S1 S2)^(1/2) independently."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((n[0], 64)), rng.standard_normal((n[1], 64)) + 0.3
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (one, two)), verbose=False)
    a, b = ((x - x.mean(0)) / math.sqrt(len(x) - 1) for x in (one, two))
    difference = one.mean(0) - two.mean(0)
    independent = difference @ difference + (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc")
    assert abs(frechet_distance(one, two) - independent) < 1e-7 * independent
    assert abs(frechet_distance(one, two) - theirs[KEY_METRIC_FID]) < 1e-6 * independent


def test_kernel_distance():
    rng = np.random.default_rng(2)
    one, two = rng.standard_normal((30, 16)), 1.5 * rng.standard_normal((30, 16)) + 0.2

    def kernel(x, y):
        return (float(x @ y) / 16 + 1) ** 3

    pairs = [(i, j) for i in range(30) for j in range(30)]
    within = sum(kernel(x[i], x[j]) for x in (one, two) for i, j in pairs if i != j) / (30 * 29)
    between = sum(kernel(one[i], two[j]) for i, j in pairs) / 30**2
    assert abs(kernel_distance(one, two) - (within - 2 * between)) < 1e-10
    assert kernel_distance(one, two) > kernel_distance(one, one[::-1])


def test_kernel_distance_of_large_sets_is_torch_fidelitys(monkeypatch):
    from torch_fidelity.defaults import DEFAULTS
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    assert (perceptual.KID_SUBSET, perceptual.KID_SUBSETS) == (DEFAULTS["kid_subset_size"], DEFAULTS["kid_subsets"])
    monkeypatch.setattr(perceptual, "KID_SUBSET", 50)
    monkeypatch.setattr(perceptual, "KID_SUBSETS", 20)
    rng = np.random.default_rng(3)
    one, two = rng.standard_normal((80, 4)), rng.standard_normal((80, 4)) + 0.2
    theirs = kid_features_to_metric(torch.from_numpy(one), torch.from_numpy(two), kid_subsets=20, kid_subset_size=50, verbose=False)
    assert kernel_distance(one, two) == theirs[KEY_METRIC_KID_MEAN]


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_one_image_is_no_set(distance):
    with pytest.raises(Unavailable, match="at least 2 images"):
        distance(np.ones((1, 4)), np.ones((5, 4)))


def test_fid_and_kid_from_images_to_numbers(inception_file, images):
    """The set's numbers are those of the library's own network on 8-bit images."""
    from torch_fidelity import FeatureExtractorInceptionV3

    rng = np.random.default_rng(4)
    truths = [rng.random((32, 32, 3), np.float32) for _ in range(3)]
    outputs = [np.clip(t * 0.7 + 0.1, 0, 1) for t in truths]
    measures = Measures(["fid", "kid"], weights_of(inception=inception_file))
    row = compare_arrays([(o, t, None) for o, t in zip(outputs, truths, strict=True)], measures).rows()[-1]
    network = FeatureExtractorInceptionV3("x", ["2048"], str(inception_file))
    features = []
    for group in (outputs, truths):
        levels = np.stack([np.round(image * 255).astype(np.uint8) for image in group]).transpose(0, 3, 1, 2)
        features.append(network(torch.from_numpy(levels))[0].double().numpy())
    for metric, distance in (("fid", frechet_distance), ("kid", kernel_distance)):
        expected = distance(*features)
        assert abs(row.cells[metric].summary.mean - expected) < 1e-4 * abs(expected), metric
        assert row.cells[metric].summary.count == 3 and math.isnan(row.cells[metric].summary.low)
    assert not measures.weights["fid"].published and Inception(str(inception_file))(truths[0]).shape == (2048,)


def weights_of(**paths):
    from strdiffusion.evaluation.judging_options import PretrainedConfig

    return PretrainedConfig(**{name: str(path) for name, path in paths.items()})


# ---- where weights come from --------------------------------------------------------------------------


def test_without_weights_there_is_a_reason_and_the_rest_is_computed(images):
    image, truth, hole = images
    measures = Measures()
    assert set(measures.unavailable) == {"lpips_alex", "lpips_vgg", "fid", "kid"}
    row = compare_arrays([(image, truth, ~hole * 1.0)], measures).rows()[-1]
    assert list(row.cells) == ["psnr", "hole_psnr", "ssim", "hole_ssim", "l1", "hole_l1", "lpips_alex", "lpips_vgg", "fid", "kid"]
    for metric, file in [("lpips_alex", "alex"), ("lpips_vgg", "vgg"), ("fid", "inception"), ("kid", "inception")]:
        assert row.cells[metric].summary is None and PUBLISHED[file] in row.cells[metric].reason
    assert row.cells["psnr"].summary.count == 1


def test_without_packages_there_is_a_reason(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    measures = Measures(["lpips_alex", "fid"], weights_of(alex=folder / "alex.pth", inception=folder / "alex.pth"))
    assert "pip install lpips" in measures.unavailable["lpips_alex"] and "pip install torch-fidelity" in measures.unavailable["fid"]


def test_cached_weights_are_found_and_checked(monkeypatch, tmp_path):
    cached = tmp_path / "cache" / "hub" / "checkpoints" / PUBLISHED["alex"]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not what the name says")
    with pytest.raises(Unavailable, match="is damaged"):
        find_weights("alex")
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(weights.PUBLISHED, "alex", f"alexnet-owt-{digest}.pth")
    cached = cached.rename(cached.with_name(f"alexnet-owt-{digest}.pth"))
    found = find_weights("alex")
    assert found.path == cached and found.published and "as published" in str(found)


def test_other_weights_are_named_so(folder):
    found = find_weights("alex", str(folder / "alex.pth"))
    assert not found.published and "NOT the published file" in str(found)


class Command:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize("kind", [Lpips, Inception])
def test_files_that_are_no_weights(kind, tmp_path, folder, capsys):
    load = (lambda path: Lpips("alex", str(path))) if kind is Lpips else (lambda path: Inception(str(path)))
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="does not hold weights of"):
        load(folder / "vgg.pth")
    for content in (b"text", b"", pickle.dumps(Command()), (folder / "alex.pth").read_bytes()[:5000]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(UserError, match="pretrained weights"):
            load(tmp_path / "bad.pth")
    assert "this ran" not in capsys.readouterr().out
