"""Memory: what archetypes know of their own last decision when they decide again."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl.models.archetypes import Archetypes
from lpmppl.typing import State

__all__ = ["never", "recalled", "remembered"]


def never(kinds: Archetypes, groups: int = 1) -> Tensor:
    """What archetypes remember before they decide at all: −1, of shape (groups × K,)."""
    return torch.full((groups * kinds.size,), -1.0, device=kinds.table.device)


def remembered(before: Tensor, chance: Tensor) -> Tensor:
    """What archetypes will remember of a decision.

    Args:
        before: what they remember now: the share of them who did it, or −1, shape (…, K).
        chance: with which chance they do it now, shape (…, K); nan for those that a behaviour left out, as nobody of
            them decides.
    Returns:
        the share of them who did it when they decided last, or −1, shape (…, K).

    >>> remembered(torch.tensor([-1.0, 0.2, 0.4]), torch.tensor([0.5, float("nan"), 0.1])).tolist()
    [0.5, 0.20000000298023224, 0.10000000149011612]
    """
    chance = chance.detach()
    return torch.where(chance.isnan(), before, chance)


def recalled(before: Tensor) -> State:
    """What archetypes observe of it: whether they decide `again`, 1 or 0, and what share of them did it `before`."""
    return {"again": (before >= 0).to(before.dtype), "before": before.clamp(min=0.0)}
