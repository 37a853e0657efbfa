"""The names of shapes and mappings that every floor of the package shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

__all__ = ["Dynamics", "State", "Theta"]

State: TypeAlias = Mapping[str, Tensor]
"""Names to tensors: agents on the last dimension, scalars of the environment of shape `(1,)`."""

Dynamics: TypeAlias = Callable[[State], State]
"""One step of the society: the state at day t to the state at day t + dt."""

Theta: TypeAlias = Mapping[str, Tensor]
"""Names of structural parameters to their values."""
