"""Additive secret sharing: integers modulo 2⁶⁴ in parts, of which all together give the sum and fewer give nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.effects.internals.segments import copy, empty
from lpmppl.errors import InputError, LpmError

__all__ = ["Keystream", "Shares", "all_to_all", "decoded", "encoded", "keystream", "opened", "shared", "shares_of"]

SEED = 32
"""Bytes of a seed."""

_ZEROS = memoryview(bytes(1 << 18))
_WORDS = len(_ZEROS) // 8
_MOST = 2**35
"""The words that one seed gives: 2³² blocks of 64 bytes, after which the block counter would begin again."""


class Keystream:
    """The ChaCha20 keystream of a seed as little-endian words of 64 bits: nonce 0, block counter from 0.

    A seed belongs to one secret and is never used again. Each object has its own state: threads don't share one.

    Args:
        seed: 32 bytes from a cryptographic source.
    Raises:
        InputError: for a seed of another length; in use, for more than 2³⁸ bytes, where the counter would repeat.
        LpmError: where the package cryptography isn't installed.
    Source: Nir and Langley, "ChaCha20 and Poly1305 for IETF protocols", RFC 8439 (2018), §2.4.
    """

    def __init__(self, seed: bytes) -> None:
        seeds_of([seed], 1)
        self._cipher, self._left = _chacha20(seed), _MOST

    def fill(self, words: NDArray[np.int64]) -> None:
        """Write the next words over a contiguous array of type "<i8"."""
        self._check(words.size)
        self._left -= words.size
        out = words.view(np.uint8)
        for first in range(0, out.size, len(_ZEROS)):
            piece = out[first : first + len(_ZEROS)]
            # Into memory that is there: fresh memory for each block costs seven times the cipher.
            self._cipher.update_into(_ZEROS[: piece.size], piece)

    def words(self, n: int) -> NDArray[np.int64]:
        """The next n words."""
        self._check(n)
        words = np.empty(n, "<i8")
        self.fill(words)
        return words.astype(np.int64, copy=False)

    def below(self, n: int, modulus: int) -> NDArray[np.uint64]:
        """The next n integers that are uniform on {0, …, modulus − 1}: low bits of words, without those too large."""
        mask, most = np.uint64((1 << (modulus - 1).bit_length()) - 1), np.uint64(modulus - 1)
        found = np.empty(0, np.uint64)
        while len(found) < n:
            more = self.words(n - len(found)).view(np.uint64) & mask
            found = np.concatenate([found, more[more <= most]])
        return found

    def _check(self, n: int) -> None:
        if n > self._left:
            raise InputError(f"{n} words are more than the {self._left} that a seed has left of 2³⁵; share in parts")


def keystream(seed: bytes, n: int) -> Tensor:
    """The first n words of a seed's `Keystream`, int64 of shape (n,).

    >>> keystream(bytes(32), 2)
    tensor([-8053014886254331786,  2935650227004792128])
    """
    return torch.from_numpy(Keystream(seed).words(n))


def _chacha20(seed: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
    except ImportError as e:
        raise LpmError("secret sharing needs the package cryptography: pip install 'lpmppl[parties]'") from e
    return Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()


@dataclass(frozen=True, eq=False)
class Shares:
    r"""A secret in m shares: seeds of the first m − 1, and the vector that is the last.

    .. math:: x = v + \sum_{k=1}^{m-1} G(s_k) \mod 2^{64}

    with G the keystream. Any m − 1 of the shares are uniform and independent of x.

    Args:
        seeds: of 32 bytes each, all different.
        vector: int64 of shape (..., n).
    Raises:
        InputError: for no seed, one twice or of another length, or a vector of another type.
    """

    seeds: tuple[bytes, ...] = field(repr=False)
    vector: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        seeds_of(self.seeds, max(1, len(self.seeds)))
        check_integers("the last share", self.vector)

    @property
    def nbytes(self) -> int:
        """The bytes that all parties are sent together: 8 for each number, and 32 for each seed."""
        return 8 * self.vector.numel() + SEED * len(self.seeds)

    def of(self, k: int) -> Tensor:
        """Party k's share, k from 0, int64 of the secret's shape, in memory of its own."""
        check_party("party", k, len(self.seeds) + 1)
        if k == len(self.seeds):
            return self.vector.clone()
        return keystream(self.seeds[k], self.vector.numel()).reshape(self.vector.shape)


def shared(secret: Tensor, parties: int, seeds: Sequence[bytes] | None = None) -> Shares:
    """Split integers into shares on the CPU, one for each party.

    Args:
        secret: int64 of shape (..., n).
        parties: m, 2 or more.
        seeds: m − 1 of them, for test vectors only; else they come from the operating system.
    Raises:
        InputError: for a secret of another type, fewer than 2 parties, or wrong seeds.
        LpmError: where the package cryptography isn't installed.

    >>> shares = shared(torch.tensor([7, -1]), parties=3)
    >>> opened([shares.of(0), shares.of(1), shares.of(2)])
    tensor([ 7, -1])
    """
    check_integers("the secret", secret)
    if parties < 2:
        raise InputError(f"parties={parties}: a secret that one party has whole isn't private; give 2 or more")
    seeds = seeds_of(seeds, parties - 1)
    rest = np.array(secret.cpu().numpy().reshape(-1), dtype="<i8")
    streams, mask = [Keystream(seed) for seed in seeds], np.empty(_WORDS, "<i8")
    for first in range(0, rest.size, _WORDS):
        some = rest[first : first + _WORDS]
        for stream in streams:
            stream.fill(mask[: some.size])
            some -= mask[: some.size]
    return Shares(seeds, torch.from_numpy(rest.astype(np.int64, copy=False)).reshape(secret.shape))


def shares_of(secret: Tensor, parties: int) -> Iterator[Tensor]:
    """The shares of a secret one after the other, each worked out once: `shared` with all its parties in one place.

    A share is overwritten by the next.

    Raises:
        InputError: for a secret of another type.
        LpmError: where the package cryptography isn't installed.
    """
    check_integers("the secret", secret)
    rest = copy(secret.cpu())
    share = empty(rest.shape, torch.int64, rest.device)
    for _ in range(parties - 1):
        Keystream(secrets.token_bytes(SEED)).fill(share.view(-1).numpy())
        rest -= share
        yield share.to(secret.device)
    yield rest.to(secret.device)


def opened(parts: Iterable[Tensor]) -> Tensor:
    """The sum of all parts modulo 2⁶⁴, int64 of their shape.

    Raises:
        InputError: for no parts, parts of different shapes, or of another type than int64.
    """
    first, *others = alike(parts)
    total = first.clone()
    for part in others:
        total += part
    return total


def encoded(value: Tensor, fraction_bits: int, agents: int, name: str, bits: int = 63) -> Tensor:
    r"""Numbers as integers in fixed point, small enough that the sum of all agents' can't overflow.

    .. math:: e = \lfloor 2^f x \rceil, \qquad N |e| < 2^{63}, \qquad |2^{-f} \sum e - \sum x| \le N 2^{-(f+1)}

    so that each x is below 2^(63−f)/N in size. Integers have no error.

    Args:
        value: floating point, integers or bool, of shape (..., n).
        fraction_bits: f, from 0 to 62.
        agents: N, how many values are summed.
        name: the network or tally, for errors.
        bits: of the largest sum: 63 in the ring, 60 for sharing with a threshold.
    Returns:
        int64 of the value's shape.
    Raises:
        InputError: by name, for a value that is too large, NaN or infinite, of another type, or wrong bits or agents.

    >>> encoded(torch.tensor([0.5, -3.0]), fraction_bits=2, agents=1000, name="contacts")
    tensor([  2, -12])
    """
    if not 0 <= fraction_bits <= 62:
        raise InputError(f"'{name}': fraction_bits={fraction_bits}; give a number from 0 to 62")
    if agents < 1:
        raise InputError(f"'{name}': agents={agents}; give the number of agents that are summed, 1 or more")
    most, x = (2**bits - 1) // agents, value.detach()
    if x.is_floating_point():
        units = (x.double() * 2.0**fraction_bits).round()
        # Compared as integers, because 2⁶³ − 1 is no float64; what int64 can't hold is 0 there and refused before.
        fit = units.abs() < 2.0**63
        whole = torch.where(fit, units, 0.0).long()
        fit &= whole.abs() <= most
    elif x.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        whole, largest = x.long() << fraction_bits, most >> fraction_bits
        fit = (x.long() <= largest) & (x.long() >= -largest)
    else:
        raise InputError(f"'{name}' is {x.dtype}; share floating-point numbers or signed integers")
    if not bool(fit.all()):
        raise InputError(
            f"'{name}': a value of {x[~fit][0].item()} was given where {fraction_bits} fraction bits and {agents} "
            f"agents leave room for numbers below {2.0 ** (bits - fraction_bits) / agents:g}; take fewer fraction bits "
            "or a smaller unit"
        )
    return whole


def decoded(total: Tensor, fraction_bits: int) -> Tensor:
    """The numbers that integers in fixed point stand for: the float64 nearest to each total over 2^f.

    >>> decoded(torch.tensor([2, -12]), fraction_bits=2)
    tensor([ 0.5000, -3.0000], dtype=torch.float64)
    """
    check_integers("the total", total)
    return total.double() * 2.0**-fraction_bits


def all_to_all(values: Tensor, modulus: int = 2**64, seeds: Sequence[bytes] | None = None) -> tuple[Tensor, ...]:
    r"""The sum of agents' numbers where each sends a share to each, without any other party (eqs. 9–10 of the paper).

    .. math:: s_{iN} = s_i - \sum_{j<N} s_{ij}, \qquad \sigma_k = \sum_i s_{ik}, \qquad S = \sum_k \sigma_k \pmod n

    with s_ij uniform on {0, …, n − 1} for j < N. It is for small N: there are N² shares, 12.8 GB for 5,000 agents with
    64 numbers each, and the sum is lost where one agent is; `shared` among a few helpers takes 8 bytes a number.

    Args:
        values: s, int64 of shape (..., N).
        modulus: n, from 2 to 2⁶⁴.
        seeds: an agent's each, for test vectors only; else they come from the operating system.
    Returns:
        s_ij that agent i makes for agent j, int64 of shape (..., N, N); σ, of shape (..., N); and S, of shape (...);
        those from 2⁶³ on less 2⁶⁴.
    Raises:
        InputError: for fewer than 2 agents, another type, a modulus that is out of range, or wrong seeds.

    >>> shares, sigmas, total = all_to_all(torch.arange(1000) % 2, modulus=1009)
    >>> total
    tensor(500)
    """
    check_integers("the agents' numbers", values)
    if not 2 <= modulus <= 2**64:
        raise InputError(f"modulus={modulus}: give one from 2 to 2⁶⁴, larger than the sum")
    agents = values.shape[-1] if values.ndim else 1
    if agents < 2:
        raise InputError(f"{agents} agents have nobody to send a share to; give 2 or more on the last dimension")
    own = values.cpu().numpy().reshape(-1, agents).astype(object)
    split = np.empty((len(own), agents, agents), np.uint64)
    for i, seed in enumerate(seeds_of(seeds, agents)):
        split[:, i, :-1] = Keystream(seed).below(len(own) * (agents - 1), modulus).reshape(-1, agents - 1)
    # Python's integers, as two numbers below a modulus of more than 2⁶³ may exceed a word; of N², N at a time.
    split[..., -1] = (own - sum(split[..., j].astype(object) for j in range(agents - 1))) % modulus
    sigmas = np.asarray(sum(split[:, i].astype(object) for i in range(agents)) % modulus)
    shapes = (*values.shape, agents), values.shape, values.shape[:-1]
    found = (x.astype(np.uint64).view(np.int64) for x in (split, sigmas, sigmas.sum(-1) % modulus))
    return tuple(torch.from_numpy(x).reshape(shape) for x, shape in zip(found, shapes, strict=True))


def seeds_of(seeds: Sequence[bytes] | None, n: int) -> tuple[bytes, ...]:
    """The n seeds that are given, or fresh ones from the operating system."""
    if seeds is None:
        return tuple(secrets.token_bytes(SEED) for _ in range(n))
    for seed in seeds:
        if not isinstance(seed, bytes) or len(seed) != SEED:
            size = f"of {len(seed)} bytes" if isinstance(seed, bytes) else f"that is a {type(seed).__name__}"
            raise InputError(f"a seed {size} was given; a seed is {SEED} bytes, of secrets.token_bytes({SEED})")
    if len(seeds) != n:
        raise InputError(f"{len(seeds)} seeds were given; give {n}")
    if len(set(seeds)) < n:
        raise InputError("a seed was given twice, so that one party would know another's share; give different ones")
    return tuple(seeds)


def check_integers(what: str, x: Tensor) -> None:
    """Refuse what isn't an int64 tensor."""
    if not isinstance(x, Tensor) or x.dtype != torch.int64:
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{what} is {kind}; give an int64 tensor, as encoded(…) makes of numbers")


def check_party(kind: str, k: int, n: int) -> None:
    """Refuse a number that no party or helper has."""
    if not isinstance(k, int) or not 0 <= k < n:
        raise InputError(f"there is no {kind} {k}: the {n} are numbered from 0 to {n - 1}")


def alike(parts: Iterable[Tensor]) -> list[Tensor]:
    """The parts to sum, refusing none, parts that aren't int64, and parts of different shapes."""
    parts = list(parts)
    if not parts:
        raise InputError("no parts were given to sum; give one of each party")
    for k, part in enumerate(parts):
        check_integers(f"part {k}", part)
        if part.shape != parts[0].shape:
            raise InputError(f"part {k} has shape {tuple(part.shape)}, part 0 {tuple(parts[0].shape)}; give them alike")
    return parts
