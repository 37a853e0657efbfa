"""Whole-population passes: in blocks on threads of our own, into buffers that are used again.

At millions of agents a fresh array costs ten times the pass that fills it (page faults), so arrays that have fallen
out of use are handed out again while a simulation runs. And torch's own threads wait for one another in every
operation, which on a busy machine costs a hundred times the work; ours meet once a pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lpmppl._compat import storage_uses

__all__ = ["BLOCK", "at_work", "blocked", "copy", "empty", "positions"]

BLOCK = 1 << 15
"""Agents per block of a fused pass: it stays in cache."""

SCAN = 1 << 18
"""Agents per block of a search."""

_LARGE = 1 << 22
_buffers: list[torch.UntypedStorage] | None = None
_threads: ThreadPoolExecutor | None = None
_workers = 1


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Use large buffers again, and threads of our own instead of torch's, until the outermost such context ends."""
    global _buffers, _threads, _workers
    if _buffers is not None:
        yield
        return
    _workers = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(_workers, initializer=torch.set_num_threads, initargs=(1,)) as _threads:
            _buffers = []
            yield
    finally:
        torch.set_num_threads(_workers)
        _buffers, _threads, _workers = None, None, 1


def blocked(n: int, work: Callable[[], Callable[[slice], None]], block: int = BLOCK) -> None:
    """Do a pass over 0 … n − 1 in blocks, on as many threads as torch had.

    Args:
        n: the length of the pass.
        work: called once per thread for the function of a block, so that each has buffers of its own.
        block: the length of a block.
    """
    workers = min(_workers, -(-n // block))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def share(first: int) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            do = work()
            for low in range(first * block, n, workers * block):
                do(slice(low, min(low + block, n)))

    if workers <= 1 or _threads is None:
        workers = 1
        share(0)
        return
    others = [_threads.submit(share, k) for k in range(1, workers)]
    share(0)
    for other in others:
        other.result()


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give an uninitialised tensor, from a buffer that has fallen out of use where there is one of the same size."""
    size = torch.Size(shape)
    wanted = size.numel() * dtype.itemsize
    if _buffers is None or wanted < _LARGE or device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    for storage in _buffers:
        if storage.nbytes() == wanted and storage_uses(storage) == 1:
            return torch.empty(0, dtype=dtype).set_(storage, 0, size)  # type: ignore[call-overload]
    fresh = torch.empty(size, dtype=dtype)
    _buffers.append(fresh.untyped_storage())
    return fresh


def copy(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Copy a tensor, expanded to `shape`, into a contiguous buffer of its own."""
    out = empty(x.shape if shape is None else shape, x.dtype, x.device)
    if x.shape != out.shape or not x.is_contiguous() or out.nbytes < _LARGE:
        return out.copy_(x)
    source, target = x.view(-1), out.view(-1)

    def part(block: slice) -> None:
        target[block].copy_(source[block])

    blocked(source.shape[0], lambda: part, SCAN)
    return out


def positions(x: Tensor, holds: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Find the flat positions at which a Boolean mask of any shape is true, or at which a predicate holds, in order.

    >>> positions(torch.tensor([[False, True], [True, False]])), positions(torch.tensor([3.0, 1.0]), lambda x: x < 2)
    (tensor([1, 2]), tensor([1]))
    """
    flat = x.reshape(-1)
    found: dict[int, Tensor] = {}

    def search(block: slice) -> None:
        mask = flat[block] if holds is None else holds(flat[block])
        found[block.start] = _true(mask) + block.start

    blocked(flat.shape[0], lambda: search, SCAN)
    if not found:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    return torch.cat([found[k] for k in sorted(found)])


def _true(mask: Tensor) -> Tensor:
    """Where a mask is true; eight agents are looked at at once, since events are rare and almost every word is zero."""
    whole = mask.shape[0] // 8 * 8
    if whole < 1024 or mask.storage_offset() % 8:
        return mask.nonzero().squeeze(-1)
    words = mask[:whole].view(torch.int64).nonzero()
    inside = mask[:whole].view(-1, 8).index_select(0, words.squeeze(-1))
    found = (words * 8 + torch.arange(8, device=mask.device))[inside]
    return torch.cat((found, mask[whole:].nonzero().squeeze(-1) + whole))
