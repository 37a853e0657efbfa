"""Memory for whole-population passes: buffers that are used again, and the search for the few agents a mask names.

At millions of agents a fresh array costs ten times the pass that fills it (page faults), so arrays that have fallen out of use are
handed out again while a simulation runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lpmppl._compat import storage_uses

__all__ = ["BLOCK", "blocked", "copy", "empty", "positions", "recycling"]

BLOCK = 1 << 15
"""Agents per block of a fused pass: it stays in cache, and torch doesn't split so few over threads of its own."""

_SMALL = 1 << 22
_pool: list[torch.UntypedStorage] | None = None


@contextlib.contextmanager
def recycling() -> Iterator[None]:
    """Use large buffers again once nothing refers to them, until the outermost such context ends."""
    global _pool
    outer = _pool
    if outer is None:
        _pool = []
    try:
        yield
    finally:
        _pool = outer


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give an uninitialised tensor, from a buffer that has fallen out of use where there is one of the same size."""
    size = torch.Size(shape)
    wanted = size.numel() * dtype.itemsize
    if _pool is None or wanted < _SMALL or device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    for storage in _pool:
        if storage.nbytes() == wanted and storage_uses(storage) == 1:
            return torch.empty(0, dtype=dtype).set_(storage, 0, size)  # type: ignore[call-overload, no-any-return]
    fresh = torch.empty(size, dtype=dtype)
    _pool.append(fresh.untyped_storage())
    return fresh


def copy(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Copy a tensor, expanded to `shape`, into a contiguous buffer of its own."""
    return empty(x.shape if shape is None else shape, x.dtype, x.device).copy_(x)


def blocked(n: int, work: Callable[[], Callable[[slice], None]]) -> None:
    """Do a pass over agents 0 … n − 1 in blocks, on as many threads as torch has.

    Each thread owns every k-th block and synchronises once, at the end: on a busy machine torch's own threads would wait for one another
    in every operation.

    Args:
        n: the number of agents.
        work: called once per thread for the function of a block, so that each has buffers of its own.
    """
    workers = min(torch.get_num_threads(), -(-n // BLOCK))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def share(first: int) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            do = work()
            for low in range(first * BLOCK, n, workers * BLOCK):
                do(slice(low, min(low + BLOCK, n)))

    if workers <= 1:
        share(0)
        return
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(share, k) for k in range(workers)]:
            done.result()


def positions(mask: Tensor) -> Tensor:
    """Find the flat positions at which a Boolean mask of any shape is true, in order.

    Eight agents are looked at at once: events are rare, and almost every word is zero.

    >>> positions(torch.tensor([[False, True], [True, False]]))
    tensor([1, 2])
    """
    flat = mask.reshape(-1)
    whole = flat.shape[0] // 8 * 8
    if whole < 1024 or flat.storage_offset() % 8:
        return flat.nonzero().squeeze(-1)
    words = flat[:whole].view(torch.int64).nonzero()
    inside = flat[:whole].view(-1, 8).index_select(0, words.squeeze(-1))
    found = (words * 8 + torch.arange(8, device=flat.device))[inside]
    tail = flat[whole:].nonzero().squeeze(-1) + whole
    return torch.cat((found, tail)) if tail.shape[0] else found
