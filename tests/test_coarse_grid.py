"""Fewer steps than T: structure, guide and discriminator keep the times they were trained with (spec sec. 7, "Fewer steps")."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from strdiffusion import StrDiffusion
from strdiffusion.batch import Known
from strdiffusion.data import collate
from strdiffusion.denoiser import GivenX0
from strdiffusion.evaluation.options import TestConfig
from strdiffusion.figures.methods import Entry, first_items
from strdiffusion.samplers import (
    Fixed,
    Guided,
    Networks,
    Paper,
    Released,
    Repaint,
    Sampling,
    SeededNoise,
    Stepping,
    StructureAlone,
    TimeGrid,
    sample,
)
from strdiffusion.samplers.solvers import SOLVERS
from strdiffusion.sde import MeanRevertingSDE
from strdiffusion.system.parser import load_config

ROOT = Path(__file__).parents[1]
T = 20
sde = MeanRevertingSDE(T)
SAMPLERS = {
    "guided": Guided(),
    "structure": StructureAlone(),
    "released": Released(u_max=4, u_min=2, jump=1, re=2),
    "paper": Paper(threshold=1.0, u_max=3, re=2),
    "fixed": Fixed(times=2, jump=1, re=3),
    "repaint": Repaint(jump_length=2, resamplings=2),
}
GRIDS = {"every t": {}, "7 steps": {"steps": 7}, "6 in log_snr": {"steps": 6, "spacing": "log_snr"}}


class Asked:
    """Networks that write down what they are asked: the states, the times and the guides. They answer with the truth."""

    def __init__(self, known: Known):
        self.known, self.structures, self.guides, self.scored, self.draws = known, [], [], [], Counter()
        self.seeded = SeededNoise(range(len(known)))

    def noise(self, images, like):
        self.draws[like.shape[1]] += 1
        return self.seeded(images, like)

    def networks(self) -> Networks:
        asked, structure, texture = self, GivenX0(sde, self.known.maps["structure"]), GivenX0(sde, self.known.image)

        class Structure(GivenX0):
            def noise(self, x, mu, t, structure=None):
                asked.structures.append((t, x))
                return super().noise(x, mu, t)

            def x0(self, x, mu, t, structure=None):
                asked.structures.append((t, x))
                return super().x0(x, mu, t)

        class Texture(GivenX0):
            def noise(self, x, mu, t, structure=None):
                asked.guides.append((t, structure))
                return super().noise(x, mu, t)

            def x0(self, x, mu, t, structure=None):
                asked.guides.append((t, structure))
                return super().x0(x, mu, t)

        def discriminator(texture, structure, t, group):
            asked.scored.append(t)
            return torch.rand(len(texture), generator=torch.Generator().manual_seed(len(asked.scored)))

        return Networks(Texture(sde, texture.given), Structure(sde, structure.given), discriminator)

    def run(self, name: str, **stepping):
        return sample(SAMPLERS[name], Sampling(self.networks(), self.known, self.noise, Stepping(**stepping)))


def constant(known: int = 1, size: int = 96) -> Known:
    """Structure 0.8 and edges 0.3 everywhere, all known or all hole: a state's mean and deviation tell its time."""
    ones = torch.ones(1, 1, size, size)
    return Known(ones.expand(-1, 3, -1, -1), known * ones, {"structure": 0.8 * ones, "structure_mean": 0.3 * ones})


def assert_marginal(x: torch.Tensor, t: int) -> None:
    """x is a draw from the marginal of time t of `constant`: its mean and deviation within 5 standard errors.

    0.003 more, because sampling starts from the limit of the marginal, not from that of T.
    """
    mean, deviation, n = 0.3 + 0.5 * sde.decay[t].item(), sde.sigma_bar[t].item(), x.numel()
    assert abs(x.mean().item() - mean) < 5 * deviation / n**0.5 + 0.003, t
    assert abs(x.std().item() - deviation) < 5 * deviation / (2 * n) ** 0.5 + 1e-5, t


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["guided", "structure", "repaint"])
def test_the_known_part_of_a_state_at_t_is_of_the_time_before_it(name, grid):
    asked = Asked(constant())
    asked.run(name, solver="posterior", **GRIDS[grid])
    assert len(asked.structures) > 3
    for t, x in asked.structures:
        assert_marginal(x, t - 1)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_structure_redone_gets_the_known_part_of_one_draw(grid):
    """j steps above step n that is 1+j times before the state, as in the release, where it is t-1 for all of them."""
    asked = Asked(constant())
    asked.run("fixed", solver="posterior", **GRIDS[grid])
    times = TimeGrid(sde, **GRIDS[grid])
    states = iter(asked.structures)
    for n in range(times.N, times.early_end - 1, -1):
        t, x = next(states)
        z = (x - 0.3 - 0.5 * sde.decay[t - 1].item()) / sde.sigma_bar[t - 1].item() if t > 1 else None
        for _ in range(2):
            for j in reversed(range(min(3, times.N - n + 1))):
                t, x = next(states)
                assert t == times[n + j]
                assert_marginal(x, t - 1 - j)
                expected = 0.3 + 0.5 * sde.decay[t - 1 - j].item() + sde.sigma_bar[t - 1 - j].item() * z
                assert torch.allclose(x, expected, atol=1e-5)
    assert next(states, None) is None


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("solver", ["posterior", "mars_sde"])
def test_the_guide_of_a_texture_at_t_is_a_structure_at_the_time_before_it(solver, grid):
    """In the hole, with the truth as its prediction, the exact step leads to the marginal of the time it leads to."""
    asked = Asked(constant(known=0))
    asked.run("guided", solver=solver, order=1, **GRIDS[grid])
    times = TimeGrid(sde, **GRIDS[grid])
    early = [(t, guide) for t, guide in asked.guides if t >= times[times.early_end]]
    assert len(early) >= 3
    for t, guide in early:
        assert_marginal(guide, t - 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ["released", "paper"])
def test_the_discriminator_is_asked_as_if_its_pair_came_from_the_time_above(name, grid):
    asked = Asked(constant(size=8))
    asked.run(name, solver="posterior", **GRIDS[grid])
    times = TimeGrid(sde, **GRIDS[grid])
    wanted = [times[n - 1] + 1 for n in range(times.N, times.early_end - 1, -1)]
    assert list(dict.fromkeys(asked.scored)) == wanted


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [None, 7])
def test_state_and_guide_cost_one_evaluation_and_one_draw(solver, steps):
    asked = Asked(constant(size=8))
    traces = asked.run("guided", solver=solver, steps=steps).traces
    times = TimeGrid(sde, steps)
    early = times.N - times.early_end + 1
    assert len(asked.structures) == traces[0].evaluations("structure") == early and len(asked.guides) == times.N
    noisy = solver not in ("ode", "mars_ode")
    assert asked.draws == {1: 1 + early + noisy * early, 3: 1 + noisy * times.N}  # the start, the known structure, the steps


@pytest.mark.parametrize("solver", SOLVERS)
def test_where_no_time_is_left_out_the_guide_is_the_state(solver):
    asked = Asked(constant(size=8))
    run = Sampling(asked.networks(), asked.known, asked.noise, Stepping(solver, steps=15))
    n = next(n for n in range(run.N, 0, -1) if run.grid[n] == run.grid[n - 1] + 1)
    x = run.structure_step(run.known_structure(), run.start_structure(), next(run.follow([n])))
    assert x.guide is x.x
    n = next(n for n in range(run.N, 0, -1) if run.grid[n] > run.grid[n - 1] + 1)
    x = run.structure_step(run.known_structure(), run.start_structure(), next(run.follow([n])))
    assert not torch.equal(x.guide, x.x)


@pytest.fixture(scope="module")
def shipped():
    """shipped(steps): the hole PSNR of x0 as the shipped structure network predicts it for three test facades, in dB, by t down to 40."""
    model = StrDiffusion.load(ROOT / "weights" / "benchmark", device="cpu")
    config = load_config(TestConfig, ROOT / "configs" / "benchmark" / "test.yml", [f"checkpoints.folder={ROOT / 'weights' / 'benchmark'}"])
    items = [item for batch in first_items(Entry("", config), model.method, 3) for item in batch]
    known = collate(items)
    truth = torch.stack([torch.from_numpy(model.method.true_pictures(item.image())["structure"])[None] for item in items])

    def quality(steps: int | None) -> dict[int, float]:
        found = {}
        structure = model.method.predictors(known).structure

        class Recorded(GivenX0):
            def noise(self, x, mu, t, _=None):
                estimate = structure.x0(x, mu, t)
                squares = [(a - b)[hole].square().mean() for a, b, hole in zip(estimate, truth, known.mask < 0.5, strict=True)]
                found[t] = -10 * torch.stack(squares).log10().mean().item()
                return structure.sde.predict_noise(x, mu, estimate, t)

        networks = Networks(structure=Recorded(structure.sde, truth))
        run = Sampling(networks, known, SeededNoise(range(3)), Stepping("posterior", steps=steps))
        with torch.inference_mode():
            next(moment for moment in StructureAlone().steps(run) if run.grid[moment.n] == 40)
        return found

    return quality


def test_ten_steps_denoise_the_structure_as_well_as_a_hundred(shipped):
    """Pasting the known structure of grid[n-1] into the state at grid[n] costs 3 to 5 dB from t = 60 on."""
    all_of_them, ten = shipped(None), shipped(10)
    assert set(ten) == set(range(40, 101, 10))
    for t in ten:
        assert ten[t] > all_of_them[t] - 0.7, t
