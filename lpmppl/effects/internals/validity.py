r"""Proofs that secret-shared numbers are valid, which helpers check without learning the numbers.

A client shares its words among m helpers modulo p, and with them, for every chunk of M checked numbers c, a random mask
u and a quotient Q:

.. math:: X(0) = u, \quad X(i) = c_i, \quad Z(t) = \prod_{i=1}^M (t - i), \qquad X(t)\,(X(t) - 1) = Z(t)\,Q(t)

which a polynomial Q satisfies exactly where each c_i is 0 or 1. What each c is, is linear in the words, so that helpers
have shares of it, and of X(r) and Z(r) Q(r) at a point r that is drawn when all shares are in. These two are opened.

*Sound*: where a c_i is neither 0 nor 1, X(X − 1) − ZQ isn't 0 at i, so that it is a polynomial of degree 2M or less
that isn't 0 and has at most 2M roots. The point is none of 1, …, M and the client's words don't depend on it, so that
an invalid agent passes with a probability of 2M/(p − M) at most, whatever its computing power.

*Zero knowledge*: any m − 1 helpers' shares are uniform and independent of the words and of u, and X(r) is u times a
number that isn't 0, as r is none of 1, …, M, plus a sum of the words, so that it is uniform and independent of both.
Z(r) Q(r) is X(r)(X(r) − 1) for honest clients, so that it tells nothing more.

Each check has its own place in a quotient, and none are added up before it is made, so that the proof needs no
challenge: there is neither a second round nor a Fiat–Shamir hash, against which a client could try proofs at home.

Soundness needs all helpers to be honest, and privacy one of them, which answers a single challenge for each agent's
shares, also where these are sent again: X at two points tells about the words. It has to know them again itself, as an
agent that sends another's shares once more isn't seen here.

Source: Boneh, Boyle, Corrigan-Gibbs, Gilboa and Ishai, "Zero-knowledge proofs on secret-shared data via fully linear
PCPs", CRYPTO (2019), §4; Corrigan-Gibbs and Boneh, "Prio", NSDI (2017); Barnes et al., draft-irtf-cfrg-vdaf, §7.
"""

from __future__ import annotations

import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.effects.internals.polynomials import evaluated, fit, less, quotients, summed
from lpmppl.effects.internals.shares import SEED, Keystream, alike, check_integers, check_party
from lpmppl.effects.internals.threshold import Field
from lpmppl.errors import InputError

__all__ = ["Circuit", "Proved", "Words", "check_one"]

Words = NDArray[np.int64]

_LABEL = b"lpmppl validity point\0"
_LEAST_CHALLENGE = 16
_FIELD = Field(61)


@dataclass(frozen=True, eq=False)
class Proved:
    """Agents' words and proofs in m shares: seeds of the first m − 1 helpers, and the words that are the last's.

    Args:
        seeds: uint8 of shape (m − 1, n, 32), a seed of each helper and agent.
        vector: int64 of shape (n, words), from 0 to p − 1.
    """

    seeds: Tensor = field(repr=False)
    vector: Tensor = field(repr=False)

    @property
    def nbytes(self) -> int:
        """The bytes that all helpers are sent together: 8 for each word, and 32 for each seed."""
        return 8 * self.vector.numel() + self.seeds.numel()

    def of(self, k: int) -> Tensor:
        """Helper k's part, k from 0, in memory of its own: uint8 (n, 32), or the last one's int64 (n, words)."""
        check_party("helper", k, len(self.seeds) + 1)
        return (self.vector if k == len(self.seeds) else self.seeds[k]).clone()


@dataclass(frozen=True)
class Circuit(ABC):
    """What makes an agent's d numbers valid: that each of some linear functions of its words is 0 or 1.

    Args:
        d: the numbers that each agent has, 1 or more.
        chunk: about how many checks there are in a chunk. With more, proofs are shorter: a check takes 1 + 2/chunk
            words, of which 2/chunk are opened. The client's work grows as chunk, and the helpers' doesn't.
        field: the integers modulo p that are shared.
    Raises:
        InputError: for sizes that are out of range, or a field that is too small for them.
    """

    d: int
    _: KW_ONLY
    chunk: int = 16
    field: Field = _FIELD

    def __post_init__(self) -> None:
        if self.d < 1 or self.chunk < 1:
            raise InputError(f"{self._name}: d={self.d} and chunk={self.chunk}; give numbers of 1 or more")
        if max(2 * self.width + 1, self.d + 1) >= self.field.prime:
            raise InputError(
                f"{self._name}: {self.d} numbers in chunks of {self.width} are too many modulo {self.field.prime}; "
                "give fewer, a smaller chunk or a larger field"
            )

    @property
    def sent(self) -> int:
        """The words of an agent's numbers."""
        return self.d

    @property
    def checks(self) -> int:
        """How many linear functions of them must be 0 or 1."""
        return self.sent

    @property
    def chunks(self) -> int:
        """How many polynomials check them: checks over chunk, rounded."""
        return max(1, (2 * self.checks + self.chunk) // (2 * self.chunk))

    @property
    def width(self) -> int:
        """M, how many one polynomial checks; zeros fill the last."""
        return -(-self.checks // self.chunks)

    @property
    def words(self) -> int:
        """The words of a share: the numbers', a mask for each chunk, and M + 1 values of each quotient."""
        return self.sent + self.chunks * (self.width + 2)

    @property
    def opened_words(self) -> int:
        """The words v of a verifier: of each chunk X(r), then of each Z(r) Q(r)."""
        return 2 * self.chunks

    @property
    def soundness(self) -> float:
        """With what probability an invalid agent is accepted at most: 2M/(p − M)."""
        return 2 * self.width / (self.field.prime - self.width)

    def proved(self, x: Tensor, parties: int, seeds: Tensor | None = None) -> Proved:
        """Share agents' numbers among helpers, with a proof that they are valid.

        Args:
            x: int64 of shape (n, d).
            parties: m, 2 or more.
            seeds: uint8 of shape (m, n, 32), those of the first m − 1 helpers and the agents' own for their masks, for
                test vectors only; else they come from the operating system.
        Raises:
            InputError: for numbers that aren't valid or of another shape or type, fewer than 2 parties, or wrong seeds.
            LpmError: where the package cryptography isn't installed.

        >>> from lpmppl.effects.internals.circuits import Booleans
        >>> circuit, challenge = Booleans(2), bytes(16)
        >>> proved = circuit.proved(torch.tensor([[0, 1], [1, 1]]), parties=3)
        >>> verifiers = {k: circuit.verifier(proved.of(k), challenge) for k in range(3)}
        >>> circuit.accepted(verifiers, parties=3)
        tensor([True, True])
        >>> circuit.opened(circuit.added(circuit.measure(proved.of(k))) for k in range(3))
        tensor([1, 2])
        """
        self.check(x)
        _check_parties(parties)
        seeds = _seeds_of(seeds, parties, len(x))
        rest = self.statement(x, torch.from_numpy(self._drawn(seeds[-1], self.chunks).T)).numpy().T
        for k in range(parties - 1):
            rest = less(self.field, rest, self._drawn(seeds[k], self.words))
        return Proved(seeds[:-1], _tensor(rest))

    def statement(self, x: Tensor, masks: Tensor) -> Tensor:
        """What is shared: the words of valid numbers, the masks, and the quotients' values at M + 1, …, 2M + 1.

        Args:
            x: int64 of shape (n, d), as in `proved`.
            masks: int64 of shape (n, chunks), from 0 to p − 1.
        Returns:
            int64 of shape (n, words), of the quotients the first value of each chunk, then the second of each.
        Raises:
            InputError: for numbers that aren't valid, or masks that are of another shape or out of range.
        """
        self.check(x)
        self._check_rows("the masks", masks, self.chunks)
        if len(masks) != len(x):
            raise InputError(f"{self._name}: masks of {len(masks)} agents were given for {len(x)}; give as many")
        words, masked = self._words(x.cpu().numpy().T), masks.cpu().numpy().T
        proof = quotients(self.field, self._values(words, masked))
        return _tensor(np.concatenate([words, masked, proof.reshape(len(proof) * self.chunks, len(x))]))

    def expanded(self, part: Tensor) -> Tensor:
        """A helper's share as words: those that its seeds give, or those that it was sent, modulo p.

        Args:
            part: of `Proved.of`, uint8 of shape (n, 32) or int64 of shape (n, words).
        Returns:
            int64 of shape (n, words), from 0 to p − 1, which is a part too and spares drawing it again.
        Raises:
            InputError: for a part of another type or shape.
        """
        return _tensor(self._share(part, self.words))

    def point(self, challenge: bytes) -> int:
        """The point r at which proofs are checked, uniform on the field without 1, …, M.

        Args:
            challenge: 16 bytes or more that no client can foresee while it can still send shares; where a client may
                know the coordinator, bytes of all helpers together.
        Raises:
            InputError: for fewer bytes, or what isn't bytes.
        """
        if not isinstance(challenge, bytes) or len(challenge) < _LEAST_CHALLENGE:
            size = f"{len(challenge)} bytes" if isinstance(challenge, bytes) else type(challenge).__name__
            raise InputError(f"the challenge is {size}; give {_LEAST_CHALLENGE} bytes or more, drawn after all shares")
        stream = Keystream(hashlib.sha256(_LABEL + challenge).digest())
        drawn = int(stream.below(1, self.field.prime - self.width)[0])
        return drawn and drawn + self.width

    def verifier(self, part: Tensor, challenge: bytes) -> Tensor:
        """A helper's share of what is opened to check the proofs, for one challenge only.

        Args:
            part: as in `expanded`.
            challenge: the same for all helpers, as in `point`.
        Returns:
            int64 of shape (n, v), from 0 to p − 1.
        Raises:
            InputError: for a part of another type or shape, or a challenge that is too short.
        """
        share = self._share(part, self.words)
        words, masks, proof = np.split(share, [self.sent, self.sent + self.chunks])
        n, values = share.shape[1], self._values(words, masks)
        message = evaluated(self.field, values, proof.reshape(values.shape), self.point(challenge))
        return _tensor(np.concatenate(message).reshape(self.opened_words, n))

    def accepted(self, verifiers: Mapping[int, Tensor] | Iterable[tuple[int, Tensor]], parties: int) -> Tensor:
        """Which agents' numbers are valid, from the verifiers of all helpers.

        Args:
            verifiers: helper → its `verifier`, int64 of shape (n, v).
            parties: m, as in `proved`.
        Returns:
            bool of shape (n,); the others are left out of the sum.
        Raises:
            InputError: by name, for a helper that is missing, twice or unknown, or what is no verifier.
        """
        _check_parties(parties)
        found: dict[int, Tensor] = {}
        for helper, verifier in verifiers.items() if isinstance(verifiers, Mapping) else verifiers:
            check_party("helper", helper, parties)
            if helper in found:
                raise InputError(f"the verifier of helper {helper} was given twice; give one of each")
            self._check_rows(f"the verifier of helper {helper}", verifier, self.opened_words)
            found[helper] = verifier
            other, n = next((k, len(given)) for k, given in found.items())
            if len(verifier) != n:
                raise InputError(
                    f"the verifiers of helpers {other} and {helper} are of {n} and {len(verifier)} agents; match them"
                )
        missing = [str(k) for k in range(parties) if k not in found]
        if missing:
            raise InputError(f"the verifiers of helpers {', '.join(missing)} of {parties} are missing; wait for them")
        total = summed(self.field, torch.stack(list(found.values())).numpy()).T
        at, divided = (half.reshape(-1) for half in np.split(total, 2))
        return torch.from_numpy(fit(self.field, at, divided).reshape(self.chunks, -1).all(0))

    def measure(self, part: Tensor) -> Tensor:
        """A helper's share of agents' numbers, to be added up.

        Args:
            part: as in `expanded`, of those agents that are accepted.
        Returns:
            int64 of shape (n, d), from 0 to p − 1.
        Raises:
            InputError: for a part of another type or shape.
        """
        return _tensor(self._numbers(self._share(part, self.sent)[: self.sent]))

    def added(self, measures: Tensor) -> Tensor:
        """A helper's total over agents, modulo p: int64 of shape (d,), from measures of shape (n, d)."""
        self._check_rows("the measures", measures, self.d)
        return torch.from_numpy(summed(self.field, measures.numpy()))

    def opened(self, totals: Iterable[Tensor]) -> Tensor:
        """The sum of all helpers' totals modulo p, int64 of shape (d,): as it is, where it is below p/2 in size.

        Raises:
            InputError: for no totals, totals of different shapes, or what is no total.
        """
        parts = alike(totals)
        for k, part in enumerate(parts):
            self._check_rows(f"total {k}", part[None], self.d)
        found = summed(self.field, torch.stack(parts).numpy())
        return torch.from_numpy(np.where(found > self.field.prime // 2, found - self.field.prime, found))

    @property
    def _name(self) -> str:
        return f"{type(self).__name__}({self.d})"

    def _values(self, words: Words, masks: Words) -> Words:
        """What each chunk's X is at 0, …, M, of shape (M + 1, chunks·n)."""
        n, L, M = words.shape[1], self.chunks, self.width
        full = np.zeros((L * M, n), np.int64)
        full[: self.checks] = self._checked(words)
        return np.concatenate([masks[None], full.reshape(L, M, n).swapaxes(0, 1)]).reshape(M + 1, L * n)

    def _share(self, part: Tensor, count: int) -> Words:
        """The first words of a share, of shape (count, n), or all of those that were sent."""
        if isinstance(part, Tensor) and part.dtype == torch.uint8 and part.ndim == 2 and part.shape[1] == SEED:
            return self._drawn(part, count)
        if isinstance(part, Tensor) and part.dtype == torch.int64 and part.ndim == 2 and part.shape[1] == self.words:
            share = part.cpu().numpy()
            # Whatever a client sends is a share of something, and stops no other agent's proof.
            whole = ((share >= 0) & (share < self.field.prime)).all()
            return np.ascontiguousarray((share if whole else share % self.field.prime).T)
        kind = f"{part.dtype} of shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
        raise InputError(
            f"{self._name}: a part is {kind}; give uint8 seeds of shape (n, {SEED}) or int64 words of shape "
            f"(n, {self.words}), as proved(…).of(k)"
        )

    def _drawn(self, seeds: Tensor, count: int) -> Words:
        """The first integers below p of each seed's keystream, of shape (count, n)."""
        most, text = self.field.prime - 1, seeds.numpy().tobytes()
        out = np.empty((len(seeds), count), "<i8")
        for i, row in enumerate(out):
            Keystream(text[SEED * i : SEED * (i + 1)]).fill(row)
        out = out.astype(np.int64, copy=False) & self.field.prime
        # Whose words are all below p needn't be drawn one by one; for p = 2⁶¹ − 1 that is everyone.
        for i in np.flatnonzero((out > most).any(1)).tolist():
            stream = Keystream(text[SEED * i : SEED * (i + 1)])
            out[i] = stream.below(count, self.field.prime).view(np.int64)
        return np.ascontiguousarray(out.T)

    def check(self, x: Tensor) -> None:
        """Refuse numbers of agents, (n, d), that aren't valid."""
        check_integers(f"{self._name}: the agents' numbers", x)
        if x.ndim != 2 or x.shape[1] != self.d:
            raise InputError(f"{self._name}: numbers of shape {tuple(x.shape)} were given; give shape (n, {self.d})")
        wrong = ((x < 0) | (x > self._most)).nonzero()
        if len(wrong):
            agent, entry = wrong[0].tolist()
            raise InputError(
                f"{self._name}: agent {agent} has {int(x[agent, entry])} as number {entry}; give 0 to {self._most}"
            )

    def _check_rows(self, what: str, x: Tensor, count: int) -> None:
        check_integers(what, x)
        if x.ndim != 2 or x.shape[1] != count:
            raise InputError(f"{what}: of shape {tuple(x.shape)}; give shape (n, {count})")
        wrong = (x < 0) | (x >= self.field.prime)
        if bool(wrong.any()):
            raise InputError(f"{what}: a value of {int(x[wrong][0])}; give numbers from 0 to {self.field.prime - 1}")

    @property
    def _most(self) -> int:
        return 1

    def _words(self, x: Words) -> Words:
        """The words (sent, n) of numbers (d, n)."""
        return x

    @abstractmethod
    def _checked(self, words: Words) -> Words:
        """What must be 0 or 1, of shape (checks, n), linear in the words."""

    def _numbers(self, words: Words) -> Words:
        """The numbers, of shape (d, n), linear in the words."""
        return words


def _tensor(rows: Words) -> Tensor:
    """Rows (words, n) as a tensor with agents first."""
    return torch.from_numpy(np.ascontiguousarray(rows.T))


def _check_parties(parties: int) -> None:
    if parties < 2:
        raise InputError(f"parties={parties}: a secret that one party has whole isn't private; give 2 or more")


def check_one(name: str, x: Tensor, rows: int) -> None:
    """Refuse agents with more than one number in a row that isn't 0."""
    many = ((x != 0).reshape(len(x), rows, -1).sum(-1) > 1).nonzero() if len(x) else x
    if len(many):
        agent, row = many[0].tolist()
        width = x.shape[1] // rows
        found = x[agent, row * width : (row + 1) * width].nonzero().flatten() + row * width
        entries = ", ".join(str(k) for k in found.tolist())
        raise InputError(f"{name}: the numbers {entries} of agent {agent} aren't 0; give one at most in each row")


def _seeds_of(seeds: Tensor | None, parties: int, n: int) -> Tensor:
    """The seeds that are given, or fresh ones from the operating system, of shape (parties, n, 32)."""
    if seeds is None:
        drawn = np.frombuffer(secrets.token_bytes(parties * n * SEED), np.uint8)
        return torch.from_numpy(drawn.reshape(parties, n, SEED).copy())
    if not isinstance(seeds, Tensor) or seeds.dtype != torch.uint8 or seeds.shape != (parties, n, SEED):
        kind = f"{seeds.dtype} of shape {tuple(seeds.shape)}" if isinstance(seeds, Tensor) else type(seeds).__name__
        raise InputError(f"seeds are {kind}; give uint8 of shape {(parties, n, SEED)}, the last row the agents' own")
    if len(seeds.reshape(-1, SEED).unique(dim=0)) < parties * n:
        raise InputError("a seed was given twice, so that one helper would know another's share; give different ones")
    return seeds
