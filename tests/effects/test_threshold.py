"""Shares with a threshold against Python's integers, and test vectors of them and of additive shares."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lpmppl.effects.internals import shares, threshold
from lpmppl.effects.internals.threshold import Field
from lpmppl.errors import InputError, LpmError
from tests.effects.test_shares import below, chacha20, seeds_of, signed
from tests.oracles import RATE
from tests.randomness import states

VECTORS = Path(__file__).parent / "share_vectors.json"
PRIME = 2**61 - 1

quick = settings(max_examples=60, deadline=None)
elements = st.integers(0, PRIME - 1) | st.sampled_from([0, 1, 2, 2**31 - 1, 2**31, 2**30, PRIME - 2, PRIME - 1])
secret_values = st.integers(-(2**60) + 1, 2**60 - 1) | st.sampled_from([-(2**60) + 1, -1, 0, 1, 2**60 - 1])
settings_of_helpers = st.integers(2, 7).flatmap(lambda m: st.tuples(st.integers(2, m), st.just(m)))


def additive(secret: list[int], seeds: list[bytes]) -> list[list[int]]:
    masks = [chacha20(seed, len(secret)) for seed in seeds]
    last = [x - sum(mask) for x, *mask in zip(secret, *masks, strict=True)]
    return [[signed(x) for x in share] for share in (*masks, last)]


def shamir(secret: list[int], seeds: list[bytes], helpers: int) -> list[list[int]]:
    """All shares by Newton's divided differences, where the code has Lagrange's weights."""
    drawn = [below(seed, len(secret), PRIME) for seed in seeds]
    found = []
    for known in zip(secret, *drawn, strict=True):
        differences = list(known)
        for order in range(1, len(known)):
            for k in range(len(known) - 1, order - 1, -1):
                differences[k] = (differences[k] - differences[k - 1]) * pow(order, -1, PRIME) % PRIME
        values = []
        for point in range(1, helpers + 1):
            value = 0
            for k in range(len(known) - 1, -1, -1):
                value = (value * (point - k) + differences[k]) % PRIME
            values.append(value)
        found.append(values)
    return [list(share) for share in zip(*found, strict=True)]


def vectors() -> dict[str, list[dict[str, Any]]]:
    """What `share_vectors.json` holds: shares under given seeds, and what is refused, with a part of what is said."""

    def text(rows: list[list[int]]) -> list[list[str]]:
        return [[str(x) for x in row] for row in rows]

    def hexed(seeds: list[bytes]) -> list[str]:
        return [seed.hex() for seed in seeds]

    found: dict[str, list[dict[str, Any]]] = {"additive": [], "threshold": [], "malformed": []}
    extremes = [0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1, 123456789]
    for parties, secret in [(2, [0, 1, -1]), (3, extremes), (5, [7**k % 1000 - 500 for k in range(19)])]:
        seeds = seeds_of(f"additive {parties}", parties - 1)
        found["additive"].append(
            {"parties": parties, "seeds": hexed(seeds), "secret": [str(x) for x in secret]}
            | {"shares": text(additive(secret, seeds))}
        )
    extremes = [0, 1, -1, 2**60 - 1, 1 - 2**60, 2**53 + 1, -123456789, 31337, 8]
    for least, helpers in [(2, 2), (2, 3), (3, 5), (4, 4)]:
        seeds = seeds_of(f"threshold {least} of {helpers}", least - 1)
        found["threshold"].append(
            {"threshold": least, "helpers": helpers, "seeds": hexed(seeds), "secret": [str(x) for x in extremes]}
            | {"shares": text(shamir(extremes, seeds, helpers))}
        )
    a, b = hexed(seeds_of("malformed", 2))
    five = text(shamir([5, -6], seeds_of("malformed", 1), 5))
    lie = [five[3][0], str((int(five[3][1]) + 1) % PRIME)]
    totals = [[k, five[k]] for k in range(5)]
    one = ["1", "2"]
    found["malformed"] = [
        {"call": "Shares", "seeds": [a[:-2]], "vector": one, "says": "a seed of 31 bytes"},
        {"call": "Shares", "seeds": [a + "00"], "vector": one, "says": "a seed of 33 bytes"},
        {"call": "Shares", "seeds": [], "vector": one, "says": "0 seeds were given; give 1"},
        {"call": "Shares", "seeds": [a, a], "vector": one, "says": "a seed was given twice"},
        {"call": "shared", "parties": 1, "seeds": [], "secret": one, "says": "parties=1: a secret that one party has"},
        {"call": "shared", "parties": 3, "seeds": [a], "secret": one, "says": "1 seeds were given; give 2"},
        {"call": "shared", "parties": 2, "seeds": [a, b], "secret": one, "says": "2 seeds were given; give 1"},
        {"call": "opened", "parts": [], "says": "no parts were given"},
        {"call": "opened", "parts": [one, one[:1]], "says": "part 1 has shape (1,), part 0 (2,)"},
        {"call": "ThresholdShares", "seeds": [a], "vectors": [], "says": "no parts were given"},
        {"call": "ThresholdShares", "seeds": [], "vectors": [one], "says": "0 seeds were given; give 1"},
        {"call": "ThresholdShares", "seeds": [a], "vectors": [one, one[:1]], "says": "part 1 has shape (1,)"},
        {
            "call": "ThresholdShares",
            "seeds": [a],
            "vectors": [one, ["0", str(PRIME)]],
            "says": "the share of helper 2 has a value of 2305843009213693951, which is no share",
        },
        {
            "call": "ThresholdShares",
            "seeds": [a],
            "vectors": [["-1"]],
            "says": "the share of helper 1 has a value of -1",
        },
    ]
    for least, helpers, hexes, numbers, says in [
        (1, 3, [], one, "threshold=1 of helpers=3"),
        (4, 3, [a, b], one, "threshold=4 of helpers=3"),
        (2, 256, [a], one, "255 at most"),
        (2, 3, [a, b], one, "2 seeds were given; give 1"),
        (2, 3, [a], ["0", str(2**60)], "a secret of 1152921504606846976 was given"),
        (2, 3, [a], ["0", str(-(2**60))], "a secret of -1152921504606846976 was given"),
    ]:
        found["malformed"].append(
            {"call": "threshold.shared", "threshold": least, "helpers": helpers, "seeds": hexes, "secret": numbers}
            | {"says": says}
        )
    found["malformed"] += [
        {"call": "added", "parts": [], "says": "no parts were given"},
        {"call": "added", "parts": [one, ["0", str(PRIME)]], "says": "part 1 has a value of 2305843009213693951"},
        {"call": "added", "parts": [one, ["0"]], "says": "part 1 has shape (1,), part 0 (2,)"},
    ]
    for given_totals, says in [
        (totals[:1], "the totals of 1 helpers were given where 2 are needed"),
        ([*totals[:2], [5, one]], "there is no helper 5: the 5 are numbered from 0 to 4"),
        ([totals[0], totals[0]], "helper 0 was given twice"),
        ([totals[0], [1, ["1"]]], "the total of helper 1 has shape (1,), that of helper 0 (2,)"),
        ([totals[0], [1, ["1", "-1"]]], "the total of helper 1 has a value of -1, which is no share"),
        ([totals[0], totals[4], [3, lie]], "the totals of helpers 0, 4, 3 contradict one another"),
        ([totals[0], [3, lie], totals[1], totals[4]], "the total of helper 3 is wrong"),
    ]:
        found["malformed"].append(
            {"call": "threshold.opened", "threshold": 2, "helpers": 5, "totals": given_totals, "says": says}
        )
    return found


def tensor(numbers: list[str]) -> Tensor:
    return torch.tensor([int(x) for x in numbers], dtype=torch.int64)


def attempt(case: dict[str, Any]) -> Any:
    """Do what a test vector says."""
    tensors = {k: [tensor(x) for x in case[k]] for k in ("parts", "vectors") if k in case}
    seeds = tuple(bytes.fromhex(seed) for seed in case.get("seeds", []))
    calls = {
        "Shares": lambda: shares.Shares(seeds, tensor(case["vector"])),
        "shared": lambda: shares.shared(tensor(case["secret"]), case["parties"], seeds),
        "opened": lambda: shares.opened(tensors["parts"]),
        "ThresholdShares": lambda: threshold.ThresholdShares(seeds, tuple(tensors["vectors"])),
        "threshold.shared": lambda: threshold.shared(tensor(case["secret"]), case["helpers"], case["threshold"], seeds),
        "added": lambda: threshold.added(tensors["parts"]),
        "threshold.opened": lambda: threshold.opened(
            [(k, tensor(x)) for k, x in case["totals"]], case["threshold"], case["helpers"]
        ),
    }
    return calls[case["call"]]()


def written() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


def test_the_vectors_on_disk_are_those_of_python_integers():
    assert VECTORS.read_text() == written(), "write them anew: PYTHONPATH=. python tests/effects/test_threshold.py"


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text())["additive"], ids=lambda c: f"{c['parties']} parties")
def test_additive_vectors(case):
    found = attempt({"call": "shared", **case})
    for k, share in enumerate(case["shares"]):
        assert torch.equal(found.of(k), tensor(share))
    assert torch.equal(shares.opened(map(tensor, case["shares"])), tensor(case["secret"]))


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text())["threshold"], ids=lambda c: f"{c['threshold']} of {c['helpers']}"
)
def test_threshold_vectors(case):
    found = attempt({"call": "threshold.shared", **case})
    for k, share in enumerate(case["shares"]):
        assert torch.equal(found.of(k), tensor(share))
    for some in itertools.combinations(range(case["helpers"]), case["threshold"]):
        totals = {k: tensor(case["shares"][k]) for k in some}
        assert torch.equal(threshold.opened(totals, case["threshold"]), tensor(case["secret"]))


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text())["malformed"], ids=lambda c: f"{c['call']}: {c['says']}"
)
def test_malformed_vectors_are_refused(case):
    with pytest.raises(LpmError) as caught:
        attempt(case)
    assert case["says"] in str(caught.value)


@quick
@given(elements, st.lists(elements, min_size=1, max_size=40))
def test_products_are_exact(a, x):
    assert Field(61).product(a, np.array(x)).tolist() == [a * b % PRIME for b in x]


def test_products_are_exact_over_blocks():
    x = np.random.default_rng(0).integers(0, PRIME, 2 * threshold._BLOCK + 3)
    a = PRIME - 5
    assert Field(61).product(a, x).tolist() == [a * b % PRIME for b in x.tolist()]


@pytest.mark.parametrize("q", [3, 5, 7, 13])
def test_all_products_in_small_fields(q):
    p = 2**q - 1
    x = np.arange(p)
    for a in range(p) if q < 13 else (0, 1, 63, 64, 127, 128, p - 1):
        assert (Field(q).product(a, x) == a * x % p).all()


@quick
@given(st.lists(elements, min_size=1, max_size=6), st.data())
def test_interpolation_is_that_of_python_integers(coefficients, data):
    points = data.draw(st.lists(st.integers(0, 255), min_size=len(coefficients), max_size=9, unique=True))
    value = lambda x: sum(c * x**k for k, c in enumerate(coefficients)) % PRIME  # noqa: E731
    values = {x: np.array([value(x)]) for x in points}
    for x in (0, 1, 17, *points):
        assert Field(61).at(x, values).tolist() == [value(x)]


@pytest.mark.parametrize(("least", "helpers"), [(2, 2), (2, 3), (3, 3), (3, 5)])
@pytest.mark.parametrize("secret", range(7))
def test_in_a_tiny_field_fewer_shares_are_uniform_whatever_the_secret(least, helpers, secret):
    field = Field(3)
    # Every outcome of what is drawn, once: the shares are made of it as `shared` makes them.
    drawn = np.array(list(itertools.product(range(7), repeat=least - 1)))
    values = {0: np.full(len(drawn), secret)} | {k + 1: drawn[:, k].copy() for k in range(least - 1)}
    split = np.stack([field.at(k + 1, values) for k in range(helpers)], -1)
    polynomials = {
        tuple((secret + sum(c * x**k for k, c in enumerate(coefficients, 1))) % 7 for x in range(1, helpers + 1))
        for coefficients in itertools.product(range(7), repeat=least - 1)
    }
    assert Counter(map(tuple, split.tolist())) == Counter(polynomials)
    for some in itertools.combinations(range(helpers), least - 1):
        seen = Counter(map(tuple, split[:, some].tolist()))
        assert seen == Counter(itertools.product(range(7), repeat=least - 1))
    for some in itertools.combinations(range(helpers), least):
        assert (field.at(0, {k + 1: split[:, k] for k in some}) == secret).all()


@quick
@given(st.lists(secret_values, min_size=1, max_size=9), settings_of_helpers, st.randoms(use_true_random=False))
def test_any_helpers_from_the_threshold_on_open_the_secret(secret, size, chance):
    least, helpers = size
    x = torch.tensor(secret)
    found = threshold.shared(x, helpers, least)
    for n in range(least, helpers + 1):
        some = chance.sample(range(helpers), n)
        assert threshold.opened({k: found.of(k) for k in some}, least, helpers).tolist() == secret
    assert found.nbytes == 8 * len(secret) * (helpers - least + 1) + 32 * (least - 1)
    assert x.tolist() == secret
    assert set(found.seeds).isdisjoint(threshold.shared(x, helpers, least).seeds)


@quick
@given(st.lists(st.tuples(*[st.integers(-(2**56), 2**56)] * 3), min_size=1, max_size=15), settings_of_helpers)
def test_sums_of_shares_are_shares_of_sums(agents, size):
    least, helpers = size
    split = [threshold.shared(torch.tensor(row), helpers, least) for row in agents]
    totals = {k: threshold.added(s.of(k) for s in split) for k in range(helpers - least, helpers)}
    assert threshold.opened(totals, least).tolist() == [sum(column) for column in zip(*agents, strict=True)]
    expected = [sum(column) % PRIME for column in zip(*(s.of(0).tolist() for s in split), strict=True)]
    assert threshold.added(s.of(0) for s in split).tolist() == expected


def test_the_largest_sums():
    most = torch.tensor([2**60 - 2, 2 - 2**60])
    split = [threshold.shared(x, 3, 2) for x in (most, torch.tensor([1, -1]))]
    totals = {k: threshold.added(s.of(k) for s in split) for k in (0, 2)}
    assert threshold.opened(totals, 2).tolist() == [2**60 - 1, 1 - 2**60]


@pytest.mark.parametrize("size", [(2, 255), (128, 255), (255, 255)])
def test_many_helpers(size):
    least, helpers = size
    found = threshold.shared(torch.tensor([-41, 42]), helpers, least)
    totals = {k: found.of(k) for k in range(helpers - least, helpers)}
    assert threshold.opened(totals, least).tolist() == [-41, 42]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3, 5), (threshold._BLOCK + 1,)])
def test_any_shape(shape):
    secret = torch.arange(int(np.prod(shape))).reshape(shape) - 7
    found = threshold.shared(secret, 3, 2)
    totals = {k: threshold.added([found.of(k), found.of(k)]) for k in (2, 0)}
    assert torch.equal(threshold.opened(totals, 2), 2 * secret)


def test_a_strided_secret():
    secret = torch.arange(60).reshape(5, 12)[:, ::2].T
    found = threshold.shared(secret, 3, 2)
    assert torch.equal(threshold.opened({1: found.of(1), 2: found.of(2)}, 2), secret)


def test_shares_can_be_changed_and_are_not_shown():
    found = threshold.shared(torch.tensor([5, 6]), 3, 2)
    parts = {k: found.of(k) for k in range(3)}
    for part in parts.values():
        part.zero_()
    assert threshold.opened({k: found.of(k) for k in range(3)}, 2).tolist() == [5, 6]
    assert repr(found) == "ThresholdShares()"


@quick
@given(st.integers(2, 4), st.integers(0, 2), st.data())
def test_helpers_that_lie(least, beyond, data):
    helpers = least + beyond
    secret = [3, -4, 2**60 - 1]
    found = threshold.shared(torch.tensor(secret), helpers, least)
    totals = {k: found.of(k) for k in range(helpers)}
    liars = data.draw(st.lists(st.integers(0, helpers - 1), min_size=1, max_size=max(beyond, 1), unique=True))
    place = data.draw(st.integers(0, 2))
    for k in liars:
        totals[k][place] = (int(totals[k][place]) + data.draw(st.integers(1, PRIME - 1))) % PRIME
    if beyond == 0:
        # Without a total to spare there is nothing to compare.
        assert threshold.opened(totals, least).tolist() != secret
    elif beyond == 2 and len(liars) == 1:
        with pytest.raises(LpmError, match=f"the total of helper {liars[0]} is wrong"):
            threshold.opened(totals, least)
        del totals[liars[0]]
        assert threshold.opened(totals, least).tolist() == secret
    else:
        with pytest.raises(LpmError, match=r"contradict one another|is wrong: all others agree"):
            threshold.opened(totals, least)


def test_two_liars_at_different_places_are_not_blamed_on_one():
    found = threshold.shared(torch.tensor([1, 2]), 5, 2)
    totals = {k: found.of(k) for k in range(5)}
    totals[1][0] = (totals[1][0] + 1) % PRIME
    totals[3][1] = (totals[3][1] + 1) % PRIME
    with pytest.raises(LpmError, match="the totals of helpers 0, 1, 2, 3, 4 contradict one another"):
        threshold.opened(totals, 2)


def counted(secret: int, n: int = 1 << 17) -> np.ndarray:
    """How often each of 256 cells is met, for a secret in 3-of-4 shares: of each share, and each two shares."""
    found = threshold.shared(torch.full((n,), secret), 4, 3)
    parts = [found.of(k).numpy() for k in range(4)]
    cells = [(x >> by) & 255 for x in parts for by in (0, 8, 27, 53)]
    for a, b in itertools.combinations(parts, 2):
        cells += [((a >> by) & 15) << 4 | (b >> by) & 15 for by in (0, 30, 57)]
        cells.append((a + b) % PRIME >> 53)
    return np.stack([np.bincount(c, minlength=256) for c in cells])


# The two tests below each fail by chance with a quarter of the probability of 1e-6 that they have with the two in
# test_shares.py, over their 40 comparisons. That 2⁶¹ − 1 is one less than 256 equal cells can't be seen.


def test_fewer_shares_than_the_threshold_are_uniform():
    p = stats.chisquare(counted(2**40 + 3), axis=1).pvalue
    assert p.shape == (40,)
    assert p.min() > RATE / 4 / 40


def test_fewer_shares_than_the_threshold_do_not_depend_on_the_secret():
    one, other = counted(0), counted(12345 - 2**59)
    p = [stats.chi2_contingency(np.stack(pair)).pvalue for pair in zip(one, other, strict=True)]
    assert min(p) > RATE / 4 / 40


def test_seeded_shares_leave_out_what_the_field_has_not(monkeypatch):
    # A word whose low bits are the prime comes once in 2⁶¹; the words after it are taken instead.
    given_words = iter([[PRIME, 5, 2**61 + 6], [2**62 + PRIME], [PRIME - 1]])
    monkeypatch.setattr(shares.Keystream, "words", lambda self, n: np.array(next(given_words), dtype=np.int64))
    found = threshold.ThresholdShares((bytes(32),), (torch.zeros(3, dtype=torch.int64),))
    assert found.of(0).tolist() == [5, 6, PRIME - 1]


def test_encoded_for_a_threshold():
    x = torch.tensor([100.25, -3.0])
    units = shares.encoded(x, 32, 1000, "visits", threshold.BITS)
    split = [threshold.shared(units, 3, 2) for _ in range(1000)]
    totals = {k: threshold.added(s.of(k) for s in split) for k in (1, 2)}
    assert torch.equal(shares.decoded(threshold.opened(totals, 2), 32), 1000 * x.double())
    with pytest.raises(InputError, match="'visits': a value of 300"):
        shares.encoded(torch.tensor([300.0]), 32, 1_000_000, "visits", threshold.BITS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: threshold.shared(torch.ones(2), 3, 2), r"the secret is torch\.float32"),
        (lambda: threshold.shared(torch.tensor([1]), 3, 2, ["x"]), "a seed that is a str"),
        (lambda: threshold.shared(torch.tensor([1]), 3, 2).of(3), "no helper 3: the 3 are numbered from 0 to 2"),
        (lambda: threshold.opened({}, 2), "the totals of 0 helpers were given where 2 are needed"),
        (lambda: threshold.opened({0: torch.ones(1), 1: torch.ones(1)}, 2), r"the total of helper 0 is torch\.float32"),
        (lambda: threshold.opened({"a": torch.tensor([1])}, 2), "no helper a: the 255 are numbered from 0 to 254"),
        (lambda: threshold.opened({0: torch.tensor([1])}, 1), "threshold=1 of helpers=255"),
        (lambda: threshold.added([torch.tensor([1]), torch.tensor([1.0])]), r"part 1 is torch\.float32"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_global_random_states_are_untouched():
    before = states()
    found = threshold.shared(torch.arange(100), 3, 2)
    threshold.opened({k: found.of(k) for k in range(3)}, 2)
    assert states() == before


if __name__ == "__main__":
    VECTORS.write_text(written())
