"""A pass in blocks on several threads gives what it gives in one piece."""

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects import hazards
from lpmppl.effects.cohorts import Cohort, at
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.internals import segments
from lpmppl.effects.internals.segments import BLOCK, at_work, by_blocks
from lpmppl.effects.ops import aggregate
from lpmppl.models.population import Population

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


@pytest.mark.parametrize("lead", [(3, 1), (2, 4)])
@pytest.mark.parametrize("n", [7, 300_000])
def test_what_worlds_share_reads_as_if_each_had_its_own(lead, n):
    """Expanded tensors, which hold one world's values for all, against copies that hold each world's."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(n, generator=generator)
    inner = torch.rand(lead[1], n, generator=generator)
    shape = torch.Size((*lead, n))
    where = torch.randperm(shape.numel(), generator=generator)[: n // 2].sort().values
    index = torch.randint(0, n, (n // 3,), generator=generator, dtype=torch.int32)
    for wide in (x.expand(shape), inner.expand(shape)):
        own = wide.contiguous().clone()
        assert torch.equal(segments.positions(wide > 0.5), segments.positions((own > 0.5).clone()))
        assert torch.equal(
            segments.positions(wide, above=0.2, below=0.4), segments.positions(own, above=0.2, below=0.4)
        )
        assert torch.equal(at(wide, shape, where), own.view(-1)[where])
        assert torch.equal(segments.pick(wide, index), own[..., index.long()])
        with segments.at_work():
            mine = segments.copy(wide)
        assert torch.equal(mine, own) and mine.is_contiguous()
    assert torch.equal(segments.positions((x > 0.5).expand(shape)), (x > 0.5).expand(shape).flatten().nonzero()[:, 0])
    with segments.at_work():
        assert torch.equal(segments.copy(x, shape), x.expand(shape))


def test_buffers_that_are_of_no_more_use_are_given_back():
    one_world, two_worlds = 2 * segments.LARGE, 4 * segments.LARGE
    with segments.at_work():
        kept = segments.empty((one_world,), torch.uint8, torch.device("cpu"))
        for _ in range(3):
            several = [segments.empty((one_world,), torch.uint8, torch.device("cpu")) for _ in range(4)]
            del several
        count = len(segments._buffers.storages)
        assert count == 5
        for _ in range(2 * segments.IDLE):
            segments.empty((two_worlds,), torch.uint8, torch.device("cpu"))
        sizes = sorted(storage.nbytes() for storage in segments._buffers.storages)
        assert sizes == [one_world, two_worlds] and kept.data_ptr()


@pytest.mark.parametrize("factors", [0, 1, 2])
def test_a_sum_is_met_in_one_loop_as_it_is_leaf_by_leaf(factors, monkeypatch):
    rng = np.random.default_rng(factors)
    people = Population.of(
        {"home": np.arange(N) // 3, "work": rng.integers(0, 9_000, N), "area": np.arange(N) // 2_000}
    )
    ill = torch.from_numpy(rng.random((2, N)) < 0.1)
    field = sum(aggregate(ill, people.network(name)) for name in ("home", "work", "area")) * 0.3
    for _ in range(factors):
        field = field * torch.from_numpy(rng.random(N)).float()
    before, risk = torch.from_numpy(rng.random(N)), torch.from_numpy(rng.random((2, N)) < 0.6)
    resistance = torch.from_numpy(rng.exponential(size=N)).float()
    loops = []
    ours = hazards.meeting_sum

    def met(at_once):
        monkeypatch.setattr(hazards, "meeting_sum", lambda *x: loops.append(ours(*x) if at_once else None) or loops[-1])
        with at_work():
            exposure = Exposure(before, field, risk, dt=0.5)
            event = exposure.meet(resistance)
            return exposure.after.clone(), event.clone(), Cohort.of(event).where.clone()

    whole, parts = met(True), met(False)
    assert loops[0] is not None and loops[-1] is None
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert len(whole[2]) > 1_000 and torch.equal(whole[1].reshape(-1).nonzero().squeeze(-1), whole[2])


@pytest.mark.parametrize(
    "change",
    [
        {"leaves": [(torch.ones(5), None)]},
        {"leaves": [(torch.ones(5, dtype=torch.float64), torch.zeros(N, dtype=torch.int32))]},
        {"leaves": [(torch.ones(5), torch.zeros(1, dtype=torch.int32).expand(N))]},
        {"factors": [torch.ones(1)]},
        {"factors": [torch.ones(N, dtype=torch.float64)]},
    ],
    ids=str,
)
def test_other_sums_have_no_loop(change):
    given = {"leaves": [(torch.ones(5), torch.zeros(N, dtype=torch.int32))], "factors": [torch.ones(N)]}
    agents = torch.ones(N, dtype=torch.bool), torch.zeros(N), torch.zeros(N), torch.ones(N)
    rest = (*agents, torch.zeros(N, dtype=torch.bool))
    assert segments.meeting_sum(given["leaves"], given["factors"], *rest) is not None
    given |= change
    assert segments.meeting_sum(given["leaves"], given["factors"], *rest) is None
