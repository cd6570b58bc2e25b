"""Recompute the golden numbers of Intelligent Painter (painter.npz), described in tests/golden_dgts/README.md."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from golden_checks import EXACT, Comparison, NoiseTape, Stored, rnd, uni
from golden_repaint_checks import TABLE_NAMES
from torch import Tensor, nn

from strdiffusion.ddpm import DDPM
from strdiffusion.networks import GuidedUNet
from strdiffusion.networks.guided_unet import MULTIPLIERS
from strdiffusion.samplers.prior import Jumps, Prior, count_jumps, count_reverse_steps, repaint, truncated

TABLES, UNET, LOOP = 1e-12, 1e-5, 2e-5
EVERY = 7  # entry of the coefficients is stored
FULL_SIZE = {"num_channels": 256, "num_head_channels": 64, "num_res_blocks": 2, "attention_resolutions": "32,16,8", "image_size": 256}


def unet_of(options: dict) -> GuidedUNet:
    """The network of guided diffusion's settings."""
    size, width = options["image_size"], options["num_channels"]
    attention = [size // int(pixels) for pixels in options["attention_resolutions"].split(",")]
    channels = [int(m * width) for m in MULTIPLIERS[size]]
    return GuidedUNet(width, channels, options["num_res_blocks"], attention, head_channels=options["num_head_channels"])


def schedule_of(T: int, length: int, samples: int, start: int, stop: int) -> list[int]:
    """The times of a schedule as meta.json writes it; -1: not given."""
    jumps = Jumps(length, max(samples, 1), start_resampling=None if start == -1 else start, stop_resampling=max(stop, 0))
    return jumps.times(T)


class Watched:
    """A network that keeps the times it was called at, and the x0 predicted in the last call."""

    def __init__(self, network: nn.Module, process: DDPM):
        self.network, self.process, self.times = network, process, []

    def __call__(self, x: Tensor, t: int, classes: None) -> Tensor:
        output = self.network(x, t, classes)
        self.x0 = self.process.reverse(x, output, self.process.network_times.index(t)).x0
        self.times.append(t)
        return output


@torch.no_grad()
def painter_items(meta: dict, names: dict, seed: int, stored: Stored, fill: Callable, compare_sample: Callable) -> Iterator[Comparison]:
    """Every item of painter.npz, and the names of the full network, if there are some. fill(network, names, seed): gives it its weights."""
    with torch.device("meta"):
        full = {name: list(tensor.shape) for name, tensor in unet_of(FULL_SIZE).state_dict().items()}
    if names:
        yield Comparison("names/painter_unet", 0.0 if full == names else math.inf, EXACT)
    for name, schedule in meta["schedules"].items():
        times = schedule_of(*schedule)
        evaluations, jumps = count_reverse_steps(times), count_jumps(times)
        yield stored.compare(f"times_{name}", np.array(times), EXACT)
        yield stored.compare(f"operations_{name}", np.array([evaluations, jumps, evaluations + jumps]), EXACT)
    yield from process_items(meta["unet"], stored)
    network = unet_of(meta["unet"])
    fill(network, {name: name for name in network.state_dict()}, seed)
    n = meta["unet"]["image_size"]
    yield from compare_sample(stored, "unet_output", network(rnd(300 + seed, 2, 3, n, n), torch.tensor([3, 712])), UNET)
    yield from loop_items(meta, seed, stored, network)
    levels = truncated(torch.linspace(-1.1, 1.1, 57)) * 255
    yield stored.compare("levels", levels.round(), EXACT)


def process_items(unet: dict, stored: Stored) -> Iterator[Comparison]:
    """Respacing and coefficients, for every respacing of which there are some."""
    for respacing in sorted(
        {name.split("_")[-1] for name in stored.content if name.startswith("timestep_map_")} | {unet["timestep_respacing"]}
    ):
        process = DDPM(respacing=respacing)
        yield stored.compare(f"timestep_map_{respacing}", np.array(process.network_times), EXACT)
        for theirs, ours in TABLE_NAMES.items():
            name = f"respaced_{respacing}_{theirs}"
            if name in stored.content:
                table = getattr(process, ours)
                yield stored.compare(name, table if len(stored.content[name]) == len(table) else table[::EVERY], TABLES)


def loop_items(meta: dict, seed: int, stored: Stored, network: nn.Module) -> Iterator[Comparison]:
    """A whole run: with the mask as it is stored, 0.25 at the rims of its object."""
    process = DDPM(respacing=meta["unet"]["timestep_respacing"])
    params = meta["unet"]["schedule_jump_params"]
    jumps = Jumps(**{name: value for name, value in params.items() if name != "t_T"})
    times, keep = jumps.times(params["t_T"]), torch.from_numpy(stored.content["loop_keep"]).float()
    yield stored.compare("loop_keep", object_mask(keep.shape[-1], **meta["object"]), EXACT)
    x0 = 2 * uni(310 + seed, 1, 3, *keep.shape[-2:]) - 1
    watched, tape = Watched(network, process), NoiseTape(9100 + seed)
    *_, last = repaint(Prior(watched, process), x0, keep, times, partial(tape, [0]))
    yield stored.compare("loop_output", last.x, LOOP)
    yield stored.compare("loop_pred_xstart", watched.x0, LOOP)
    yield stored.compare("loop_t", np.array(watched.times), EXACT)
    yield stored.compare("loop_draws", tape.draws, EXACT)
    assert sum(k < i for i, k in pairwise(times)) == len(watched.times)


def object_mask(size: int, cy: int, cx: int, r: int) -> np.ndarray:
    """The mask (1,1,size,size) of a disk: 1 inside, 0.25 on its rim of one pixel, 0 else."""
    y, x = np.mgrid[:size, :size]
    squared = (y - cy) ** 2 + (x - cx) ** 2
    return np.where(squared < r**2, 1, np.where(squared < (r + 1) ** 2, 0.25, 0))[None, None]
