"""Additive shares and fixed point against Python's integers, fractions, and RFC 8439."""

from __future__ import annotations

import hashlib
import itertools
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lpmppl.effects.internals import shares
from lpmppl.errors import InputError, LpmError
from tests.oracles import RATE
from tests.randomness import states

quick = settings(max_examples=60, deadline=None)
words = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])


def signed(x: int) -> int:
    return (x + 2**63) % 2**64 - 2**63


def chacha20(seed: bytes, n: int) -> list[int]:
    """The first n words of the keystream, in Python's integers (RFC 8439, §2.3)."""

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & 0xFFFFFFFF

    stream = b""
    for counter in range(-(-n // 8)):
        state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8L", seed), counter, 0, 0, 0]
        x = list(state)
        for _ in range(10):
            for a, b, c, d in [(k, 4 + k, 8 + k, 12 + k) for k in range(4)] + [
                (k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4) for k in range(4)
            ]:
                for p, q, r, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                    x[p] = (x[p] + x[q]) & 0xFFFFFFFF
                    x[r] = rotated(x[r] ^ x[p], by)
        stream += struct.pack("<16L", *((i + j) & 0xFFFFFFFF for i, j in zip(state, x, strict=True)))
    return list(struct.unpack(f"<{n}Q", stream[: 8 * n]))


def below(seed: bytes, n: int, modulus: int) -> list[int]:
    """The first n low parts of words that are below the modulus."""
    low = (word % 2 ** (modulus - 1).bit_length() for word in chacha20(seed, 4 * n + 64))
    return list(itertools.islice((x for x in low if x < modulus), n))


def seeds_of(name: str, n: int) -> list[bytes]:
    return [hashlib.sha256(f"{name} {k}".encode()).digest() for k in range(n)]


@pytest.mark.parametrize(
    ("seed", "block", "expected"),
    [
        ("00" * 32, 0, "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"),
        ("00" * 32, 1, "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"),
        ("00" * 31 + "01", 1, "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"),
        ("00ff" + "00" * 30, 2, "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"),
    ],
)
def test_keystream_is_that_of_rfc_8439(seed, block, expected):
    # Appendix A.1, test vectors 1 to 4, which have nonce 0; the first half of each block.
    seed = bytes.fromhex(seed)
    found = shares.keystream(seed, 8 * block + 4)[8 * block :]
    assert found.tolist() == list(struct.unpack("<4q", bytes.fromhex(expected)))
    assert found.tolist() == [signed(x) for x in chacha20(seed, 8 * block + 4)[8 * block :]]


def test_keystream_goes_on_over_blocks_and_calls():
    seed = bytes(range(32))
    n = 3 * shares._WORDS + 5
    whole = shares.keystream(seed, n)
    stream = shares.Keystream(seed)
    parts = [torch.from_numpy(stream.words(k)) for k in (1, 0, 1234, shares._WORDS, n - 1235 - shares._WORDS)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(shares.keystream(seed, shares._WORDS - 1), whole[: shares._WORDS - 1])
    assert len(whole.unique()) == n
    assert shares.keystream(seed, 0).shape == (0,)


def test_keystream_never_begins_again(monkeypatch):
    with pytest.raises(InputError, match="34359738369 words are more than the 34359738368 that a seed has left"):
        shares.keystream(bytes(32), 2**35 + 1)
    monkeypatch.setattr(shares, "_MOST", 10)
    stream = shares.Keystream(bytes(32))
    stream.words(10)
    with pytest.raises(InputError, match="1 words are more than the 0 that a seed has left"):
        stream.words(1)
    with pytest.raises(InputError, match="share in parts"):
        shares.shared(torch.zeros(11, dtype=torch.int64), 2)


def test_threads_do_not_meet():
    seeds, n = seeds_of("threads", 16), 2 * shares._WORDS + 3
    secret = torch.arange(n)
    expected = [shares.shared(secret, 2, [seed]).vector for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: shares.shared(secret, 2, [seed]).vector, seeds * 2))
    assert all(torch.equal(a, b) for a, b in zip(found, expected * 2, strict=True))


def test_without_cryptography(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(LpmError, match=r"pip install 'lpmppl\[parties\]'"):
        shares.shared(torch.tensor([1]), 2)


@quick
@given(st.lists(words, min_size=1, max_size=20), st.integers(2, 6))
def test_all_shares_open_the_secret(secret, parties):
    x = torch.tensor(secret)
    found = shares.shared(x, parties)
    parts = [found.of(k) for k in range(parties)]
    assert torch.equal(shares.opened(parts), x)
    assert [signed(sum(column)) for column in zip(*(p.tolist() for p in parts), strict=True)] == secret
    assert found.nbytes == 8 * len(secret) + 32 * (parties - 1)
    assert x.tolist() == secret
    assert len(set(found.seeds)) == parties - 1
    assert set(found.seeds).isdisjoint(shares.shared(x, parties).seeds)


@quick
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=8), st.integers(2, 4))
def test_sums_of_shares_are_shares_of_sums(agents, parties):
    split = [shares.shared(torch.tensor(row), parties) for row in agents]
    totals = [shares.opened(s.of(k) for s in split) for k in range(parties)]
    assert shares.opened(totals).tolist() == [signed(sum(column)) for column in zip(*agents, strict=True)]


def test_sums_wrap_around():
    most = torch.tensor([2**63 - 1, -(2**63), -(2**63)])
    assert shares.opened([most, torch.tensor([1, -1, -(2**63)])]).tolist() == [-(2**63), 2**63 - 1, 0]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 5), (shares._WORDS,), (2, shares._WORDS + 1)])
def test_any_shape(shape):
    secret = torch.arange(int(np.prod(shape))).reshape(shape) - 7
    found = shares.shared(secret, 3)
    assert [found.of(k).shape for k in range(3)] == [secret.shape] * 3
    assert torch.equal(shares.opened(found.of(k) for k in range(3)), secret)


def test_a_strided_secret():
    secret = torch.arange(60).reshape(5, 12)[:, ::2].T
    found = shares.shared(secret, 2)
    assert torch.equal(found.of(0) + found.of(1), secret)


def test_shares_can_be_changed_and_are_not_shown():
    found = shares.shared(torch.tensor([5, 6]), 2, seeds_of("shown", 1))
    parts = [found.of(0), found.of(1)]
    for part in parts:
        part += 1
    assert [found.of(k).tolist() for k in range(2)] == [(p - 1).tolist() for p in parts]
    first = parts[0].clone()
    shares.opened(parts)
    assert torch.equal(parts[0], first)
    assert repr(found) == "Shares()"


def cells(some: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """One share's bytes, or a nibble of two shares together: each in 256 cells, at every position."""
    if len(some) == 1:
        return [(some[0] >> np.uint64(8 * k)) & np.uint64(255) for k in range(8)]
    nibbles = [[(x >> np.uint64(4 * k)) & np.uint64(15) for k in range(16)] for x in some]
    return [a * np.uint64(16) + b for a, b in zip(*nibbles, strict=True)]


def counted(secret: int, n: int = 1 << 17) -> np.ndarray:
    """How often each cell has each value, for a secret in three shares: of each share, and each two shares."""
    found = shares.shared(torch.full((n,), secret), 3)
    parts = [found.of(k).numpy().view(np.uint64) for k in range(3)]
    subsets = [*itertools.combinations(parts, 1), *itertools.combinations(parts, 2)]
    return np.stack([np.bincount(c.astype(int), minlength=256) for some in subsets for c in cells(some)])


# Shares are drawn by the operating system. The two tests here and two in test_threshold.py fail by chance with a
# probability of less than 1e-6 altogether: a quarter of it each, over its 72 comparisons here.


def test_fewer_shares_than_all_are_uniform():
    p = stats.chisquare(counted(2**40 + 3), axis=1).pvalue
    assert p.shape == (72,)
    assert p.min() > RATE / 4 / 72


def test_fewer_shares_than_all_do_not_depend_on_the_secret():
    one, other = counted(0), counted(-(2**62) - 12345)
    p = [stats.chi2_contingency(np.stack(pair)).pvalue for pair in zip(one, other, strict=True)]
    assert min(p) > RATE / 4 / 72


def test_these_tests_would_see_a_mask_that_is_too_narrow():
    narrow = (torch.arange(1 << 17) * 0x9E3779B97F4A7C15 % 2**60).numpy().view(np.uint64)
    assert stats.chisquare(np.bincount(cells((narrow,))[7].astype(int), minlength=256)).pvalue < 1e-100


floats = st.floats(width=64) | st.floats(width=32) | st.sampled_from([0.5, 1.5, -2.5, 2.0**53, 2.0**52 + 0.5, 2.0**-33])
numbers = st.integers(1, 9) | st.integers(1, 10**9) | st.sampled_from([2**61, 2**62, 2**63, 2**64])


@settings(max_examples=300, deadline=None)
@given(floats | words, st.integers(0, 62), numbers, st.sampled_from([63, 60]))
def test_encoded_is_exact_at_its_edges(value, f, agents, bits):
    x = torch.tensor([value], dtype=torch.int64 if isinstance(value, int) else torch.float64)
    if np.isfinite(value) and abs(e := round(Fraction(value) * 2**f)) * agents < 2**bits:
        found = shares.encoded(x, f, agents, "visits", bits)
        assert found.dtype == torch.int64
        assert found.item() == e
        assert abs(Fraction(e, 2**f) - Fraction(value)) <= Fraction(1, 2 ** (f + 1))
    else:
        with pytest.raises(InputError, match=f"'visits': a value of .* {f} fraction bits and {agents} agents"):
            shares.encoded(x, f, agents, "visits", bits)


@pytest.mark.parametrize(
    ("value", "f", "agents", "fits"),
    [
        (float(2**63 - 1024), 0, 1, True),
        (2.0**63, 0, 1, False),
        (-(2.0**63), 0, 1, False),
        (2**63 - 1, 0, 1, True),
        (-(2**63 - 1), 0, 1, True),
        (-(2**63), 0, 1, False),
        (2**53 + 1, 9, 1, True),
        (2**53 + 1, 10, 1, False),
        (2.0**53 - 1.0, 10, 1, True),
        (2.0**53, 10, 1, False),
        # The largest whole number for five agents lies between these two, nearer to the second.
        (1844674407370955008.0, 0, 5, True),
        (1844674407370955264.0, 0, 5, False),
        (255.65, 32, 8_400_000, True),
        (255.66, 32, 8_400_000, False),
        (1.4, 0, 2**62, True),
        (1.5, 0, 2**62, False),
    ],
)
def test_headroom(value, f, agents, fits):
    x = torch.tensor([value], dtype=torch.int64 if isinstance(value, int) else torch.float64)
    if fits:
        assert shares.encoded(x, f, agents, "x").item() == round(Fraction(value) * 2**f)
    else:
        with pytest.raises(InputError, match="take fewer fraction bits or a smaller unit"):
            shares.encoded(x, f, agents, "x")


@quick
@given(st.lists(st.floats(-200, 200), min_size=1, max_size=50), st.integers(0, 32))
def test_the_error_of_a_sum(values, f):
    total = shares.encoded(torch.tensor(values, dtype=torch.float64), f, len(values), "x").sum()
    error = abs(Fraction(int(total), 2**f) - sum(map(Fraction, values)))
    assert error <= Fraction(len(values), 2 ** (f + 1))


@quick
@given(st.lists(words, min_size=1, max_size=40), st.integers(0, 62))
def test_decoded_is_the_nearest_float(totals, f):
    found = shares.decoded(torch.tensor(totals), f)
    assert found.tolist() == [float(Fraction(total, 2**f)) for total in totals]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.bfloat16, torch.float32])
def test_types_of_values(dtype):
    x = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert torch.equal(shares.decoded(shares.encoded(x, 20, 1000, "infected"), 20), x.double())
    assert shares.encoded(torch.zeros(0, dtype=dtype), 20, 1000, "infected").shape == (0,)


MODULI = [2, 3, 10, 1009, 2**31 - 1, 3 * 2**61, 2**63, 2**63 + 1, 2**64 - 59, 2**64]


@pytest.mark.parametrize("modulus", MODULI)
def test_equations_9_and_10(modulus):
    values = torch.tensor([[3, -1, 2**63 - 1, -(2**63), 0], [1, 1, 0, 1, 0]])
    seeds = seeds_of("all to all", 5)
    split, sigmas, total = shares.all_to_all(values, modulus, seeds)
    drawn = [below(seed, 8, modulus) for seed in seeds]
    for b, row in enumerate(values.tolist()):
        expected = [drawn[i][4 * b : 4 * b + 4] for i in range(5)]
        expected = [[*r, (s - sum(r)) % modulus] for r, s in zip(expected, row, strict=True)]
        assert split[b].tolist() == [[signed(x) for x in r] for r in expected]
        held = [sum(column) % modulus for column in zip(*expected, strict=True)]
        assert sigmas[b].tolist() == [signed(x) for x in held]
        assert total[b].item() == signed(sum(row) % modulus)


@quick
@given(st.lists(words, min_size=2, max_size=7), st.integers(2, 2**64))
def test_all_to_all_gives_the_sum(values, modulus):
    split, sigmas, total = shares.all_to_all(torch.tensor(values), modulus)
    unsigned = split.numpy().view(np.uint64).astype(object)
    assert (unsigned < modulus).all()
    assert (unsigned.sum(1) % modulus == np.array(values, dtype=object) % modulus).all()
    assert (unsigned.sum(0) % modulus == sigmas.numpy().view(np.uint64)).all()
    assert total.shape == ()
    assert total.item() % 2**64 == sum(values) % modulus


def test_all_to_all_of_nothing():
    found = shares.all_to_all(torch.zeros(0, 5, dtype=torch.int64))
    assert [x.shape for x in found] == [(0, 5, 5), (0, 5), (0,)]


def test_all_to_all_draws_anew():
    values = torch.ones(1000, dtype=torch.int64)
    first, second = (shares.all_to_all(values)[0] for _ in range(2))
    # Two of 10⁶ words are the same with a probability of 3e-8.
    assert len(first.unique()) == first.numel()
    assert not (first == second).any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: shares.keystream(bytes(31), 1), "a seed of 31 bytes was given; a seed is 32 bytes"),
        (lambda: shares.keystream("x" * 32, 1), "a seed that is a str was given"),
        (lambda: shares.shared(torch.ones(3), 2), r"the secret is torch\.float32; give an int64 tensor"),
        (lambda: shares.shared(torch.ones(3, dtype=torch.int32), 2), r"the secret is torch\.int32"),
        (lambda: shares.shared([1, 2], 2), "the secret is list"),
        (lambda: shares.shared(torch.tensor([1]), 0), "parties=0: a secret that one party has whole isn't private"),
        (lambda: shares.Shares((bytes(32),), torch.ones(2)), r"the last share is torch\.float32"),
        (lambda: shares.shared(torch.tensor([1]), 2).of(2), "no party 2: the 2 are numbered from 0 to 1"),
        (lambda: shares.shared(torch.tensor([1]), 2).of(-1), "no party -1"),
        (lambda: shares.opened([torch.tensor([1]), torch.tensor([1.0])]), r"part 1 is torch\.float32"),
        (lambda: shares.decoded(torch.ones(2), 3), r"the total is torch\.float32"),
        (lambda: shares.encoded(torch.ones(2), 63, 1, "x"), "'x': fraction_bits=63; give a number from 0 to 62"),
        (lambda: shares.encoded(torch.ones(2), -1, 1, "x"), "'x': fraction_bits=-1"),
        (lambda: shares.encoded(torch.ones(2), 1, 0, "x"), "'x': agents=0; give the number of agents"),
        (lambda: shares.encoded(torch.ones(2, dtype=torch.complex64), 1, 1, "x"), r"'x' is torch\.complex64"),
        (lambda: shares.encoded(torch.ones(2).to(torch.uint64), 1, 1, "x"), r"'x' is torch\.uint64"),
        (lambda: shares.encoded(torch.tensor([1.0, torch.nan]), 1, 1, "x"), "'x': a value of nan"),
        (lambda: shares.encoded(torch.tensor([1.0, -torch.inf]), 1, 1, "x"), "'x': a value of -inf"),
        (lambda: shares.encoded(torch.tensor([1.0, 300.0]), 32, 8_400_000, "x"), "numbers below 255.6"),
        (lambda: shares.all_to_all(torch.ones(3)), r"the agents' numbers is torch\.float32"),
        (lambda: shares.all_to_all(torch.tensor([1])), "1 agents have nobody to send a share to"),
        (lambda: shares.all_to_all(torch.tensor(1)), "1 agents have nobody"),
        (lambda: shares.all_to_all(torch.tensor([1, 2]), 1), "modulus=1: give one from 2"),
        (lambda: shares.all_to_all(torch.tensor([1, 2]), 2**64 + 1), "modulus=18446744073709551617"),
        (lambda: shares.all_to_all(torch.tensor([1, 2]), 9, [bytes(32)]), "1 seeds were given; give 2"),
        (lambda: shares.all_to_all(torch.tensor([1, 2]), 9, [bytes(32)] * 2), "a seed was given twice"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_global_random_states_are_untouched():
    before = states()
    secret = torch.arange(100)
    shares.opened([shares.shared(secret, 3).of(k) for k in range(3)])
    shares.all_to_all(secret, 1009)
    assert states() == before
