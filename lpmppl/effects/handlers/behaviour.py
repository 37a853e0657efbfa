"""Behaviour from a table and from utilities: the plainest meanings of `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.features import Features
from lpmppl.errors import InputError, nearest

__all__ = ["Coefficients", "Tabulated", "Utility"]

Coefficients: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float | Tensor]]]
"""What a feature adds to the utility of an option: decision → option → feature → value."""


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
            if not isinstance(table, Tensor) or not table.dim():
                raise InputError(f"decision '{name}': a table of {table!r} was given; give a tensor of rows")
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


class Utility(Messenger):
    r"""Give decisions their probabilities by random utility: the multinomial logit.

    .. math:: P(a \mid k) = \frac{e^{V_{ka}}}{\sum_b e^{V_{kb}}}, \qquad V_{ka} = \sum_f \beta_{af}\, x_{kf}

    A feature x is "intercept" (1 everywhere), a name of the decision's context, a label of one of the archetypes'
    attributes, "age=65 and over" (1 for those it fits, 0 for others), or a product of such, "savings=low ×
    employment=employed". An option without coefficients has V = 0.

    Args:
        coefficients: β by decision, option and feature; numbers, or tensors of shape () to differentiate.
    Raises:
        InputError: for a coefficient that isn't finite; in a decision, for one without coefficients, an option that it
            doesn't have, or a feature that neither its context nor its archetypes have, naming the nearest.
    Source: McFadden, "Conditional logit analysis of qualitative choice behavior", in Zarembka (ed.), Frontiers in
        Econometrics (1974).

    >>> from lpmppl.effects.ops import decide
    >>> with Utility({"isolate": {"isolate": {"intercept": -1.0, "risk": 0.5}}}):
    ...     decide("isolate", torch.arange(2), ["isolate", "go on"], {"risk": torch.tensor([0.0, 2.0])})[:, 0]
    tensor([0.2689, 0.5000])
    """

    def __init__(self, coefficients: Coefficients) -> None:
        super().__init__()
        for decision, options in _by_name("the coefficients", coefficients).items():
            for option, features in _by_name(f"decision '{decision}'", options).items():
                _by_name(f"decision '{decision}', option '{option}'", features)
        self.coefficients = {
            decision: {option: dict(features) for option, features in options.items()}
            for decision, options in coefficients.items()
        }
        for decision, options in self.coefficients.items():
            for option, features in options.items():
                for feature, value in features.items():
                    number = isinstance(value, Tensor | Real) and not isinstance(value, bool)
                    if not number or not bool(torch.isfinite(torch.as_tensor(value).detach()).all()):
                        raise InputError(
                            f"decision '{decision}', option '{option}': the coefficient of '{feature}' is {value}; "
                            "give a finite number"
                        )

    def _pyro_decide(self, msg: Message) -> None:
        if msg["done"]:
            return
        name, archetypes, options, context = msg["args"]
        if name not in self.coefficients:
            raise InputError(nearest("decision", name, self.coefficients))
        mine = self.coefficients[name]
        for option in mine:
            if option not in options:
                raise InputError(nearest(f"option of decision '{name}'", option, options))
        features = Features(name, archetypes, context)
        # In double precision, so that the same features give the same float32 in whatever batch of worlds.
        utility = [
            sum(
                (features.parameter(value) * features[feature] for feature, value in mine.get(option, {}).items()),
                features.zero,
            )
            for option in options
        ]
        chance = torch.stack(torch.broadcast_tensors(*utility), dim=-1).softmax(-1)
        msg["value"] = chance.to(torch.get_default_dtype())
        msg["done"] = True


def _by_name(what: str, values: Any) -> Mapping[str, Any]:
    """Values by name, or what is wrong with what was given for them."""
    if not isinstance(values, Mapping):
        raise InputError(
            f"{what}: {type(values).__name__} was given for coefficients, which are by decision, option and feature, "
            "such as {'isolate': {'isolate': {'intercept': -1.0}}}"
        )
    return values
