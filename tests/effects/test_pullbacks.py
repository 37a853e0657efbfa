"""What a tape keeps of totals on groups: the same numbers in few bytes, however many of them aren't zero."""

from __future__ import annotations

import pytest
import torch

from lpmppl.effects.ops import running
from lpmppl.effects.pullbacks import Bits, _Few
from lpmppl.models.population import Population

GROUPS = 10_000


@pytest.mark.parametrize(
    ("share", "most"),
    [(0.0, 0.1), (0.01, 0.1), (0.02, 0.2), (0.1, 0.6), (0.5, 2.2), (0.85, 3.6), (0.95, 4.0), (1.0, 4.0)],
)
def test_totals_are_kept_exactly_and_in_few_bytes(share, most):
    chance = torch.Generator().manual_seed(1)
    total = torch.randint(1, 2**20, (GROUPS,), generator=chance, dtype=torch.int32)
    total[torch.randperm(GROUPS, generator=chance)[: GROUPS - round(share * GROUPS)]] = 0
    kept = _Few.of(total)
    where = kept.where.kept if isinstance(kept.where, Bits) else kept.where
    assert kept.values.nbytes + (0 if where is None else where.nbytes) <= most * GROUPS
    assert torch.equal(kept.whole((), ()), total.float())
    weights = torch.rand(GROUPS, generator=chance, dtype=torch.float64)
    assert float(kept.dot((), (), weights)) == pytest.approx(float(torch.dot(total.double(), weights)), rel=1e-12)


def test_totals_of_several_worlds_are_kept_by_row():
    total = torch.zeros(2, GROUPS, dtype=torch.int32)
    total[0, ::5], total[1, 1::5] = 3, 4
    kept = _Few.of(total)
    weights = torch.arange(GROUPS).double()
    for row in (0, 1):
        assert torch.equal(kept.whole((2,), (row,)), total[row].float())
        assert float(kept.dot((2,), (row,), weights)) == float(torch.dot(total[row].double(), weights))


def test_weights_of_groups_are_multiplied_once_and_again_where_they_change():
    groups = Population.of({"household": [0, 0, 1]}).network("household")
    weight, total = torch.tensor([1.0, 2.0]), torch.tensor([2**16, 2**16], dtype=torch.int32)
    first, again = groups.share("mean", weight), groups.share("mean", weight)
    assert first is again
    assert running(total, groups, weight=weight).dense().tolist() == [0.5, 0.5, 2.0]
    weight *= 3.0
    assert running(total, groups, weight=weight).dense().tolist() == [1.5, 1.5, 6.0]
    with torch.inference_mode():
        weight = torch.tensor([1.0, 2.0])
        for times in (1.0, 3.0):
            assert groups.share("mean", weight.mul_(times)).tolist() == [0.5 * times, 2.0 * times]
    with_derivative = torch.tensor([1.0, 2.0], requires_grad=True)
    running(total, groups, weight=with_derivative).dense().sum().backward()
    assert with_derivative.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0])])
def test_derivatives_go_through_shares_that_a_run_in_inference_mode_has_left(weight):
    groups = Population.of({"household": [0, 0, 1]}).network("household")
    with torch.inference_mode():
        groups.share("mean", weight)
    total = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    running(total, groups, weight=1.0 if weight is None else weight).dense().sum().backward()
    assert (total.grad * 2**16).tolist() == [1.0, 1.0 if weight is None else 2.0]
