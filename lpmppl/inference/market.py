"""A society in which an act has a price: what its totals say at several prices, among the same people and chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, LpmError
from lpmppl.inference.contrasts import amounts
from lpmppl.inference.counterfactual import worlds_of
from lpmppl.inference.policies import WORLD, Act, Policy
from lpmppl.inference.run import drawn
from lpmppl.models.model import Model

__all__ = ["CLEAR", "Market", "Quantity", "Seen"]

Quantity = str | Callable[[xr.Dataset], xr.DataArray]

CLEAR = 3.0
"""How many standard errors are clear of chance."""


@dataclass(frozen=True)
class Seen:
    """What the totals say at some prices, each of shape (prices, draws).

    The first two prices are those on either side of one, and the last is that of doing nothing.

    Args:
        harm: what all suffer, dollars.
        acts: what is paid for.
        own: dollars an act that are its doer's own.
        width: how far the first two prices are apart, dollars.
        occasions: how often there was something to decide, where a price changes that.
    """

    harm: np.ndarray
    acts: np.ndarray
    own: np.ndarray
    width: float
    occasions: np.ndarray | None = None

    def moves(self, one: int, other: int) -> np.ndarray:
        """How many acts more people decide for at the other price, in each draw: as many occasions held."""
        if self.occasions is None:
            return self.acts[other] - self.acts[one]
        many = (self.occasions[one] + self.occasions[other]) / 2
        return many * (self.acts[other] / self.occasions[other] - self.acts[one] / self.occasions[one])

    @property
    def response(self) -> float:
        """By how many acts a dollar moves people's decisions."""
        return float(self.moves(0, 1).mean()) / self.width

    @property
    def change(self) -> float:
        """By how many acts a dollar changes all that are paid for."""
        return float((self.acts[1] - self.acts[0]).mean()) / self.width

    @property
    def responds(self) -> bool:
        """Whether acts rise with the price, clear of chance."""
        more = self.moves(0, 1)
        return bool(more.mean() > CLEAR * more.std(ddof=1) / math.sqrt(len(more)))

    def target(self, burden: float) -> tuple[float, float]:
        """What to pay for an act between the two sides, and its standard error over draws, by the jackknife."""
        many = self.acts.shape[1]
        without = np.array([self._target(burden, np.arange(many) != k) for k in range(many)])
        error = math.sqrt((many - 1) / many * float(((without - without.mean()) ** 2).sum()))
        return self._target(burden, np.full(many, True)), error

    def _target(self, burden: float, keep: np.ndarray) -> float:
        harm, acts, own = (x[:2, keep] for x in (self.harm, self.acts, self.own))
        more, change = float(self.moves(0, 1)[keep].mean()), float((acts[1] - acts[0]).mean())
        if more + burden * change == 0:
            return math.nan
        spared = -float((harm[1] - harm[0]).mean()) - float(own.mean()) * more
        return (spared - burden * float(acts.mean()) * self.width) / (more + burden * change)


@dataclass(frozen=True)
class Market:
    """A society in which an act has a price.

    Args:
        model: the society.
        fixed: values of parameters, by name.
        always: what is done whatever the price.
        lever: the part of the environment that is the price.
        at: the day from which it is paid.
        days: how many days.
        seed: the seed of all chance.
        harm: the tally of what all suffer, in dollars, or a function of `contrasts.amounts`.
        acts: the tally of what is paid for, added up over days.
        own: what of the harm that one more act spares is its doer's own, in dollars an act; None for nothing.
        occasions: the tally of how often there is something to decide; None where that is the same at any price.
        burden: what it costs to raise a dollar, beyond that dollar.
    """

    model: Model
    fixed: Mapping[str, float]
    always: Sequence[Sequence[Any]]
    lever: str
    at: int
    days: int
    seed: int
    harm: Quantity
    acts: str
    own: Quantity | None = None
    occasions: str | None = None
    burden: float = 0.0

    @property
    def today(self) -> float:
        """The price where nothing is done."""
        return float(self.model.environment[self.lever])

    def __call__(self, prices: Sequence[float], chances: Sequence[int]) -> Seen:
        """What comes of prices, and last of doing nothing, among the same people with the same chance."""
        plans = [Policy(f"price {k}", (Act(self.lever, float(x), self.at),)) for k, x in enumerate(prices)]
        always = [Act(str(n), v, int(d)) for n, v, d in self.always]
        thetas = drawn(self.model, self.fixed, None, self.seed) * len(chances)
        tree = worlds_of(self.model, plans, always, thetas, chances, list(chances), self.days, self.seed, {})
        found, daily = amounts(tree), amounts(tree, daily=True)
        harm = self._asked("harm", self.harm, found)
        acts = _read("acts", daily[self.acts].sum("day"))
        own = np.zeros_like(acts) if self.own is None else self._asked("own", self.own, found)
        occasions = None if self.occasions is None else _read("occasions", daily[self.occasions].sum("day"))
        if occasions is not None and not (occasions > 0).all():
            raise LpmError(f"in a draw there is no occasion, by '{self.occasions}'; simulate more people or days")
        return Seen(harm, acts, own, float(prices[1]) - float(prices[0]), occasions)

    def _asked(self, what: str, of: Quantity, found: xr.Dataset) -> np.ndarray:
        if isinstance(of, str):
            return _read(what, found[of])
        try:
            value = of(found)
        except Exception as e:
            raise InputError(f"{what}= can't be evaluated: {type(e).__name__}: {e}") from e
        if not isinstance(value, xr.DataArray) or {*value.dims} != {"chain", "draw", WORLD}:
            raise InputError(f"{what}= must give one number for each chain, draw and policy; sum over anything else")
        return _read(what, value)


def _read(what: str, x: xr.DataArray) -> np.ndarray:
    """Numbers of every world and draw, with doing nothing last."""
    each = np.roll(x.isel(chain=0).transpose(WORLD, "draw").to_numpy().astype(float), -1, axis=0)
    if not np.isfinite(each).all():
        raise InputError(f"{what}= gives {each[~np.isfinite(each)][0]:g} in a world; it must be finite in all")
    return each
