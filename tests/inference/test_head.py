"""Posteriors that a network ends in: normal, or bent by a flow, each a density that its draws have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal

from lpmppl.errors import InputError
from lpmppl.inference.head import WIDTH, Bent, Head, ranks
from tests.oracles import chance, far


def task(*names):
    return SimpleNamespace(scale=SimpleNamespace(names=list(names)), context=torch.zeros(1))


def bent(size, batch=3, seed=0):
    """Posteriors that differ from the normal ones beneath them by some tenths of a standard deviation."""
    names = [f"p{k}" for k in range(size)]
    with chance(seed):
        head = Head([names], 1, size, "spline")
        for layer in head.flows.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.data *= 8
        found = head(task(*names), torch.randn(batch, 2, 2 * WIDTH))
    assert isinstance(found, Bent)
    return found


def test_the_density_of_one_number_is_one_in_all():
    found = bent(1)
    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64)[:, None, None].expand(-1, 3, 1)
    density = found.log_prob(grid).exp().detach()
    assert torch.allclose(density.sum(0) * 24 / 24_000, torch.ones(3, dtype=torch.float64), atol=2e-3)
    assert float((density - found.normal.log_prob(grid).exp().detach()).abs().max()) > 0.02


@pytest.mark.parametrize("size", [1, 2, 4])
def test_draws_have_the_density(size):
    """Failure rate RATE: the mean over draws of another density over this one is 1."""
    found = bent(size)
    with chance(1), torch.no_grad():
        u = found.sample((4000,))
        assert u.shape == (4000, 3, size) and u.dtype == torch.float64
        other = LowRankMultivariateNormal(
            found.normal.mean, found.normal.cov_factor / 2, found.normal.cov_diag / 4, validate_args=False
        )
        ratio = (other.log_prob(u) - found.log_prob(u)).exp()
    assert bool(((ratio.mean(0) - 1).abs() < far(3 * 3) * ratio.std(0) / 4000**0.5).all())
    assert bool((ratio.std(0) < 10).all())


@pytest.mark.parametrize("guide", ["multivariate-normal", "spline"])
def test_ranks_are_where_numbers_are_among_draws(guide):
    with chance(2):
        found = Head([("a", "b")], 1, 2, guide)(task("a", "b"), torch.randn(5, 2, 2 * WIDTH))
        draws = found.sample((4000,))
    before = torch.get_rng_state()
    rank = ranks(found, draws[0], seed=7)
    assert torch.equal(before, torch.get_rng_state())
    assert float((rank.detach() - (draws < draws[0]).double().mean(0)).abs().max()) < 0.12  # 400: five errors


def test_a_flow_tells_what_no_normal_law_can():
    """A number and its square: of the true law's 1.54 nats above the normal one's, most is told."""
    losses = {}
    for guide in ("multivariate-normal", "spline"):
        with chance(3):
            head = Head([("a", "b")], 1, 2, guide)
            optimizer = torch.optim.Adam(head.parameters(), 5e-3)
            last = []
            for _ in range(400):
                a = torch.randn(256, dtype=torch.float64)
                u = torch.stack((a, a**2 + 0.3 * torch.randn(256, dtype=torch.float64)), -1)
                loss = -head(task("a", "b"), torch.zeros(256, 1, 2 * WIDTH)).log_prob(u).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                last.append(float(loss.detach()))
        losses[guide] = sum(last[-50:]) / 50
    assert losses["spline"] < losses["multivariate-normal"] - 1.0


def test_societies_with_the_same_parameters_share_a_flow_and_others_do_not():
    head = Head([("a", "b"), ("b",), ("a", "b")], 1, 2, "spline")
    assert len(head.flows) == 2
    read = torch.randn(1, 2, 2 * WIDTH)
    assert head(task("b"), read).event_shape == (1,)
    with pytest.raises(InputError, match="no flow of the parameters b, a together"):
        head(task("b", "a"), read)


def test_a_guide_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="did you mean 'spline'"):
        Head([("a",)], 1, 1, "splin")
