"""A sum that nobody has: a tensor that goes where totals go, and has nothing to read."""

from __future__ import annotations

import pytest
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import FixedPoint, SecretShared
from lpmppl.effects.handlers.compared import InClear
from lpmppl.effects.hidden import Hidden
from lpmppl.effects.internals.honest_majority import HonestMajority
from lpmppl.effects.opening import Compared
from lpmppl.effects.ops import ring_sum, running
from lpmppl.errors import LpmError
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population

N = 150
AREA = Groups("area", torch.arange(N) % 3, 3)
ILL = torch.arange(N) % 7 == 0


def clear() -> FixedPoint:
    return FixedPoint(opening=Compared())


def hidden(total=None) -> Hidden:
    with clear():
        return ring_sum(ILL.int(), AREA, total)


def test_a_hidden_sum_is_a_tensor_without_values():
    total = hidden()
    assert (total.shape, total.dtype, total.dim(), len(total)) == ((3,), torch.int32, 1, 3)
    assert not total.is_floating_point()
    assert total.device == ILL.device
    assert total.to(torch.int32) is total.detach() is total.clone() is total
    assert "area" in repr(total)
    assert (total.most.tolist(), hidden(torch.zeros(3, dtype=torch.int64)).dtype) == ([50, 50, 50], torch.int64)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x[0],
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x.float(),
        lambda x: x.to(torch.int64),
        lambda x: bool(x),
        lambda x: list(x),
        lambda x: torch.stack([x, x]),
        lambda x: torch.equal(x, x),
        lambda x: torch.ones(3, dtype=torch.int32).add_(x),
        lambda x: running(x, AREA).dense(),
        lambda x: running(x, AREA) + torch.ones(N),
        lambda x: Exposure(torch.zeros(N).double(), running(x, AREA), ILL).after,
        lambda x: Population.of({"area": AREA.index.numpy()}).cohort(ILL).read(running(x, AREA)),
    ],
)
def test_whoever_reads_a_hidden_sum_is_told_what_to_do(read):
    with pytest.raises(LpmError, match=r"the sum of 'area' is never opened: .* Exposure and happens; .*Custodian"):
        read(hidden())


def test_a_running_total_goes_on_from_a_hidden_one_in_more_worlds():
    change = torch.stack([ILL.long(), -ILL.long(), torch.zeros(N, dtype=torch.long)])[:, None]
    for handler, among in ((clear(), InClear()), (SecretShared(3, opening=Compared(), quiet=True), HonestMajority(3))):
        with handler:
            total = ring_sum(change, AREA, ring_sum(ILL.long(), AREA, torch.tensor([5, 0, -1])))
        ill = AREA.total(ILL.long()) + torch.tensor([5, 0, -1])
        expected = torch.stack([ill + AREA.total(change[k, 0]) for k in range(3)])[:, None]
        assert torch.equal(torch.from_numpy(among.revealed(total.payload.numpy())), expected)
        assert (total.shape, handler.hidden) == ((3, 1, 3), 4)
