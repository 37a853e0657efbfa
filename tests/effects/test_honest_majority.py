"""Calculating among parties: exact, and uniform to whoever looks at what they have or open."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from lpmppl.effects.internals import honest_majority
from lpmppl.effects.internals.honest_majority import HonestMajority, dealt
from lpmppl.effects.internals.threshold import PRIME, Field
from lpmppl.errors import InputError
from tests.randomness import states

MOST = PRIME // 2
RARE = 1e-7
"""How often a test of chance here fails by chance, each."""

quick = settings(max_examples=30, deadline=None)
values = st.lists(st.integers(-MOST, MOST), min_size=1, max_size=20)


def array(x):
    return np.array(x, np.int64)


def is_uniform(shares, prime):
    """Whether numbers of shape (t, n) are uniform together: a chi-square test of all p^t cells."""
    cells = np.zeros(shares.shape[1], np.int64)
    for own in shares:
        cells = cells * prime + own
    seen = np.bincount(cells, minlength=prime ** len(shares))
    return chisquare(seen).pvalue > RARE


@pytest.mark.parametrize(("parties", "q"), [(3, 3), (3, 5), (3, 7), (5, 3), (5, 5)])
def test_shares_of_any_t_parties_are_uniform_whatever_is_shared(parties, q):
    """Every polynomial: each t parties have each t numbers once, for each secret; and t + 1 have the secret."""
    field, t = Field(q), (parties - 1) // 2
    coefficients = array(list(product(range(field.prime), repeat=t))).T[None]
    for secret in range(field.prime):
        shares = dealt(field, np.full((1, field.prime**t), secret), coefficients, parties)[0]
        for some in combinations(range(parties), t):
            assert len(set(zip(*shares[list(some)].tolist(), strict=True))) == field.prime**t
        for some in combinations(range(parties), t + 1):
            assert (field.at(0, {k + 1: shares[k] for k in some}) == secret).all()


def test_the_same_is_never_shared_in_the_same_way_twice():
    among, x = HonestMajority(3), np.arange(4)
    one, other = among.share(x), among.share(x)
    assert not (one == other).any()
    assert not (among.inner([(one, other)]) == among.inner([(one, other)])).any()


class Given(HonestMajority):
    """Parties whose masks come up as they are told."""

    masks: np.ndarray

    def bits(self, n):
        return self.share(self.masks)


@pytest.mark.parametrize(("parties", "q"), [(3, 3), (5, 3), (3, 5), (4, 5), (5, 5), (3, 7)])
def test_the_comparison_is_exact_for_every_number_and_every_mask(parties, q):
    """Also for the mask p, which is 0 but for its bits."""
    among = Given(parties, Field(q))
    numbers, masks = (x.ravel() for x in np.meshgrid(np.arange(-(2 ** (q - 1)) + 1, 2 ** (q - 1)), np.arange(2**q)))
    for some in np.array_split(np.arange(numbers.size), 8):
        among.masks = (masks[some][None] >> np.arange(q)[:, None] & 1).reshape(-1)
        found = among.revealed(among.positive(among.share(numbers[some])))
        assert np.array_equal(found, numbers[some] > 0)
    assert among.opened == numbers.size


@pytest.mark.parametrize("parties", [3, 4, 5])
@quick
@given(values)
@example([0, 1, -1, 2, -2, MOST, -MOST, MOST - 1, 1 - MOST, 2**59, -(2**59)])
def test_the_comparison_is_exact_in_the_large_field(parties, x):
    among = HonestMajority(parties)
    assert among.revealed(among.positive(among.share(array(x)))).tolist() == [int(one > 0) for one in x]


@quick
@given(values, st.data())
def test_sums_and_products_are_those_of_the_numbers(x, data):
    y = data.draw(st.lists(st.integers(-MOST, MOST), min_size=len(x), max_size=len(x)))
    among = HonestMajority(5)
    one, other = among.share(array(x)), among.share(array(y))

    def centred(numbers):
        return [(n + MOST) % PRIME - MOST for n in numbers]

    assert among.revealed(among.plus(one, other)).tolist() == centred(a + b for a, b in zip(x, y, strict=True))
    assert among.revealed(among.minus(one, other)).tolist() == centred(a - b for a, b in zip(x, y, strict=True))
    found = among.revealed(among.inner([(one, other), (one, among.public(array(y)))]))
    assert found.tolist() == centred(2 * a * b for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("parties", [3, 5])
def test_sums_of_many_shares_do_not_overflow(parties):
    """A thousand shares just below 2⁶¹ are more than a word holds."""
    among = HonestMajority(parties)
    x = array([MOST // 1000] * 1000 + [-7] * 500).reshape(1, -1)
    found = among.revealed(among.added(among.share(x), lambda part: part.sum(-1, keepdims=True)))
    assert found.tolist() == [[MOST // 1000 * 1000 - 3500]]


@pytest.mark.parametrize("parties", [3, 5])
def test_a_product_is_dealt_anew_and_its_degree_is_back_to_t(parties):
    among = HonestMajority(parties, Field(3))
    t = among.together
    n = 60_000
    for x, y in ((0, 0), (3, -2)):
        shares = among.inner([(among.share(np.full(n, x)), among.share(np.full(n, y)))])
        for some in combinations(range(parties), t + 1):
            assert (among.field.at(0, {k + 1: shares[k] for k in some}) == x * y % 7).all()
        assert all(is_uniform(shares[list(some)], 7) for some in combinations(range(parties), t))


@pytest.mark.parametrize("parties", [3, 5])
@pytest.mark.parametrize("x", [-3, 0, 2])
def test_what_comes_of_a_comparison_is_uniform_to_any_t_parties(parties, x):
    among = HonestMajority(parties, Field(3))
    shares = among.positive(among.share(np.full(40_000, x)))
    assert all(is_uniform(shares[list(some)], 7) for some in combinations(range(parties), among.together))


def test_random_bits_are_fair_as_long_as_one_party_is(monkeypatch):
    """All others of the t + 1 give zeros; then each number of ones is within five standard errors of half."""
    drawn, n = honest_majority._bits, 40_000
    for fair in range(3):
        among = HonestMajority(5)

        def own(chance, n, fair=among._chances[fair]):
            return drawn(chance, n) if chance is fair else np.zeros(n, np.int64)

        monkeypatch.setattr(honest_majority, "_bits", own)
        bits = among.revealed(among.bits(n))
        assert set(bits.tolist()) == {0, 1}
        assert abs(bits.mean() - 0.5) < 2.5 / n**0.5


class Watched(HonestMajority):
    """Parties that keep what they open among themselves."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = []

    def _open(self, x):
        self.seen.append(super()._open(x))
        return self.seen[-1]


def test_every_comparison_has_a_mask_of_its_own():
    among = Watched(3)
    x = among.share(np.zeros(50, np.int64))
    for _ in range(3):
        among.positive(x)
    other = Watched(3)
    other.positive(other.share(np.zeros(50, np.int64)))
    assert len({int(c) for seen in (*among.seen, *other.seen) for c in seen}) == 200


@pytest.mark.parametrize("x", [0, 1, -1, 12345, MOST, -MOST])
def test_what_parties_open_is_uniform_whatever_is_compared(x):
    """Its highest eight bits, and its lowest, by chi-square."""
    among = Watched(3)
    among.positive(among.share(np.full(20_000, x)))
    seen = np.concatenate(among.seen)
    assert among.opened == len(seen) == 20_000
    for bits in (seen >> 53, seen & 255):
        assert chisquare(np.bincount(bits, minlength=256)).pvalue > RARE


@pytest.mark.parametrize("x", [-15, -1, 0, 1, 15])
def test_in_a_small_field_what_is_opened_has_the_law_that_is_said(x):
    """Uniform, but for the mask p, which is 0 again: 2⁻q too much in one place."""
    among, n = Watched(3, Field(5)), 62_000
    among.positive(among.share(np.full(n, x)))
    expected = np.full(31, n / 32)
    expected[-2 * x % 31] *= 2
    assert chisquare(np.bincount(np.concatenate(among.seen), minlength=31), expected).pvalue > RARE


@pytest.mark.parametrize("x", [-2, 0, 3])
def test_what_a_party_has_tells_nothing_of_what_is_opened_nor_of_the_outcome(x):
    """Its share of the outcome is uniform whatever number was opened: a chi-square test of all pairs."""
    among, n = Watched(3, Field(3)), 40_000
    shares = among.positive(among.share(np.full(n, x)))
    law = np.full(7, n / 8)
    law[-2 * x % 7] *= 2
    for own in shares:
        seen = np.bincount(np.concatenate(among.seen) * 7 + own, minlength=49)
        assert chisquare(seen, np.repeat(law / 7, 7)).pvalue > RARE


@pytest.mark.parametrize("parties", [2, 1, True, 3.0, "3"])
def test_fewer_than_three_parties_are_refused(parties):
    with pytest.raises(InputError, match=f"parties={parties!r}: .* 3 parties or more"):
        HonestMajority(parties)


def test_more_parties_than_the_field_has_points_are_refused():
    with pytest.raises(InputError, match="parties=7"):
        HonestMajority(7, Field(3))


def test_nothing_is_compared_with_nothing_and_shapes_are_kept():
    among = HonestMajority(3)
    assert among.positive(among.share(np.zeros((2, 0), np.int64))).shape == (3, 2, 0)
    x = np.arange(-6, 6).reshape(2, 1, 6)
    assert np.array_equal(among.revealed(among.positive(among.share(x))), x > 0)


def test_the_global_random_state_is_left_alone():
    before = states()
    among = HonestMajority(3)
    among.positive(among.share(np.arange(5)))
    assert states() == before
