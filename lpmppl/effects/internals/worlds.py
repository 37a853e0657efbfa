"""How an intervention parts the worlds: under one name for all its keys, and only where its event is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger, get_index_plates
from lpmppl.errors import InputError

__all__ = ["check_shapes", "leading", "policy", "within_worlds"]


class policy(Messenger):
    """Give all the splits of one intervention one name, and hold it to the worlds in which it is due.

    Args:
        name: the name of the index of worlds that the intervention makes.
        due: where a dynamic intervention acts now, Boolean of shape (…, 1); None for everywhere.
        parted: the index names of worlds that an earlier firing of the same event made; then the act is written into
            those.
    """

    def __init__(self, name: str, due: Tensor | None = None, parted: Sequence[str] | None = None) -> None:
        super().__init__()
        self.name, self.due, self.parted = name, due, parted

    def _pyro_intervene(self, msg: Message) -> None:
        if msg["args"][1] is None:
            return
        if msg["name"] is None:
            msg["name"] = self.name
        value, act = msg["args"]
        if isinstance(value, Mapping):
            act = {**value, **(act(value) if callable(act) else act)}
        elif callable(act):
            act = act(value)
        if isinstance(value, Tensor):
            # Worlds are stacked, so an act has the dtype of what it replaces.
            acts = tuple(
                torch.as_tensor(a, dtype=value.dtype, device=value.device)
                for a in (act if isinstance(act, tuple) else (act,))
            )
            act = acts if isinstance(act, tuple) else acts[0]
            # What was one number for everybody may become one for each.
            value = value.expand(torch.broadcast_shapes(value.shape, *(a.shape for a in acts)))
        if self.due is not None:
            mask = self.due if self.parted is None else self.due & _acted_on(self.parted)
            act = _where(mask, act, value)
            if self.parted is not None:
                msg["value"] = act
                msg["done"] = msg["stop"] = True
        msg["args"] = (value, (lambda _: act) if isinstance(value, Mapping) else act)


def leading(state: Mapping[str, Tensor]) -> torch.Size:
    """The shape of the worlds and draws of a state: that of all its parts without their last dimension."""
    return torch.broadcast_shapes(*(x.shape[:-1] for x in state.values()))


def within_worlds(shape: Sequence[int], state: Mapping[str, Tensor]) -> bool:
    """Whether a value of this shape has no worlds or draws that a state hasn't."""
    there = leading(state)
    wide = (1,) * (len(there) + 1 - len(shape)) + tuple(shape)
    lead = wide[: len(wide) - 1]
    return len(lead) == len(there) and all(a in (1, b) for a, b in zip(lead, there, strict=True))


def check_shapes(state: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Refuse values that have another number of agents or groups than what they are put in the place of."""
    sizes = {x.shape[-1] for x in state.values() if isinstance(x, Tensor) and x.dim()}
    for key, act in changed.items():
        old = state.get(key)
        if not isinstance(old, Tensor) or not old.dim():
            continue
        fit = {1, old.shape[-1]} if old.shape[-1] > 1 else sizes
        for value in act if isinstance(act, tuple) else (act,):
            if isinstance(value, Tensor) and value.dim() and value.shape[-1] not in fit:
                raise InputError(
                    f"an intervention sets '{key}' to {value.shape[-1]} numbers, and has to give "
                    f"{' or '.join(f'{n:,}' for n in sorted(fit)[:4])}"
                )


def _acted_on(parted: Sequence[str]) -> Tensor:
    """True in the worlds that the named indices call counterfactual."""
    mask = torch.ones((), dtype=torch.bool)
    for name, frame in get_index_plates().items():
        if name in parted:
            mask = mask & (torch.arange(frame.size) > 0).reshape((-1,) + (1,) * (-frame.dim - 1))
    return mask


def _where(mask: Tensor, act: Any, value: Any) -> Any:
    if bool(mask.all()):
        return act
    if isinstance(value, Mapping):
        return {k: v if act[k] is v else _where(mask, act[k], v) for k, v in value.items()}
    return torch.where(mask, act[-1] if isinstance(act, tuple) else act, value)
