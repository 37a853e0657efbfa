"""One population for the tests that only look at it."""

import pytest

from lpmppl.data import nyc


@pytest.fixture(scope="session")
def city():
    return nyc.build(50_000, 0)


@pytest.fixture(scope="session")
def village():
    return nyc.build(1_000, 1)
