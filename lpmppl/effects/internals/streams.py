"""Counter-based uniforms: noise as a function of its key, with no state to carry, share or restore.

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) in wrapping 64-bit integers, so every
device and every partition of the agents computes the same bits.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from lpmppl.effects.internals import kernels
from lpmppl.effects.internals.segments import bare, blocked

__all__ = ["exponential", "stream", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _signed(x: int) -> int:
    x &= _MASK
    return x - (1 << 64) if x >> 63 else x


def _mix_int(z: int) -> int:
    for shift, multiplier in _ROUNDS:
        z = ((z ^ (z >> shift)) * multiplier) & _MASK
    return z ^ (z >> 31)


def _mix(z: Tensor) -> Tensor:
    """Mix in place; the right shift of a signed integer is made logical by masking."""
    for shift, multiplier in _ROUNDS:
        z ^= (z >> shift) & ((1 << (64 - shift)) - 1)
        z *= _signed(multiplier)
    z ^= (z >> 31) & ((1 << 33) - 1)
    return z


def stream(seed: int, site: str) -> int:
    """Make the 64-bit key of one stream of noise from the seed and the site's name.

    >>> stream(0, "infection") == stream(0, "infection"), stream(0, "infection") == stream(1, "infection")
    (True, False)
    """
    name = int.from_bytes(hashlib.blake2b(site.encode(), digest_size=8).digest(), "little")
    return _mix_int((name + (seed & _MASK) * _GOLDEN + _GOLDEN) & _MASK)


def uniform(ids: Tensor, key: int, *more: int | Tensor) -> Tensor:
    """Draw one uniform on (0, 1) for each agent of a stream.

    Args:
        ids: global ids of the agents, integers of shape (n,).
        key: the stream's key.
        more: further integer keys (draw, step, episode), numbers or tensors broadcastable to (…, n).
    Returns:
        float64 of shape broadcast(ids, *more), never 0 or 1, of 52 bits.
    """
    z: int | Tensor = key
    for part in more:
        if isinstance(z, int) and isinstance(part, int):
            z = _mix_int((z + (part + 1) * _GOLDEN) & _MASK)
        else:
            # A tensor's wrapping arithmetic gives the bits that Python's integers give above.
            step = torch.as_tensor(part, dtype=torch.int64, device=ids.device) + 1
            z = _mix(step * _signed(_GOLDEN) + (_signed(z) if isinstance(z, int) else z))
    if isinstance(z, Tensor):
        return _fraction(ids.to(torch.int64) * _signed(_GOLDEN) + z)
    out = torch.empty(ids.shape, dtype=torch.float64, device=ids.device)
    compiled = bare(ids, out)

    def block(agents: slice) -> None:
        if compiled:
            kernels.uniform(ids[agents].numpy(), np.uint64(z), out[agents].numpy())
        else:
            out[agents] = _fraction(ids[agents].to(torch.int64) * _signed(_GOLDEN) + _signed(z))

    blocked(ids.shape[0], lambda: block, device=ids.device)
    return out


def _fraction(z: Tensor) -> Tensor:
    """Mix a counter in place, and read its upper 52 bits as a number in (0, 1)."""
    z = _mix(z)
    z >>= 12
    z &= (1 << 52) - 1
    return z.to(torch.float64).add_(0.5).mul_(2.0**-52)


def exponential(ids: Tensor, key: int, *more: int | Tensor) -> Tensor:
    """Draw one Exp(1) resistance for each agent of a stream, arguments as in `uniform`.

    Returns:
        float32, which keeps a city's resistances small.
    """
    return uniform(ids, key, *more).log_().neg_().float()
