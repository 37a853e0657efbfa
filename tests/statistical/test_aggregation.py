"""What reaches each agent, against dense matrices: random groups, graphs, messages, worlds and draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lpmppl.effects.cohorts import Cohort, dense
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.hazards import accumulate
from lpmppl.effects.ops import REDUCTIONS, aggregate, running, tally
from lpmppl.errors import InputError
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population

QUANTUM = 2.0**-16
LEADS = [(), (1,), (3,), (2, 1), (2, 1, 3)]

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
leads = st.sampled_from(LEADS)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def groups(rng, n, nowhere=True):
    count = int(rng.integers(1, 5))
    outside = int(rng.integers(count)) if nowhere and rng.random() < 0.5 else None
    network = Groups("groups", torch.from_numpy(rng.integers(0, count, n)), count, outside)
    index = network.index.numpy()
    return network, ((index[:, None] == index) & (index != outside)).astype(float)


def graph(rng, n):
    ends = rng.integers(0, n, (2, int(rng.integers(0, 3 * n + 1))))
    matrix = np.zeros((n, n))
    np.add.at(matrix, (ends[1], ends[0]), 1)
    return Edges("graph", *torch.from_numpy(ends), n), matrix


networks = st.sampled_from([groups, graph])


def messages(rng, shape, kind):
    """Messages that are multiples of the quantum: Booleans, numbers of either sign, or numbers that aren't negative."""
    if kind == "Boolean":
        return torch.from_numpy(rng.random(shape) < 0.4)
    low = 0 if kind == "positive" else -16
    return torch.from_numpy(rng.integers(low, 17, shape) / 16).float()


kinds = st.sampled_from(["Boolean", "positive", "signed"])


def brute(matrix, message, reduce):
    """What a dense matrix of neighbours says, in float64."""
    m = message.double().numpy()
    if reduce in ("sum", "mean"):
        total = np.einsum("ij,...j->...i", matrix, m)
        degree = matrix.sum(1)
        return total if reduce == "sum" else np.divide(total, degree, out=np.zeros_like(total), where=degree > 0)
    reached = np.where(matrix > 0, m[..., None, :], -np.inf if reduce == "max" else 0.0)
    if reduce == "any":
        return (reached != 0).any(-1).astype(float)
    return np.where((matrix > 0).any(1), reached.max(-1), 0.0)


@quick
@given(seeds, sizes, leads, networks, kinds, st.sampled_from(REDUCTIONS))
def test_aggregation_is_the_reduction_over_a_dense_matrix(seed, n, lead, kind, what, reduce):
    rng = np.random.default_rng(seed)
    network, matrix = kind(rng, n)
    message = messages(rng, (*lead, n), what)
    field = aggregate(message, network, reduce=reduce)
    assert field.shape == (*lead, n)
    np.testing.assert_allclose(dense(field).numpy(), brute(matrix, message, reduce), rtol=1e-6, atol=1e-7)


@quick
@given(seeds, sizes, leads, networks)
def test_messages_between_quanta_are_off_by_half_a_quantum_each_at_most(seed, n, lead, kind):
    rng = np.random.default_rng(seed)
    network, matrix = kind(rng, n)
    message = torch.from_numpy(rng.uniform(-1, 1, (*lead, n)))
    off = np.abs(dense(aggregate(message, network, reduce="sum")).numpy() - brute(matrix, message, "sum"))
    assert (off <= QUANTUM / 2 * matrix.sum(1) + 1e-5).all()


@quick
@given(seeds, sizes, leads, networks, kinds)
def test_a_cohort_or_sparse_message_equals_the_dense_one(seed, n, lead, kind, what):
    rng = np.random.default_rng(seed)
    network, _ = kind(rng, n)
    mask, message = messages(rng, (*lead, n), "Boolean"), messages(rng, (*lead, n), what)
    cohort = Cohort.of(mask)
    sparse = cohort.carrying(cohort.read(message))
    for reduce in REDUCTIONS:
        assert torch.equal(
            dense(aggregate(sparse, network, reduce=reduce)), dense(aggregate(message * mask, network, reduce=reduce))
        )
        assert torch.equal(
            dense(aggregate(cohort, network, reduce=reduce)), dense(aggregate(mask, network, reduce=reduce))
        )


@quick
@given(seeds, sizes, leads, leads, networks, st.booleans())
def test_a_running_total_equals_the_whole_recomputation(seed, n, first, then, kind, as_sparse):
    """Over three changes, with worlds and draws that part in between."""
    try:
        torch.broadcast_shapes(first, then)
    except RuntimeError:
        assume(False)
    rng = np.random.default_rng(seed)
    network, matrix = kind(rng, n)
    message = messages(rng, (*first, n), "positive")
    total = aggregate(message, network, reduce="sum").total
    for _ in range(3):
        mask = messages(rng, (*then, n), "Boolean")
        new = torch.where(mask, messages(rng, (*then, n), "positive"), message)
        change = new - message
        cohort = Cohort.of(change != 0)
        total = aggregate(cohort.carrying(cohort.read(change)) if as_sparse else change, network, onto=total).total
        message = new
        whole = aggregate(message, network, reduce="sum")
        assert torch.equal(total, whole.total)
        for reduce in ("sum", "mean"):
            expected = brute(matrix, message, reduce)
            np.testing.assert_allclose(dense(running(total, network, reduce)).numpy(), expected, rtol=1e-6, atol=1e-7)


@quick
@given(seeds, sizes, leads)
def test_a_change_without_worlds_reaches_every_world_of_the_total(seed, n, lead):
    rng = np.random.default_rng(seed)
    for network, _ in (groups(rng, n), graph(rng, n)):
        message, change = messages(rng, (*lead, n), "positive") / 2, messages(rng, (n,), "positive") / 2
        total = aggregate(message, network).total
        cohort = Cohort.of(change != 0)
        expected = aggregate(message + change, network).total
        assert torch.equal(aggregate(change, network, onto=total).total, expected)
        assert torch.equal(aggregate(cohort.carrying(cohort.read(change)), network, onto=total).total, expected)


@quick
@given(seeds, sizes, leads, kinds, st.sampled_from(REDUCTIONS))
def test_the_complete_graph_is_one_group(seed, n, lead, what, reduce):
    rng = np.random.default_rng(seed)
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n)).reshape(-1, 2)
    complete, one = Edges("complete", pairs[:, 0], pairs[:, 1], n), Groups("one", torch.zeros(n, dtype=torch.int64), 1)
    message = messages(rng, (*lead, n), what)
    by_edges, by_group = (aggregate(message, network, reduce=reduce) for network in (complete, one))
    assert torch.equal(dense(by_edges), dense(by_group))


@quick
@given(seeds, sizes, leads, leads)
def test_a_field_computes_as_the_tensor_it_reads_as(seed, n, first, then):
    try:
        torch.broadcast_shapes(first, then)
    except RuntimeError:
        assume(False)
    rng = np.random.default_rng(seed)
    (a, _), (b, _), (c, _) = groups(rng, n), groups(rng, n), graph(rng, n)
    parts = [
        aggregate(messages(rng, (*lead, n), "positive"), network)
        for lead, network in ((first, a), (then, b), (first, c))
    ]
    factor = torch.from_numpy(rng.random((*then, n))).float()
    scale = torch.from_numpy(rng.random((*first, 1))).float()
    field = sum(parts) * 0.7 * scale * factor
    expected = sum(dense(p) for p in parts) * 0.7 * scale * factor
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(dense(field), expected, **close)
    torch.testing.assert_close(field + torch.ones(n), expected + 1, **close)
    torch.testing.assert_close(torch.exp(-field), torch.exp(-expected), **close)
    cohort = Cohort.of(torch.from_numpy(rng.random(field.shape) < 0.5))
    torch.testing.assert_close(field.read(cohort), cohort.read(expected), **close)
    before, risk = torch.from_numpy(rng.random((*then, n))), torch.from_numpy(rng.random((*first, n)) < 0.5)
    after = accumulate(before, field, risk, 0.5)
    torch.testing.assert_close(after, before + risk * expected.double() * 0.5, **close)
    resistance = torch.from_numpy(rng.exponential(size=(*then, n))).float()
    exposure = Exposure(before, field, risk, dt=0.5)
    event = exposure.meet(resistance)
    assert torch.equal(exposure.after, after)
    assert torch.equal(event, (after > resistance) & (before <= resistance) & risk)


def test_a_field_over_many_blocks_computes_as_its_tensor():
    rng = np.random.default_rng(7)
    n = 150_001
    folk = Population.of({"a": rng.integers(0, 50, n), "b": np.arange(n) // 3})
    field = aggregate(torch.from_numpy(rng.random(n) < 0.3), folk.network("a")) + aggregate(
        torch.ones(2, n), folk.network("b")
    )
    before, risk = torch.zeros(n, dtype=torch.float64), torch.from_numpy(rng.random((2, n)) < 0.5)
    expected = before + risk * dense(field).double()
    resistance = torch.from_numpy(rng.exponential(size=n)).float()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        exposure = Exposure(before, field, risk)
        assert torch.equal(exposure.meet(resistance), (expected > resistance) & risk)
        torch.testing.assert_close(exposure.after, expected)


@quick
@given(seeds, sizes, leads, st.sampled_from(["Boolean", "integer", "number", "cohort", "sparse"]))
def test_a_tally_is_a_histogram(seed, n, lead, what):
    rng = np.random.default_rng(seed)
    borough, age = rng.integers(0, 3, n), rng.integers(0, 4, n)
    borough[0], age[0] = 2, 3
    strata = Population.of({"borough": borough, "age_band": age}).strata(borough="borough", age="age_band")
    mask = messages(rng, (*lead, n), "Boolean")
    if what in ("integer", "sparse"):
        value = torch.from_numpy(rng.integers(-9, 10, (*lead, n)))
    else:
        value = messages(rng, (*lead, n), "signed") if what == "number" else mask
    cohort = Cohort.of(mask)
    message = cohort.carrying(cohort.read(value)) if what == "sparse" else cohort if what == "cohort" else value
    weight = (value * mask if what == "sparse" else value).double().numpy()
    unit = 2.0**-16 if what == "number" else 1.0
    totals = tally("t", message, by=strata)
    assert totals.dtype == torch.int64
    expected = np.array(
        [
            np.histogram2d(borough, age, bins=(range(4), range(5)), weights=row)[0].ravel()
            for row in weight.reshape(-1, n)
        ]
    ).reshape(*lead, 12)
    np.testing.assert_allclose(totals.numpy() * unit, expected, atol=1e-12)
    whole = tally("t", message)
    np.testing.assert_allclose(whole.numpy() * unit, expected.sum(-1, keepdims=True), atol=1e-12)
    again = tally("t", message, by=strata, onto=totals)
    assert torch.equal(again, 2 * totals)


@quick
@given(seeds, sizes, st.sampled_from([4.0, 1.0, 0.5, 0.25, 0.1]))
def test_whole_numbers_keep_their_value_in_any_quantum(seed, n, quantum):
    """Multiples of the quantum are exact, be the message integer or floating."""
    rng = np.random.default_rng(seed)
    network = Groups("wages", torch.from_numpy(rng.integers(0, 3, n)), 3, quantum=quantum, bound=400.0)
    value = 4 * rng.integers(0, 100, n)
    expected = brute((network.index[:, None] == network.index).numpy().astype(float), torch.from_numpy(value), "sum")
    for message in (torch.from_numpy(value), torch.from_numpy(value).double()):
        np.testing.assert_allclose(dense(aggregate(message, network, reduce="sum")).numpy(), expected, rtol=1e-6)


def test_members_of_nowhere_meet_nobody_and_count_for_nobody():
    network = Groups("work", torch.tensor([0, 0, 1, 1, 1]), 2, nowhere=0)
    for reduce in REDUCTIONS:
        assert dense(aggregate(torch.ones(5, dtype=torch.bool), network, reduce=reduce))[:2].tolist() == [0, 0]
    assert dense(aggregate(torch.ones(5), network, reduce="sum")).tolist() == [0, 0, 3, 3, 3]


def wages(**options):
    return Groups("wages", torch.zeros(40_000, dtype=torch.int64), 1, **options)


def test_forty_thousand_full_messages_need_more_than_32_bits_and_get_them():
    total = aggregate(torch.ones(40_000), wages(), reduce="sum")
    assert total.total.dtype == torch.int64
    assert dense(total)[0] == 40_000


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: aggregate(torch.full((40_000,), 1.5), wages()), "'wages'.*1.5.*bound is 1"),
        (lambda: aggregate(torch.ones(40_000, dtype=torch.bool), wages(bound=0.5)), "'wages'.*1.*bound is 0.5"),
        (lambda: aggregate(torch.full((40_000,), float("nan")), wages()), "'wages'.*nan"),
        (lambda: aggregate(torch.full((40_000,), float("-inf")), wages()), "'wages'.*inf"),
        (lambda: aggregate(torch.ones(40_000), wages(quantum=2.0**-40, bound=1e9)), "'wages'.*overflow"),
        (lambda: aggregate(torch.ones(40_000), wages(), onto=torch.zeros(1, dtype=torch.int32)), "'wages'.*int32"),
        (lambda: aggregate(torch.ones(7), wages()), "'wages'.*40000 agents.*7"),
        (lambda: aggregate(torch.ones(40_000), wages(), reduce="total"), "'total'.*sum"),
        (lambda: aggregate(torch.ones(40_000), wages(), torch.zeros(1, dtype=torch.int64), "max"), "'wages'.*maximum"),
        (lambda: tally("income", torch.full((40_000,), 1.5)), "'income'.*1.5.*bound is 1"),
        (lambda: tally("income", torch.full((40_000,), 1e15), bound=1e16), "'income'.*overflow"),
        (lambda: tally("income", torch.ones(7), by=wages()), "'income'.*40000"),
        (lambda: Groups("work", torch.tensor([0, 3]), 3), "'work'.*0 … 2.*3"),
        (lambda: Edges("ties", torch.tensor([0, 1]), torch.tensor([1, 2]), 2), "'ties'.*0 … 1.*2"),
        (lambda: Edges("ties", torch.tensor([0, 1]), torch.tensor([1]), 2), "'ties'.*2 sources.*1 targets"),
        (lambda: Exposure(torch.zeros(2), 0.1, torch.ones(2)), "at_risk.*Boolean"),
        (lambda: Exposure(torch.zeros(2), torch.ones(3), torch.ones(2, dtype=torch.bool)), "don't broadcast"),
    ],
)
def test_what_cannot_be_is_refused_by_name(act, says):
    with pytest.raises(InputError, match=says):
        act()
