"""Raking and tilting against what is known exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lpmppl.data.ipf import rake, tilt
from lpmppl.errors import InputError

positive = st.floats(0.05, 20.0)


@settings(deadline=None, max_examples=60)
@given(seed=arrays(float, (3, 4), elements=positive), other=arrays(float, (3, 4), elements=positive))
def test_margins_are_met_and_odds_ratios_kept(seed, other):
    rows, columns = np.indices(seed.shape)
    table = rake(seed, [(rows, other.sum(1)), (columns, other.sum(0))])
    np.testing.assert_allclose(table.sum(1), other.sum(1), rtol=1e-7)
    np.testing.assert_allclose(table.sum(0), other.sum(0), rtol=1e-7)

    def odds(x):
        return x[1:, 1:] * x[:1, :1] / (x[1:, :1] * x[:1, 1:])

    np.testing.assert_allclose(odds(table), odds(seed), rtol=1e-6)


def test_two_by_two_closed_form():
    # Margins (a, 1 - a), (b, 1 - b) and odds ratio r: the cell x solves x (1 - a - b + x) = r (a - x)(b - x).
    a, b, r = 0.3, 0.6, 4.0
    rows, columns = np.indices((2, 2))
    table = rake(np.array([[r, 1.0], [1.0, 1.0]]), [(rows, np.array([a, 1 - a])), (columns, np.array([b, 1 - b]))])
    roots = np.roots([1 - r, (1 - a - b) + r * (a + b), -r * a * b])
    (exact,) = (x for x in roots if max(0.0, a + b - 1) <= x <= min(a, b))
    assert table[0, 0] == pytest.approx(exact, abs=1e-8)


def test_grouped_margin_of_a_broadcast_seed():
    seed = np.broadcast_to(np.ones(6), (2, 6))
    groups = np.broadcast_to(np.repeat([0, 1], 3), (2, 6))
    table = rake(seed, [(groups, np.array([12.0, 3.0]))])
    np.testing.assert_allclose(table, np.repeat([[2.0, 0.5]], 2, axis=0).repeat(3, axis=1))
    assert seed.sum() == 12


def test_contradiction_and_impossible_margins_are_refused():
    rows, columns = np.indices((2, 2))
    with pytest.raises(InputError, match="contradict"):
        rake(np.ones((2, 2)), [(rows, np.array([1.0, 1.0])), (columns, np.array([1.0, 3.0]))], sweeps=50)
    with pytest.raises(InputError, match="total 1 is 2"):
        rake(np.array([[1.0, 1.0], [0.0, 0.0]]), [(rows, np.array([1.0, 2.0]))])


@settings(deadline=None, max_examples=60)
@given(
    seed=arrays(float, 8, elements=positive),
    truth=arrays(float, 8, elements=positive),
    features=arrays(float, (8, 2), elements=st.integers(0, 4).map(float)),
)
def test_tilt_has_the_totals_and_is_exponential_in_the_features(seed, truth, features):
    features = np.column_stack([np.ones(8), features])
    totals = truth @ features
    weights, lam = tilt(seed, features, np.stack([totals, seed @ features]))
    np.testing.assert_allclose(weights[0] @ features, totals, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(weights[0], seed * np.exp(features @ lam[0]), rtol=1e-9)
    np.testing.assert_allclose(weights[1], seed, rtol=1e-6)


def test_tilt_refuses_totals_out_of_reach():
    with pytest.raises(InputError, match="no positive weights"):
        tilt(np.ones(3), np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), np.array([[1.0, 3.5]]))
