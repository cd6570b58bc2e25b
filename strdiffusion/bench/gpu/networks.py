"""Part 2: milliseconds, TFLOP/s and memory of the networks at full size, by precision, form and batch size."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import nn

from strdiffusion.bench.gpu.needs import no_compiler
from strdiffusion.bench.gpu.record import Session, peak_gib
from strdiffusion.bench.gpu.scale import Scale
from strdiffusion.bench.networks import Form, count_gflop, evaluate, make_inputs, make_network
from strdiffusion.bench.timing import Peak, best_rates, measure
from strdiffusion.denoiser import AUTOCAST_DTYPES, Precision
from strdiffusion.networks import KINDS, Kind
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.markdown import markdown_table

EAGER: tuple[Form, ...] = ("inference", "plain")
COMPILING = 150.0  # seconds, about; until the first was compiled
U_NETS: tuple[Kind, ...] = ("texture", "structure")
TUNED = "inference, cudnn.benchmark"  # cuDNN times its algorithms before it takes one


def run(session: Session, scale: Scale) -> None:
    rates = Rates(session, scale)
    kinds = sorted(KINDS, key=lambda kind: kind not in U_NETS)
    for precision in scale.precisions:
        for kind in kinds:
            for form in EAGER:
                with_form(session, scale, rates, kind, precision, form, scale.batches)
    if session.device.type == "cuda":
        for kind in kinds:
            with_form(session, scale, rates, kind, scale.precisions[0], TUNED, scale.batches[:2])
    reason = no_compiler(session.device)
    if reason:
        session.say(f"networks: not run: compiled with CUDA graphs ({reason})")
        return
    seconds = COMPILING
    for kind, precision, batch in compiled_order(scale, kinds):
        row = with_form(session, scale, rates, kind, precision, "compiled", (batch,), seconds)
        if row and row["status"] == "ok":
            seconds = 1.3 * row["seconds"]


def compiled_order(scale: Scale, kinds: list[Kind]) -> Iterator[tuple[Kind, Precision, int]]:
    """The most telling ones first: each takes a minute or more to compile. Of the small ones one is enough."""
    if scale.name == "quick":
        yield kinds[-1], scale.precisions[-1], scale.batches[0]
        return
    for batch in scale.batches[:2]:
        for kind in kinds:
            yield kind, scale.precisions[0], batch
    for batch in scale.batches:
        for precision in scale.precisions:
            for kind in kinds:
                if (batch, precision) not in [(b, scale.precisions[0]) for b in scale.batches[:2]]:
                    yield kind, precision, batch


class Rates:
    """The best rates of the device, measured once for each precision in this process."""

    def __init__(self, session: Session, scale: Scale):
        self.session, self.scale = session, scale
        self.found: dict[Precision, Peak] = {}

    def __getitem__(self, precision: Precision) -> Peak:
        if precision not in self.found:
            set_float32_precision(precision)
            dtype, scale = AUTOCAST_DTYPES.get(precision, torch.float32), self.scale
            self.found[precision] = best_rates(self.session.device, dtype, scale.repeats, scale.convolutions, scale.matrices)
        return self.found[precision]


def with_form(
    session: Session,
    scale: Scale,
    rates: Rates,
    kind: Kind,
    precision: Precision,
    form: str,
    batches: tuple[int, ...],
    seconds: float = 5.0,
) -> dict | None:
    """A row for each batch size; the network is built only if one is left to measure. Returns the last row."""
    row, built = None, {}

    def timed(batch: int) -> dict:
        if not built:
            torch.manual_seed(0)
            with session.device:  # weights are drawn there: on a CPU that takes seconds
                built["network"] = make_network(kind, scale.sizes)
        return time_one(session, scale, rates, built["network"], kind, precision, form, batch)

    for batch in batches:
        row = session.measure(f"{kind}/{precision}/{form}/batch {batch}", partial(timed, batch), seconds)
    built.clear()
    session.free()
    return row


def time_one(
    session: Session, scale: Scale, rates: Rates, network: nn.Module, kind: Kind, precision: Precision, form: str, batch: int
) -> dict:
    device, sizes = session.device, replace(scale.sizes, batch=batch)
    inputs, gflop = make_inputs(kind, sizes, device), count_gflop(kind, sizes)
    peak = rates[precision]
    if form == "compiled":
        torch._dynamo.reset()  # a second batch size would compile a form for any, which is not what a run of one size gets
    set_float32_precision("fp32")
    expected = evaluate(network, "plain", "fp32", device)(*inputs)
    set_float32_precision(precision)
    torch.backends.cudnn.benchmark = form == TUNED
    try:
        call = evaluate(network, "inference" if form == TUNED else form, precision, device)
        error = (call(*inputs).float() - expected).abs().max() / expected.abs().max()
        del expected
        with peak_gib(device) as memory:
            timing = measure(partial(call, *inputs), device, scale.repeats, warmup=3)
    finally:
        torch.backends.cudnn.benchmark = False
        set_float32_precision("fp32")
    rate = gflop / timing.median  # TFLOP/s
    return {
        "network": kind,
        "precision": precision,
        "form": form,
        "batch": batch,
        "milliseconds": asdict(timing),
        "gflop": gflop,
        "tflops": rate,
        "of_matrix": 1000 * rate / peak.matrix,
        "of_convolution": 1000 * rate / peak.convolution,
        "peak": asdict(peak),
        "difference": error.item(),
        **memory,
    }


def table(rows: list[dict]) -> str:
    lines = [["network", "precision", "form", "batch", "ms", "ms an image", "TFLOP/s", "of matrix rate", "memory GiB", "difference"]]
    peaks = {}
    for row in rows:
        if "milliseconds" not in row:
            lines.append([row["key"], *[""] * 3, row["status"], *[""] * 4, row.get("reason", "")[:100].replace("|", "/")])
            continue
        peaks[row["precision"]] = row["peak"]
        memory = row["memory_gib"]
        time = row["milliseconds"]
        lines.append(
            [
                row["network"],
                row["precision"],
                row["form"],
                str(row["batch"]),
                f"{time['median']:.4g} ({time['fastest']:.4g}-{time['slowest']:.4g})",
                f"{time['median'] / row['batch']:.4g}",
                f"{row['tflops']:.4g}",
                f"{100 * row['of_matrix']:.0f} %",
                "" if memory is None else f"{memory:.2f}",
                f"{row['difference']:.0e}",
            ]
        )
    notes = [
        f"{name}: best matrix product {p['matrix'] / 1000:.4g} TFLOP/s ({p['matrix_shape']}), "
        f"best 3x3 convolution {p['convolution'] / 1000:.4g} TFLOP/s ({p['convolution_shape']})"
        for name, p in peaks.items()
    ]
    return "\n\n".join([markdown_table(lines), *notes])
