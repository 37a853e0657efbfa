"""Proofs of validity against Python's integers, every cheater and every view in small fields, and test vectors."""

from __future__ import annotations

import hashlib
import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lpmppl.effects.internals import polynomials, threshold
from lpmppl.effects.internals.circuits import AtMostOne, AtMostOneBounded, Booleans, Bounded
from lpmppl.effects.internals.threshold import PRIME, Field
from lpmppl.effects.internals.validity import Circuit, Proved
from lpmppl.errors import InputError
from tests.effects.test_shares import below, seeds_of
from tests.oracles import RATE
from tests.randomness import states

VECTORS = Path(__file__).parent / "validity_vectors.json"
CHALLENGE = hashlib.sha256(b"challenge").digest()
KINDS = {"Booleans": Booleans, "AtMostOne": AtMostOne, "Bounded": Bounded, "AtMostOneBounded": AtMostOneBounded}
SEVEN, THIRTY_ONE = Field(3), Field(5)

quick = settings(max_examples=60, deadline=None)
elements = st.integers(0, PRIME - 1) | st.sampled_from([0, 1, 2, 2**30, 2**31 - 1, 2**31, 2**60, PRIME - 2, PRIME - 1])


class Oracle:
    """The protocol in Python's integers, with polynomials by their coefficients and quotients by long division."""

    def __init__(self, kind: str, d: int, bits: int = 1, chunk: int = 16, prime: int = PRIME, rows: int = 1) -> None:
        self.kind, self.d, self.bits, self.prime, self.rows = kind, d, bits, prime, rows
        self.sent = {"Booleans": d, "AtMostOne": d, "Bounded": d * bits, "AtMostOneBounded": d * (bits + 1)}[kind]
        checks = len(self.checked([0] * self.sent))
        self.L = max(1, int(Fraction(checks, chunk) + Fraction(1, 2)))
        self.M = -(-checks // self.L)
        self.Z = [1]
        for i in range(1, self.M + 1):
            self.Z = self.times(self.Z, [-i, 1])

    def circuit(self, **kwargs: Any) -> Circuit:
        sizes = (self.d, self.bits) if "Bounded" in self.kind else (self.d,)
        return KINDS[self.kind](*sizes, field=Field(self.prime.bit_length()), **kwargs)

    def encoded(self, x: list[int]) -> list[int]:
        if "Bounded" not in self.kind:
            return list(x)
        bits = [value >> b & 1 for value in x for b in range(self.bits)]
        return bits + [int(value != 0) for value in x] * (self.kind == "AtMostOneBounded")

    def checked(self, words: list[int]) -> list[int]:
        bits, ones = words[: self.d * self.bits], words[self.d * self.bits :]
        if self.kind == "AtMostOne":
            return [*words, *self.by_row(words)]
        if not ones:
            return words
        return [*words, *(ones[k // self.bits] - b for k, b in enumerate(bits)), *self.by_row(ones)]

    def by_row(self, words: list[int]) -> list[int]:
        width = self.d // self.rows
        return [sum(words[k : k + width]) for k in range(0, self.d, width)]

    def numbers(self, words: list[int]) -> list[int]:
        return [
            sum(2**b * words[j * self.bits + b] for b in range(self.bits)) % self.prime
            if "Bounded" in self.kind
            else words[j]
            for j in range(self.d)
        ]

    def times(self, a: list[int], b: list[int]) -> list[int]:
        found = [0] * (len(a) + len(b) - 1)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                found[i + j] = (found[i + j] + x * y) % self.prime
        return found

    def at(self, coefficients: list[int], t: int) -> int:
        value = 0
        for c in reversed(coefficients):
            value = (value * t + c) % self.prime
        return value

    def through(self, first: int, values: list[int]) -> list[int]:
        """The coefficients of the polynomial through values at first, first + 1, …, by Newton's differences."""
        differences = list(values)
        for order in range(1, len(values)):
            for k in range(len(values) - 1, order - 1, -1):
                differences[k] = (differences[k] - differences[k - 1]) * pow(order, -1, self.prime) % self.prime
        found, basis = [0] * len(values), [1]
        for k, c in enumerate(differences):
            found = [f + c * (basis[i] if i < len(basis) else 0) for i, f in enumerate(found)]
            basis = self.times(basis, [-(first + k), 1])
        return [f % self.prime for f in found]

    def polynomials(self, words: list[int], masks: list[int]) -> list[list[int]]:
        checked = [*self.checked(words), *[0] * (self.L * self.M)]
        return [self.through(0, [masks[c], *checked[c * self.M : (c + 1) * self.M]]) for c in range(self.L)]

    def shares_of(self, words: list[int], masks: list[int], forge: bool = False) -> list[int]:
        """What is shared; where a quotient doesn't exist, a cheater takes what is one at M + 1, …, 2M + 1."""
        rows, targets = [], range(self.M + 1, 2 * self.M + 2)
        for X in self.polynomials(words, masks):
            rest = self.times(X, [X[0] - 1, *X[1:]])
            if forge:
                rows.append([self.at(rest, t) * pow(self.at(self.Z, t), -1, self.prime) % self.prime for t in targets])
                continue
            quotient = [0] * (len(rest) - self.M)
            for k in range(len(quotient) - 1, -1, -1):
                quotient[k] = rest[k + self.M]
                for i, z in enumerate(self.Z):
                    rest[k + i] = (rest[k + i] - quotient[k] * z) % self.prime
            assert not any(rest)
            rows.append([self.at(quotient, t) for t in targets])
        return [w % self.prime for w in (*words, *masks, *(row[i] for i in range(self.M + 1) for row in rows))]

    def point(self, challenge: bytes) -> int:
        r = below(hashlib.sha256(b"lpmppl validity point\0" + challenge).digest(), 1, self.prime - self.M)[0]
        return r + self.M if r else 0

    def verifier(self, share: list[int], r: int) -> list[int]:
        words, masks, proof = share[: self.sent], share[self.sent : self.sent + self.L], share[self.sent + self.L :]
        quotients = [self.through(self.M + 1, proof[c :: self.L]) for c in range(self.L)]
        opened = [self.at(X, r) for X in self.polynomials(words, masks)]
        return opened + [self.at(self.Z, r) * self.at(Q, r) % self.prime for Q in quotients]

    def proved(self, x: list[int], seeds: list[bytes]) -> list[list[int]]:
        """All helpers' shares of one agent's numbers."""
        statement = self.shares_of(self.encoded(x), below(seeds[-1], self.L, self.prime))
        drawn = [below(seed, len(statement), self.prime) for seed in seeds[:-1]]
        return [*drawn, [(w - sum(mask)) % self.prime for w, *mask in zip(statement, *drawn, strict=True)]]


def text(rows: Any) -> Any:
    return [text(row) for row in rows] if isinstance(rows, list) else str(rows)


def tensor(rows: Any) -> Tensor:
    return torch.tensor([[int(x) for x in row] for row in rows], dtype=torch.int64)


def seed_tensor(seeds: list[list[bytes]]) -> Tensor:
    return torch.tensor([[list(seed) for seed in row] for row in seeds], dtype=torch.uint8)


def split(words: Tensor, parties: int, prime: int = PRIME, seed: int = 1) -> list[Tensor]:
    """Shares of any words, that nobody has proved."""
    drawn = np.random.default_rng(seed).integers(0, prime, (parties - 1, *words.shape))
    rest = (words.numpy().astype(object) - drawn.astype(object).sum(0)) % prime
    return [torch.from_numpy(x) for x in (*drawn, rest.astype(np.int64))]


def checked(circuit: Circuit, parts: list[Tensor], challenge: bytes = CHALLENGE) -> list[bool]:
    verifiers = {k: circuit.verifier(part, challenge) for k, part in enumerate(parts)}
    return circuit.accepted(verifiers, len(parts)).tolist()


def total(circuit: Circuit, parts: list[Tensor]) -> list[int]:
    return circuit.opened(circuit.added(circuit.measure(part)) for part in parts).tolist()


CASES = [
    ("Booleans", 3, 1, 16, 2, [[0, 1, 1], [0, 0, 0], [1, 1, 1]]),
    ("Booleans", 7, 1, 3, 3, [[0, 1, 1, 0, 1, 0, 1]]),
    ("AtMostOne", 4, 1, 16, 4, [[0, 0, 1, 0], [0, 0, 0, 0]]),
    ("Bounded", 2, 5, 4, 3, [[0, 31], [17, 6]]),
    ("AtMostOneBounded", 3, 2, 16, 2, [[0, 3, 0], [0, 0, 0], [1, 0, 0]]),
]


def vectors() -> dict[str, list[dict[str, Any]]]:
    """What `validity_vectors.json` holds: proofs under given seeds, those to be rejected and why, and refused calls."""
    found: dict[str, list[dict[str, Any]]] = {"valid": [], "rejected": [], "malformed": []}
    for kind, d, bits, chunk, parties, x in CASES:
        oracle = Oracle(kind, d, bits, chunk)
        seeds = [seeds_of(f"{kind} {d} agent {i}", parties) for i in range(len(x))]
        parts = [oracle.proved(row, own) for row, own in zip(x, seeds, strict=True)]
        r = oracle.point(CHALLENGE)
        by_helper = [[agent[k] for agent in parts] for k in range(parties)]
        found["valid"].append(
            {"circuit": kind, "d": d, "bits": bits, "chunk": chunk, "parties": parties, "numbers": x}
            | {"seeds": [[own[k].hex() for own in seeds] for k in range(parties)]}
            | {"challenge": CHALLENGE.hex(), "point": str(r), "vector": text(by_helper[-1])}
            | {"verifiers": text([[oracle.verifier(share, r) for share in part] for part in by_helper])}
            | {"measures": text([[oracle.numbers(share) for share in part] for part in by_helper])}
            | {"total": [sum(column) for column in zip(*x, strict=True)]}
        )
    oracle, own = Oracle("AtMostOne", 4), seeds_of("rejected", 2)
    half = (PRIME + 1) // 2

    def rejected(why: str, parts: list[list[int]], challenges: list[bytes], accepted: bool = False) -> None:
        found["rejected"].append(
            {"circuit": "AtMostOne", "d": 4, "bits": 1, "chunk": 16, "why": why, "parts": text(parts)}
            | {"challenges": [c.hex() for c in challenges], "accepted": accepted}
        )

    one, other = oracle.proved([0, 1, 0, 0], own), oracle.proved([0, 0, 0, 1], seeds_of("other", 2))
    same, late = [CHALLENGE] * 2, hashlib.sha256(b"another challenge").digest()
    rejected("nothing: it is valid", one, same, True)
    rejected("nothing: a word is read modulo p", [one[0], [w + PRIME for w in one[1]]], same, True)
    for says, words in [
        ("a number is 2", [0, 2, 0, 0]),
        ("a number is −1", [0, PRIME - 1, 1, 0]),
        ("a number is 1/2", [half, 0, 0, 0]),
        ("two halves add up to 1", [half, half, 0, 0]),
        ("two numbers are 1", [1, 0, 0, 1]),
    ]:
        statement = oracle.shares_of(words, [12345], forge=True)
        rejected(says, [[0] * len(statement), statement], same)
    for says, place in [("a number", 0), ("the mask", 4), ("the first of the quotient", 5), ("the last", 10)]:
        rejected(f"{says} of helper 1 is one more", [one[0], [w + (k == place) for k, w in enumerate(one[1])]], same)
    rejected("the helpers have different agents' shares", [one[0], other[1]], same)
    rejected("the proof is another agent's", [a[:4] + b[4:] for a, b in zip(one, other, strict=True)], same)
    rejected("the helpers have different challenges", one, [CHALLENGE, late])
    found["malformed"] = [
        {"call": "proved", "numbers": [[0, 2]], "parties": 2, "says": "Booleans(2): agent 0 has 2 as number 1"},
        {"call": "proved", "numbers": [[0, 1], [-1, 0]], "parties": 2, "says": "agent 1 has -1 as number 0"},
        {"call": "proved", "numbers": [[0, 1, 1]], "parties": 2, "says": "numbers of shape (1, 3) were given"},
        {"call": "proved", "numbers": [[0, 1]], "parties": 1, "says": "parties=1: a secret that one party has whole"},
        {
            "call": "verifier",
            "part": [["1", "2"]],
            "challenge": "00" * 16,
            "says": "Booleans(2): a part is torch.int64",
        },
        {"call": "verifier", "part": [["1"] * 6], "challenge": "00" * 15, "says": "the challenge is 15 bytes"},
        {"call": "accepted", "verifiers": {"0": [["1", "2"]]}, "says": "the verifiers of helpers 1 of 2 are missing"},
        {"call": "accepted", "verifiers": {}, "says": "the verifiers of helpers 0, 1 of 2 are missing"},
        {"call": "accepted", "verifiers": {"0": [["1"]]}, "says": "the verifier of helper 0: of shape (1, 1)"},
        {"call": "accepted", "verifiers": {"2": [["1", "2"]]}, "says": "there is no helper 2"},
        {"call": "accepted", "verifiers": {"0": [["-1", "2"]]}, "says": "the verifier of helper 0: a value of -1"},
        {"call": "accepted", "verifiers": {"1": [["1", str(PRIME)]]}, "says": f"of helper 1: a value of {PRIME}"},
        {"call": "measure", "part": [["1", "2"]], "says": "a part is torch.int64 of shape (1, 2)"},
    ]
    return found


def written() -> str:
    return json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"


def stored(kind: str) -> list[dict[str, Any]]:
    return json.loads(VECTORS.read_text())[kind] if VECTORS.exists() else []


def circuit_of(case: dict[str, Any]) -> Circuit:
    return Oracle(case["circuit"], case["d"], case["bits"]).circuit(chunk=case["chunk"])


def test_the_vectors_on_disk_are_those_of_python_integers():
    assert VECTORS.read_text() == written(), "write them anew: PYTHONPATH=. python tests/effects/test_validity.py"


@pytest.mark.parametrize("case", stored("valid"), ids=lambda c: f"{c['circuit']} {c['d']}")
def test_valid_vectors(case):
    circuit, challenge = circuit_of(case), bytes.fromhex(case["challenge"])
    seeds = seed_tensor([[bytes.fromhex(seed) for seed in row] for row in case["seeds"]])
    found = circuit.proved(torch.tensor(case["numbers"]), case["parties"], seeds)
    assert torch.equal(found.vector, tensor(case["vector"]))
    assert str(circuit.point(challenge)) == case["point"]
    parts = [found.of(k) for k in range(case["parties"])]
    for k, part in enumerate(parts):
        for same in (part, circuit.expanded(part)):
            assert torch.equal(circuit.verifier(same, challenge), tensor(case["verifiers"][k]))
            assert torch.equal(circuit.measure(same), tensor(case["measures"][k]))
    assert all(checked(circuit, parts, challenge))
    assert total(circuit, parts) == case["total"]


@pytest.mark.parametrize("case", stored("rejected"), ids=lambda c: c["why"])
def test_rejected_vectors(case):
    circuit = circuit_of(case)
    challenges = [bytes.fromhex(challenge) for challenge in case["challenges"]]
    verifiers = {k: circuit.verifier(tensor([part]), challenges[k]) for k, part in enumerate(case["parts"])}
    assert circuit.accepted(verifiers, len(verifiers)).tolist() == [case["accepted"]]


@pytest.mark.parametrize("case", stored("malformed"), ids=lambda c: f"{c['call']}: {c['says']}")
def test_malformed_vectors_are_refused(case):
    circuit = Booleans(2)
    with pytest.raises(InputError) as refused:
        if case["call"] == "proved":
            circuit.proved(torch.tensor(case["numbers"]), case["parties"])
        elif case["call"] == "verifier":
            circuit.verifier(tensor(case["part"]), bytes.fromhex(case["challenge"]))
        elif case["call"] == "measure":
            circuit.measure(tensor(case["part"]))
        else:
            circuit.accepted({int(k): tensor(rows) for k, rows in case["verifiers"].items()}, 2)
    assert case["says"] in str(refused.value)


@st.composite
def submissions(draw, most_d: int = 9):
    """A protocol, in one of three fields, numbers that are valid in it, and a number of helpers."""
    kind, d = draw(st.sampled_from(sorted(KINDS))), draw(st.integers(1, most_d))
    bits = draw(st.sampled_from([1, 2, 5, 60])) if "Bounded" in kind else 1
    prime, chunk = draw(st.sampled_from([7, 31, PRIME, PRIME])), draw(st.integers(1, 20))
    assume(bits < prime.bit_length())
    oracle = Oracle(kind, d, bits, chunk, prime)
    assume(max(2 * oracle.M + 1, d + 1) < prime)
    n = draw(st.integers(1, 4))
    values = st.integers(0, 2**bits - 1) | st.just(2**bits - 1)
    x = torch.tensor(draw(st.lists(st.lists(values, min_size=d, max_size=d), min_size=n, max_size=n)))
    if kind.startswith("AtMostOne"):
        x *= torch.nn.functional.one_hot(torch.tensor(draw(st.lists(st.integers(0, d - 1), min_size=n, max_size=n))), d)
    return oracle, oracle.circuit(chunk=chunk), x, draw(st.integers(2, 4))


@settings(max_examples=200, deadline=None)
@given(submissions(), st.binary(min_size=16, max_size=40))
def test_valid_numbers_are_always_accepted(submission, challenge):
    oracle, circuit, x, parties = submission
    found = circuit.proved(x, parties)
    parts = [found.of(k) for k in range(parties)]
    assert checked(circuit, parts, challenge) == [True] * len(x)
    sums, p = x.numpy().astype(object).sum(0) % oracle.prime, oracle.prime
    assert total(circuit, parts) == [s - p if s > p // 2 else s for s in sums]
    assert found.nbytes == len(x) * (8 * circuit.words + 32 * (parties - 1)) == sum(q.nbytes for q in parts)
    assert found.vector.shape == (len(x), circuit.words)
    assert circuit.verifier(parts[0], challenge).shape == (len(x), circuit.opened_words)
    assert (circuit.chunks, circuit.width) == (oracle.L, oracle.M)
    assert circuit.soundness == pytest.approx(2 * oracle.M / (p - oracle.M), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(submissions(most_d=4), st.binary(min_size=16, max_size=20), st.integers(0, 2**32))
def test_shares_and_verifiers_are_those_of_python_integers(submission, challenge, source):
    oracle, circuit, x, parties = submission
    seeds = [seeds_of(f"{source} {k}", len(x)) for k in range(parties)]
    found = circuit.proved(x, parties, seed_tensor(seeds))
    r = oracle.point(challenge)
    assert circuit.point(challenge) == r
    assert r not in range(1, oracle.M + 1)
    for i, row in enumerate(x.tolist()):
        for k, share in enumerate(oracle.proved(row, [own[i] for own in seeds])):
            assert circuit.expanded(found.of(k))[i].tolist() == share
            assert circuit.verifier(found.of(k), challenge)[i].tolist() == oracle.verifier(share, r)
            assert circuit.measure(found.of(k))[i].tolist() == oracle.numbers(share[: oracle.sent])


# A wrong proof passes with a probability of 2⁻⁵⁵ or less where the prime is 2⁶¹ − 1. Below, fewer than 2¹⁴ are tried
# whose shares or challenge aren't fixed, so that the tests fail by chance with less than 1e-12 altogether.


@pytest.mark.parametrize("bad", [2, PRIME - 1, (PRIME + 1) // 2, PRIME - 2, 2**60, 12345678901234567])
@pytest.mark.parametrize(
    ("kind", "d", "bits"), [("Booleans", 37, 1), ("AtMostOne", 18, 1), ("Bounded", 3, 6), ("AtMostOneBounded", 3, 3)]
)
def test_every_wrong_word_is_seen(kind, d, bits, bad):
    oracle = Oracle(kind, d, bits)
    source = random.Random(f"{kind} {bad}")
    rows = []
    for place in range(oracle.sent):
        words = oracle.encoded([1, *[0] * (d - 1)])
        words[place] = bad
        rows.append(oracle.shares_of(words, [source.randrange(PRIME) for _ in range(oracle.L)], forge=True))
    honest = oracle.shares_of(oracle.encoded([0] * d), [5] * oracle.L)
    found = checked(oracle.circuit(), split(torch.tensor([*rows, honest]), 3))
    assert found == [False] * oracle.sent + [True]


@pytest.mark.parametrize(
    ("kind", "bits", "words"),
    [
        ("AtMostOne", 1, [1, 1, 0]),
        ("AtMostOne", 1, [1, 1, 1]),
        ("AtMostOneBounded", 2, [1, 0, 0, 1, 0, 0, 1, 1, 0]),  # two messages
        ("AtMostOneBounded", 2, [1, 0, 0, 1, 0, 0, 1, 0, 0]),  # two messages of which one is hidden
        ("AtMostOneBounded", 2, [0, 0, 0, 1, 0, 0, 0, 0, 0]),  # a message without indicator
        ("AtMostOneBounded", 2, [0, 0, 0, 0, 0, 0, 1, 0, 1]),  # no message and two indicators
    ],
)
def test_more_than_one_is_seen(kind, bits, words):
    oracle = Oracle(kind, 3, bits)
    forged = oracle.shares_of(words, [7] * oracle.L, forge=True)
    assert checked(oracle.circuit(), split(torch.tensor([forged]), 2)) == [False]


@pytest.mark.parametrize(("kind", "bits"), [("AtMostOne", 1), ("AtMostOneBounded", 2)])
def test_at_most_one_is_meant_of_each_row(kind, bits):
    in_two_rows, in_one_row, masks = [1, 0, 0, 1], [1, 1, 0, 0], [7] * 9
    for rows, accepted in ((2, [True, False]), (1, [False, False])):
        oracle = Oracle(kind, 4, bits, rows=rows)
        forged = [oracle.shares_of(oracle.encoded(x), masks[: oracle.L], True) for x in (in_two_rows, in_one_row)]
        assert checked(oracle.circuit(rows=rows), split(torch.tensor(forged), 2)) == accepted
    circuit = Oracle(kind, 4, bits, rows=2).circuit(rows=2)
    circuit.proved(torch.tensor([in_two_rows]), 2)
    with pytest.raises(InputError, match="the numbers 2, 3 of agent 0 aren't 0"):
        circuit.proved(torch.tensor([[1, 0, 1, 1]]), 2)


def test_every_changed_word_of_every_helper_is_seen():
    circuit, n = Booleans(20, chunk=8), 50
    x = torch.arange(20 * n).reshape(n, 20) % 2
    found = circuit.proved(x, 3)
    parts = [circuit.expanded(found.of(k)) for k in range(3)]
    assert circuit.words < n
    for k, by in [(0, 1), (1, PRIME - 1), (2, 2**40 + 3)]:
        changed = [part.clone() for part in parts]
        for place in range(circuit.words):
            changed[k][place, place] = (int(changed[k][place, place]) + by) % PRIME
        assert checked(circuit, changed) == [place >= circuit.words for place in range(n)]


def test_whose_share_it_is_is_seen():
    circuit = Bounded(3, 4)
    x = torch.tensor([[0, 15, 3], [7, 7, 7], [1, 2, 3], [4, 0, 0]])
    found = circuit.proved(x, 3)
    parts = [circuit.expanded(found.of(k)) for k in range(3)]
    order = torch.tensor([1, 0, 2, 3])
    assert checked(circuit, [parts[0], parts[1][order], parts[2]]) == [False, False, True, True]
    assert checked(circuit, [part[order] for part in parts]) == [True] * 4
    replayed = [torch.cat([part[:, : circuit.sent], part[order][:, circuit.sent :]], 1) for part in parts]
    assert checked(circuit, replayed) == [False, False, True, True]
    verifiers = {k: circuit.verifier(part, CHALLENGE if k else bytes(16)) for k, part in enumerate(parts)}
    assert not circuit.accepted(verifiers, 3).any()
    lied = {k: circuit.verifier(part, CHALLENGE) for k, part in enumerate(parts)}
    lied[2][1, 0] = (int(lied[2][1, 0]) + 1) % PRIME
    assert circuit.accepted(lied, 3).tolist() == [True, False, True, True]


def test_whatever_is_sent_is_read_modulo_p():
    circuit = AtMostOne(3)
    found = circuit.proved(torch.tensor([[0, 1, 0]] * 8), 2)
    part = circuit.expanded(found.of(0))
    for k in range(-4, 4):
        sent = found.vector + k * PRIME
        assert torch.equal(circuit.expanded(sent), found.vector)
        assert torch.equal(circuit.measure(sent), circuit.measure(found.vector))
        assert checked(circuit, [part, sent]) == [True] * 8
    worst = found.vector.clone()
    worst[1], worst[2] = 2**63 - 1, -(2**63)
    assert checked(circuit, [part, worst]) == [True, False, False, *[True] * 5]


def test_an_invalid_agent_is_left_out_of_the_sum():
    oracle = Oracle("Bounded", 2, 3)
    x = [[1, 2], [3, 4], [5, 6]]
    statements = [oracle.shares_of(oracle.encoded(row), [9]) for row in x]
    statements.insert(1, oracle.shares_of([2**50, 0, 0, 0, 0, 0], [9], forge=True))
    circuit = oracle.circuit()
    parts = split(torch.tensor(statements), 3)
    valid = torch.tensor(checked(circuit, parts))
    assert valid.tolist() == [True, False, True, True]
    assert total(circuit, [part[valid] for part in parts]) == [9, 12]
    assert total(circuit, parts) != [9, 12]


def challenges_of(circuit: Circuit) -> list[bytes]:
    """A challenge for every point that there can be."""
    found: dict[int, bytes] = {}
    for k in range(2000):
        found.setdefault(circuit.point(k.to_bytes(16)), k.to_bytes(16))
    p, M = circuit.field.prime, circuit.width
    assert sorted(found) == [0, *range(M + 1, p)]
    return list(found.values())


def everything(prime: int, count: int) -> Tensor:
    """All vectors over a field, of shape (p^count, count)."""
    return torch.cartesian_prod(*[torch.arange(prime)] * count).reshape(-1, count)


@pytest.mark.parametrize(
    ("circuit", "best"),
    [
        (Booleans(1, field=SEVEN), Fraction(2, 6)),
        (Booleans(2, field=SEVEN), Fraction(4, 5)),
        (AtMostOne(1, field=SEVEN), Fraction(4, 5)),
        pytest.param(Booleans(1, field=THIRTY_ONE), Fraction(2, 30), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_cheater_does_better_than_the_bound(circuit, best):
    p, statements = circuit.field.prime, everything(circuit.field.prime, circuit.words)
    parts = split(statements, 2, p)
    challenges = challenges_of(circuit)
    passed = sum(torch.tensor(checked(circuit, parts, c), dtype=torch.int64) for c in challenges)
    valid = (statements[:, : circuit.d] <= 1).all(1)
    most = Fraction(int(passed[~valid].max()), len(challenges))
    assert most <= Fraction(2 * circuit.width, p - circuit.width)
    assert float(most) <= circuit.soundness
    assert most == best
    # Of valid numbers, one quotient for each mask passes whatever the challenge is.
    always = passed == len(challenges)
    assert not (always & ~valid).any()
    assert int(always.sum()) == 2**circuit.d * p**circuit.chunks


def views(circuit: Circuit, x: list[int], challenge: bytes, holder: int) -> np.ndarray:
    """How often one of two helpers sees what, over all chance: its share, and what both verifiers open."""
    p, W, L = circuit.field.prime, circuit.words, circuit.chunks
    chance = everything(p, W + L)
    own, masks = chance[:, :W], chance[:, W:]
    statement = circuit.statement(torch.tensor(x).expand(len(own), -1), masks)
    parts = [own, (statement - own) % p]
    verifiers = {k: circuit.verifier(part, challenge) for k, part in enumerate(parts)}
    assert circuit.accepted(verifiers, 2).all()
    seen = torch.cat([parts[holder], *verifiers.values()], 1).numpy()
    codes = seen @ (p ** np.arange(seen.shape[1]))
    return np.stack(np.unique(codes, return_counts=True))


@pytest.mark.parametrize("circuit", [Booleans(1, field=SEVEN), AtMostOne(1, field=SEVEN)], ids=str)
def test_one_helper_and_what_is_opened_tell_nothing(circuit):
    for challenge in challenges_of(circuit):
        for holder in (0, 1):
            zero, one = (views(circuit, [x], challenge, holder) for x in (0, 1))
            assert np.array_equal(zero, one)
            # A view is any share with any X(r), each as often, and nothing is left of Z(r) Q(r).
            assert zero.shape[1] == 7 ** (circuit.words + circuit.chunks)
            assert (zero[1] == 1).all()


def test_without_masks_what_is_opened_would_tell():
    circuit = Booleans(1, field=SEVEN)
    challenge = next(c for c in challenges_of(circuit) if circuit.point(c) != 0)
    statements = (circuit.statement(torch.tensor([[x]]), torch.tensor([[0]])) for x in (0, 1))
    zero, one = (circuit.verifier(statement, challenge).tolist() for statement in statements)
    assert zero != one


# Shares and masks are drawn by the operating system: the test below fails by chance with RATE, over 20 comparisons.


def test_what_is_opened_is_uniform():
    circuit, n = AtMostOne(24), 1 << 15
    assert circuit.chunks == 2
    counts = []
    for place in (0, 23):
        x = torch.zeros(n, 24, dtype=torch.int64)
        x[:, place] = 1
        found = circuit.proved(x, 2)
        sums = circuit.verifier(found.of(0), CHALLENGE).numpy().astype(object)
        sums = (sums + circuit.verifier(found.of(1), CHALLENGE).numpy()) % PRIME
        assert (sums[:, 2:] == sums[:, :2] * (sums[:, :2] - 1) % PRIME).all()
        seen = [sums[:, c].astype(np.int64) for c in (0, 1)] + [found.vector[:, k].numpy() for k in (0, 23, 25)]
        counts.append([np.bincount((v >> by) & 255, minlength=256) for v in seen for by in (53, 3)])
    p = [stats.chisquare(c).pvalue for half in counts for c in half]
    assert len(p) == 20
    assert min(p) > RATE / 20


def test_points_are_uniform_where_there_are_no_checks():
    circuit = Booleans(2, field=SEVEN)
    counts = np.bincount([circuit.point(k.to_bytes(20)) for k in range(5000)], minlength=7)
    assert counts[[1, 2]].tolist() == [0, 0]
    assert stats.chisquare(counts[[0, 3, 4, 5, 6]]).pvalue > RATE
    assert len({Booleans(2).point(k.to_bytes(16)) for k in range(1000)}) == 1000


def test_seeds_are_drawn_anew_and_nothing_is_shown():
    circuit, x = Booleans(4), torch.ones(1000, 4, dtype=torch.int64)
    first, second = circuit.proved(x, 3), circuit.proved(x, 3)
    assert len(torch.cat([first.seeds.reshape(-1, 32), second.seeds.reshape(-1, 32)]).unique(dim=0)) == 4000
    assert not (first.vector == second.vector).all(0).any()
    assert repr(first) == "Proved()"
    part = first.of(2)
    part.zero_()
    assert first.of(2).any()
    assert x.all()


def test_no_agents():
    circuit = AtMostOneBounded(3, 2)
    found = circuit.proved(torch.zeros(0, 3, dtype=torch.int64), 2)
    parts = [found.of(0), found.of(1)]
    assert checked(circuit, parts) == []
    assert total(circuit, parts) == [0, 0, 0]


def test_sums_are_centred():
    circuit = Bounded(1, 60)
    most = 2**60 - 1
    parts = split(torch.tensor(Oracle("Bounded", 1, 60).shares_of([1] * 60, [3] * 4))[None], 2)
    assert total(circuit, parts) == [most]
    assert total(circuit, [torch.cat([part, part]) for part in parts]) == [2 * most - PRIME]


@quick
@given(st.lists(st.tuples(elements, elements), min_size=1, max_size=9), st.sampled_from([3, 5, 61]))
def test_arithmetic_is_exact(pairs, q):
    p, field = 2**q - 1, Field(q)
    a, b = (np.array([x % p for x in column]) for column in zip(*pairs, strict=True))
    exact = a.astype(object), b.astype(object)
    assert field.product(a, b).tolist() == list(exact[0] * exact[1] % p)
    assert polynomials.less(field, a, b).tolist() == list((exact[0] - exact[1]) % p)
    assert polynomials.summed(field, a[:, None]).tolist() == [exact[0].sum() % p]
    assert field.combined(b.tolist(), [*a[:, None]]).tolist() == [(exact[0] * exact[1]).sum() % p]


def test_arithmetic_in_blocks():
    n = 2 * threshold._BLOCK + 1
    a = np.random.default_rng(4).integers(0, PRIME, (2, n))
    assert Field(61).product(a[0], a[1]).tolist() == list(a[0].astype(object) * a[1] % PRIME)
    assert polynomials.summed(Field(61), np.full((n, 1), PRIME - 1)).tolist() == [n * (PRIME - 1) % PRIME]


@quick
@given(st.lists(elements, min_size=1, max_size=9), elements, st.integers(0, 5))
def test_weights_are_those_of_newton(values, at, first):
    oracle = Oracle("Booleans", 1)
    found = Field(61).weights(range(first, first + len(values)), at)
    exact = sum(w * v for w, v in zip(found, values, strict=True)) % PRIME
    assert exact == oracle.at(oracle.through(first, values), at)


ones = torch.ones(2, 2, dtype=torch.int64)
sent = Booleans(2).verifier(torch.zeros(1, 6, dtype=torch.int64), CHALLENGE)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Booleans(0), r"Booleans\(0\): d=0 and chunk=16; give numbers of 1 or more"),
        (lambda: Booleans(3, chunk=0), "chunk=0"),
        (lambda: Booleans(3, field=SEVEN), r"Booleans\(3\): 3 numbers in chunks of 3 are too many modulo 7"),
        (lambda: Booleans(6, chunk=1, field=SEVEN), "too many modulo 7"),
        (lambda: Bounded(3, 61), r"Bounded\(3\): bits=61; give 1 to 60"),
        (lambda: Bounded(3, 0), "bits=0"),
        (lambda: AtMostOne(2).proved(ones, 2), r"AtMostOne\(2\): the numbers 0, 1 of agent 0 aren't 0"),
        (lambda: AtMostOne(3, rows=2), r"AtMostOne: 3 numbers aren't 2 rows of as many each"),
        (lambda: AtMostOneBounded(2, 3).proved(7 * ones, 2), "the numbers 0, 1 of agent 0 aren't 0"),
        (lambda: Bounded(2, 3).proved(8 * ones, 2), r"Bounded\(2\): agent 0 has 8 as number 0; give 0 to 7"),
        (lambda: Booleans(2).proved(ones.double() / 2, 2), r"Booleans\(2\): the agents' numbers is torch\.float64"),
        (lambda: Booleans(2).statement(2 * ones, ones[:, :1]), "agent 0 has 2 as number 0"),
        (lambda: Booleans(2).statement(ones, ones), r"the masks: of shape \(2, 2\); give shape \(n, 1\)"),
        (lambda: Booleans(2).statement(ones, ones[:1, :1]), "masks of 1 agents were given for 2"),
        (lambda: Booleans(2).proved(ones[0], 2), r"numbers of shape \(2,\) were given; give shape \(n, 2\)"),
        (lambda: Booleans(2).proved(ones, 1), "parties=1"),
        (lambda: Booleans(2).proved(ones, 2, torch.zeros(2, 2, 32, dtype=torch.uint8)), "a seed was given twice"),
        (lambda: Booleans(2).proved(ones, 2, torch.zeros(1, 2, 32, dtype=torch.uint8)), r"shape \(1, 2, 32\); give"),
        (lambda: Booleans(2).proved(ones, 2, [bytes(32)]), "seeds are list"),
        (lambda: Booleans(2).proved(ones, 2).of(2), "no helper 2: the 2 are numbered from 0 to 1"),
        (lambda: Booleans(2).verifier(torch.zeros(1, 31, dtype=torch.uint8), CHALLENGE), r"a part is torch\.uint8"),
        (lambda: Booleans(2).verifier([1], CHALLENGE), "a part is list"),
        (lambda: Booleans(2).verifier(torch.zeros(1, 6, dtype=torch.int64), "x" * 16), "the challenge is str"),
        (lambda: Booleans(2).accepted([(0, sent), (0, sent)], 2), "the verifier of helper 0 was given twice"),
        (lambda: Booleans(2).accepted({0: sent, 1: sent}, 3), "the verifiers of helpers 2 of 3 are missing"),
        (lambda: Booleans(2).accepted({0: sent}, 1), "parties=1"),
        (lambda: Booleans(2).accepted({0: sent, 1: sent.repeat(2, 1)}, 2), "helpers 0 and 1 are of 1 and 2 agents"),
        (lambda: Booleans(2).accepted({0: sent.double(), 1: sent}, 2), r"of helper 0 is torch\.float64"),
        (lambda: Booleans(2).added(-ones), "the measures: a value of -1"),
        (lambda: Booleans(2).opened([ones[0], -ones[0]]), "total 1: a value of -1"),
        (lambda: Booleans(2).opened([]), "no parts were given to sum"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_global_random_states_are_untouched():
    before = states()
    circuit = Booleans(3)
    found = circuit.proved(torch.ones(100, 3, dtype=torch.int64), 3)
    assert isinstance(found, Proved)
    assert all(checked(circuit, [found.of(k) for k in range(3)]))
    assert states() == before


if __name__ == "__main__":
    VECTORS.write_text(written())
