"""Where a derivative ends: values that depend on parameters and decide something by a comparison."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Cuts", "reached"]

_CUTS = frozenset(
    f"{name}{end}"
    for name in (
        *("lt", "le", "gt", "ge", "eq", "ne", "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"),
        *("floor", "ceil", "round", "trunc", "sign", "floor_divide", "remainder", "fmod", "__floordiv__", "__mod__"),
        *("argmax", "argmin", "argsort", "sort", "topk", "searchsorted", "bucketize", "nonzero", "count_nonzero"),
        *("int", "long", "short", "byte", "bool", "item", "tolist", "__bool__", "__float__", "__int__"),
    )
    for end in ("", "_")
)
_ELSEWHERE = ("/torch/distributions/", "/pyro/distributions/", "/handlers/noise.py", "/handlers/flips.py")
"""Where comparisons check what was given, or are the meaning of chance itself."""

_BETWEEN = ("/lpmppl/effects/", "/torch/", "/pyro/", "/chirho/", "/torchdiffeq/")
"""What stands between a comparison and the program that it is part of."""

_NEAR, _FRAMES = 3, 12
"""How many callers up a comparison is looked for there, and by how many it is told from others."""

_LOOKS = 3
"""How often each comparison is looked at: what reaches it may come later."""


class Cuts(TorchFunctionMode):
    """Find the parameters on which a decision of the program depends, rather than a chance.

    A comparison of something that depends on a parameter, such as a day that is due with today, changes by a jump: no
    derivative of what comes of it sees that. Around a run in which the parameters carry one, `of` names the parameters
    that reach such a place, each with where in the program it is.

    Args:
        parameters: the parameters, with `requires_grad`.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parameters = parameters
        self.of: dict[str, str] = {}
        self._looks: Counter[tuple[object, ...]] = Counter()

    def __enter__(self) -> Cuts:
        self._quiet = warnings.catch_warnings()
        self._quiet.__enter__()
        # That a number is read of what has a derivative is just what is looked for.
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._quiet.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        whole = name in ("to", "type", "type_as") and isinstance(out, Tensor) and not out.is_floating_point()
        if (name in _CUTS or whole) and len(self.of) < len(self.parameters):
            for x in args:
                if isinstance(x, Tensor) and x.requires_grad:
                    self._look(x, sys._getframe(1))
        return out

    def _look(self, x: Tensor, frame: FrameType | None) -> None:
        places: list[tuple[str, int]] = []
        while frame is not None and len(places) < _FRAMES:
            places.append((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        if any(part in file for file, _ in places[:_NEAR] for part in _ELSEWHERE):
            return
        key = tuple(places)
        self._looks[key] += 1
        if self._looks[key] > _LOOKS:
            return
        file, line = next((p for p in places if not any(part in p[0] for part in _BETWEEN)), places[0])
        for name in reached(x, self.parameters):
            self.of.setdefault(name, f"{file.rpartition('/')[2]}:{line}")


def reached(x: Tensor, parameters: Mapping[str, Tensor]) -> list[str]:
    """The parameters on which a tensor depends in any way that autograd knows of."""
    names = {id(p): name for name, p in parameters.items()}
    found: set[str] = set()
    seen, left = set(), [x.grad_fn]
    if id(x) in names:
        found.add(names[id(x)])
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = names.get(id(getattr(node, "variable", None)))
        if name is not None:
            found.add(name)
        left += [following for following, _ in node.next_functions]
    return [name for name in parameters if name in found]
