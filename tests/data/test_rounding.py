"""Whole people add up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lpmppl.data.rounding import apportion, cascade

weights = arrays(float, st.integers(1, 12), elements=st.floats(0.01, 100.0))


@given(weights=weights, total=st.integers(0, 10_000))
def test_apportioned_numbers_add_up_and_stay_within_one(weights, total):
    whole = apportion(weights, total)
    assert whole.sum() == total
    assert np.all(np.abs(whole - weights * total / weights.sum()) < 1)


@given(values=weights, offset=st.floats(0.0, 0.999))
def test_every_run_of_a_cascade_is_within_one(values, offset):
    sums = np.cumsum(cascade(values, offset))
    assert np.all(np.abs(sums - np.cumsum(values)) <= 1 + 1e-6)
    assert np.all(cascade(values, offset) >= 0)


def test_systematic_sampling_is_unbiased():
    values = np.array([0.2, 1.7, 0.1, 1.0])
    mean = np.mean([cascade(values, offset) for offset in (np.arange(1000) + 0.5) / 1000], axis=0)
    np.testing.assert_allclose(mean, values, atol=2e-3)
