"""Recompute golden numbers: vectors of the released program, described in tests/golden/README.md.

Weights and inputs are not stored; both sides derive them from seeds in `meta.json`. Every item of the folder is
recomputed through the project's own classes and compared by the relative error max|a-b| / max|b|.
"""

import contextlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from strdiffusion.batch import Batch
from strdiffusion.checkpoints.released import released_names
from strdiffusion.data.structure import edge_map, gray_map
from strdiffusion.denoiser import Denoiser
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.objectives import discriminator_loss, structure_guide, structure_loss, texture_loss
from strdiffusion.samplers import Networks, Released, Sampling, Stepping, sample
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError

EXACT = 0.0
TOLERANCE_SDE = TOLERANCE_NETWORKS = TOLERANCE_LOSSES = TOLERANCE_SCORES = 1e-5
TOLERANCE_CANCELLATION = 1e-3  # the release's own optimum step at t=2 cancels in float32
TOLERANCE_GRAY = 1e-6
TOLERANCE_SAMPLER = 5e-6

Call = Callable[[nn.Module], Callable[..., Tensor]]  # a network as it is called, for example at a precision


@dataclass(frozen=True)
class Comparison:
    """One recomputed item: its name, relative error and tolerance."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


class Place:
    """The device of all tensors and networks here: the CPU, unless `on_device` says another."""

    device = torch.device("cpu")


@contextlib.contextmanager
def on_device(device: torch.device | str) -> Iterator[None]:
    """A context in which numbers are recomputed on another device."""
    before, Place.device = Place.device, torch.device(device)
    try:
        yield
    finally:
        Place.device = before


def rnd(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32)).to(Place.device)


def uni(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).random_sample(shape).astype(np.float32)).to(Place.device)


class NoiseTape:
    """Draw number i of a run is rnd(base + i); for one image at a time."""

    def __init__(self, base: int):
        self.base, self.draws = base, 0

    def __call__(self, images: list[int], like: Tensor) -> Tensor:
        self.draws += 1
        return rnd(self.base + self.draws - 1, *like.shape)


def golden_weights(network: nn.Module, seed: int) -> nn.Module:
    """Fill a network with the golden weights, which are drawn by the released names; returns it in evaluation mode."""
    state = network.state_dict()
    for ours, name in released_names(network).items():
        shape = tuple(state[ours].shape)
        a = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
        if name.endswith(("weight_u", "weight_v")):
            a = a / np.linalg.norm(a)
        elif name.endswith(".g"):
            a = 1 + 0.1 * a
        elif a.ndim >= 2:
            a = a / np.sqrt(np.prod(shape[1:]))
        else:
            a = 0.05 * a
        if name.startswith("final_conv") and a.ndim == 4 and shape[0] <= 3:
            a = a * 0.002
        state[ours] = torch.from_numpy(a.astype(np.float32))
    network.load_state_dict(state)
    return network.eval().to(Place.device)


class Stored:
    """The golden numbers of one file, and which of them were compared."""

    def __init__(self, path: Path):
        self.file = path.stem
        try:
            with np.load(path, allow_pickle=False) as archive:
                self.content: dict[str, np.ndarray] = dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} cannot be read as golden numbers: {error}") from None
        self.left = {name for name in self.content if name != "mask" and not name.endswith("_params")}

    def compare(self, name: str, value: np.ndarray | Tensor | float, tolerance: float) -> Comparison:
        """Compare our value with the stored one; one that is not stored fails."""
        return self.record(name, relative_error(value, self.content[name]) if name in self.content else float("inf"), tolerance)

    def record(self, name: str, error: float, tolerance: float) -> Comparison:
        self.left.discard(name)
        return Comparison(f"{self.file}/{name}", error, tolerance)

    def not_recomputed(self) -> Iterator[Comparison]:
        """A failure for every number that is stored and was not compared."""
        for name in sorted(self.left):
            yield Comparison(f"{self.file}/{name} (not recomputed)", float("inf"), EXACT)


class Golden:
    """A folder of golden numbers: its sizes and seed, and the networks they were computed with, as `call` makes them."""

    def __init__(self, folder: Path, call: Call = lambda network: network):
        self.folder = folder
        try:
            self.meta = json.loads((folder / "meta.json").read_text())
            self.seed, size = self.meta["seed"], self.meta["size"]
            self.size = size
            nf, depth = self.meta["nf"], self.meta["depth"]
            ngf = self.meta["discriminator_ngf"]
            self.odd_size, self.photo = tuple(self.meta["odd_size"]), dict(self.meta["photo"])
            _ = self.photo["name"], self.photo["top"], self.photo["left"]
        except FileNotFoundError:
            raise UserError(f"{folder} has no meta.json: give a folder of golden numbers such as tests/golden") from None
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / 'meta.json'} is not the description of golden numbers: {error!r}") from None
        networks = UNet(3, nf, depth, "linear", guided=True), UNet(1, nf, depth, "linear"), CorrelationDiscriminator(ngf)
        prepared = [golden_weights(network, self.seed) for network in networks]
        self.texture, self.structure, self.discriminator = map(call, prepared)

    def networks(self, sde: MeanRevertingSDE) -> Networks:
        return Networks(Denoiser(self.texture, sde), Denoiser(self.structure, sde), self.discriminator)


@torch.no_grad()
def check_folder(folder: Path, fast: bool = False, call: Call | None = None, files: Collection[str] | None = None) -> Iterator[Comparison]:
    """Recompute every item of the folder, file by file, with the networks as they are trained or (`fast`) used at test.

    call: makes of a network what is called, in place of `fast`. files: only these, without their ending.
    Raises UserError where the folder is not of this form.
    """
    golden = Golden(folder, call or (for_inference if fast else lambda network: network))
    parts = {
        "sde.npz": sde_items,
        "networks.npz": network_items,
        "structure_maps.npz": structure_map_items,
        "losses.npz": loss_items,
        "sampler.npz": sampler_items,
    }
    for file, items in parts.items():
        if files is not None and file.removesuffix(".npz") not in files:
            continue
        stored = Stored(folder / file)
        yield from items(golden, stored)
        yield from stored.not_recomputed()


def relative_error(value: np.ndarray | Tensor | float, expected: np.ndarray) -> float:
    value = value.detach().double().cpu() if isinstance(value, Tensor) else value
    a, b = np.asarray(value, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape:
        return float("inf")
    scale = np.abs(b).max()
    error = np.abs(a - b).max() / (scale if scale > 0 else 1.0)
    return float("inf") if np.isnan(error) else float(error)


def sde_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    for schedule, T in sorted({re.match(r"(cosine|linear|constant)_(\d+)_", n).groups() for n in stored.content if n[:4] != "step"}):
        sde = MeanRevertingSDE(int(T), schedule)
        for name in ("theta", "sigma", "theta_cumsum", "sigma_bar", "dt"):
            yield stored.compare(f"{schedule}_{T}_{name}", getattr(sde, name), TOLERANCE_SDE)

    sde, s, shape = MeanRevertingSDE(100), golden.seed, (2, 3, 8, 8)
    x, x0, mu, eps = rnd(11 + s, *shape), uni(12 + s, *shape), uni(13 + s, *shape), rnd(14 + s, *shape)
    for t in sorted({int(n.split("_")[1]) for n in stored.content if n.startswith("step_")}):
        score = sde.score(eps, t)
        yield stored.compare(f"step_{t}_mean", sde.marginal_mean(x0, mu, t), TOLERANCE_SDE)
        yield stored.compare(f"step_{t}_optimum", sde.optimum_step(x, x0, mu, t), TOLERANCE_CANCELLATION if t == 2 else TOLERANCE_SDE)
        yield stored.compare(f"step_{t}_reverse_mean", sde.reverse_mean(x, mu, score, t), TOLERANCE_SDE)
        yield stored.compare(f"step_{t}_reverse_ode", sde.reverse_ode_step(x, mu, score, t), TOLERANCE_SDE)
        yield stored.compare(f"step_{t}_reverse_sde", sde.reverse_sde_step(x, mu, score, t, rnd(500 + s, *shape)), TOLERANCE_SDE)
        yield stored.compare(f"step_{t}_forward", sde.forward_step(x, mu, t, rnd(501 + s, *shape)), TOLERANCE_SDE)


def network_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    s, t = golden.seed, torch.tensor([3, 77])
    for label, (h, w) in {"square": (golden.size, golden.size), "odd": golden.odd_size}.items():
        xt, cond, S = rnd(21 + s, 2, 3, h, w), uni(22 + s, 2, 3, h, w), rnd(23 + s, 2, 1, h, w)
        yield stored.compare(f"texture_{label}", golden.texture(xt, cond, t, S), TOLERANCE_NETWORKS)
        yield stored.compare(f"structure_{label}", golden.structure(xt[:, :1], cond[:, :1], t), TOLERANCE_NETWORKS)
    xt, S = rnd(21 + s, 4, 3, golden.size, golden.size), rnd(23 + s, 4, 1, golden.size, golden.size)
    yield stored.compare("discriminator_b4", golden.discriminator(xt, S, torch.tensor([3, 77, 9, 50])), TOLERANCE_NETWORKS)
    yield stored.compare("discriminator_b1", golden.discriminator(xt[:1], S[:1], torch.tensor([77])), TOLERANCE_NETWORKS)


def structure_map_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    import skimage.data

    name, top, left = (golden.photo[key] for key in ("name", "top", "left"))
    picture = getattr(skimage.data, name)()
    picture = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture[..., :3]
    gray = gray_map(picture[top : top + 256, left : left + 256].astype(np.float32) / 255)
    yield stored.compare("gray", gray[None], TOLERANCE_GRAY)
    for sigma in (2, 3):
        yield stored.compare(f"edge_sigma{sigma}", np.packbits(edge_map(gray, sigma).astype(bool)), EXACT)


def loss_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    # with the release's rounding: at t = 5 its optimum step is off by 1e-5, and its structure loss by 2e-5
    sde = MeanRevertingSDE(100, rounding="released")
    s, n, t = golden.seed, golden.size, torch.tensor([5, 60])
    mask = torch.from_numpy(stored.content["mask"]).to(Place.device)
    Y, E = uni(32 + s, 2, 3, n, n), (rnd(33 + s, 2, 1, n, n) > 1).float()
    batch = Batch(Y, Y.mean(1, keepdim=True), E * mask, mask)
    texture_noise = rnd(710 + s, 2, 3, n, n)
    guide = structure_guide(sde, batch, t, rnd(720 + s, 2, 1, n, n))

    structure = structure_loss(Denoiser(golden.structure, sde), batch, t, rnd(700 + s, 2, 1, n, n))
    yield stored.compare("structure_loss", structure.loss, TOLERANCE_LOSSES)
    yield stored.compare("structure_expectation", structure.expectation, TOLERANCE_LOSSES)
    yield stored.compare("structure_optimum", structure.optimum, TOLERANCE_LOSSES)
    texture = texture_loss(Denoiser(golden.texture, sde), batch, t, texture_noise, guide)
    yield stored.compare("texture_loss", texture.loss, TOLERANCE_LOSSES)
    yield stored.compare("texture_expectation", texture.expectation, TOLERANCE_LOSSES)
    d = discriminator_loss(golden.discriminator, sde, batch, t, texture_noise, guide)
    for name, value in {"real": d.real, "fake": d.fake, "triplet": d.triplet, "total": d.loss}.items():
        yield stored.compare(f"d_{name}", value, TOLERANCE_LOSSES)


def sampler_mask(size: int, seed: int) -> Tensor:
    """The first image's mask of the golden samplers: ones with a rectangle of zeros, (1,1,size,size)."""
    r = np.random.RandomState(41 + seed)
    top, left = r.randint(0, size // 2), r.randint(0, size // 2)
    mask = torch.ones(1, 1, size, size)
    mask[:, :, top : top + size // 3, left : left + size // 2] = 0
    return mask.to(Place.device)


def sampler_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    s, n = golden.seed, golden.size
    mask = sampler_mask(n, s)
    Y, E = uni(42 + s, 1, 3, n, n), (rnd(43 + s, 1, 1, n, n) > 1).float()
    known = Batch(Y, Y.mean(1, keepdim=True), E * mask, mask)
    for name in sorted(n.removesuffix("_params") for n in stored.content if n.endswith("_params")):
        u_max, u_min, jump, re_, T = (int(v) for v in stored.content[f"{name}_params"])
        tape = NoiseTape(9000 + s)
        run = Sampling(golden.networks(MeanRevertingSDE(T)), known.known(), tape, Stepping())
        found = sample(Released(u_max, u_min, jump, re_, accept="lower"), run)
        scores = np.array([(step.t, score) for step in found.traces[0].steps for score in step.scores])
        yield stored.compare(f"{name}_output", found.texture, TOLERANCE_SAMPLER)
        expected = stored.content[f"{name}_scores"]
        same_times = scores.shape == expected.shape and np.array_equal(scores[:, 0], expected[:, 0])
        # one item stands for two demands: the sequence of t is exact, the scores are close
        error = relative_error(scores[:, 1], expected[:, 1]) if same_times else float("inf")
        yield stored.record(f"{name}_scores", error, TOLERANCE_SCORES)
        yield stored.compare(f"{name}_draws", tape.draws, EXACT)
