"""Medians of repeated calls, and the best rates of the machine for comparison."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

# (channels, side) of 3x3 convolutions, which occur in the networks at 256x256, and sizes of square matrices
CONVOLUTIONS = ((64, 256), (128, 256), (256, 128), (512, 64), (1024, 32))
MATRICES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
CUDA_BATCH = 8  # of the convolutions: one image does not fill a GPU


now = time.perf_counter  # the clock for all work that is not on a GPU


def count_cpu_time() -> None:
    """From now on, use one thread and count the CPU time of this process, so that other programs do not affect the times."""
    global now
    torch.set_num_threads(1)
    now = time.process_time


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call: median, fastest and slowest of `repeats`."""

    median: float
    fastest: float
    slowest: float
    repeats: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Timing":
        return cls(statistics.median(milliseconds), min(milliseconds), max(milliseconds), len(milliseconds))


class Stopwatch:
    """Times pieces of work on a device. On CUDA it uses events, so that nothing waits for the GPU until `milliseconds` is called."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.spans: list[tuple] = []

    def mark(self):
        if not self.cuda:
            return now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def time(self, run: Callable):
        start = self.mark()
        result = run()
        self.spans.append((start, self.mark()))
        return result

    def milliseconds(self) -> list[float]:
        """The time of each piece of work."""
        if self.cuda:
            torch.cuda.synchronize()
            return [start.elapsed_time(end) for start, end in self.spans]
        return [1000 * (end - start) for start, end in self.spans]


def measure(run: Callable, device: torch.device, repeats: int, warmup: int = 1) -> Timing:
    """Call `run` `warmup` times without timing, then time it `repeats` times."""
    for _ in range(warmup):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    watch = Stopwatch(device)
    for _ in range(repeats):
        watch.time(run)
    return Timing.of(watch.milliseconds())


@dataclass(frozen=True)
class Peak:
    """The best GFLOP/s of 3x3 convolutions (channels last) and of matrix products in one dtype, with the shapes that reached them."""

    convolution: float
    convolution_shape: str
    matrix: float
    matrix_shape: str


@torch.no_grad()
def best_rates(
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    shapes: Sequence[tuple[int, int]] | None = None,
    sides: Sequence[int] | None = None,
) -> Peak:
    """The best rates of `shapes` of convolutions, (channels, side), and of matrices of `sides`; by default of those above."""
    batch = CUDA_BATCH if device.type == "cuda" else 1
    convolutions, matrices = {}, {}
    for channels, side in shapes or CONVOLUTIONS:
        h = torch.randn(batch, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        timing = measure(lambda h=h, weight=weight: F.conv2d(h, weight, padding=1), device, repeats)
        convolutions[f"{batch}x{channels}x{side}x{side}"] = 2 * 9 * channels**2 * side**2 * batch / timing.median / 1e6
    for n in sides or MATRICES[device.type]:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        timing = measure(lambda a=a, b=b: a @ b, device, repeats)
        matrices[f"{n}x{n}"] = 2 * n**3 / timing.median / 1e6
    conv, matrix = max(convolutions, key=convolutions.get), max(matrices, key=matrices.get)
    return Peak(convolutions[conv], conv, matrices[matrix], matrix)
