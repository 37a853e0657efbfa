"""Whole-population passes: in blocks on threads of our own, into buffers that are used again.

At millions of agents a fresh array costs ten times the pass that fills it (page faults), so arrays that have fallen
out of use are handed out again while a simulation runs. And torch's own threads wait for one another in every
operation, which on a busy machine costs a hundred times the work; ours meet once a pass.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl._compat import forward_mode, inside_transform, storage_uses, touched
from lpmppl.effects.internals import kernels

__all__ = [
    "BLOCK",
    "LARGE",
    "add",
    "alike",
    "at_work",
    "bare",
    "blocked",
    "broadcast",
    "by_blocks",
    "carry_over",
    "changes",
    "choose",
    "copy",
    "count",
    "differentiated",
    "differing",
    "empty",
    "expose",
    "find",
    "give_back",
    "known",
    "meeting",
    "meeting_sum",
    "pick",
    "positions",
    "put",
    "reader",
    "scaled",
    "send_back",
    "take",
    "wide",
]

BLOCK = 1 << 17
"""Agents per block of a fused pass: it stays in cache."""

SCAN = 1 << 18
"""Agents per block of a search."""

SPREAD = 1 << 16
"""Places per block of a pass that reads or writes all over memory, each of which takes as long as tens in a row."""

LARGE = 1 << 21
"""Bytes from which a tensor is worth a buffer that is used again."""

IDLE = 128
"""Requests for large buffers after which one that was of use to none of them is given back."""


class _Buffers:
    """Large pieces of memory that are used again once nothing holds them any more."""

    def __init__(self) -> None:
        self.storages: list[torch.UntypedStorage] = []
        self.used: list[int] = []
        self.requests = 0

    def take(self, wanted: int) -> torch.UntypedStorage:
        """Give one of so many bytes that nothing holds, a new one where there is none."""
        self.requests += 1
        if self.requests % (IDLE // 4) == 0:
            self.give_back(IDLE)
        for k, storage in enumerate(self.storages):
            if storage.nbytes() == wanted and storage_uses(storage) == 1:
                self.used[k] = self.requests
                return storage
        # numpy's large arrays are in huge pages where the system has them, which are filled three times as fast.
        self.storages.append(torch.from_numpy(np.empty(wanted, np.uint8)).untyped_storage())
        self.used.append(self.requests)
        return self.storages[-1]

    def give_back(self, idle: int) -> None:
        """Once worlds have parted, the buffers of one world are of no more use."""
        keep = [
            k
            for k, storage in enumerate(self.storages)
            if storage_uses(storage) > 1 or self.requests - self.used[k] < idle
        ]
        self.storages, self.used = [self.storages[k] for k in keep], [self.used[k] for k in keep]


_CPU = torch.device("cpu")
_buffers: _Buffers | None = None
_threads: ThreadPoolExecutor | None = None
_workers = 1
_known: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}


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
            _buffers = _Buffers()
            yield
    finally:
        torch.set_num_threads(_workers)
        _buffers, _threads, _workers = None, None, 1
        _known.clear()


def give_back() -> None:
    """Give back all large buffers that nothing holds now, before something else than a simulation needs the memory."""
    if _buffers is not None:
        _buffers.give_back(0)


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
    if n <= block:
        if n:
            work()(slice(0, n))
        return
    workers = min(_workers, -(-n // block))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    starts = iter(range(0, n, block))

    def share() -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            do = work()
            # Whoever is free takes the next block: a thread that comes late, or has lost its core, holds nobody up.
            for low in starts:
                do(slice(low, min(low + block, n)))

    others = [_threads.submit(share) for _ in range(1, workers)] if _threads is not None else []
    share()
    for other in others:
        if not other.cancel():
            other.result()


def by_blocks(n: int, work: Callable[[slice], Tensor | tuple[Tensor, ...]]) -> Any:
    """Put together what a function gives for parts of 0 … n − 1, on several threads and without whole temporaries.

    Args:
        n: the length of the last dimension.
        work: gives, for a part, one tensor or several of shape (…, length of the part); a place's value must not
            depend on the others'.
    Returns:
        the same for all of them, shape (…, n); it is asked for in one piece where it is differentiated or on a device.
    """
    if n <= BLOCK:
        return work(slice(0, n))
    found = work(slice(0, 1))
    first = (found,) if isinstance(found, Tensor) else found
    if not bare(*first) or any(differentiated(x) for x in first):
        return work(slice(0, n))
    whole = tuple(empty((*x.shape[:-1], n), x.dtype, x.device) for x in first)

    def fill(block: slice) -> None:
        part = work(block)
        for out, x in zip(whole, (part,) if isinstance(part, Tensor) else part, strict=True):
            out[..., block] = x

    blocked(n, lambda: fill, BLOCK)
    return whole[0] if isinstance(found, Tensor) else whole


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
    if _buffers is None or wanted < LARGE or device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    return torch.empty(0, dtype=dtype).set_(_buffers.take(wanted), 0, size)  # type: ignore[call-overload]


def copy(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Copy a tensor, expanded to `shape`, into a contiguous buffer of its own."""
    out = empty(x.shape if shape is None else shape, x.dtype, x.device)
    if out.nbytes < LARGE or not out.dim():
        return out.copy_(x)
    wide = x.expand(out.shape)
    if wide.is_contiguous():
        pairs = [(wide.view(-1), out.view(-1))]
    else:  # worlds that part: world by world, so that several threads copy each
        pairs = [(wide[row], out[row]) for row in itertools.product(*(range(n) for n in out.shape[:-1]))]

    for source, target in pairs:
        blocked(target.shape[0], functools.partial(_copying, source, target), SCAN)
    return out


def _copying(source: Tensor, target: Tensor) -> Callable[[slice], None]:
    def part(block: slice) -> None:
        target[block].copy_(source[block])

    return part


def alike(x: Tensor) -> bool:
    """Say whether a tensor holds one and the same along its first dimension, as for worlds that haven't parted."""
    return x.dim() > 1 and x.shape[0] > 1 and x.stride(0) == 0


def scaled(x: Tensor, share: Tensor | None, scale: float) -> Tensor:
    """Multiply flat values of any kind by shares of the same shape and by a number, on several threads if many."""
    if x.numel() < BLOCK or share is None or x.shape != share.shape:
        return (x if share is None else x * share) * scale
    out = empty(share.shape, share.dtype, share.device)

    def part(block: slice) -> None:
        if bare(x, share) and share.dtype == torch.float32:
            kernels.scale(out[block].numpy(), x[block].numpy(), share[block].numpy(), np.float32(scale))
        else:
            out[block].copy_(x[block]).mul_(share[block]).mul_(scale)

    blocked(x.shape[0], lambda: part, device=x.device)
    return out


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Read a tensor of shape (…, G) at places of its last dimension, integers of shape (n,): shape (…, n)."""
    if not bare(x, index) or differentiated(x):
        return x.index_select(-1, wide(index))
    if alike(x):
        return pick(x[0], index).expand(*x.shape[:-1], index.shape[0])
    lead, n = x.shape[:-1], index.shape[0]
    out = empty((*lead, n), x.dtype, x.device)
    for values, found in zip(x.reshape(-1, x.shape[-1]), out.view(-1, n), strict=True):
        reader(values, index)(slice(None), found)
    return out


def wide(index: Tensor) -> Tensor:
    """An index in integers that torch takes for one."""
    return index if index.dtype == torch.int64 else index.int()


def take(x: Tensor, where: Tensor) -> Tensor:
    """Read a flat tensor at positions of shape (k,), on several threads where they are many."""
    if not bare(x, where) or differentiated(x) or not x.is_contiguous():
        return x.index_select(0, wide(where))
    out = empty(where.shape, x.dtype, x.device)
    values, places, target = x.numpy(), _unsigned(where), out.numpy()

    def read(part: slice) -> None:
        kernels.gather(target[part], values, places[part])

    blocked(where.shape[0], lambda: read, SPREAD)
    return out


def put(x: Tensor, where: Tensor, value: Tensor) -> None:
    """Write values, a scalar or shape (k,), into a flat tensor at distinct positions, on several threads if many."""
    if not bare(x, where, value):
        x.index_put_((where,), value)
        return
    many = value.dim() > 0 and value.shape[0] > 1
    source, target, places = value.detach().reshape(-1).contiguous().numpy(), x.numpy(), _unsigned(where)

    def write(part: slice) -> None:
        kernels.scatter(target, places[part], source[part] if many else source)

    blocked(where.shape[0], lambda: write, SPREAD)
    touched(x)


def add(x: Tensor, where: Tensor, value: Tensor) -> None:
    """Add values of shape (k,) to a flat tensor of their kind, at positions that may repeat."""
    if not bare(x, where, value):
        x.index_add_(0, wide(where), value)
        return
    kernels.add(x.numpy(), _unsigned(where), value.detach().contiguous().numpy())
    touched(x)


def carry_over(x: Tensor, where: Tensor, source: Tensor) -> None:
    """Write into a flat tensor what another holds, at flat positions that may repeat."""
    target, places, values = x.numpy(), _unsigned(where), source.numpy()

    def write(part: slice) -> None:
        kernels.carry_over(target, places[part], values)

    blocked(where.shape[0], lambda: write, SPREAD)
    touched(x)


def _unsigned(where: Tensor) -> np.ndarray:
    places = where.numpy()
    return places.view(f"u{places.itemsize}")


def expose(step: Tensor, at_risk: Tensor, before: Tensor, after: Tensor) -> None:
    """Write into `after` the hazard of those at risk on top of `before`; all are flat blocks of one length."""
    if bare(step, at_risk, before, after):
        kernels.accrue(step.numpy(), at_risk.numpy(), before.numpy(), after.numpy())
    else:
        torch.add(before, step * at_risk, out=after)


def meeting(
    at_risk: Tensor, before: Tensor, after: Tensor, level: Tensor, event: Tensor
) -> Callable[[Tensor, slice, int, Tensor | None], Tensor]:
    """What does as `expose` for a block, given the hazard of its step, and says where one at risk meets its level.

    All are flat and of one length. The function writes into the mask `event` where the level lies in (before, after],
    and gives these places, counting the block's first as it is told; on the CPU it needs room for as many integers.
    """
    everything = at_risk, before, after, level, event
    if not bare(*everything):

        def by_torch(step: Tensor, block: slice, first: int, room: Tensor | None) -> Tensor:
            risk, was, now, limit, here = (x[block] for x in everything)
            expose(step, risk, was, now)
            torch.gt(now, limit, out=here).logical_and_(was <= limit).logical_and_(risk)
            return find(here, first, room)

        return by_torch
    arrays = [x.numpy() for x in everything]

    def compiled(step: Tensor, block: slice, first: int, room: Tensor | None) -> Tensor:
        assert room is not None
        here = [x[block] for x in arrays]
        kernels.meet(step.numpy(), *here)
        return room[: kernels.true(here[-1].view(np.uint8), first, room.numpy())].clone()

    return compiled


def meeting_sum(
    leaves: Sequence[tuple[Tensor, Tensor | None]],
    factors: Sequence[Tensor],
    at_risk: Tensor,
    before: Tensor,
    after: Tensor,
    level: Tensor,
    event: Tensor,
) -> Callable[[slice, int, Tensor], Tensor] | None:
    """What does as `meeting` gives, of a step that is a sum of groups' values times values of each agent, in one loop.

    Args:
        leaves: values of shape (G,) and the place of each agent among them, shape (N,).
        factors: shape (N,).
        at_risk: as of `meeting`, and so are the others.
        before: see there.
        after: see there.
        level: see there.
        event: see there.
    Returns:
        the function of a block, its first place and room for as many integers; None where there is no loop for these.
    """
    places = [index for _, index in leaves if index is not None]
    values = [*(base for base, _ in leaves), *factors]
    agents = [at_risk, before, after, level, event]
    n = at_risk.shape[0]
    if (
        n < SPREAD
        or len(places) < len(leaves)
        or any(x.dtype != torch.float32 for x in values)
        or any(x.shape[0] != n for x in (*places, *factors))
        or not bare(*places, *values, *agents)
        or not all(x.is_contiguous() for x in (*places, *values, *agents))
    ):
        return None
    pairs = [(base.numpy(), _unsigned(index)) for (base, _), index in zip(leaves, places, strict=True)]
    each = [f.numpy() for f in factors] or [np.broadcast_to(np.float32(1), n)]
    arrays = [x.numpy() for x in agents]

    def compiled(block: slice, first: int, room: Tensor) -> Tensor:
        sums = tuple((base, index[block]) for base, index in pairs)
        each_of = tuple(f[block] for f in each)
        risk, was, now, limit, met = (x[block] for x in arrays)
        return room[: kernels.meet_sum(sums, each_of, risk, was, now, limit, met, first, room.numpy())].clone()

    return compiled


def choose(out: Tensor, mask: Tensor, yes: float, no: float) -> None:
    """Multiply a flat block by one of two numbers, in place, by a mask."""
    if bare(out, mask) and out.dtype == torch.float32:
        kernels.choose(out.numpy(), mask.numpy(), np.float32(yes), np.float32(no))
    else:
        out.mul_(torch.where(mask, yes, no))


def reader(values: Tensor, index: Tensor) -> Callable[..., object]:
    """What reads flat values at a block of an index of shape (n,) into a buffer of the block's length, or adds them."""
    if not bare(values, index):

        def by_torch(block: slice, out: Tensor, add: bool = False) -> object:
            found = values.index_select(0, wide(index[block]))
            return out.add_(found) if add else out.copy_(found)

        return by_torch
    source, places = values.numpy(), _unsigned(index)

    def compiled(block: slice, out: Tensor, add: bool = False) -> object:
        return (kernels.gather_add if add else kernels.gather)(out.numpy(), source, places[block])

    return compiled


def send_back(out: Tensor, index: Tensor, values: Tensor) -> None:
    """Add flat values, most of them zero, to `out`, float64, where `reader` has read them: at an index that repeats."""
    if bare(out, index, values):
        kernels.send_back(out.numpy(), _unsigned(index), values.numpy())
    else:
        out.index_add_(0, index.long(), values.to(out.dtype))


def changes(values: Tensor, bits: Tensor, seen: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Say whose values, zero off a mask, aren't those seen, counted from `first`, and by how much; they are seen then.

    Args:
        values: a flat block on the CPU, float64.
        bits: the mask, eight to a byte as numpy packs them.
        seen: what was seen last, float32, of the values' shape; written to.
        first: the position of the block's first value.
    """
    where, by = torch.empty(values.shape[0], dtype=torch.int64), torch.empty_like(values)
    n = kernels.changes(values.numpy(), bits.numpy(), seen.numpy(), first, where.numpy(), by.numpy())
    return where[:n].clone(), by[:n].clone()


def bare(*tensors: Tensor) -> bool:
    """Say whether tensors are on the CPU, with memory of their own that a compiled loop can work on."""
    for x in tensors:  # noqa: SIM110  a generator costs four times as much, in every operation on few agents
        if not x.is_cpu or inside_transform(x):
            return False
    return True


def differentiated(x: Tensor) -> bool:
    """Say whether a derivative is being taken through a tensor, in reverse or forward mode."""
    return x.requires_grad or (forward_mode() and torch.autograd.forward_ad.unpack_dual(x).tangent is not None)


def positions(x: Tensor, above: float | None = None, below: float | None = None) -> Tensor:
    """Find, in order, the flat positions at which a mask is true, or values lie above a level, below one or between.

    >>> positions(torch.tensor([[False, True], [True, False]])), positions(torch.tensor([3.0, 1.0]), below=2)
    (tensor([1, 2]), tensor([1]))
    """
    mask = above is None and below is None
    if mask and (note := _known.get(id(x))) is not None and note[0]() is x and note[1] == x._version:
        return note[2]
    if alike(x):
        # What is the same in all worlds is looked through in one of them.
        found_once = positions(x[0], above, below)
        return torch.cat([found_once + k * x[0].numel() for k in range(x.shape[0])])
    flat = x.reshape(-1)
    if differentiated(x):
        # In the open, for who wants to know that the derivative ends here.
        return _within(flat, above, below).nonzero().squeeze(-1)
    found: dict[int, Tensor] = {}

    def searcher() -> Callable[[slice], None]:
        room = torch.empty(min(SCAN, flat.shape[0]), dtype=torch.int64) if compiled else None

        def search(block: slice) -> None:
            found[block.start] = find(flat[block], block.start, room, above, below)

        return search

    compiled = bare(x)
    blocked(flat.shape[0], searcher, SCAN, x.device)
    if not found:
        return torch.empty(0, dtype=torch.int64, device=x.device)
    result = torch.cat([found[k] for k in sorted(found)])
    if mask:
        known(x, result)
    return result


def count(mask: Tensor) -> int:
    """Say at how many places a mask is true; torch's own sum takes a hundred times as long."""
    return int(np.count_nonzero(mask.numpy()) if bare(mask) else mask.count_nonzero())


def known(mask: Tensor, where: Tensor) -> None:
    """Keep the flat positions at which a mask is true: an event's are asked for at once, and again by the model."""
    if _buffers is not None and not mask.is_inference():
        gone = functools.partial(_forget, id(mask))
        _known[id(mask)] = weakref.ref(mask, gone), mask._version, where


def _forget(key: int, _: object) -> None:
    _known.pop(key, None)


def differing(a: Tensor, b: Tensor) -> Tensor | None:
    """Find, in order, the flat positions at which two tensors of one kind differ; None where they aren't of one."""
    if a.shape != b.shape or a.dtype != b.dtype or not bare(a, b) or not (a.is_contiguous() and b.is_contiguous()):
        return None
    one, other = a.view(-1), b.view(-1)
    found: dict[int, Tensor] = {}

    def searcher() -> Callable[[slice], None]:
        room = torch.empty(min(SCAN, one.shape[0]), dtype=torch.int64)

        def search(block: slice) -> None:
            n = kernels.differ(one[block].numpy(), other[block].numpy(), block.start, room.numpy())
            found[block.start] = room[:n].clone()

        return search

    blocked(one.shape[0], searcher, SCAN)
    return torch.cat([found[k] for k in sorted(found)]) if found else torch.empty(0, dtype=torch.int64)


def find(
    x: Tensor, first: int, room: Tensor | None = None, above: float | None = None, below: float | None = None
) -> Tensor:
    """Say where a flat mask is true or values lie beyond a level, counted from `first`.

    On the CPU, `room` for as many integers lets a compiled loop do it.
    """
    plain = x.detach()
    if room is None:
        return _within(plain, above, below).nonzero().squeeze(-1) + first
    values, out = plain.numpy(), room.numpy()
    if above is not None and below is not None:
        n = kernels.between(values, values.dtype.type(above), values.dtype.type(below), first, out)
    elif above is not None:
        n = kernels.above(values, values.dtype.type(above), first, out)
    elif below is not None:
        n = kernels.below(values, values.dtype.type(below), first, out)
    else:
        n = kernels.true(values.view(np.uint8), first, out)
    return room[:n].clone()


def _within(x: Tensor, above: float | None, below: float | None) -> Tensor:
    """Where a mask is true, or values lie above a level, below one or between."""
    mask = x if above is None and below is None else torch.ones_like(x, dtype=torch.bool)
    if above is not None:
        mask = mask & (x > above)
    return mask if below is None else mask & (x < below)
