"""A device for tests that is as strict as a GPU: its numbers lie on the CPU, but nothing may mix with the CPU's.

What would end in an error on CUDA ends in one here: tensors of two devices in one operation, a view as a NumPy array,
an index of another kind than int32, int64 or Boolean. And whenever the host waits for the device, it is counted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("lazy", 0)

# CUDA takes the CPU's tensors in copies and as indices.
_MIX = {"copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_"}

# How many elements the result has, or what Python is to do, the host learns from the device.
_WAIT = {
    *("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "unique_consecutive"),
    *("bincount", "repeat_interleave"),
}

waits: Counter[str] = Counter()
"""How often the host has waited for the device so far, by the operation."""


class Elsewhere(Tensor):
    """A tensor on that device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        about = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        found = Tensor._make_wrapper_subclass(cls, inner.size(), device=DEVICE, **about)
        found.inner = inner
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    if there and name not in _MIX and any(x.dim() and not isinstance(x, Elsewhere) for x in tensors):
        raise RuntimeError(f"{name}: all tensors must be on one device, but {[str(x.device) for x in tensors]} are")
    if there and (name in _WAIT or (name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1]))):
        waits[name] += 1
    device = kwargs.get("device")
    result_there = bool(there) if device is None else torch.device(device).type == DEVICE.type
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain = tree_map_only(Elsewhere, lambda x: x.inner, (args, kwargs))
    if name == "empty_strided" or name == "empty":  # its "pin_memory" may be asked for by copies
        plain.pop("pin_memory", None)
    found = func(*plain_args, **plain)
    if "out" in kwargs:
        return kwargs["out"]
    if args and isinstance(args[0], Elsewhere) and found is args[0].inner:
        return args[0]
    return tree_map_only(Tensor, Elsewhere, found) if result_there else found


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Makers(TorchFunctionMode):
    """Functions that make tensors of Python's numbers, which no dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and not isinstance(args[0], Elsewhere):
            device = kwargs.get("device")
            if device is not None and torch.device(device).type == DEVICE.type:
                return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            waits["tolist"] += 1
            return args[0].inner.tolist()
        if func is torch.unravel_index and isinstance(args[0], Elsewhere):
            return tuple(x.to(DEVICE) for x in func(args[0].inner, *args[1:], **kwargs))
        if func is Tensor.new_tensor and isinstance(args[0], Elsewhere):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        return func(*args, **kwargs)


@contextlib.contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Have the device, within."""
    with _Operations(), _Makers():
        yield DEVICE
