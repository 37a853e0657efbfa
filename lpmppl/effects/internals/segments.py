"""Whole-population passes: in blocks on threads of our own, into buffers that are used again.

At millions of agents a fresh array costs ten times the pass that fills it (page faults), so arrays that have fallen
out of use are handed out again while a simulation runs. And torch's own threads wait for one another in every
operation, which on a busy machine costs a hundred times the work; ours meet once a pass.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl._compat import inside_transform, storage_uses

__all__ = [
    "BLOCK",
    "at_work",
    "blocked",
    "broadcast",
    "copy",
    "crosses",
    "differentiated",
    "empty",
    "keep",
    "positions",
    "put",
    "scaled",
    "take",
]

BLOCK = 1 << 17
"""Agents per block of a fused pass: it stays in cache."""

SCAN = 1 << 18
"""Agents per block of a search."""

_LARGE = 1 << 22
_CPU = torch.device("cpu")
_buffers: list[torch.UntypedStorage] | None = None
_threads: ThreadPoolExecutor | None = None
_workers = 1
_last: tuple[weakref.ref[Tensor], int, Tensor] | None = None


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Use large buffers again, and threads of our own instead of torch's, until the outermost such context ends."""
    global _buffers, _threads, _workers, _last
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
        _buffers, _threads, _workers, _last = None, None, 1, None


def blocked(
    n: int, work: Callable[[], Callable[[slice], None]], block: int = BLOCK, device: torch.device = _CPU
) -> None:
    """Do a pass over 0 … n − 1 in blocks, on as many threads as torch had.

    Args:
        n: the length of the pass.
        work: called once per thread for the function of a block, so that each has buffers of its own.
        block: the length of a block.
        device: where the tensors are; a device other than the CPU takes the pass in one block.
    """
    if device.type != "cpu":
        block = max(n, 1)
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


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """The shape that shapes broadcast to; torch's own takes a tenth of a millisecond.

    >>> broadcast((2, 1, 3), (3,), ())
    torch.Size([2, 1, 3])
    """
    first = shapes[0]
    return torch.Size(first if all(shape == first for shape in shapes) else np.broadcast_shapes(*map(tuple, shapes)))


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


def scaled(x: Tensor, share: Tensor | None, scale: float) -> Tensor:
    """Multiply flat values of any kind by shares of the same shape and by a number, on several threads if many."""
    if x.nbytes < _LARGE or share is None or x.shape != share.shape:
        return (x if share is None else x * share) * scale
    out = empty(share.shape, share.dtype, share.device)

    def part(block: slice) -> None:
        out[block].copy_(x[block]).mul_(share[block]).mul_(scale)

    blocked(x.shape[0], lambda: part, device=x.device)
    return out


def take(x: Tensor, where: Tensor) -> Tensor:
    """Read a flat tensor at positions of shape (k,), on several threads where they are many."""
    if where.shape[0] <= BLOCK or x.device.type != "cpu" or differentiated(x):
        return x.index_select(0, where)
    out = empty(where.shape, x.dtype, x.device)

    def read(part: slice) -> None:
        torch.index_select(x, 0, where[part], out=out[part])

    blocked(where.shape[0], lambda: read)
    return out


def put(x: Tensor, where: Tensor, value: Tensor) -> None:
    """Write values, a scalar or shape (k,), into a flat tensor at distinct positions, on several threads if many."""

    def write(part: slice) -> None:
        x.index_put_((where[part],), value[part] if value.dim() else value)

    blocked(where.shape[0], lambda: write, device=x.device)


def keep(x: Tensor, mask: Tensor) -> None:
    """Zero what a mask leaves out, in place; on the CPU by NumPy, which is twice as fast with Booleans."""
    if x.device.type == "cpu":
        values = x.numpy()
        np.multiply(values, mask.numpy(), out=values)
    else:
        x.mul_(mask)


def crosses(before: Tensor, after: Tensor, level: Tensor, at_risk: Tensor, out: Tensor) -> None:
    """Write into a mask where a level lies in (before, after] of an agent at risk.

    Few of those at risk are above their level, so only they are looked at twice.
    """
    if out.device.type != "cpu":
        torch.gt(after, level, out=out).logical_and_(before <= level).logical_and_(at_risk)
        return
    flags, levels = out.numpy(), level.numpy()
    np.logical_and(np.greater(after.numpy(), levels, out=flags), at_risk.numpy(), out=flags)
    above = np.flatnonzero(flags)
    if above.size:
        flags[above] = before.numpy()[above] <= levels[above]


def differentiated(x: Tensor) -> bool:
    """Say whether a derivative is being taken through a tensor, in reverse or forward mode."""
    return x.requires_grad or torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def positions(x: Tensor, above: float | None = None, below: float | None = None) -> Tensor:
    """Find, in order, the flat positions at which a Boolean mask is true, or values lie above or below a level.

    >>> positions(torch.tensor([[False, True], [True, False]])), positions(torch.tensor([3.0, 1.0]), below=2)
    (tensor([1, 2]), tensor([1]))
    """
    global _last
    mask = above is None and below is None
    if mask and _last is not None and _last[0]() is x and _last[1] == x._version:
        return _last[2]
    flat = x.reshape(-1)
    found: dict[int, Tensor] = {}

    def search(block: slice) -> None:
        found[block.start] = _true(flat[block], above, below) + block.start

    blocked(flat.shape[0], lambda: search, SCAN, x.device)
    if not found:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    result = torch.cat([found[k] for k in sorted(found)])
    if mask and _buffers is not None and not x.is_inference():
        # An event's mask is asked for its agents twice: for the time within the step, and by the model.
        _last = weakref.ref(x), x._version, result
    return result


def _true(x: Tensor, above: float | None, below: float | None) -> Tensor:
    """Where a flat mask is true or values lie beyond a level; NumPy is several times faster at it than torch."""
    plain = x.detach()
    some: Any = plain if x.device.type != "cpu" or inside_transform(plain) else plain.numpy()
    mask = some > above if above is not None else some < below if below is not None else some
    return mask.nonzero().squeeze(-1) if isinstance(mask, Tensor) else torch.from_numpy(np.flatnonzero(mask))
