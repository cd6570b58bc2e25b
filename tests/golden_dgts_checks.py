"""Recompute golden numbers of DGTS and of its enlarging network, described in tests/golden_dgts/README.md.

Weights and inputs are not stored; both sides derive them from the seed in `meta.json`. Such a folder also holds the numbers of
Intelligent Painter (painter.npz), whose items are in golden_painter_checks.py.
"""

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from golden_checks import EXACT, Comparison, Stored, rnd, uni
from golden_painter_checks import painter_items
from torch import Tensor, nn

from strdiffusion.checkpoints.released_dgts import dgts_names
from strdiffusion.config.dgts import DGTSTrainingConfig
from strdiffusion.networks.dgts import DGTS, Critic, Upsampler
from strdiffusion.networks.dgts.filling import Filled, compose
from strdiffusion.networks.dgts.losses import (
    caffe_distances,
    deception_loss,
    filling_loss,
    hinge,
    perceptual_distance,
    region_distance,
    style_distance,
)
from strdiffusion.networks.dgts.network import RELEASED_ONE_BY_ONE
from strdiffusion.networks.dgts.structure import cut, known_counts, rows_where, take
from strdiffusion.networks.dgts.vgg import VGG19
from strdiffusion.system.errors import UserError
from strdiffusion.training.dgts import rate_groups
from strdiffusion.training.optimizer import make_optimizer

OUTPUT, FIRST_SCORES, SAMPLES = 3e-6, 5e-5, 1e-5
TRAINED_OUTPUT, LOSS_TERMS, GRADIENT_NORMS, GRADIENTS, GRADIENTS_OF_BACKBONE, STEPS = 5e-6, 2e-6, 5e-4, 1e-4, 2e-3, 1e-4
NO_GRADIENT = 1e-6  # of biases that softmax cancels: zero but for rounding
LOSSES, UPSAMPLER, UPSAMPLER_IN_TRAINING, BUFFERS, CRITIC = 5e-6, 5e-6, 1e-5, 2e-6, 5e-6

GAINS = [
    (r"downsample", 1.4),
    (r"body\.conv1", 1.4),
    (r"body\.layer", 0.6),
    (r"^a[qk]\.", 4),
    (r"en_de_attn\.(query|key)\.", 2),
    (r"in_proj_weight$", 2),
    (r"out_proj\.", 0.25),
    (r"linear2\.", 0.5),
    (r"^(features\.|conv\d)", 2**0.5),
]


def golden_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The weight of a released name, but for weight_u and weight_v."""
    a = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape)
    if name.endswith("running_mean"):
        return 0.05 * a
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(a)
    if not shape:
        return np.full(shape, 0.5)
    if len(shape) == 1:
        return 1 + 0.1 * a if name.endswith("weight") else 0.05 * a
    gain = next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1)
    return gain * a / np.sqrt(np.prod(shape[1:]))


def golden_weights(network: nn.Module, names: Mapping[str, str], seed: int) -> nn.Module:
    """Fill a network with the golden weights, drawn by the released `names` of its entries; returns it in evaluation mode."""
    state = network.state_dict()
    values = {}
    for ours, name in names.items():
        values[name] = golden_tensor(name, tuple(state[ours].shape), seed)
    for name in [name for name in names.values() if name.endswith("weight_orig")]:
        W = values[name].astype(np.float32).astype(np.float64).reshape(len(values[name]), -1)
        stem = name.removesuffix("orig")
        shape = (len(W),)
        u = np.random.RandomState((zlib.crc32(f"{stem}u".encode()) + seed) % 2**32).standard_normal(shape)
        v = W.T @ (u / np.linalg.norm(u))
        v /= np.linalg.norm(v)
        u = W @ v
        values[f"{stem}u"], values[f"{stem}v"] = u / np.linalg.norm(u), v
    network.load_state_dict({ours: torch.from_numpy(values[name].astype(np.float32)).to(state[ours].dtype) for ours, name in names.items()})
    return network.eval()


def golden_mask(kind: str, size: int, cy: int = 0, cx: int = 0, r: int = 0) -> Tensor:
    """(1,1,size,size), 1 = known."""
    y, x = np.mgrid[:size, :size]
    known = (y - cy) ** 2 + (x - cx) ** 2 >= r * r if kind == "disk" else x // 4 % 2 == 0
    return torch.from_numpy(known.astype(np.float32))[None, None]


def sampled(value: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the norm of a tensor, and every k-th of its entries."""
    flat = value.detach().double().flatten().numpy()
    k = max(1, flat.size // 300) | 1
    return np.array([flat.mean(), np.linalg.norm(flat)]), flat[::k]


def compare_sample(stored: Stored, name: str, value: Tensor, tolerance: float) -> Iterator[Comparison]:
    """Compare a tensor that is stored as its statistics and a sample."""
    (mean, norm), sample = sampled(value)
    wanted_mean, wanted_norm = stored.content.get(f"{name}_stats", (np.inf, np.inf))
    error = max(abs(norm - wanted_norm) / wanted_norm, abs(mean - wanted_mean) / (wanted_norm / value.numel() ** 0.5))
    yield stored.record(f"{name}_stats", float(error), tolerance)
    yield stored.compare(f"{name}_sample", sample, tolerance)


def compare_any(stored: Stored, name: str, value: Tensor, tolerance: float) -> Iterator[Comparison]:
    """Compare a tensor that is stored in full, or as a sample."""
    if name in stored.content:
        yield stored.compare(name, value.detach(), tolerance)
    else:
        yield from compare_sample(stored, name, value, tolerance)


@contextlib.contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What modules give while the context is open, by name; the last call counts."""
    found: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, given, output: found.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    yield found
    for handle in handles:
        handle.remove()


class GoldenDGTS:
    """A folder of golden numbers of DGTS: its description, and the network."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.meta = json.loads((folder / "meta.json").read_text())
            self.names = json.loads((folder / "names.json").read_text()) if (folder / "names.json").exists() else {}
            self.seed, self.size, share = (self.meta[key] for key in ("seed", "image_size", "lambda"))
            _ = self.meta["cases"], self.meta["losses"], self.meta["upsampler"], self.meta["discriminator"]
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no folder of golden numbers of DGTS: {error!r}") from None
        self.network = DGTS(bridge=share)
        golden_weights(self.network, dgts_names(self.network), self.seed)
        self.vgg = VGG19()
        golden_weights(self.vgg, self.vgg.names_in_file(), self.seed)

    def case(self, name: str) -> tuple[Tensor, Tensor]:
        """Image (B,3,size,size) and mask (B,1,size,size) of a case."""
        described, s, n = self.meta["cases"][name], self.seed, self.size
        i, B = list(self.meta["cases"]).index(name), described["batch"]
        coarse = uni(100 + 10 * i + s, B, 3, 16, 16).repeat_interleave(n // 16, 2).repeat_interleave(n // 16, 3)
        image = 2 * (0.75 * coarse + 0.25 * uni(105 + 10 * i + s, B, 3, n, n)) - 1
        return image, golden_mask(size=n, **described["mask"]).expand(B, -1, -1, -1)


def check_folder(folder: Path, fast: bool = False) -> Iterator[Comparison]:
    """Recompute every number of the folder, file by file; `fast` changes nothing. Raises UserError where it is not of this form."""
    golden = GoldenDGTS(folder)
    yield from name_items(golden)
    parts = {
        "generator.npz": generator_items,
        "training.npz": training_items,
        "losses.npz": loss_items,
        "upsampler.npz": upsampler_items,
        "discriminator.npz": critic_items,
        "painter.npz": painter_of,
    }
    if "painter" not in golden.meta:
        del parts["painter.npz"]  # a folder of DGTS alone
    for file, items in parts.items():
        stored = Stored(folder / file)
        yield from items(golden, stored)
        yield from stored.not_recomputed()


def painter_of(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    """The items of Intelligent Painter."""
    names = {name.removeprefix("module."): shape for name, shape in golden.names.get("painter_unet", {}).items()}
    yield from painter_items(golden.meta["painter"], names, golden.seed, stored, golden_weights, compare_sample)


def name_items(golden: GoldenDGTS) -> Iterator[Comparison]:
    """Whether names and shapes at full size are ours."""
    networks = {"generator": DGTS, "upsampler": Upsampler, "upsampler_discriminator": Critic}
    for key, build in networks.items():
        if key not in golden.names:  # names at full size may be listed in one folder alone
            continue
        with torch.device("meta"):
            network = build()
        state = network.state_dict()
        found = {released: list(state[ours].shape) for ours, released in dgts_names(network).items()}
        same = found == {name.removeprefix("module."): shape for name, shape in golden.names[key].items()}
        yield Comparison(f"names/{key}", 0.0 if same else float("inf"), EXACT)
    if "generator_trainable" not in golden.names:
        return
    same = sorted(trained_parameters(golden.network)) == [name.removeprefix("module.") for name in golden.names["generator_trainable"]]
    yield Comparison("names/generator_trainable", 0.0 if same else float("inf"), EXACT)


def trained_parameters(network: DGTS) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by their released names."""
    names = dgts_names(network)
    return {names[ours]: parameter for ours, parameter in network.named_parameters() if parameter.requires_grad}


def released_passes(filled: Filled) -> int:
    """How often the released program's decoder runs for this: entries and candidates go through it in passes of their own."""
    one_by_one = filled.order.shape[1]
    return 1 + 2 * one_by_one + (filled.passes - one_by_one)


@torch.no_grad()
def generator_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    network = golden.network
    yield from compare_sample(stored, "position_structure", network.structure.position(), SAMPLES)
    for case in [name for name in golden.meta["cases"] if f"{name}_order" in stored.content]:
        image, mask = golden.case(case)
        counts = known_counts(network.reduced(mask), network.patch)
        yield stored.compare(f"{case}_counts", counts[0], EXACT)
        order = torch.from_numpy(stored.content[f"{case}_order"]).long()
        if f"{case}_patches_stats" in stored.content:
            yield from inner_items(golden, stored, case)
        filled = network(image, mask, order)
        yield stored.compare(f"{case}_order", filled.order, EXACT)
        yield stored.compare(f"{case}_calls", released_passes(filled), EXACT)
        yield from compare_any(stored, f"{case}_output", filled.image, OUTPUT if f"{case}_output" in stored.content else SAMPLES)


def inner_items(golden: GoldenDGTS, stored: Stored, case: str) -> Iterator[Comparison]:
    """The values inside of the network in a case."""
    network, (image, mask) = golden.network, golden.case(case)
    small, small_mask = network.reduced(image), network.reduced(mask)
    structure, texture = network.structure, network.references
    counts = known_counts(small_mask, network.patch)

    values = {
        "patches": structure.of_patches(small * small_mask) + structure.position().flatten(1).t(),
        "position_texture": texture.position(),
    }
    values["coarse_sum"] = 2 * structure.coarse_filling(values["patches"], counts)
    values["coarse"] = structure(small, small_mask)
    inner = {f"backbone_layer{i}": getattr(texture.backbone, f"layer{i}") for i in range(1, 5)} | {"projected": texture.project}
    inner |= {f"encoder_layer{i}": layer for i, layer in enumerate(texture.layers)}
    with outputs_of(inner) as found:
        references = texture(image, mask)
    for name, value in (values | found).items():
        yield from compare_sample(stored, f"{case}_{name}", value, SAMPLES)

    missing = counts < network.patch**2
    rows, _ = rows_where(missing)
    entries, candidates = take(values["coarse"], rows_where(~missing)[0]), take(values["coarse"], rows)
    memory, vocabulary = network.decoder.memory(references), network.decoder.empty(references)
    decoded, vocabulary = network.decoder(memory, vocabulary, entries, all_valid(entries), candidates)
    n = decoded.entries
    for i, state in enumerate(decoded.states):
        yield from compare_sample(stored, f"{case}_known_out{i}", state[:, :n], SAMPLES)
        yield from compare_sample(stored, f"{case}_first_out{i}", state[:, n:], SAMPLES)
    for i, (scores, attention) in enumerate(zip(vocabulary.scores, decoded.attention)):
        yield from compare_sample(stored, f"{case}_known_score{i}", scores, SAMPLES)
        yield from compare_sample(stored, f"{case}_first_score{i}", attention[:, n:], FIRST_SCORES)

    first = torch.from_numpy(stored.content[f"{case}_order"]).long()[:, :1]  # (B,1)
    chosen = take(decoded.output, (rows == first).int().argmax(dim=1, keepdim=True))  # (B,1,width)
    rgb = network.pixels(chosen)  # (B,1,3,patch,patch)
    yield stored.compare(f"{case}_first_rgb", rgb[:, 0], OUTPUT)
    of_patch, of_mask = (take(cut(whole, network.patch), first) for whole in (small, small_mask))
    entry = structure.of_patches(compose(rgb, of_patch, of_mask)[:, 0])
    entered, vocabulary = network.decoder(memory, vocabulary, entry, all_valid(entry), entry[:, :0])
    for i, (before, state) in enumerate(zip(decoded.states, entered.states)):
        yield from compare_sample(stored, f"{case}_vocabulary_out{i}", torch.cat([before[:, :n], state], dim=1), SAMPLES)
    for i, scores in enumerate(vocabulary.scores):
        yield from compare_sample(stored, f"{case}_vocabulary_score{i}", scores, SAMPLES)


def all_valid(entries: Tensor) -> Tensor:
    """Every row of entries (B,n,width) is one."""
    return torch.ones(entries.shape[:2], dtype=torch.bool)


def training_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    """In float64: in float32 a ReLU whose input is nearly zero may fall on the other side, which the gradients show."""
    network = golden.network
    network.double(), golden.vgg.double()
    yield from double_training_items(golden, stored)
    network.float(), golden.vgg.float()


def double_training_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    network = golden.network
    for case in [name for name in golden.meta["cases"] if f"{name}_losses" in stored.content]:
        image, mask = (whole.double() for whole in golden.case(case))
        small, small_mask = network.reduced(image), network.reduced(mask)
        yield stored.compare(f"{case}_counts", known_counts(small_mask, network.patch)[0], EXACT)
        order = torch.from_numpy(stored.content[f"{case}_order"]).long()
        filled = network(image, mask, order, RELEASED_ONE_BY_ONE)
        yield stored.compare(f"{case}_order", filled.order, EXACT)
        yield stored.compare(f"{case}_calls", released_passes(filled), EXACT)
        yield from compare_sample(stored, f"{case}_output", filled.image, TRAINED_OUTPUT)
        loss = filling_loss(filled.image, small, small_mask, golden.vgg)
        terms = torch.stack([loss.rec, loss.perceptual, loss.style, loss.total]).detach().double().numpy()
        wanted = stored.content[f"{case}_losses"]
        yield stored.record(f"{case}_losses", float(np.max(np.abs(terms - wanted) / np.abs(wanted))), LOSS_TERMS)
        if f"{case}_gradient_norms" in stored.content:
            yield from gradient_items(golden, stored, case, loss.total)


def gradient_items(golden: GoldenDGTS, stored: Stored, case: str, total: Tensor) -> Iterator[Comparison]:
    """The gradient of the loss, and what a step of the optimizer with the released settings changes."""
    network, parameters = golden.network, trained_parameters(golden.network)
    network.zero_grad()
    total.backward()
    norms = np.array([parameters[name].grad.double().norm().item() for name in sorted(parameters)])
    wanted = stored.content[f"{case}_gradient_norms"]
    cancelled = np.array([re.search(r"(^ak|en_de_attn\.key)\.bias$", name) is not None for name in sorted(parameters)])
    error = np.max(np.abs(norms - wanted)[~cancelled] / wanted[~cancelled])
    yield stored.record(f"{case}_gradient_norms", float(error), GRADIENT_NORMS)
    yield Comparison(f"training/{case}_gradient_norms that are zero", float(norms[cancelled].max()), NO_GRADIENT)
    for name in sorted(found.group(1) for key in stored.content if (found := re.fullmatch(rf"{case}_gradient_(.+)_stats", key))):
        tolerance = GRADIENTS_OF_BACKBONE if "backbone" in name else GRADIENTS
        yield from compare_sample(stored, f"{case}_gradient_{name}", parameters[name].grad, tolerance)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = DGTSTrainingConfig()
    make_optimizer(rate_groups(network, options), options).step()
    change = {released: (network.state_dict()[ours] - before[ours]).abs().mean() for ours, released in dgts_names(network).items()}
    for name in sorted(key.removeprefix(f"{case}_step_") for key in stored.content if key.startswith(f"{case}_step_")):
        yield stored.compare(f"{case}_step_{name}", change[name][None], STEPS)
    network.load_state_dict(before)


@torch.no_grad()
def loss_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    described, s = golden.meta["losses"], golden.seed
    B, n = described["batch"], described["size"]
    fake, real = torch.tanh(rnd(151 + s, B, 3, n, n)), 2 * uni(150 + s, B, 3, n, n) - 1
    hole = 1 - golden_mask(size=n, **described["mask"]).expand(B, -1, -1, -1)
    for name, features in golden.vgg(fake).items():
        yield from compare_sample(stored, f"vgg_relu{name}", features, LOSSES)
    yield stored.compare("perceptual", perceptual_distance(golden.vgg, fake, real)[None], LOSSES)
    yield stored.compare("style", style_distance(golden.vgg, fake * hole, real * hole)[None], LOSSES)
    yield stored.compare("l1", region_distance(fake, real, hole)[None], LOSSES)


@torch.no_grad()
def upsampler_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    described, s = golden.meta["upsampler"], golden.seed
    B, n, small = described["batch"], described["size"], described["sample_size"]
    network = Upsampler(described["ngf"])
    names = dgts_names(network)
    golden_weights(network, names, s)
    real, y = 2 * uni(160 + s, B, 3, n, n) - 1, 2 * uni(161 + s, B, 3, small, small) - 1
    mask = golden_mask(size=n, **described["mask"]).expand(B, -1, -1, -1)
    inner = {"fc": network.small[0], "fc2": network.small[1], "encoder": network.encoder, "fuse_conv": network.fuse}
    inner |= {"res_blocks": network.residual, "attn": network.attention, "conv_img": network.out}
    inner |= {f"sp{i}": block for i, block in enumerate(network.refine)}
    with outputs_of(inner) as found:
        output = network(y, real, mask)
    for name, value in found.items():
        yield from compare_sample(stored, name, value, UPSAMPLER)
    yield stored.compare("output_first", output[:1], UPSAMPLER)
    yield from compare_sample(stored, "output", output, UPSAMPLER)
    yield from compare_sample(stored, "train_output", network.train()(y, real, mask), UPSAMPLER_IN_TRAINING)
    state = {released: network.state_dict()[ours] for ours, released in names.items()}
    for name in sorted(key.removeprefix("train_") for key in stored.content if key.startswith("train_") and "output" not in key):
        yield stored.compare(f"train_{name}", state[name], BUFFERS)


@torch.no_grad()
def critic_items(golden: GoldenDGTS, stored: Stored) -> Iterator[Comparison]:
    described, s = golden.meta["discriminator"], golden.seed
    n = described["size"]
    critic = Critic(described["ndf"])
    golden_weights(critic, dgts_names(critic), s)
    fake, real = torch.tanh(rnd(170 + s, 1, 3, n, n)), 2 * uni(171 + s, 1, 3, n, n) - 1
    both = torch.cat([fake, real])
    for i, (scale, view) in enumerate(zip(critic.scales, critic.views(both))):
        for stage, value in enumerate(scale(view)):
            yield from compare_any(stored, f"scale{i}_model{stage}", value, CRITIC)
    of_fake, of_real = critic(fake), critic(real)
    yield stored.compare("hinge", torch.stack([deception_loss(of_fake), hinge(of_fake, 1), hinge(of_real, -1)]), CRITIC)
    vgg = VGG19(caffe=True)
    golden_weights(vgg, vgg.names_in_file(), s)
    seen = caffe_distances(vgg, fake, real)
    yield stored.compare("vgg", torch.stack([seen.feature, seen.style, seen.perceptual]), CRITIC)
    mask = golden_mask(size=n, **described["mask"])
    yield stored.compare("l1", torch.stack([region_distance(fake, real, 1 - mask), region_distance(fake, real, mask)]), CRITIC)
