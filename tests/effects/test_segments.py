"""A pass in blocks on several threads gives what it gives in one piece."""

import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.internals import segments
from lpmppl.effects.internals.segments import BLOCK, at_work, by_blocks

N = 2 * BLOCK + 17


@pytest.fixture
def values():
    return torch.arange(3 * N, dtype=torch.float32).reshape(3, 1, N) / N


def test_by_blocks_puts_together_several_tensors_of_several_shapes(values):
    lead = torch.tensor([[1.0], [2.0]])
    asked = []

    def work(part):
        asked.append(part)
        return values[..., part].exp() * lead, values[0, 0, part] > 0.5

    expected = work(slice(0, N))
    asked.clear()
    with at_work():
        scaled, above = by_blocks(N, work)
    assert torch.equal(scaled, expected[0]) and torch.equal(above, expected[1])
    assert above.dtype == torch.bool and scaled.shape == (3, 2, N)
    assert max(part.stop - part.start for part in asked) == BLOCK
    assert torch.equal(by_blocks(N, lambda part: values[..., part] + 1), values + 1)


def test_by_blocks_keeps_a_derivative(values):
    x = torch.tensor(2.0, requires_grad=True)
    by_blocks(N, lambda part: values[..., part] * x).sum().backward()
    assert x.grad.item() == pytest.approx(float(values.sum()), rel=1e-4)


def test_by_blocks_passes_on_what_goes_wrong_on_a_thread(values):
    def work(part):
        if part.start >= BLOCK:
            raise RuntimeError("too far")
        return values[0, 0, part]

    with at_work(), pytest.raises(RuntimeError, match="too far"):
        by_blocks(N, work)


def test_the_length_of_blocks_changes_nothing(monkeypatch):
    model = lpm.nyc.pandemic(lpm.nyc.population(3_000))

    def tallies():
        run = lpm.run(model, days=50, seed=2, interventions=[("doses_per_day", 0.01, 0)])
        return run["prior_predictive"].to_dataset()

    whole = tallies()
    monkeypatch.setattr(segments, "BLOCK", 257)
    monkeypatch.setattr(segments.blocked, "__defaults__", (257, *segments.blocked.__defaults__[1:]))
    assert tallies().equals(whole)
    assert float(whole["doses"].sum()) > 0 and float(whole["spending"].sum()) > 0
