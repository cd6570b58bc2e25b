"""Metrics by pretrained networks: LPIPS by the package `lpips`, FID and KID by the package `torch-fidelity`.

If weights or package are missing, loading raises Unavailable. Nothing is downloaded, and no other network is used instead.
"""

import importlib
import warnings
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from strdiffusion.evaluation.weights import Unavailable, WeightsFile, find_weights, read_weights
from strdiffusion.system.errors import UserError

LPIPS_VERSION = "0.1"  # of the linear heads, which are part of the package
SMALLEST_SIDE = {"alex": 31, "vgg": 16}  # pixels: a smaller image vanishes before the backbone's last layer
KID_SUBSET, KID_SUBSETS = 1000, 100  # torch-fidelity's defaults
FEATURES = "2048"  # Inception's pooled features, for FID and KID


class Lpips:
    """LPIPS of one pair of images, over the whole image and over the hole."""

    def __init__(self, net: Literal["alex", "vgg"], path: str | None = None, device: torch.device | str = "cpu"):
        """Load it. Raises Unavailable without weights or package, UserError for a file of weights that does not fit."""
        self.weights: WeightsFile = find_weights(net, path)
        lpips = _package("lpips")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the package calls torchvision in a deprecated way
                self.model = lpips.LPIPS(net=net, version=LPIPS_VERSION, spatial=True, pnet_rand=True, verbose=False)
        except OSError as error:
            raise Unavailable(f"the package lpips lacks its linear heads: {error.strerror}; install it again") from None
        _load_backbone(self.model.net, self.weights)
        self.model.to(device).requires_grad_(False)
        self.device, self.smallest_side = device, SMALLEST_SIDE[net]

    @torch.no_grad()
    def __call__(self, image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> tuple[float, float]:
        """LPIPS (whole image, hole) of image (H,W,3) in [0,1] against truth; hole (H,W) bool.

        Whole: the usual LPIPS, each layer's distance averaged over the layer's own positions. Hole: the package's spatial map (the
        layers' distances enlarged to (H,W) and summed), averaged over the hole's pixels. nan for an empty hole or a too small image.
        """
        if min(image.shape[:2]) < self.smallest_side:
            return float("nan"), float("nan")
        distances: list[Tensor] = []  # of each layer, (1,1,h,w)
        hooks = [head.register_forward_hook(lambda _, __, output: distances.append(output)) for head in self.model.lins]
        try:
            pixels = self.model(self._tensor(image), self._tensor(truth), normalize=True)[0, 0]  # (H,W)
        finally:
            for hook in hooks:
                hook.remove()
        whole = float(sum(distance.mean() for distance in distances))
        if hole is None or not hole.any():
            return whole, float("nan")
        return whole, float(pixels.cpu().numpy()[hole].astype(np.float64).mean())

    def _tensor(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None].to(self.device)


class Inception:
    """torch-fidelity's Inception network, up to the features for FID and KID."""

    def __init__(self, path: str | None = None, device: torch.device | str = "cpu"):
        """Load it. Raises Unavailable without weights or package, UserError for a file of weights that does not fit."""
        self.weights: WeightsFile = find_weights("inception", path)
        extractor = _package("torch_fidelity").FeatureExtractorInceptionV3
        read_weights(self.weights)  # the package would unpickle any object in the file; this refuses anything but tensors
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.model = extractor("inception-v3-compat", [FEATURES], str(self.weights.path))
        except (RuntimeError, TypeError):
            raise _does_not_fit(self.weights, "torch-fidelity's Inception network") from None
        self.model.to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Features (2048,) float32 of image (H,W,3) in [0,1], which is rounded to 8 bits; the network resizes it to 299x299."""
        levels = torch.from_numpy(np.rint(image * 255).astype(np.uint8)).permute(2, 0, 1)[None]
        return self.model(levels.to(self.device))[0][0].cpu().numpy()


def frechet_distance(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """Frechet distance of the Gaussians fitted to features (n1,d) and (n2,d), by torch-fidelity's own formula in float64.

    If n1 + n2 < d, both sets are first rotated into the space that they span. That saves time, because the formula computes the
    eigenvalues of a (d,d) matrix, and does not change the result. Raises Unavailable for fewer than 2 images.
    """
    _require_two(features_1, features_2)
    fid = _package("torch_fidelity.metric_fid")
    both = np.concatenate([features_1, features_2]).astype(np.float64)
    if both.shape[0] < both.shape[1]:
        both = np.linalg.qr(both.T, mode="r").T  # rows are the same vectors in an orthonormal basis of their span
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(part)) for part in np.split(both, [len(features_1)])]
    return float(fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID])


def kernel_distance(features_1: np.ndarray, features_2: np.ndarray) -> float:
    """Squared MMD of features (n,d) and (n,d) with the kernel (x.y/d + 1)^3, unbiased, by torch-fidelity's own formula in float64.

    With more than 1000 images it is the mean over 100 random subsets of 1000 (seed 2020, torch-fidelity's), otherwise of all images.
    Raises Unavailable for fewer than 2 images.
    """
    _require_two(features_1, features_2)
    kid = _package("torch_fidelity.metric_kid")
    count = min(len(features_1), len(features_2))
    subsets = KID_SUBSETS if count > KID_SUBSET else 1
    tensors = [torch.from_numpy(features.astype(np.float64)) for features in (features_1, features_2)]
    options = {"kid_subsets": subsets, "kid_subset_size": min(count, KID_SUBSET), "verbose": False}
    return float(kid.kid_features_to_metric(*tensors, **options)[kid.KEY_METRIC_KID_MEAN])


def _require_two(*features: np.ndarray) -> None:
    if min(map(len, features)) < 2:
        raise Unavailable("it needs at least 2 images")


def _package(name: str) -> ModuleType:
    """Import a package that only these metrics need."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise Unavailable(f"the package {package} cannot be imported ({error}): pip install {package}") from None


def _load_backbone(backbone: nn.Module, file: WeightsFile) -> None:
    """Load the weights of lpips' backbone: torchvision's `features`, cut into slices that keep the layers' numbers."""
    state = read_weights(file)
    try:
        for part in backbone.children():
            for number, layer in part.named_children():
                layer.load_state_dict({name: state[f"features.{number}.{name}"] for name in layer.state_dict()})
    except (KeyError, RuntimeError, AttributeError):
        raise _does_not_fit(file, f"torchvision's {type(backbone).__name__}") from None


def _does_not_fit(file: WeightsFile, network: str) -> UserError:
    return UserError(f"{file.path} does not hold weights of {network}: give the published file")
