"""The counter-based noise: uniform, without visible dependence between its keys, and the same numbers as ever."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.effects.internals.streams import exponential, stream, uniform
from lpmppl.effects.plates import AgentPlate
from tests.oracles import RATE, two_sided

N = 200_000
IDS = torch.arange(N)


def draw(seed=0, site="infection", ids=IDS, draw=0, step=0):
    return uniform(ids, stream(seed, site), draw, step).numpy()


# Neighbouring keys of every kind, beside the stream that they are compared with.
KEYS = {
    "seed": [{"seed": k} for k in (1, 2, 3, 255, 2**31, 2**63)],
    "site": [{"site": k} for k in ("infection.left", "recovery", "infectioo", "Infection", "")],
    "draw": [{"draw": k} for k in (1, 2, 3, 1_000)],
    "step": [{"step": k} for k in (1, 2, 3, 1_000)],
    "step and draw": [{"draw": 1, "step": 1}, {"draw": 1, "step": 2}, {"draw": 2, "step": 1}],
    "agent": [{"ids": IDS + k} for k in (1, 2, 3, 64, 4_096)],
}


@pytest.mark.parametrize("key", [{}, *itertools.chain(*KEYS.values())], ids=lambda k: "-".join(map(str, k)) or "none")
def test_noise_is_uniform(key):
    """Failure rate 1e-6 each: of the values, and of their last bits that a test can see."""
    u = draw(**key)
    assert 0 < u.min() < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > RATE / 2
    assert stats.kstest((u * 2**20) % 1, "uniform").pvalue > RATE / 2


@pytest.mark.parametrize("kind", KEYS)
def test_noise_of_neighbouring_keys_is_independent(kind):
    """Failure rate 1e-6 each: no correlation, nor of deviations from the middle, and pairs fill the square evenly."""
    keys, base = KEYS[kind], draw()
    p = []
    for key in keys:
        other = draw(**key)
        shapes = (lambda u: u, lambda u: abs(u - 0.5), lambda u: np.sin(2 * np.pi * u))
        p += [two_sided(np.corrcoef(f(base), f(other))[0, 1] * np.sqrt(N)) for f in shapes]
        cells = np.histogram2d(base, other, bins=16, range=((0, 1), (0, 1)))[0]
        p.append(stats.chi2.sf(((cells - N / 256) ** 2 / (N / 256)).sum(), 255))
    assert min(p) > RATE / len(p)


def test_consecutive_agents_fill_the_cube_evenly():
    """Failure rate 1e-6."""
    u = draw()[: N // 3 * 3].reshape(-1, 3)
    cells = np.histogramdd(u, bins=10, range=[(0, 1)] * 3)[0]
    expected = len(u) / 1000
    assert stats.chi2.sf(((cells - expected) ** 2 / expected).sum(), 999) > RATE


def test_one_agent_over_steps_and_draws_is_uniform_and_uncorrelated():
    """Failure rate 1e-6: the noise down the other axes, of a single agent."""
    one = torch.zeros(1, dtype=torch.int64)
    steps = torch.arange(50_000).unsqueeze(-1)
    series = {
        "steps": uniform(one, stream(0, "s"), 0, steps),
        "draws": uniform(one, stream(0, "s"), steps, 0),
        "episodes": uniform(one, stream(0, "s/episode"), 0, steps),
        "seeds": torch.cat([uniform(one, stream(k, "s"), 0, 0) for k in range(20_000)]),
        "sites": torch.cat([uniform(one, stream(0, f"s{k}"), 0, 0) for k in range(20_000)]),
    }
    p = []
    for u in (x.flatten().numpy() for x in series.values()):
        p += [stats.kstest(u, "uniform").pvalue]
        p += [two_sided(np.corrcoef(u[:-lag], u[lag:])[0, 1] * np.sqrt(len(u))) for lag in (1, 2, 8)]
    assert min(p) > RATE / len(p)


def test_flipping_a_bit_of_any_key_flips_half_of_the_bits():
    """Failure rate 1e-6 for the mean over 20,000 agents of every bit of the id and the step, and of the seed."""
    ids = torch.arange(20_000) * 997
    word = lambda *key: (uniform(*key) * 2**52).long().numpy()  # noqa: E731
    base = word(ids, stream(0, "s"), 0, 0)
    others = [word(ids ^ (1 << k), stream(0, "s"), 0, 0) for k in range(32)]
    others += [word(ids, stream(0, "s"), 0, 1 << k) for k in range(20)]
    others += [word(ids, stream(1 << k, "s"), 0, 0) for k in range(63)]
    flips = np.array([np.bitwise_count(base ^ other).sum() for other in others])
    bits = 52 * len(ids)
    assert two_sided((flips - bits / 2) / np.sqrt(bits / 4)).min() > RATE / len(flips)


def test_no_two_agents_of_a_stream_share_their_noise():
    assert len(np.unique(draw(ids=torch.arange(2_000_000)))) == 2_000_000


def test_resistances_are_standard_exponential_far_into_the_tail():
    """Failure rate 1e-6, over the whole law and the numbers beyond 8 and 12."""
    n = 4_000_000
    r = exponential(torch.arange(n), stream(3, "infection"), 0, 0).numpy()
    assert r.dtype == np.float32
    assert r.min() > 0
    p = [stats.kstest(r[:N], "expon").pvalue]
    p += [stats.binomtest(int((r > x).sum()), n, float(np.exp(-x))).pvalue for x in (8, 12)]
    p += [stats.binomtest(int((r < x).sum()), n, float(-np.expm1(-x))).pvalue for x in (1e-3, 1e-5)]
    assert min(p) > RATE / len(p)


def test_keys_as_numbers_and_as_tensors_give_the_same_bits():
    key = stream(5, "site")
    ids = torch.tensor([0, 1, 77, 2**31, 2**32 - 1])
    whole = uniform(ids, key, torch.arange(4).unsqueeze(-1), torch.tensor(9))
    mixed = uniform(ids, key, torch.arange(4).unsqueeze(-1), 9)
    apart = torch.stack([uniform(ids, key, d, 9) for d in range(4)])
    assert torch.equal(whole, apart)
    assert torch.equal(mixed, apart)
    assert torch.equal(uniform(ids[:3].int(), key, 2, 9), apart[2, :3])
    assert torch.equal(exponential(ids, key, 3, 9), exponential(ids, key, torch.tensor(3), torch.tensor([9])))
    assert torch.equal(uniform(ids.flip(0), key, 0, 9), apart[0].flip(0))


def test_resistances_belong_to_ids_wherever_those_lie_in_memory():
    noise, ids = ExogenousNoise(1), torch.arange(10)
    whole = noise.resistance("infection", ids)
    assert torch.equal(noise.resistance("infection", ids[:5]), whole[:5])
    assert torch.equal(noise.resistance("infection", ids[::2]), whole[::2])


GOLDEN = {
    (0, "infection", 0, 0): [0.7696104906160716, 0.30492815979700627, 0.687390866116372],
    (0, "infection", 0, 1): [0.893124929857536, 0.7638241494844346, 0.8522097579672564],
    (1, "infection", 0, 0): [0.8480769411924184, 0.7936227280592193, 0.7702850366460202],
    (2**63, "latent_period/episode", 7, 3): [0.7087803924395816, 0.4652517754254223, 0.5240494963600587],
}


@pytest.mark.parametrize("key", GOLDEN)
def test_the_numbers_are_those_of_every_version(key):
    """A change here changes every published result: it needs an entry in the changelog."""
    seed, site, draw, step = key
    assert uniform(torch.tensor([0, 1, 4_294_967_295]), stream(seed, site), draw, step).tolist() == GOLDEN[key]


@pytest.mark.parametrize("step", [None, 7])
@pytest.mark.parametrize("what", ["uniform", "flip", "flips"])
def test_a_large_populations_site_is_that_of_its_people(what, step):
    """The block-wise draw gives each agent what the agent alone would get."""
    n = 300_000
    ids = torch.arange(n, dtype=torch.int32)
    p = torch.linspace(0.0, 1.0, n)
    some = torch.tensor([0, 1, 131_071, 131_072, 262_143, n - 1])

    def law(at):
        return {
            "uniform": dist.Uniform(torch.tensor(-1.0), 2.0),
            "flip": dist.Bernoulli(torch.tensor(0.3)),
            "flips": dist.Bernoulli(p[at]),
        }[what]

    def draw(at):
        with ExogenousNoise(5), AgentPlate("agents", ids[at], None if step is None else 3):
            return pyro.sample("x", law(at))

    everybody, few = draw(slice(None)), draw(some)
    assert everybody.dtype == few.dtype
    torch.testing.assert_close(everybody[some], few, rtol=0, atol=0)
