"""Part 3: seconds an image of the samplers, and the share of the time outside of the networks."""

from dataclasses import replace
from functools import partial

import torch

from strdiffusion.bench import timing
from strdiffusion.bench.gpu.needs import no_compiler
from strdiffusion.bench.gpu.record import Session
from strdiffusion.bench.gpu.scale import Scale
from strdiffusion.bench.networks import make_inputs, make_network
from strdiffusion.bench.samplers import make_known, time_sampler
from strdiffusion.bench.timing import Stopwatch, measure
from strdiffusion.config.prior import PriorNetworkConfig
from strdiffusion.ddpm import DDPM
from strdiffusion.denoiser import Precision
from strdiffusion.networks import KINDS, GuidedUNet
from strdiffusion.networks.inference import for_inference
from strdiffusion.samplers import SeededNoise
from strdiffusion.samplers.prior import Jumps, Prior, count_reverse_steps, repaint
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.device import set_float32_precision
from strdiffusion.system.markdown import markdown_table

# name: texture evaluations of an image, at T = 100 (of adaptive resampling by networks of random weights, at most)
EVALUATIONS = {"posterior 10": 10, "posterior 5": 5, "guided": 100, "released": 900}
LABELS = {"guided": "ancestral", "released": "adaptive as released"}
COMPILING = 400.0  # seconds, about, of three networks
PRIOR_STEPS = 25
RELEASED_PRIOR = (250, Jumps())  # as RePaint's program: 250 steps, jumps of 10, 10 times


def run(session: Session, scale: Scale) -> None:
    precisions = [p for p in ("bf16", "fp32") if p in scale.precisions]
    for precision in precisions:
        of_networks(session, scale, precision, compile=False)
    for precision in precisions:
        of_prior(session, scale, precision)
    reason = no_compiler(session.device)
    if reason:
        session.say(f"samplers: not run: compiled with CUDA graphs ({reason})")
    elif not session.quick:
        of_networks(session, scale, precisions[0], compile=True)


def of_networks(session: Session, scale: Scale, precision: Precision, compile: bool) -> None:
    """StrDiffusion's samplers. Compiled, those alone whose batches keep their size: resampled images leave theirs."""
    networks: dict = {}
    names = [name for name in EVALUATIONS if not (compile and name == "released")]
    evaluation = 0.0  # seconds

    def sampled(name: str, batch: int) -> dict:
        if not networks:
            build(networks, session, scale, precision, compile)
        set_float32_precision(precision)
        sizes = replace(scale.sizes, batch=batch)
        steps = name if scale.T >= 10 else name.replace("posterior 10", "posterior 5")
        row = time_sampler(steps, networks, MeanRevertingSDE(scale.T), sizes, precision, session.device)
        return row | {"sampler": name, "compile": compile}

    for batch in scale.sampled:
        for name, evaluations in EVALUATIONS.items():
            if name not in names:
                continue
            if evaluation == 0.0 and not session.quick and not compile:
                evaluation = time_of_evaluation(session, scale, precision)
            seconds = 5 + (COMPILING if compile and not networks else 0) + 2 * 1.6 * evaluations * evaluation * batch
            form = "compiled" if compile else "inference"
            session.measure(f"{name}/{precision}/{form}/batch {batch}", partial(sampled, name, batch), seconds)
    networks.clear()
    set_float32_precision("fp32")
    session.free()


def build(networks: dict, session: Session, scale: Scale, precision: Precision, compile: bool) -> None:
    set_float32_precision(precision)
    for kind in KINDS:
        torch.manual_seed(0)
        with session.device:
            network = make_network(kind, scale.sizes)
        networks[kind] = for_inference(network, precision, compile)


def time_of_evaluation(session: Session, scale: Scale, precision: Precision) -> float:
    """Seconds of one evaluation of the texture network for one image."""
    set_float32_precision(precision)
    with session.device:
        network = make_network("texture", scale.sizes)
    form = for_inference(network, precision)
    return measure(partial(form, *make_inputs("texture", scale.sizes, session.device)), session.device, 3, warmup=3).median / 1000


def of_prior(session: Session, scale: Scale, precision: Precision) -> None:
    """RePaint's prior: a short run without jumps, then the released one if there is time."""
    built: dict = {}

    def sampled(steps: int, jumps: Jumps, batch: int) -> dict:
        set_float32_precision(precision)
        if not built:
            torch.manual_seed(0)
            architecture = PriorNetworkConfig(**scale.prior).architecture(scale.sizes.size)
            with session.device:
                network = GuidedUNet(**architecture).eval()
            built["form"] = for_inference(network, precision)
        return time_prior(built["form"], session.device, replace(scale, sampled=(batch,)), precision, steps, jumps)

    for batch in scale.sampled:
        steps = 5 if session.quick else PRIOR_STEPS
        short = session.measure(f"repaint {steps}/{precision}/batch {batch}", partial(sampled, steps, Jumps(jump_n_sample=1), batch), 30)
        if short is None or short["status"] != "ok" or session.quick:
            continue
        steps, jumps = RELEASED_PRIOR
        expected = short["seconds_per_image"] * batch / short["evaluations"]["prior"] * count_reverse_steps(jumps.times(steps))
        key = f"repaint {steps} with jumps, as released/{precision}/batch {batch}"
        session.measure(key, partial(sampled, steps, jumps, batch), 1.2 * expected + 5)
    built.clear()
    set_float32_precision("fp32")
    session.free()


@torch.no_grad()
def time_prior(form, device: torch.device, scale: Scale, precision: Precision, steps: int, jumps: Jumps) -> dict:
    (batch,) = scale.sampled
    known, watch, process = make_known(replace(scale.sizes, batch=batch), device), Stopwatch(device), DDPM(respacing=str(steps))
    times = jumps.times(process.T)
    prior = Prior(lambda x, t, classes: watch.time(partial(form, x, t)), process)
    form(2 * known.image - 1, 0)  # a warm-up
    started = timing.now()
    *_, last = repaint(prior, 2 * known.image - 1, known.mask, times, partial(SeededNoise(range(batch)), range(batch)))
    last.x.cpu()  # waits for the device
    seconds = timing.now() - started
    return {
        "sampler": f"RePaint, {steps} steps" + (", jumps" if jumps.jump_n_sample > 1 else ""),
        "precision": precision,
        "compile": False,
        "batch": batch,
        "seconds_per_image": seconds / batch,
        "images_per_hour": 3600 * batch / seconds,
        "evaluations": {"prior": count_reverse_steps(times)},
        "outside": 1 - sum(watch.milliseconds()) / 1000 / seconds,
    }


def table(rows: list[dict]) -> str:
    lines = [["sampler", "precision", "compiled", "batch", "s an image", "images an hour", "evaluations an image", "outside of networks"]]
    for row in rows:
        if "seconds_per_image" not in row:
            lines.append([row["key"], "", "", "", row["status"], "", row.get("reason", "")[:100].replace("|", "/"), ""])
            continue
        lines.append(
            [
                LABELS.get(row["sampler"], row["sampler"]),
                row["precision"],
                "yes" if row["compile"] else "no",
                str(row["batch"]),
                f"{row['seconds_per_image']:.3g}",
                f"{row['images_per_hour']:.0f}",
                ", ".join(f"{count:g} {kind}" for kind, count in row["evaluations"].items() if count),
                f"{100 * row['outside']:.1f} %",
            ]
        )
    notes = "The networks have random weights, so how often adaptive resampling is accepted is arbitrary."
    return markdown_table(lines) + "\n\n" + notes
