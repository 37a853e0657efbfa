"""How an intervention parts the worlds: under one name for all its keys, and only where its event is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger, get_index_plates

__all__ = ["policy"]


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
        if self.due is not None:
            mask = self.due if self.parted is None else self.due & _acted_on(self.parted)
            act = _where(mask, act, value)
            if self.parted is not None:
                msg["value"] = act
                msg["done"] = msg["stop"] = True
        msg["args"] = (value, (lambda _: act) if isinstance(value, Mapping) else act)


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
