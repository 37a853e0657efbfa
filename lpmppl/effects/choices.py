"""What was chosen: decisions of archetypes with what they observed, from a survey, a language model or any run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lpmppl.effects.features import RESERVED, Features
from lpmppl.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Choices"]


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of one decision: a row for each archetype and each time that it decided.

    Args:
        decision: the decision's name.
        options: what could be chosen, A names.
        attributes: the labels of every attribute, by name.
        codes: attribute codes, int64 of shape (R, attributes).
        observed: what was observed, by name, float64 of shape (R,).
        chance: the share or probability of every option, float64 of shape (R, A).
        weight: how many chose, float64 of shape (R,): respondents, or agents who decided.
    Raises:
        InputError: for fewer than two options, no rows, shapes that don't go together, codes without a label, shares
            that don't add up to 1 or weights that aren't above 0.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": ["young", "old"], "risk": [0.5, 0.5], "mask": [30, 45], "no mask": [30, 5]})
    >>> survey = Choices.of("mask", ("mask", "no mask"), table, attributes=["age"], observed=["risk"])
    >>> survey.chance.tolist(), survey.weight.tolist()
    ([[0.5, 0.5], [0.9, 0.1]], [60.0, 50.0])
    """

    decision: str
    options: tuple[str, ...]
    attributes: Mapping[str, tuple[str, ...]]
    codes: Tensor
    observed: Mapping[str, Tensor]
    chance: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        wrong = [n for n in self.observed if n in (*RESERVED, "intercept") or "×" in n or "=" in n]
        if wrong:
            raise InputError(f"choices of decision '{self.decision}': nothing observed can be called '{wrong[0]}'")
        try:
            codes = torch.as_tensor(self.codes)
            if codes.is_floating_point():
                raise TypeError("codes are whole numbers")
            object.__setattr__(self, "codes", codes.long())
            for name in ("chance", "weight"):
                object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
            seen = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in self.observed.items()}
            object.__setattr__(self, "observed", seen)
        except (TypeError, ValueError, RuntimeError) as e:
            raise InputError(f"choices of decision '{self.decision}' aren't numbers: {e}") from e
        rows, where = self.weight.shape[0] if self.weight.dim() == 1 else -1, f"choices of decision '{self.decision}'"
        if len(self.options) < 2 or len(set(self.options)) < len(self.options):
            raise InputError(f"{where}: its options are {list(self.options)}; give two or more different names")
        if rows == 0:
            raise InputError(f"{where}: there are none; give one row or more")
        shapes = {"codes": self.codes, "chance": self.chance, **self.observed}
        wanted = {"codes": (rows, len(self.attributes)), "chance": (rows, len(self.options))}
        for name, x in shapes.items():
            if tuple(x.shape) != wanted.get(name, (rows,)):
                raise InputError(
                    f"{where}: '{name}' has shape {tuple(x.shape)}, where {wanted.get(name, (rows,))} is needed for "
                    f"weights of shape {tuple(self.weight.shape)}, {len(self.attributes)} attributes and "
                    f"{len(self.options)} options"
                )
            if not bool(torch.isfinite(x).all()):
                raise InputError(f"{where}: '{name}' isn't finite everywhere; leave such rows out")
        for column, (attribute, labels) in zip(self.codes.T, self.attributes.items(), strict=True):
            if not 0 <= int(column.min()) <= int(column.max()) < len(labels):
                raise InputError(
                    f"{where}: {attribute} has codes {int(column.min())} … {int(column.max())}, but {len(labels)} "
                    "labels; give a label to each code"
                )
        if not bool((self.weight > 0).all() & torch.isfinite(self.weight).all()):
            raise InputError(f"{where}: weights must be above 0; leave rows in which nobody chose out")
        if not bool((self.chance >= 0).all()) or not bool(((self.chance.sum(-1) - 1).abs() < 1e-4).all()):
            raise InputError(f"{where}: the shares of its options must be 0 or more and add up to 1 in each row")

    @classmethod
    def of(
        cls,
        decision: str,
        options: Sequence[str],
        table: pd.DataFrame,
        attributes: Sequence[str] | Mapping[str, Sequence[str]],
        observed: Sequence[str] = (),
    ) -> Choices:
        """The choices in a table with a row for each group of respondents.

        Args:
            decision: the decision's name.
            options: what could be chosen: columns of the table with how many chose it.
            table: the table.
            attributes: the columns that say what respondents are, in words; or the labels of each, in order.
            observed: the columns with numbers that respondents observed.
        Raises:
            InputError: for columns that aren't there, words that aren't labels, or numbers that can't be used.
        """
        for column in (*options, *attributes, *observed):
            if column not in table.columns:
                raise InputError(nearest("column of the table", column, [str(c) for c in table.columns]))
        labels, codes = {}, []
        for name in attributes:
            if bool(table[name].isna().any()):
                raise InputError(f"the table's column '{name}' has no word in some rows; fill it in or leave them out")
            words = [str(word) for word in table[name]]
            known = tuple(attributes[name]) if isinstance(attributes, Mapping) else tuple(dict.fromkeys(words))
            for word in words:
                if word not in known:
                    raise InputError(nearest(f"label of attribute '{name}'", word, known))
            labels[name] = known
            codes.append([known.index(word) for word in words])
        counts = torch.stack([_numbers(table, option) for option in options], dim=-1)
        weight = counts.sum(-1)
        if bool((counts < 0).any()):
            raise InputError(f"choices of decision '{decision}': a number of answers is below 0")
        some = weight > 0
        return cls(
            decision,
            tuple(options),
            labels,
            torch.tensor(codes, dtype=torch.int64).reshape(len(labels), len(table)).T[some],
            {name: _numbers(table, name)[some] for name in observed},
            (counts / weight.unsqueeze(-1))[some],
            weight[some],
        )

    @property
    def context(self) -> dict[str, Any]:
        """What the rows observe, with the labels of their attributes: the context of `decide`."""
        return {**self.observed, "attributes": self.attributes}

    @property
    def features(self) -> Features:
        """The features of the rows, by name."""
        return Features(self.decision, self.codes, self.context)

    def seeing(self, *observed: str) -> Choices:
        """The same choices, with these observations alone.

        Raises:
            InputError: for one that there isn't, naming the nearest.
        """
        for name in observed:
            if name not in self.observed:
                raise InputError(nearest("observation", name, self.observed))
        return replace(self, observed={name: self.observed[name] for name in observed})

    def rows(self, which: Tensor) -> Choices:
        """Some of the choices: by their numbers, or by a Boolean of shape (R,)."""
        return replace(
            self,
            codes=self.codes[which],
            observed={name: x[which] for name, x in self.observed.items()},
            chance=self.chance[which],
            weight=self.weight[which],
        )

    def divergence(self, chance: Tensor) -> float:
        r"""How far other probabilities are from these shares, in nats for each who chose.

        .. math:: \frac{\sum_r w_r \sum_a p_{ra} \log (p_{ra} / q_{ra})}{\sum_r w_r}

        Args:
            chance: other probabilities q, shape (R, A).
        """
        own = torch.xlogy(self.chance, self.chance) - torch.xlogy(self.chance, chance.double())
        return float((self.weight * own.sum(-1)).sum() / self.weight.sum())


def _numbers(table: pd.DataFrame, column: str) -> Tensor:
    """A column of numbers, float64."""
    try:
        numbers = [float(x) for x in table[column]]
    except (TypeError, ValueError) as e:
        raise InputError(f"the table's column '{column}' has what is no number: {e}") from e
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"the table's column '{column}' isn't finite everywhere; leave such rows out")
    return torch.tensor(numbers, dtype=torch.float64)
