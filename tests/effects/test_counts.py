"""Counts of many events: their characteristic function, how they part, and who they happen to, against all ways."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lpmppl.effects.internals import counts
from lpmppl.effects.internals.characteristic import Characteristic
from lpmppl.effects.internals.parting import parted
from tests.oracles import RATE, chi_square

CLASSES = torch.tensor(
    [[0.001, 0.02], [0.3, 0.015], [0.0, 0.25], [0.9, 0.2], [1.0, 0.0], [0.1, 0.6], [0.002, 0.003]], dtype=torch.float64
)
"""Chances of seven in each of two parts, of all classes."""


def law(chances):
    found = np.array([1.0])
    for q in chances:
        found = np.convolve(found, [1 - q, q])
    return found


@pytest.mark.parametrize("unions", [1, 2])
def test_the_characteristic_function_is_that_of_the_law(unions):
    angle = torch.linspace(0, 3, 11, dtype=torch.float64)
    weight = torch.arange(14, dtype=torch.float64).view(7, 2) % 3
    size, turn = Characteristic(CLASSES, weight).log(angle, unions)
    for k, (q, many) in enumerate(zip(CLASSES.T.reshape(unions, -1), weight.T.reshape(unions, -1), strict=True)):
        pmf = torch.from_numpy(law(np.repeat(q.numpy(), many.int().numpy())))
        turned = torch.polar(torch.ones(1, dtype=torch.float64), angle[:, None] * torch.arange(len(pmf)))
        assert torch.allclose(torch.polar(size[k].exp(), turn[k]), (pmf * turned).sum(-1), rtol=1e-12, atol=1e-14)


def test_parts_have_the_law_that_is_left_once_the_count_is_known():
    """Failure rate RATE: a chi-square over the counts of four parts."""
    q = torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q[2, 1], q[0, 3], q[1, 3] = 0.0, 1.0, 0.001
    laws, count = [law(column) for column in q.T.numpy()], 6
    exact = {
        ways: float(np.prod([pmf[a] for pmf, a in zip(laws, ways, strict=True)]))
        for ways in itertools.product(range(5), repeat=4)
        if sum(ways) == count
    }
    exact = {ways: p / sum(exact.values()) for ways, p in exact.items() if p > 0}
    chance = torch.rand(4000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen: dict[tuple[int, ...], int] = {}
    for u in chance:
        ways = tuple(parted(q, count, u).tolist())
        seen[ways] = seen.get(ways, 0) + 1
    assert chi_square(seen, exact) > RATE


def test_those_who_are_all_but_sure_lose_no_digits():
    """Of forty whose log-odds lie beyond 20, as of everybody."""
    p = torch.tensor([1 - 1e-10] * 40 + [0.3, 0.4], dtype=torch.float64)
    assert float(counts.log_probability(p, 41)) == pytest.approx(float(np.log(law(p.numpy())[41])), abs=1e-12)


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Parts of some two agents each, as of thousands of events among millions."""
    monkeypatch.setattr(counts, "_VARIANCE", 0.4)
    monkeypatch.setattr(counts, "_DEAR", 0)


@pytest.mark.usefixtures("few_at_a_time")
def test_who_it_happens_to_by_parts_has_the_law_given_the_count():
    """Failure rate RATE: a chi-square over all ways; the seventh agent can't, the eighth is sure."""
    p = torch.tensor([0.02, 0.3, 0.35, 0.55, 0.9, 0.4, 0.0, 1.0, 0.2], dtype=torch.float64)
    exact = {}
    for ways in itertools.product((0, 1), repeat=len(p)):
        chance = float(np.prod([float(x) if y else 1 - float(x) for x, y in zip(p, ways, strict=True)]))
        if sum(ways) == 4 and chance > 0:
            exact[ways] = chance
    exact = {ways: x / sum(exact.values()) for ways, x in exact.items()}
    assert int(counts._parts(counts._tilted(p[None], ((p > 0) & (p < 1))[None], torch.tensor([3])))) == 4
    rows, generator = 3000, torch.Generator().manual_seed(2)
    chance = torch.rand(400, rows, len(p), dtype=torch.float64, generator=generator)

    def uniforms(rows, attempt, places):
        return chance[attempt, rows] if places is None else chance[attempt, rows][:, places]

    found = counts.chosen(p.expand(rows, -1), 4, uniforms)
    for k in range(3):
        alone = counts.chosen(p, 4, lambda _, attempt, places, k=k: uniforms(torch.tensor([k]), attempt, places))
        assert torch.equal(alone, found[k])
    seen: dict[tuple[int, ...], int] = {}
    for ways in map(tuple, found.int().tolist()):
        seen[ways] = seen.get(ways, 0) + 1
    assert chi_square(seen, exact) > RATE


def test_of_a_city_the_likelier_are_chosen_more_often():
    """Failure rate RATE: a chi-square over ten kinds of agents, chosen about as often as when tilted."""
    generator = torch.Generator().manual_seed(3)
    p = 0.02 * torch.rand(200_000, dtype=torch.float64, generator=generator) ** 2
    q = counts._tilted(p[None], p[None] > 0, torch.tensor([2500]))[0]
    kind = (10 * q / q.max()).clamp(max=9).long()
    found = counts.chosen(
        p,
        2500,
        lambda rows, _, places: torch.rand(
            len(rows), len(p) if places is None else len(places), dtype=torch.float64, generator=generator
        ),
    )
    assert int(found.sum()) == 2500
    expected = torch.zeros(10, dtype=torch.float64).index_add(0, kind, q) / 2500
    seen = torch.bincount(kind[found], minlength=10)
    assert chi_square(dict(enumerate(seen.tolist())), dict(enumerate(expected.tolist()))) > RATE


def test_where_most_are_likely_it_is_waited_for():
    q = torch.full((1, 4000), 0.4, dtype=torch.float64)
    assert int(counts._parts(q)) == 1
    assert int(counts._parts(q / 4)) > 1
