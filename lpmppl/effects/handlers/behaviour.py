"""Behaviour from a table: the plainest meaning of `decide`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.errors import InputError, nearest

__all__ = ["Tabulated"]


class Tabulated(Messenger):
    """Give decisions their probabilities from tables.

    Args:
        tables: for each decision by name, probabilities of shape (K, A), a row per archetype, or (A,) for all alike.
    Raises:
        InputError: for a table of another shape than the decision's archetypes and options, or whose rows aren't
            probabilities.
    """

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tables = dict(tables)
        for name, table in self.tables.items():
            if not bool((table >= 0).all()) or not torch.allclose(
                table.sum(-1), torch.ones(()).to(table.dtype), atol=1e-5
            ):
                raise InputError(
                    f"decision '{name}': the rows of its table must be probabilities that add up to 1, but "
                    f"{table.tolist()} was given"
                )

    def _pyro_decide(self, msg: Message) -> None:
        name, archetypes, options, _ = msg["args"]
        if msg["done"]:
            return
        if name not in self.tables:
            raise InputError(nearest("decision", name, self.tables))
        shape = (archetypes.shape[0], len(options))
        try:
            msg["value"] = self.tables[name].expand(shape)
        except RuntimeError as e:
            raise InputError(
                f"decision '{name}' has {shape[0]} archetypes and {shape[1]} options, but its table has shape "
                f"{tuple(self.tables[name].shape)}"
            ) from e
        msg["done"] = True
