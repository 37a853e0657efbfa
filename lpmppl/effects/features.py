"""What a decision's utilities are made of: features of archetypes and of what they observe, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpmppl.errors import InputError, nearest

__all__ = ["RESERVED", "Features"]

RESERVED = ("attributes", "due", "groups")
"""What of a decision's context isn't observed: labels, how many decide, and how many dimensions are groups."""


class Features:
    """The features of one decision by name: float64, of shape (…, K) or what broadcasts to it.

    A feature is "intercept" (1 everywhere), a name of the decision's context, a label of one of the archetypes'
    attributes, "age=65 and over" (1 for those it fits, 0 for others), or a product of such, "savings=low ×
    employment=employed".

    Args:
        decision: the decision's name.
        archetypes: attribute codes of the archetypes, integers of shape (K, attributes), or (K,).
        context: what the archetypes observe, and under `attributes` the labels of each column of `archetypes`.
    Raises:
        InputError: for labels of another number of attributes; at a name, for a feature that neither the context nor
            the archetypes have, naming the nearest, or one that isn't finite or has another shape.
    """

    def __init__(self, decision: str, archetypes: Tensor, context: Mapping[str, Any]) -> None:
        self.decision = decision
        self.codes = archetypes.reshape(archetypes.shape[0], -1)
        self.context = {name: value for name, value in context.items() if name not in RESERVED}
        self.groups = int(context.get("groups", 0))
        self.labels: Mapping[str, Sequence[str]] = context.get("attributes", {})
        self.zero = torch.zeros(archetypes.shape[0], dtype=torch.float64, device=archetypes.device)
        if self.labels and len(self.labels) != self.codes.shape[1]:
            raise InputError(
                f"decision '{decision}': its archetypes have {self.codes.shape[1]} attributes, but labels of "
                f"{len(self.labels)} were given: {', '.join(self.labels)}"
            )

    def parameter(self, value: float | Tensor) -> float | Tensor:
        """A number of a behaviour, of shape () or that of a parameter, (…, 1), so that it goes with features.

        Raises:
            InputError: for another shape.
        """
        if not isinstance(value, Tensor) or not value.dim():
            return value
        if value.shape[-1] != 1:
            raise InputError(
                f"decision '{self.decision}': a number of its behaviour has shape {tuple(value.shape)}; give one "
                "number, or a parameter's draws with a last dimension of 1"
            )
        return value.reshape(*value.shape[:-1], *[1] * self.groups, 1)

    def label(self, attribute: str, label: str) -> Tensor:
        """1 for the archetypes that have a label, 0 for others."""
        if attribute not in self.labels:
            known = ("intercept", *self.context, *self.labels)
            raise InputError(nearest(f"feature of decision '{self.decision}'", attribute, known))
        labels = tuple(self.labels[attribute])
        if label not in labels:
            raise InputError(nearest(f"{attribute} in decision '{self.decision}'", label, labels))
        return (self.codes[:, tuple(self.labels).index(attribute)] == labels.index(label)).double()

    def __getitem__(self, name: str) -> Tensor:
        first, *others = (self._one(part.strip()) for part in name.split("×"))
        for other in others:
            first = first * other
        return first

    def _one(self, name: str) -> Tensor:
        if name == "intercept":
            return self.zero + 1.0
        if name in self.context:
            return self._observed(name)
        attribute, _, label = name.partition("=")
        return self.label(attribute, label)

    def _observed(self, name: str) -> Tensor:
        value = torch.as_tensor(self.context[name], dtype=torch.float64, device=self.zero.device)
        if value.dim() and value.shape[-1] not in (1, self.zero.shape[0]):
            raise InputError(
                f"decision '{self.decision}': '{name}' of its context has shape {tuple(value.shape)}; the last "
                f"dimension must be 1 or the {self.zero.shape[0]} archetypes"
            )
        if not bool(torch.isfinite(value.detach()).all()):
            raise InputError(f"decision '{self.decision}': '{name}' of its context isn't finite")
        return value
