"""Recompute the golden numbers of RePaint and IR-SDE, described in tests/golden_repaint/README.md.

As golden_checks.py does for StrDiffusion: nothing but `meta.json` tells sizes, options, names and seeds.
"""

import json
import zlib
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from golden_checks import EXACT, Call, Comparison, NoiseTape, Place, Stored, golden_weights, rnd, uni
from torch import Tensor, nn

from strdiffusion.batch import Batch, Known
from strdiffusion.ddpm import DDPM
from strdiffusion.denoiser import Denoiser
from strdiffusion.networks import GuidedUNet, NoiseClassifier, UNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.objectives import hybrid_loss, texture_loss
from strdiffusion.samplers import Networks, Sampling, Stepping, Unguided
from strdiffusion.samplers.prior import Jumps, Prior, count_reverse_steps, repaint
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.errors import UserError

UNET = LOGITS = SAMPLE = GUIDED = OUTPUT = GRADIENT = NETWORKS_IRSDE = 1e-5
CLASSIFIER_GRADIENT = 5e-5
TABLES = 1e-12
STEP = RMS = STEP_IRSDE = 1e-6
TRAINING = 2e-6
STATE = RUNS_IRSDE = LOSS_IRSDE = 5e-6
CANCELLATION = 1e-3  # IR-SDE's own posterior step at t=2
NO_DEVIATION = 1e-9  # absolute: the deviation at t=1 is 0 but for its clamp
TABLE_NAMES = {
    "betas": "beta",
    "alphas_cumprod": "a",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
    "posterior_mean_coef1": "weight_x0",
    "posterior_mean_coef2": "weight_x",
}


class Golden:
    """A folder of golden numbers: its description, and the networks by name.

    evaluated: the U-Nets as `call` makes them; unets: as they are trained.
    """

    def __init__(self, folder: Path, call: Call = lambda network: network):
        self.folder = folder
        try:
            self.meta = json.loads((folder / "meta.json").read_text())
            self.seed, scale = self.meta["seed"], self.meta["output_scale"]
            self.unets = {name: filled(unet_of(options), self.seed, scale) for name, options in self.meta["unets"].items()}
            self.evaluated = {name: call(unet) for name, unet in self.unets.items()}
            self.classifier = filled(classifier_of(self.meta["classifier"]), self.seed)
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{folder / 'meta.json'} is not the description of golden numbers of RePaint: {error!r}") from None


def unet_of(options: dict) -> GuidedUNet:
    upsample = options["num_heads_upsample"]
    return GuidedUNet(
        *design(options, options["model_channels"], options["num_res_blocks"]),
        heads=options["num_heads"],
        heads_upsample=None if upsample == -1 else upsample,
        class_conditional=options["class_cond"],
        learned_sigma=options["learn_sigma"],
        new_order=options["use_new_attention_order"],
        **switches(options),
    )


def classifier_of(options: dict) -> NoiseClassifier:
    known = design(options, options["width"], options["depth"])
    return NoiseClassifier(options["image_size"], *known, classes=options["classes"], **switches(options))


def design(options: dict, width: int, blocks: int) -> tuple[int, list[int], int, list[int]]:
    factors = [options["image_size"] // pixels for pixels in options["attention_resolutions"]]
    return width, [int(m * width) for m in options["channel_mult"]], blocks, factors


def switches(options: dict) -> dict:
    head_channels = options["num_head_channels"]
    return {
        "head_channels": None if head_channels == -1 else head_channels,
        "scale_shift": options["use_scale_shift_norm"],
        "resblock_updown": options["resblock_updown"],
    }


def filled(network: nn.Module, seed: int, output_scale: float = 1.0) -> nn.Module:
    """Fill a network of RePaint with its golden weights; returns it in evaluation mode."""
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        a = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
        if len(shape) == 1 and name.endswith("weight"):
            a = 1 + 0.1 * a
        elif len(shape) > 1:
            a = a / np.sqrt(np.prod(shape[1:]))
        else:
            a = 0.05 * a
        tensor.copy_(torch.from_numpy((a * output_scale if name.startswith("out.2.") else a).astype(np.float32)))
    return network.eval().to(Place.device)


@torch.no_grad()
def check_folder(folder: Path, fast: bool = False, call: Call | None = None, files: Collection[str] | None = None) -> Iterator[Comparison]:
    """Recompute every item of the folder, file by file, with the U-Nets as they are trained or (`fast`) used at test.

    call: makes of a U-Net what is called, in place of `fast`. files: only these, without their ending.
    Raises UserError where the folder is not of this form.
    """
    golden = Golden(folder, call or (for_inference if fast else lambda network: network))
    parts = {
        "unet": unet_items,
        "classifier": classifier_items,
        "schedules": schedule_items,
        "times": time_items,
        "step": step_items,
        "training": training_items,
        "repaint": run_items,
        "irsde": irsde_items,
    }
    for file, items in parts.items():
        if files is not None and file not in files:
            continue
        stored = Stored(folder / f"{file}.npz")
        yield from items(golden, stored)
        yield from stored.not_recomputed()


def unet_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    for name, options in golden.meta["unets"].items():
        times, classes = (torch.tensor(options[key], device=Place.device) if key in options else None for key in ("times", "classes"))
        for label, (h, w) in options["sizes"].items():
            x = rnd(21 + golden.seed, len(times), 3, h, w)
            yield stored.compare(f"{name}_{label}", golden.evaluated[name](x, times, classes), UNET)


def classifier_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    options = golden.meta["classifier"]
    times, labels, n = torch.tensor(options["times"]), torch.tensor(options["labels"], device=Place.device), options["image_size"]
    x = rnd(25 + golden.seed, len(times), 3, n, n)
    yield stored.compare("logits", golden.classifier(x, times), LOGITS)
    yield stored.compare("gradient", golden.classifier.gradient(x, times, labels), CLASSIFIER_GRADIENT)


def schedule_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    for name, options in golden.meta["processes"].items():
        process = DDPM(**options)
        for theirs, ours in TABLE_NAMES.items():
            yield stored.compare(f"{name}_{theirs}", getattr(process, ours), TABLES)
        yield stored.compare(f"{name}_timestep_map", np.array(process.network_times), EXACT)


def time_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    for name, options in golden.meta["times"].items():
        yield stored.compare(name, np.array(times_of(options)), EXACT)


def times_of(schedule: dict) -> list[int]:
    return Jumps(**{key: value for key, value in schedule.items() if key != "t_T"}).times(schedule["t_T"])


def step_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    meta, s = golden.meta["step"], golden.seed
    n, process = meta["size"], DDPM(meta["steps"], respacing=meta["respacing"])
    shape = (2, 3, n, n)
    x, output, g = rnd(61 + s, *shape), 0.5 * rnd(62 + s, 2, 6, n, n), rnd(63 + s, *shape) / 10
    x0, m = 2 * uni(64 + s, *shape) - 1, (uni(65 + s, 2, 1, n, n) > 0.5).float()
    z, noise = rnd(500 + s, *shape), rnd(501 + s, *shape)
    prior = Prior(lambda *_: output, process)
    guided = Prior(lambda *_: output, process, gradient=lambda *_: g)
    for t in meta["times"]:
        for suffix, clip in (("", True), ("_unclipped", False)):
            found = process.reverse(x, output, t, clip=clip)
            yield stored.compare(f"step_{t}_mean{suffix}", found.mean, STEP)
            yield stored.compare(f"step_{t}_x0{suffix}", found.x0, STEP)
        yield stored.compare(f"step_{t}_log_variance", found.log_variance, STEP)
        yield stored.compare(f"step_{t}_first", prior.reverse_step(x, t, z)[0], STEP)
        mixed = torch.where(m > 0.5, process.sample_marginal(x0, t, noise), x)
        yield stored.compare(f"step_{t}_sample", prior.reverse_step(mixed, t, z)[0], SAMPLE)
        yield stored.compare(f"step_{t}_guided", guided.reverse_step(mixed, t, z)[0], GUIDED)
        if t + 1 < process.T:
            yield stored.compare(f"undo_{t}", process.climb(x, t, rnd(502 + s, *shape)), STEP)
    yield stored.compare("network_times", np.array([process.network_times[t] for t in meta["times"]]), EXACT)


def training_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    meta, s = golden.meta["training"], golden.seed
    network, process, t = golden.unets[meta["unet"]], DDPM(meta["steps"], meta["schedule"]), torch.tensor(meta["times"])
    shape = (len(t), 3, meta["height"], meta["width"])
    x0, noise = (2.4 * uni(72 + s, *shape) - 1.2).clamp(-1, 1), rnd(71 + s, *shape)
    yield stored.compare("x_t", process.sample_marginal(x0, t, noise), TRAINING)
    for label in ("plain", "rescaled"):
        with torch.enable_grad():
            network.zero_grad()
            found = hybrid_loss(network, process, x0, t, noise, rescale=label == "rescaled")
            found.loss.mean().backward()
        for name in ("mse", "vb", "loss"):
            yield each(stored, f"{label}_{name}", getattr(found, name), TRAINING)
        gradients = {f"grad_{name}": parameter.grad for name, parameter in network.named_parameters()}
        rows = gradients["grad_out.2.weight"]
        gradients |= {"grad_noise_rows": rows[:3], "grad_variance_rows": rows[3:]}
        for name in sorted(gradients):
            if f"{label}_{name}" in stored.content:
                yield stored.compare(f"{label}_{name}", gradients[name].norm(), GRADIENT)
        network.zero_grad()


def each(stored: Stored, name: str, values: Tensor, tolerance: float) -> Comparison:
    """Compare the number of each image on its own; the error is the largest."""
    expected = stored.content.get(name)
    if expected is None or expected.shape != tuple(values.shape):
        return stored.record(name, float("inf"), tolerance)
    errors = np.abs(values.detach().double().cpu().numpy() - expected) / np.abs(expected)
    return stored.record(name, float(errors.max()), tolerance)


def hole_mask(height: int, width: int, batch: int, seed: int) -> Tensor:
    """Ones with a rectangle of zeros in each image, (batch,1,height,width)."""
    r, mask = np.random.RandomState(41 + seed), torch.ones(batch, 1, height, width)
    for image in mask:
        top, left = r.randint(0, height // 2), r.randint(0, width // 2)
        image[:, top : top + height // 3, left : left + width // 2] = 0
    return mask.to(Place.device)


def run_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    for name, meta in golden.meta["runs"].items():
        B, h, w = meta["batch"], meta["height"], meta["width"]
        x0, m = 2 * uni(42 + golden.seed, B, 3, h, w) - 1, hole_mask(h, w, B, golden.seed)
        tape, times = NoiseTape(9000 + golden.seed), times_of(meta["schedule"])
        classes = torch.tensor(meta["classes"], device=Place.device) if "classes" in meta else None
        scale = meta.get("classifier_scale")
        gradient = None if scale is None else partial(guide, golden.classifier, classes, scale)
        counted = Counted(golden.evaluated[meta["unet"]])
        prior = Prior(counted, DDPM(meta["steps"], respacing=meta["respacing"]), classes=classes, gradient=gradient)
        states = [x for _, _, x in repaint(prior, x0, m, times, partial(tape, [*range(B)]))][1:]
        yield stored.compare(f"{name}_output", states[-1], OUTPUT)
        yield stored.compare(f"{name}_times", np.array(times), EXACT)
        yield stored.compare(f"{name}_draws", tape.draws, EXACT)
        yield stored.compare(f"{name}_evaluations", counted.calls if counted.calls == count_reverse_steps(times) else -1, EXACT)
        yield stored.compare(f"{name}_rms", np.array([x.double().square().mean().sqrt().item() for x in states]), RMS)
        for k in meta["keep"]:
            yield stored.compare(f"{name}_state_{k}", states[k], STATE)


def guide(classifier: NoiseClassifier, classes: Tensor, scale: float, x: Tensor, t: int) -> Tensor:
    return scale * classifier.gradient(x, t, classes)


class Counted:
    """A network that counts how often it is called."""

    def __init__(self, network: nn.Module):
        self.network, self.calls = network, 0

    def __call__(self, *inputs) -> Tensor:
        self.calls += 1
        return self.network(*inputs)


def irsde_items(golden: Golden, stored: Stored) -> Iterator[Comparison]:
    meta, s = golden.meta["irsde"], golden.seed
    n, network = meta["size"], golden_weights(UNet(3, meta["nf"], meta["depth"], "linear"), golden.seed)
    for label, (h, w) in {"square": (n, n), "odd": meta["odd_size"]}.items():
        found = network(rnd(21 + s, 2, 3, h, w), uni(22 + s, 2, 3, h, w), torch.tensor([3, 77]))
        yield stored.compare(f"network_{label}", found, NETWORKS_IRSDE)
    gt, white = uni(42 + s, 1, 3, n, n), partial(MeanRevertingSDE, max_sigma=meta["max_sigma"], mean_fill="white")
    shrunk = (uni(45 + s, 1, 2 * n, 2 * n) > 0.3).float()[:, None, ::2, ::2]
    yield stored.compare("masked", white().texture_mean(gt * shrunk, shrunk), EXACT)
    yield from irsde_steps(white(), stored, s)
    yield from irsde_losses(Denoiser(network, white(rounding="released")), stored, meta["loss_times"], n, s)
    for kind, solver in {"sde": "ancestral", "posterior": "posterior", "ode": "ode"}.items():
        tape, known = NoiseTape(9000 + s), Known(gt, hole_mask(n, n, 1, s))
        run = Sampling(Networks(Denoiser(network, white(meta["T"]))), known, tape, Stepping(solver, put_back=False))
        *_, end = Unguided().steps(run)
        yield stored.compare(f"run_{kind}", end.y.x, RUNS_IRSDE)
        yield stored.compare(f"run_{kind}_draws", tape.draws, EXACT)


def irsde_steps(sde: MeanRevertingSDE, stored: Stored, s: int) -> Iterator[Comparison]:
    shape = (2, 3, 8, 8)
    x, mu, noise, z = rnd(11 + s, *shape), uni(13 + s, *shape), rnd(14 + s, *shape), rnd(500 + s, *shape)
    rounded = MeanRevertingSDE(sde.T, max_sigma=sde.max_sigma, rounding="released")  # exactly, the deviation at t=2 is 1.1e-5 smaller
    for t in sorted({int(name.split("_")[1]) for name in stored.content if name.startswith("step_")}):
        yield stored.compare(f"step_{t}_x0", sde.predict_x0(x, mu, noise, t), STEP_IRSDE)
        std, expected = rounded.posterior_std[t].item(), float(stored.content[f"step_{t}_std"])
        error = abs(std - expected) / (1 if t == 1 else expected)
        yield stored.record(f"step_{t}_std", error, NO_DEVIATION if t == 1 else STEP_IRSDE)
        yield stored.compare(f"step_{t}_posterior", sde.posterior_step(x, mu, noise, t, z), CANCELLATION if t == 2 else STEP_IRSDE)
        yield stored.compare(f"step_{t}_reverse_sde", sde.reverse_sde_step(x, mu, sde.score(noise, t), t, z), STEP_IRSDE)


def irsde_losses(denoiser: Denoiser, stored: Stored, times: list[int], n: int, s: int) -> Iterator[Comparison]:
    mask, texture = hole_mask(n, n, 2, s), uni(32 + s, 2, 3, n, n)
    batch, t = Batch(texture, texture[:, :1], texture[:, :1], mask), torch.tensor(times)
    for norm in ("l1", "l2"):
        found = texture_loss(denoiser, batch, t, rnd(700 + s, 2, 3, n, n), None, norm, hole_weight=1)
        yield stored.compare(f"loss_{norm}", found.loss, LOSS_IRSDE)
    yield stored.compare("loss_expectation", found.expectation, LOSS_IRSDE)
    yield stored.compare("loss_optimum", found.optimum, LOSS_IRSDE)
