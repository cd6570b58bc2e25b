"""Samplers: batch equals single, the trace, variants, and a re-derivation of the released loop (spec sec. 7)."""

import json
import math

import pytest
import torch

from strdiffusion.batch import Known
from strdiffusion.denoiser import Denoiser
from strdiffusion.methods import Evaluations
from strdiffusion.methods.counting import count_evaluations
from strdiffusion.networks import CorrelationDiscriminator, UNet
from strdiffusion.samplers import (
    Fixed,
    Guided,
    Networks,
    Paper,
    Released,
    Repaint,
    SamplerConfig,
    Sampling,
    SeededNoise,
    Stepping,
    StructureAlone,
    TimeGrid,
    Unguided,
    sample,
)
from strdiffusion.samplers.grid import early_end
from strdiffusion.samplers.repaint import jump_range, timeline
from strdiffusion.samplers.solvers import SOLVERS, mars_step
from strdiffusion.samplers.state import State
from strdiffusion.sde import MeanRevertingSDE

T, SIZE = 15, 16
sde = MeanRevertingSDE(T)


def lively(network: torch.nn.Module, gain: float = 1.0) -> torch.nn.Module:
    """Give a fresh network weights with which its answers depend visibly on its input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(gain * torch.randn(p.shape, generator=generator) / math.sqrt(math.prod(p.shape[1:]) or 1))
    return network.eval()


torch.manual_seed(0)
STRUCTURE = lively(UNet(1, 4, 1), 0.7)
TEXTURE = lively(UNet(3, 4, 1, guided=True), 0.5)
PLAIN = lively(UNet(3, 4, 1), 0.5)
DISCRIMINATOR = lively(CorrelationDiscriminator(4))


def networks(**changes) -> Networks:
    parts = {"texture": Denoiser(TEXTURE, sde), "structure": Denoiser(STRUCTURE, sde), "discriminator": DISCRIMINATOR}
    return Networks(**(parts | changes))


def models(solver="ancestral", order=2, steps=None, spacing="t", **changes) -> tuple[Networks, Stepping]:
    return networks(**changes), Stepping(solver, order, steps, spacing)


def plain(**stepping) -> tuple[Networks, Stepping]:
    return Networks(Denoiser(PLAIN, sde)), Stepping(**stepping)


def run(sampler, parts, known, noise, watch=None):
    return sample(sampler, Sampling(parts[0], known, noise, parts[1]), watch)


def known(batch: int = 3) -> Known:
    generator = torch.Generator().manual_seed(3)
    y, e = torch.rand(batch, 3, SIZE, SIZE, generator=generator), torch.rand(batch, 1, SIZE, SIZE, generator=generator)
    mask = torch.ones(batch, 1, SIZE, SIZE)
    for i in range(batch):
        mask[i, :, 3 + i : 9 + i, 2 : 10 + i] = 0
    return Known(y, mask, {"structure": y.mean(1, keepdim=True) * mask, "structure_mean": (e > 0.8).float() * mask})


RELEASED = {"u_max": 5, "u_min": 2, "jump": 2, "re": 2}
RUNS = {
    "unguided": lambda k, n: run(Unguided(), plain(), k, n),
    "structure": lambda k, n: run(StructureAlone(), models(), k, n),
    "none": lambda k, n: run(Guided(), models(), k, n),
    "none posterior": lambda k, n: run(Guided(), models(solver="posterior"), k, n),
    "released": lambda k, n: run(Released(**RELEASED), models(), k, n),
    "released posterior clip": lambda k, n: run(
        Released(**RELEASED),
        models(texture=Denoiser(TEXTURE, sde, clip=True), structure=Denoiser(STRUCTURE, sde, clip=True), solver="posterior"),
        k,
        n,
    ),
    "released higher": lambda k, n: run(Released(**RELEASED, accept="higher"), models(), k, n),
    "paper": lambda k, n: run(Paper(threshold=THRESHOLD, u_max=3, re=2), models(), k, n),
    "paper lower": lambda k, n: run(Paper(threshold=THRESHOLD, u_max=3, accept="lower"), models(), k, n),
    "fixed": lambda k, n: run(Fixed(times=2), models(), k, n),
    "repaint": lambda k, n: run(Repaint(jump_length=2, resamplings=2), models(), k, n),
    "repaint unguided": lambda k, n: run(Repaint(jump_length=3, resamplings=2), plain(), k, n),
    # fewer steps
    "unguided 5": lambda k, n: run(Unguided(), plain(solver="mars_ode", steps=5), k, n),
    "structure 5": lambda k, n: run(StructureAlone(), models(solver="mars_sde", steps=5), k, n),
    "none 5 ancestral": lambda k, n: run(Guided(), models(steps=5), k, n),
    "none 4": lambda k, n: run(Guided(), models(solver="mars_sde", steps=4, spacing="log_snr"), k, n),
    "released 6 posterior": lambda k, n: run(Released(**RELEASED), models(solver="posterior", steps=6), k, n),
    "released 7": lambda k, n: run(Released(**RELEASED), models(solver="mars_ode", steps=7, spacing="log_snr"), k, n),
    "released 8 higher": lambda k, n: run(Released(**RELEASED, accept="higher"), models(solver="mars_sde", steps=8), k, n),
    "released mars": lambda k, n: run(Released(**RELEASED), models(solver="mars_ode"), k, n),
    "paper 8": lambda k, n: run(Paper(threshold=THRESHOLD, u_max=3, re=2), models(solver="mars_ode", steps=8), k, n),
    "fixed 5": lambda k, n: run(Fixed(times=2), models(solver="mars_sde", steps=5), k, n),
    "repaint 6": lambda k, n: run(Repaint(jump_length=2, resamplings=2), models(solver="mars_ode", steps=6), k, n),
    "repaint unguided 6": lambda k, n: run(
        Repaint(jump_length=3, resamplings=2), plain(solver="mars_sde", steps=6, spacing="log_snr"), k, n
    ),
}
SCORES = sorted(
    score
    for trace in run(Released(u_max=1), models(), known(), SeededNoise([28, 29, 30])).traces
    for s in trace.steps
    for score in s.scores
)
THRESHOLD = (SCORES[10] + SCORES[11]) / 2  # some images are below it and some are not; a score itself would be a tie that rounding decides


@pytest.mark.parametrize("name", RUNS)
def test_a_batch_of_three_equals_three_runs_of_one(name):
    everything, seeds = known(), [28, 29, 30]
    together = RUNS[name](everything, SeededNoise(seeds))
    for i, seed in enumerate(seeds):
        alone = RUNS[name](everything.take([i]), SeededNoise([seed]))
        assert (together.texture[i] - alone.texture[0]).abs().max() < 1e-4 * together.texture.abs().max()
        if alone.structure is not None:
            assert (together.structure[i] - alone.structure[0]).abs().max() < 1e-4 * together.texture.abs().max()
        for mine, theirs in zip(together.traces[i].steps, alone.traces[0].steps, strict=True):
            assert mine.decisions == theirs.decisions
            assert mine.scores == pytest.approx(theirs.scores, rel=1e-3, abs=1e-3)
            assert mine.evaluations["texture"] == theirs.evaluations["texture"]
            assert mine.evaluations["structure"] == theirs.evaluations["structure"]
            assert mine.evaluations["discriminator"] == theirs.evaluations["discriminator"]


@pytest.mark.parametrize("name", ["released", "released higher", "paper", "released 7", "released 8 higher", "paper 8"])
def test_images_of_that_batch_do_decide_differently(name):
    traces = RUNS[name](known(), SeededNoise([28, 29, 30])).traces
    assert len({tuple(len(step.decisions) for step in trace.steps) for trace in traces}) > 1
    kinds = {decision for trace in traces for step in trace.steps for decision in step.decisions}
    assert kinds >= ({"accepted", "rejected"} if name.startswith("paper") else {"accepted", "averaged", "stopped"})


def test_eight_images_together_take_as_many_evaluations_as_each_alone():
    """What the networks are really asked for, not what the trace counts: an image that has stopped costs nothing more."""
    rows: dict[str, int] = {}

    def counted(name: str, network: torch.nn.Module):
        def call(image, *others, **options):
            rows[name] = rows.get(name, 0) + len(image)
            return network(image, *others, **options)

        return call

    networks = {
        "texture": Denoiser(counted("texture", TEXTURE), sde),
        "structure": Denoiser(counted("structure", STRUCTURE), sde),
        "discriminator": counted("discriminator", DISCRIMINATOR),
    }
    everything, seeds = known(8), list(range(8))
    traces = run(Released(**RELEASED), (Networks(**networks), Stepping()), everything, SeededNoise(seeds)).traces
    together, rows = rows, {}
    for i, seed in enumerate(seeds):
        run(Released(**RELEASED), (Networks(**networks), Stepping()), everything.take([i]), SeededNoise([seed]))
    assert together == rows == {name: sum(trace.evaluations(name) for trace in traces) for name in rows}
    assert len({trace.evaluations("texture") for trace in traces}) > 1


def test_known_pixels_come_back_bit_for_bit():
    k = known()
    for name, run in RUNS.items():
        out = run(k, SeededNoise([28, 29, 30])).texture
        assert torch.equal(out * k.mask, k.image * k.mask), name
        assert out.isfinite().all(), name


def test_what_is_in_the_hole_does_not_matter():
    k = known()
    hole = 0.5 * (1 - k.mask)
    other = Known(k.image + hole, k.mask, {**k.maps, "structure": k.maps["structure"] + hole})
    for name in ("none", "released", "paper", "repaint", "unguided", "none 4", "released 7", "paper 8", "repaint 6", "unguided 5"):
        a, b = (RUNS[name](v, SeededNoise([28, 29, 30])).texture for v in (k, other))
        assert torch.equal(a, b), name


class Counting:
    """Count the images that go through a network."""

    def __init__(self, network):
        self.network, self.images = network, 0

    def __call__(self, x, *args, **kwargs):
        self.images += len(x)
        return self.network(x, *args, **kwargs)


def test_a_stopped_image_costs_nothing_and_the_trace_counts_what_was_spent():
    counters = [Counting(n) for n in (TEXTURE, STRUCTURE, DISCRIMINATOR)]
    parts = models(texture=Denoiser(counters[0], sde), structure=Denoiser(counters[1], sde), discriminator=counters[2])
    for sampler in (Released(**RELEASED), Paper(threshold=THRESHOLD)):
        before = [c.images for c in counters]
        traces = run(sampler, parts, known(), SeededNoise([28, 29, 30])).traces
        for name, counter, start in zip(("texture", "structure", "discriminator"), counters, before, strict=True):
            assert counter.images - start == sum(trace.evaluations(name) for trace in traces)


class Scripted:
    """A discriminator that reads its scores from a list."""

    def __init__(self, scores):
        self.scores = iter(scores)

    def __call__(self, y, x, t, group):
        return torch.tensor([next(self.scores) for _ in range(len(y))])


def decisions(scores, **options) -> list[list[str]]:
    """The decisions of one image, step by step, when the discriminator says `scores`."""
    scripted = Scripted([*scores, *[0.0] * 10_000])
    trace = run(Released(**options), models(discriminator=scripted), known(1), SeededNoise([0])).traces[0]
    return [step.decisions for step in trace.steps]


def test_the_first_score_stays_the_measure():
    found = decisions([1.0, 0.5, 0.8, 1.5], u_max=4, u_min=1, jump=T, re=1)
    assert found[0] == ["accepted", "accepted", "stopped"]  # 0.8 is accepted although it is above 0.5


def test_a_worse_one_is_averaged_before_u_min_and_ends_the_step_from_u_min_on():
    assert decisions([1.0, 2.0, 2.0, 0.5, 2.0], u_max=9, u_min=3, jump=T, re=1)[0] == ["averaged", "averaged", "accepted", "stopped"]
    assert decisions([1.0, 2.0], u_max=9, u_min=1, jump=T, re=1)[0] == ["stopped"]


def test_at_most_u_max_minus_one_resamplings_at_multiples_of_jump():
    found = decisions([], u_max=4, u_min=9, jump=4, re=1)  # equal scores: not accepted, averaged
    early = range(T, early_end(T) - 1, -1)
    assert [len(d) for d in found[: len(early)]] == [3 if t % 4 == 0 else 0 for t in early]
    assert all(not d for d in found[len(early) :])


def test_the_direction_of_acceptance_can_be_switched():
    assert decisions([1.0, 2.0, 0.5], u_max=9, u_min=1, jump=T, re=1, accept="higher")[0] == ["accepted", "stopped"]


def test_evaluations_of_the_released_setting_lie_in_the_published_range():
    """Spec sec. 7: T=100, (10,2,1,2) costs 222-649 / 303-1150 / 183-610 evaluations."""
    sde100 = MeanRevertingSDE(100)

    def evaluations(scores):
        nothing = Denoiser(lambda x, mu, t, S: x * 0, sde100)
        parts = Networks(nothing, nothing, Scripted(scores)), Stepping()
        trace = run(Released(u_max=10, u_min=2, jump=1, re=2), parts, known(1), SeededNoise([0])).traces[0]
        return [trace.evaluations(name) for name in ("texture", "structure", "discriminator")]

    def alternating():  # first 0, then always better: the most; for the least see below
        while True:
            yield 0.0
            for _ in range(9):
                yield -1.0

    assert evaluations(alternating()) == [649, 1150, 610]
    assert evaluations(iter([0.0] * 10_000)) == [222, 303, 183]  # never better: averaged once, then stopped


def test_released_loop_against_a_plain_transcription_of_the_specification():
    k, tape = known(1), SeededNoise([5])
    y0, x0, mu_x, m = k.image, k.maps["structure"], k.maps["structure_mean"], k.mask
    mu_y = y0 * m
    u_max, u_min, jump, re = 4, 2, 2, 2
    texture, structure = Denoiser(TEXTURE, sde), Denoiser(STRUCTURE, sde)

    def z(like):
        return tape([0], like)

    def rev(denoiser, x, mu, t, S=None):
        score = -denoiser.noise(x, mu, t, S) / sde.sigma_bar[t].item()
        drift = sde.theta[t].item() * (mu - x) - sde.sigma[t].item() ** 2 * score
        return x - drift * sde.dt - sde.sigma[t].item() * math.sqrt(sde.dt) * z(x)

    with torch.inference_mode():
        y = mu_y + sde.lambda_ * z(y0)
        x = mu_x + sde.lambda_ * z(x0)
        for t in range(T, int(0.4 * T) - 1, -1):
            kx = mu_x + (x0 * m - mu_x) * sde.decay[t - 1].item() + sde.sigma_bar[t - 1].item() * z(x0)
            x = rev(structure, kx * m + x * (1 - m), mu_x, t)
            xt, y1 = x, rev(texture, y, mu_y, t, x)
            Dn = DISCRIMINATOR(y1 * m, x, t)
            step = re if t % jump == 0 else 0
            if step + t > T:
                step = T - t + 1
            i = 1
            while step > 0 and i <= u_max - 1:
                x1 = xt
                for j in range(step):
                    s = t - 1 + j
                    x1 = x1 + sde.theta[s].item() * (mu_x - x1) * sde.dt + sde.sigma[s].item() * math.sqrt(sde.dt) * z(x1)
                for j in range(step - 1, -1, -1):
                    x1 = rev(structure, kx * m + x1 * (1 - m), mu_x, t + j)
                y2 = rev(texture, y, mu_y, t, x1)
                if DISCRIMINATOR(y2 * m, x1, t) < Dn:
                    y1, xt = y2, x1
                elif i >= u_min:
                    break
                else:
                    y1, xt = (y1 + y2) / 2, (x1 + xt) / 2
                i += 1
            y, x = y1, kx * m + xt * (1 - m)
        for t in range(int(0.4 * T) - 1, 0, -1):
            y = rev(texture, y, mu_y, t, y.mean(1, keepdim=True))
        expected = y0 * m + y * (1 - m)
    found = run(Released(u_max=u_max, u_min=u_min, jump=jump, re=re), models(), k, SeededNoise([5]))
    assert (found.texture - expected).abs().max() < 1e-5
    assert any(step.decisions for step in found.traces[0].steps)


@pytest.mark.parametrize("seed", [2, 5])
@pytest.mark.parametrize("method", ["ancestral", "posterior", "mars_ode", "mars_sde"])
def test_adaptive_loop_on_a_coarse_grid_against_a_transcription(method, seed):
    """Spec sec. 7 on the times 15, 14, 12, 11, ..., 0, and the steps of sec. 2 and 8 written as they stand there."""
    k, tape = known(1), SeededNoise([seed])
    y0, x0, mu_x, m = k.image, k.maps["structure"], k.maps["structure_mean"], k.mask
    mu_y = y0 * m
    u_max, u_min, jump, re = 4, 2, 2, 2
    texture, structure_denoiser = Denoiser(TEXTURE, sde), Denoiser(STRUCTURE, sde)
    alpha, sigma, theta = sde.decay.tolist(), sde.sigma_bar.tolist(), sde.theta.tolist()

    def z(like):
        return tape([0], like)

    def L(t):
        return math.log(alpha[t] / sigma[t])

    def known_at(t, noise):
        return mu_x + (x0 * m - mu_x) * alpha[t] + sigma[t] * noise

    def forward(x, s, t):
        if t - s == 1:  # the release's step
            return x + theta[s] * (mu_x - x) * sde.dt + sde.lambda_ * math.sqrt(2 * theta[s] * sde.dt) * z(x)
        A = alpha[t] / alpha[s]
        return mu_x + A * (x - mu_x) + sde.lambda_ * math.sqrt(1 - A * A) * z(x)

    def rev(denoiser, state, mu, s, t, S=None):
        """From s to t; a state is (x, q before, its time)."""
        noise = denoiser.noise(state[0], mu, s, S)
        return solved(state, mu, s, t, noise, None if method == "mars_ode" else z(state[0]))

    def structure(state, s, t):
        """From s to t and, with the same noise, only to s-1: what guides the texture."""
        noise = structure_denoiser.noise(state[0], mu_x, s)
        draw = None if method == "mars_ode" else z(state[0])
        return solved(state, mu_x, s, t, noise, draw), solved(state, mu_x, s, s - 1, noise, draw)[0]

    def solved(state, mu, s, t, noise, draw):
        x, q_before, before = state
        q = mu + (x - mu - sigma[s] * noise) / alpha[s]
        if method == "ancestral":
            total = sum(theta[t + 1 : s + 1])
            drift = total * (mu - x) + 2 * sde.lambda_**2 * total * noise / sigma[s]
            return x - drift * sde.dt - sde.lambda_ * math.sqrt(2 * total * sde.dt) * draw, None, None
        if method == "posterior":
            A, B, C = alpha[s] / alpha[t], alpha[s], alpha[t]
            std = sde.lambda_ * math.sqrt((1 - A * A) * (1 - C * C) / (1 - B * B))
            return mu + A * (1 - C * C) / (1 - B * B) * (x - mu) + C * (1 - A * A) / (1 - B * B) * (q - mu) + std * draw, None, None
        c = 1 if method == "mars_ode" else 2
        if t == 0:
            return q, q, s
        h, ratio = L(t) - L(s), sigma[t] / sigma[s]
        e = math.exp(-c * h)
        D1 = 0 if q_before is None else (q - q_before) / ((L(s) - L(before)) / h)
        out = ratio * math.exp(-(c - 1) * h) * (x - mu) + mu + alpha[t] * (1 - e) * (q - mu) + alpha[t] * (1 - (1 - e) / (c * h)) * D1
        return out + (sigma[t] * math.sqrt(1 - e) * draw if c == 2 else 0), q, s

    def mean(a, b):
        return tuple(None if u is None else v if isinstance(v, int) else (u + v) / 2 for u, v in zip(a, b, strict=True))

    # with a lag of one time, what the release does with t-1; the discriminator's pair is at t, as if it came from t+1
    times, decisions = [15, 14, 12, 11, 9, 8, 6, 5, 3, 2, 0], []
    with torch.inference_mode():
        y, x = (mu_y + sde.lambda_ * z(y0), None, None), (mu_x + sde.lambda_ * z(x0), None, None)
        for i, s in enumerate(times[:7]):  # 6 = int(0.4 T) is the last of the early stage
            t, left = times[i + 1], 10 - i
            zk = z(x0)
            x, guide = structure((known_at(s - 1, zk) * m + x[0] * (1 - m), *x[1:]), s, t)
            xt, y1 = x, rev(texture, y, mu_y, s, t, guide)
            Dn = DISCRIMINATOR(y1[0] * m, x[0], t + 1)
            step = min(re, i + 1) if left % jump == 0 else 0
            for u in range(1, u_max if step else 1):
                x1 = (xt[0], None, None)  # the noise ends what order 2 remembers
                for j in range(step):
                    x1 = (forward(x1[0], times[i + 1 - j], times[i - j]), None, None)
                for j in reversed(range(step)):
                    from_ = times[i - j]
                    x1, guide = structure((known_at(from_ - 1 - j, zk) * m + x1[0] * (1 - m), *x1[1:]), from_, times[i + 1 - j])
                y2 = rev(texture, y, mu_y, s, t, guide)
                if DISCRIMINATOR(y2[0] * m, x1[0], t + 1) < Dn:
                    y1, xt = y2, x1
                    decisions.append("accepted")
                elif u >= u_min:
                    decisions.append("stopped")
                    break
                else:
                    y1, xt = mean(y1, y2), mean(xt, x1)
                    decisions.append("averaged")
            y, x = y1, xt  # its known part is replaced in the next step
        for s, t in zip(times[7:-1], times[8:], strict=True):
            y = rev(texture, y, mu_y, s, t, y[0].mean(1, keepdim=True))
        expected = y0 * m + y[0] * (1 - m)
    found = run(Released(u_max=u_max, u_min=u_min, jump=jump, re=re), models(solver=method, steps=10), k, SeededNoise([seed]))
    assert (found.texture - expected).abs().max() < 1e-5 * expected.abs().max()
    assert [decision for step in found.traces[0].steps for decision in step.decisions] == decisions
    assert len(set(decisions)) > 1  # with these seeds


@pytest.mark.parametrize("name", ["none", "released", "repaint", "unguided", "fixed"])
def test_all_steps_are_the_default_bit_for_bit(name):
    for method in ("ancestral", "mars_sde"):
        a = SAMPLERS[name](known(), SeededNoise([28, 29, 30]), solver=method)
        b = SAMPLERS[name](known(), SeededNoise([28, 29, 30]), solver=method, steps=T, spacing="log_snr")
        assert torch.equal(a.texture, b.texture) and [t.as_dict() for t in a.traces] == [t.as_dict() for t in b.traces]


SAMPLERS = {  # by name, with the options of Stepping
    "unguided": lambda k, n, **options: run(Unguided(), plain(**options), k, n),
    "none": lambda k, n, **options: run(Guided(), models(**options), k, n),
    "released": lambda k, n, **options: run(Released(**RELEASED), models(**options), k, n),
    "fixed": lambda k, n, **options: run(Fixed(times=2), models(**options), k, n),
    "repaint": lambda k, n, **options: run(Repaint(jump_length=2, resamplings=2), models(**options), k, n),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 6])
def test_mars_sde_of_order_1_samples_what_the_posterior_step_samples(name, steps):
    a = SAMPLERS[name](known(), SeededNoise([28, 29, 30]), solver="posterior", steps=steps)
    b = SAMPLERS[name](known(), SeededNoise([28, 29, 30]), solver="mars_sde", order=1, steps=steps)
    assert (a.texture - b.texture).abs().max() < 1e-4 * a.texture.abs().max()
    assert [[s.decisions for s in t.steps] for t in a.traces] == [[s.decisions for s in t.steps] for t in b.traces]
    second = SAMPLERS[name](known(), SeededNoise([28, 29, 30]), solver="mars_sde", order=2, steps=steps)
    assert (a.texture - second.texture).abs().max() > 1e-3 * a.texture.abs().max()


@pytest.mark.parametrize("method", ["ancestral", "posterior", "mars_ode", "mars_sde"])
@pytest.mark.parametrize(("steps", "early"), [(2, 2), (5, 4), (15, 10), (None, 10)])
def test_evaluations_are_as_many_as_steps(method, steps, early):
    """early: how many times of the grid lie at or above int(0.4 T) = 6."""

    def evaluations(name):
        trace = SAMPLERS[name](known(1), SeededNoise([0]), solver=method, steps=steps).traces[0]
        return [trace.evaluations(network) for network in ("texture", "structure", "discriminator")]

    N = steps or T
    assert evaluations("unguided") == [N, 0, 0]
    assert evaluations("none") == [N, early, 0]
    resampled = [n for n in range(N, N - early, -1) if n % RELEASED["jump"] == 0]
    assert evaluations("fixed") == [N, early + sum(2 * min(2, N - n + 1) for n in resampled), 0]
    texture, structure, scores = evaluations("released")
    redone = scores - early
    assert texture == N + redone and len(resampled) * RELEASED["u_min"] <= redone <= len(resampled) * (RELEASED["u_max"] - 1)
    assert early + redone <= structure <= early + 2 * redone


def test_what_order_2_remembers_is_averaged_and_accepted_with_the_state():
    state, new = State(torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), 7), State(torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 4.0), 7)
    mixed = state.mix([0, 2], new, torch.tensor([0.5, 1.0]))
    assert mixed.x.flatten().tolist() == [0.5, 0, 1] and mixed.q.flatten().tolist() == [2, 0, 4] and mixed.t_q == 7
    assert mixed[[2]].q.flatten().tolist() == [4] and State(state.x)[[1]].q is None


def test_paper_keeps_the_best_and_stops_at_the_threshold():
    def first_step(scores, **options):
        parts = models(discriminator=Scripted([*scores, *[9.0] * 1000]))
        return run(Paper(threshold=1.0, u_max=4, **options), parts, known(1), SeededNoise([0])).traces[0].steps[0]

    assert first_step([2.0]).decisions == []
    assert first_step([0.0, -1.0, 0.5, 1.5]).decisions == ["rejected", "accepted", "accepted"]
    assert first_step([0.0, -1.0, -1.0, -1.0, -1.0]).decisions == ["rejected"] * 4
    assert first_step([2.0, 0.5], accept="lower").decisions == ["accepted"]


def test_fixed_redoes_the_structure_alone():
    trace = run(Fixed(times=3, jump=4, re=2), models(discriminator=None), known(1), SeededNoise([0])).traces[0]
    early = [step for step in trace.steps if step.t >= early_end(T)]
    redone = {step.t: step.evaluations["structure"] - 1 for step in early}
    assert redone == {t: 3 * min(2, T - t + 1) if t % 4 == 0 else 0 for t in range(T, early_end(T) - 1, -1)}
    assert {step.evaluations["texture"] for step in trace.steps} == {1}
    coarse = run(Fixed(times=3, jump=4, re=2), models(discriminator=None, steps=6), known(1), SeededNoise([0])).traces[0]
    assert [(step.t, step.evaluations["structure"]) for step in coarse.steps] == [(15, 1), (13, 1), (10, 1 + 3 * 2), (8, 1), (5, 0), (3, 0)]
    nothing = run(Fixed(jump=T + 1), models(), known(), SeededNoise([28, 29, 30]))
    assert torch.equal(nothing.texture, run(Guided(), models(), known(), SeededNoise([28, 29, 30])).texture)


def test_repaint_timeline():
    assert timeline(3, 1, 1, 3, 0) == [(3, 2), (2, 1), (1, 0)]
    assert timeline(4, 2, 2, 4, 0) == [(4, 3), (3, 2), (2, 3), (3, 4), (4, 3), (3, 2), (2, 1), (1, 0), (0, 1), (1, 2), (2, 1), (1, 0)]
    moves = timeline(100, 10, 10, 60, 20)
    ups = [move for move in moves if move[1] > move[0]]
    assert len(ups) == 4 * 9 * 10  # at 20, 30, 40 and 50
    assert min(a for a, _ in ups) == 20 and max(b for _, b in ups) == 60
    assert all(b == c for (_, b), (c, _) in zip(moves, moves[1:], strict=False))


def test_repaint_jumps_over_steps_of_the_grid():
    grid = TimeGrid(sde, 5)  # 15, 12, 9, 6, 3, 0
    assert jump_range(grid, None, 0, guided=False) == (5, 0) and jump_range(grid, None, 0, guided=True) == (5, 1)
    assert jump_range(grid, 11, 4, guided=False) == (3, 2)  # from 9 to 6
    trace = run(Repaint(jump_length=2, resamplings=2), models(steps=5), known(1), SeededNoise([0])).traces[0]
    assert [step.t for step in trace.steps] == [15, 12, 9, 12, 15, 12, 9, 6, 3, 6, 9, 6, 3]
    full = TimeGrid(sde)
    assert jump_range(full, None, 0, guided=True) == (T, early_end(T) - 1) and jump_range(full, 9, 7, guided=True) == (9, 7)


def test_unguided_sampling_with_the_exact_noise_returns_x0():
    """A denoiser that knows the truth leads the reverse SDE to it; the posterior and MaRS steps exactly, in however few."""
    k = known()

    class Oracle:
        sde = sde

        def noise(self, x, mu, t, S=None):
            return sde.predict_noise(x, mu, k.image, t)

        def x0(self, x, mu, t, S=None):
            return k.image

    for method in ("posterior", "mars_ode", "mars_sde"):
        for steps in (2, 5, None):
            found = run(Unguided(), (Networks(Oracle()), Stepping(method, steps=steps)), k, SeededNoise([1, 2, 3])).texture
            assert (found - k.image).abs().max() < 1e-4
    ancestral = run(Unguided(), (Networks(Oracle()), Stepping()), k, SeededNoise([1, 2, 3])).texture
    assert (ancestral - k.image).abs().mean() < 0.02


def test_callback_and_trace():
    seen = []
    found = run(Released(**RELEASED), models(), known(), SeededNoise([28, 29, 30]), lambda m: seen.append((m.n, m.to, m.y.x.shape)))
    assert seen == [(T, T, (3, 3, SIZE, SIZE)), *((t, t - 1, (3, 3, SIZE, SIZE)) for t in range(T, 0, -1))]
    seen.clear()
    run(Guided(), models(steps=5), known(), SeededNoise([28, 29, 30]), lambda m: seen.append((m.n, m.to)))
    assert seen == [(5, 5), (5, 4), (4, 3), (3, 2), (2, 1), (1, 0)]
    step = json.loads(json.dumps(found.traces[0].as_dict()))["steps"][0]
    assert step["t"] == T
    assert len(step["scores"]) == len(step["decisions"]) + 1 == step["discriminator_evaluations"]


def test_noise_of_an_image_hangs_on_its_seed_alone():
    a, b = SeededNoise([1, 2, 3]), SeededNoise([2])
    like = torch.zeros(3, 1, 4, 4)
    assert torch.equal(a([0, 1, 2], like)[1], b([0], like[:1])[0])
    assert torch.equal(a([1], like[:1]), b([0], like[:1]))
    assert not torch.equal(a([0], like[:1]), a([2], like[:1]))


def test_a_solver_of_ones_own_is_counted_as_it_evaluates(monkeypatch):
    """Heun's method on the predicted x0: two evaluations in every step but the last."""

    def heun(state, step):
        q = step.x0(state.x)

        def solution(to):
            x = mars_step(step.sde, state.x, step.mu, q, step.t, to)
            return State(x if to == 0 else mars_step(step.sde, state.x, step.mu, (q + step.x0(x, to)) / 2, step.t, to))

        return solution

    monkeypatch.setitem(SOLVERS, "heun", heun)
    result = run(Unguided(), plain(solver="heun", steps=5), known(2), SeededNoise([1, 2]))
    assert [trace.evaluations("texture") for trace in result.traces] == [2 * 5 - 1] * 2
    assert count_evaluations(SamplerConfig(solver="heun", steps=5, resampling="none"), sde, False)["texture"] == Evaluations(9, 9)
    settled = run(Unguided(), plain(solver="mars_ode", steps=5, order=1), known(2), SeededNoise([1, 2]))
    assert 0 < (result.texture - settled.texture).abs().max() < 1  # near MaRS of order 1, but not the same
