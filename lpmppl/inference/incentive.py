"""What to pay for what helps others: a price learnt from totals, without seeing anybody's costs or choices."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.inference.audit import are_apart
from lpmppl.inference.checks import checked, setting, whole
from lpmppl.inference.market import CLEAR, Market, Quantity, Seen
from lpmppl.models.model import Model

__all__ = ["price"]

_STEEPEST = 0.5
"""The most that the externality may be taken to rise with the price: beyond it a step would overshoot."""

_CURVED = 0.1
"""How far, as a share of its way, a Newton step may err since what it follows is no line."""

_BELIEVED = 0.5
"""How far the externality is believed to move with the price, before anything is seen: a standard deviation."""

_BETWEEN = (0.25, 0.5, 0.75)
"""Where between no price and the learnt one the gain is measured, too."""

_TRIES = 4
"""How often a price that turns out to cost more than the budget is lowered."""


def price(
    model: Model,
    lever: str,
    harm: Quantity,
    acts: str,
    within: tuple[float, float],
    days: int = 90,
    seed: int = 0,
    *,
    at: int = 0,
    own: Quantity | None = None,
    occasions: str | None = None,
    burden: float = 0.0,
    budget: float | None = None,
    draws: int = 8,
    rounds: int = 8,
    precision: float = 0.02,
    step: float = 0.05,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""Learn what to pay for each act that helps others: Pigou's subsidy, from totals that may be shared in secret.

    Whoever acts for a price s has a cost between what it has of the act itself, o, and s + o; at the margin it is s +
    o. So the social cost moves with the price by :math:`H' + (s + o) A'`, of the harm H and the number of acts A,
    whatever costs people have, and is least where the price is what one more act spares others:

    .. math:: s = e(s), \qquad e(s) = -\frac{\partial H / \partial s}{\partial A / \partial s} - o.

    Where it costs :math:`\lambda` to raise a dollar, that is :math:`(e(s) - \lambda A / A') / (1 + \lambda)`.

    Both derivatives are differences among the same people with the same chance. Each round measures e beside the
    present price with chance of its own; the first at today's price, the second at the externality found there. A line
    through all rounds tells how e moves with s, and by it each gives a root by a Newton step, which counts for less the
    further it lies off. The next price is their mean: Robbins and Monro's approximation with a slope that is learnt on
    the way, as Venter has it. Last, with fresh chance, what an act should be paid at the learnt price is held against
    differences over half the step, and the gain in social cost, :math:`-\Delta H - \int (s + o)\, dA`, is measured.

    Args:
        model: the society.
        lever: the part of the environment that is the price of one act, in dollars.
        harm: the tally of what all suffer, in dollars, or a function of what `contrasts.amounts` gives, dims (chain,
            draw, policy), to one number for each.
        acts: the tally of what is paid for, added up over days (of a stock, people times days).
        within: the least and the greatest price.
        days: how many days.
        seed: the seed of all chance.
        at: the day from which the price is paid.
        own: what of the harm that one more act spares is its doer's own, in dollars an act, as `harm` is given; none by
            default.
        occasions: where the price also changes how often there is something to decide, the tally of that, such as
            infections of those who may isolate: what of the change of acts is people's doing is then that per occasion.
            What an occasion costs belongs to the harm. By default there are as many at any price.
        burden: what it costs to raise a dollar, beyond that dollar.
        budget: the most that paying may cost on average, in dollars; None for any.
        draws: draws of chance in each round, 2 or more.
        rounds: the most rounds, 3 or more.
        precision: end as soon as the standard error is at most this share of the price.
        step: how far differences go to either side, as a share of the range, above 0 and at most 0.25.
        set: values of parameters, by name.
        interventions: `(name, value, day)`: what is done whatever the price.
    Returns:
        the `price`, within the range and the budget, with its standard error `price_se`: where the budget binds that of
        the spending over what a dollar more would cost, and 0 at an end of the range; the `root`, which it is where
        neither bounds it, with its standard error `root_se`, greater the further it lies from the prices tried; at the
        price, with fresh chance, the `externality` and its `externality_se`, `acts`, `spending`, `spending_se`, the
        `gain` over doing nothing, in dollars of social cost, with `gain_se`, and `gap_closed`, the share of it in the
        gain that there is to be had, as the slope of e has it. Over `round`: `tried`, the price `measured` there, which
        is e(s) without a burden, `measured_se`, `acts_then` and `spending_then`. The attr `ended` says why it did,
        `moved` how e moves with the price.
    Raises:
        InputError: for a lever, tally, range or number that can't be used.
        LpmError: where acts don't follow the lever, clear of chance.
    Source: Pigou, The Economics of Welfare (1920); Harberger, "The measurement of waste", American Economic Review 54
        (1964); Robbins and Monro, Annals of Mathematical Statistics 22 (1951); Venter, the same 38 (1967).

    >>> import numpy as np
    >>> from lpmppl.models.isolation import Isolation
    >>> from lpmppl.models.population import Population
    >>> game = Isolation(Population.of({"household": np.arange(2_000) // 4}))
    >>> found = price(
    ...     game, "subsidy", lambda t: 500.0 * t["infections"], "isolators", (0.0, 60.0), days=4, draws=3, rounds=3,
    ...     own=lambda t: 300.0 * t["infections"] / (8_000 - t["isolators"]),
    ... )
    >>> bool(abs(found["price"] - game.game(public=200.0).subsidy()) < 4 * found["root_se"])
    True
    """
    fixed, always = checked(model, days, seed, set or {}, interventions, 1, "")
    draws, rounds = whole("draws", draws, 2), whole("rounds", rounds, 3)
    low, high = _range(model, lever, within)
    at = whole("at", at, 0)
    if at >= days:
        raise InputError(f"at={at} lies outside the run: give a day below {days}")
    for name, number in (("burden", burden), ("budget", 0.0 if budget is None else budget)):
        if isinstance(number, bool) or not isinstance(number, int | float | np.number) or not 0 <= number < math.inf:
            raise InputError(f"{name}={number!r} was given; give 0 or more")
    for name, number, most in (("step", step, 0.25), ("precision", precision, 1.0)):
        if not (isinstance(number, int | float) and 0.0 < number <= most):
            raise InputError(f"{name}={number!r} was given; give a share above 0 and at most {most:g}")
    for what, tally in (("acts", acts), *([] if occasions is None else [("occasions", occasions)])):
        if not isinstance(tally, str):
            raise InputError(f"{what}={tally!r} was given; give the name of a tally")
    for of in (acts, harm, *(x for x in (own, occasions) if x is not None)):
        if isinstance(of, str) and of not in model.tallies:
            raise InputError(nearest("tally", of, model.tallies))
        if not isinstance(of, str) and not callable(of):
            raise InputError(f"{of!r} was given; give the name of a tally, or a function of what there is of them")
    market = Market(model, fixed, always, lever, at, int(days), int(seed), harm, acts, own, occasions, float(burden))
    learner = _Learner(market, low, high, step * (high - low), draws, budget)
    ended = "as many rounds as were asked for"
    for k in range(rounds):
        learner.round(range(k * draws, (k + 1) * draws))
        if learner.bound:
            ended = learner.bound
            break
        if learner.settled(precision):
            ended = "as sure as was asked for"
            break
    return _told(learner, ended, rounds * draws)


class _Learner:
    """The price so far: what was tried, and the root that each round gives."""

    def __init__(self, market: Market, low: float, high: float, step: float, draws: int, budget: float | None) -> None:
        self.market, self.low, self.high, self.step, self.draws = market, low, high, step, draws
        self.budget, self.bound, self.limited = budget, "", False
        self.price = min(max(market.today, low), high)
        self.response = 0.0
        self.tried: list[tuple[float, float, float, float]] = []

    @property
    def moved(self) -> float:
        """How what should be paid moves with the price, by all rounds: least squares, and nothing where unsure."""
        return min(self._slope()[0], _STEEPEST)

    def _slope(self) -> tuple[float, float]:
        """That slope, however steep, with its standard error."""
        prices, values, errors, _ = np.array(self.tried).T
        weights = 1 / np.maximum(errors, self.least) ** 2
        apart = prices - np.average(prices, weights=weights)
        known = (weights * apart**2).sum() + _BELIEVED**-2.0
        return float((weights * apart * values).sum() / known), float(known**-0.5)

    @property
    def least(self) -> float:
        """The least error that is told apart."""
        return 1e-9 * (self.high - self.low)

    def _roots(self) -> tuple[np.ndarray, np.ndarray]:
        """The root that each round gives by a Newton step, and its error, greater where it lies further off."""
        prices, values, errors, _ = np.array(self.tried).T
        ways = (values - prices) / (1 - self.moved)
        return prices + ways, np.maximum(np.hypot(errors / (1 - self.moved), _CURVED * ways), self.least)

    @property
    def root(self) -> float:
        """The price that is what it should be, by all rounds, whatever bounds it."""
        roots, errors = self._roots()
        return float(np.average(roots, weights=errors**-2.0))

    @property
    def error(self) -> float:
        """The root's standard error."""
        return self.unsure(self.root) / (1 - self.moved)

    def unsure(self, price: float) -> float:
        """The standard error of what should be paid at a price by the rounds, greater where they lie further off.

        A budget keeps all rounds on one side of the root: then how steep the line is, and whether it is one, are no
        errors of each round that a mean would take away.
        """
        weights = self._roots()[1] ** -2.0
        off = price - float(np.average([tried[0] for tried in self.tried], weights=weights))
        return math.hypot((1 - self.moved) * float(weights.sum()) ** -0.5, self._slope()[1] * off, _CURVED * off)

    def settled(self, precision: float) -> bool:
        """Whether the root is known to so small a share, and lies no further from the last price than chance does."""
        enough = max(precision * abs(self.root), 1e-6 * (self.high - self.low))
        near = abs(self.root - self.tried[-1][0]) <= max(3 * self.error, enough)
        return len(self.tried) > 2 and self.error <= enough and near

    def expected(self, price: float) -> float:
        """What should be paid by the rounds, were a price in force."""
        return self.root + self.moved * (price - self.root)

    def sides(self, price: float, step: float) -> tuple[float, float]:
        """The prices on either side."""
        middle = min(max(price, self.low + step), self.high - step)
        return middle - step, middle + step

    def round(self, chances: Sequence[int]) -> None:
        """Measure beside the present price, and take the next."""
        below, above = self.sides(self.price, self.step)
        middle = (below + above) / 2
        seen = self.market([below, above], chances)
        if not seen.responds:
            if not self.tried:
                raise LpmError(
                    f"'{self.market.acts}' is {seen.acts[0].mean():.6g} with {self.market.lever}={below:g} and "
                    f"{seen.acts[1].mean():.6g} with {above:g}, no clear rise, so that nothing can be learnt from it; "
                    "is it what is paid for? Else take more draws, or a greater step="
                )
            # Where all act who ever would, nothing is seen: back towards where it was.
            self.price = (self.tried[-1][0] + middle) / 2
            return
        value, error = seen.target(self.market.burden)
        self.response = seen.response
        self.tried.append((middle, value, error, float(seen.acts[:2].mean())))
        wanted = value if len(self.tried) == 1 else self.root
        wanted = min(max(wanted, self.low), self.high)
        self.price = self.affordable(wanted)
        self.limited = self.price < wanted
        if len(self.tried) > 2:
            self.bound = self._bound(middle, value, error, wanted)

    def _bound(self, middle: float, value: float, error: float, wanted: float) -> str:
        """What keeps the price from what it should be, where no further round would move it."""
        if self.price < wanted and value - middle > CLEAR * error:
            return "the budget allows no greater price"
        if wanted == self.high and abs(middle - self.high) <= self.step and value - self.high > CLEAR * error:
            return "the greatest price is less than an act is worth to others"
        if wanted == self.low and abs(middle - self.low) <= self.step and self.low - value > CLEAR * error:
            return "the least price is more than an act is worth to others"
        return ""

    def affordable(self, price: float) -> float:
        """The greatest price up to one that the budget allows, as acts were seen to follow prices."""
        if self.budget is None:
            return price
        known = sorted((x, acts) for x, _, _, acts in self.tried)
        prices, acts = (np.array(x) for x in zip(*known, strict=True))

        def spent(x: float) -> float:
            return x * float(np.interp(x, prices, acts) + max(self.response, 0.0) * max(x - prices[-1], 0.0))

        if spent(price) <= self.budget:
            return price
        less, more = min(self.low, price), price
        for _ in range(60):
            middle = (less + more) / 2
            less, more = (middle, more) if spent(middle) <= self.budget else (less, middle)
        return less


def _told(learner: _Learner, ended: str, first: int) -> xr.Dataset:
    """The learnt price, held against chance that no round had, with what it comes to."""
    market, chances = learner.market, range(first, first + 2 * learner.draws)
    for _ in range(_TRIES):
        best = learner.price
        grid = [market.today + share * (best - market.today) for share in _BETWEEN]
        seen = market([*learner.sides(best, learner.step / 2), *grid, best], chances)
        spent = best * seen.acts[-2]
        if learner.budget is None or spent.mean() <= learner.budget or best <= learner.low:
            break
        # Spending rises faster than the price, so that this is enough but for chance.
        learner.price = max(best * learner.budget / float(spent.mean()) * (1 - 1e-3), learner.low)
        learner.limited = True
    if learner.budget is not None and spent.mean() > learner.budget:
        raise InputError(
            f"paying {best:g} for an act costs {spent.mean():.6g}, more than the budget of {learner.budget:g}; give a "
            "lower least price, or a greater budget"
        )
    value, error = seen.target(market.burden)
    raw, raw_error = seen.target(0.0)
    expected = learner.expected(best)
    if bool(are_apart(value, expected, math.hypot(error, learner.unsure(best)), learner.draws)) and not learner.bound:
        warnings.warn(
            f"with {market.lever}={best:.4g} an act should be paid {expected:.4g} by the rounds, but {value:.4g} by "
            "differences of other draws over half the step; take more draws or rounds, or a smaller step",
            stacklevel=3,
        )
    order, at = [-1, *range(2, 2 + len(grid)), -2], np.array([market.today, *grid, best])
    acts, worth = seen.acts[order], at[:, None] + seen.own[order]
    moves = np.array([seen.moves(*pair) for pair in itertools.pairwise(order)])
    private = ((worth[1:] + worth[:-1]) / 2 * moves).sum(0)
    raised = best * acts[-1] - market.today * acts[0]
    gain = seen.harm[-1] - seen.harm[-2] - private - market.burden * raised
    # The social cost is a parabola about the root, and the price is off by what bounds it and by chance.
    bend = max((seen.response + market.burden * seen.change) * (1 - learner.moved), 0.0)
    best_error = _of_price(learner, seen, best, spent)
    left = bend / 2 * ((learner.root - best) ** 2 + best_error**2)
    middle, measured, errors, counted = (np.array(x) for x in zip(*learner.tried, strict=True))
    numbers = {
        "price": best,
        "price_se": best_error,
        "root": learner.root,
        "root_se": learner.error,
        "externality": raw,
        "externality_se": raw_error,
        "acts": acts[-1].mean(),
        "spending": spent.mean(),
        "spending_se": _error(spent),
        "gain": gain.mean(),
        "gain_se": _error(gain),
        "gap_closed": gain.mean() / (gain.mean() + left) if gain.mean() > 0 else 0.0,
    }
    path = {"tried": middle, "measured": measured, "measured_se": errors, "acts_then": counted}
    path["spending_then"] = middle * counted
    return xr.Dataset(
        {name: float(x) for name, x in numbers.items()} | {name: ("round", x) for name, x in path.items()},
        {"round": np.arange(1, len(middle) + 1)},
    ).assign_attrs(lever=market.lever, ended=ended, moved=learner.moved, draws=learner.draws)


def _of_price(learner: _Learner, seen: Seen, price: float, spent: np.ndarray) -> float:
    """The standard error of the price: the root's, but of the spending where a budget binds, and 0 at a range's end."""
    if price in (learner.low, learner.high):
        return 0.0
    if not learner.limited:
        return learner.error
    # What paying a dollar more would cost.
    return _error(spent) / (float(seen.acts[-2].mean()) + price * max(seen.change, 0.0))


def _error(x: np.ndarray) -> float:
    return float(x.std(ddof=1)) / math.sqrt(len(x))


def _range(model: Model, lever: str, within: Any) -> tuple[float, float]:
    """The least and the greatest price, or what is wrong with them."""
    if lever not in model.environment:
        raise InputError(nearest("part of the environment", str(lever), model.environment))
    if lever in model.options:
        raise InputError(f"{lever} is one of {', '.join(model.options[lever])}: that is no price")
    try:
        least, most = (float(x) for x in within)
    except (TypeError, ValueError) as e:
        raise InputError(f"within={within!r} was given; give the least and the greatest price") from e
    if not -math.inf < least < most < math.inf:
        raise InputError(f"within={within!r} is no range; give the least and the greatest price")
    for end in (least, most):
        setting(model, lever, end)
    return least, most
