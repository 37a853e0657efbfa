"""Stimulus: payments to households, what they spend and what they save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import by_blocks, differentiated
from lpmppl.effects.ops import tally
from lpmppl.errors import InputError
from lpmppl.models.labour import WEEK, cuts, weekly_income
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = [
    "CHEQUES",
    "PART",
    "Eligibility",
    "balances",
    "eligibility",
    "income_quartiles",
    "normal_spending",
    "stimulus",
]

CHEQUES = (("2020-04-15", 1200.0, 500.0), ("2021-01-04", 600.0, 600.0))
"""Day, dollars per adult and dollars per child under 17 of the payments made.

The CARES Act of March 2020 and the Consolidated Appropriations Act of December 2020. Each is paid here on one day, its
first official payment date.
"""

CHILD_SHARE = 500.0 / 1200.0
"""Dollars per child for each dollar per adult of a payment of one's own: chosen, as in the CARES Act."""

SINGLE, COUPLE, HEAD = 75_000.0, 150_000.0, 112_500.0
"""Adjusted gross income, dollars a year, from which payments shrink: 26 U.S.C. §6428(c), as both acts have it."""

PHASE_OUT = 0.05
"""Dollars lost for each dollar of income above the threshold: 26 U.S.C. §6428(c)."""

BALANCES = ((0.2, 810.0), (0.4, 2_050.0), (0.6, 4_320.0), (0.8, 10_000.0), (0.9, 20_000.0), (1.0, 70_000.0))
"""Median balance of transaction accounts, dollars, up to a quantile of household income.

Survey of Consumer Finances 2019, Board of Governors of the Federal Reserve System.
"""

MEAN_SPENDING, MEAN_INCOME = 63_036.0, 82_852.0
"""Spending and income before tax of the mean household, dollars a year.

Consumer Expenditures in 2019, Bureau of Labor Statistics report 1090.
"""

AT_HOME = (0.58, 0.58, 0.63, 0.70)
"""Spending lost at zero retail activity, as a share, by quartile of household income: chosen, see docs/stimulus.md."""

QUARTILES = ("bottom", "second", "third", "top")

CENT = 0.01

MOST = 1e9
"""The most that one household spends at a time, dollars: what an exact sum over millions of them has room for."""

PARTNER = 1
"""The code of the population's `role`."""

PARAMETERS = {
    "payment_spent": Parameter(
        dist.Beta(3.0, 8.0),
        0.28,
        "payment that a household without savings spends",
        "share",
        "chosen, see docs/stimulus.md: 0.25–0.30 over three months in Baker et al., Review of Finance 27 (2023)",
    ),
    "payment_time": Parameter(
        around(28.0),
        28.0,
        "mean time in which that share is spent",
        "days",
        "chosen, see docs/stimulus.md",
    ),
    "liquidity": Parameter(
        around(4000.0),
        4000.0,
        "savings at which that share is half",
        "dollars",
        "chosen: households with high balances don't respond in Baker et al. (2020), NBER working paper 27097",
    ),
    "income_spent": Parameter(
        dist.Beta(3.0, 12.0),
        0.2,
        "change of income that a household with savings spends or cuts",
        "share",
        "chosen: near the fall of spending at job loss in Ganong and Noel, American Economic Review 109 (2019)",
    ),
    "income_spent_poor": Parameter(
        dist.Beta(6.0, 9.0), 0.4, "the same on top for a household without savings", "share", "chosen"
    ),
}


@dataclass(frozen=True, eq=False)
class Eligibility:
    """What a household's tax filers are: all tensors of shape (H,).

    Args:
        filers: adults who file the household's main return, 2 for couples.
        others: further adults, each of whom files a return of one's own.
        children: children under 17, who are on the main return.
        main: adjusted gross income of the main return above its threshold, dollars a year, 0 below it.
        other: the same for each further adult.
    """

    filers: Tensor
    others: Tensor
    children: Tensor
    main: Tensor
    other: Tensor

    def payment(self, adult: Tensor | float, child: Tensor | float) -> Tensor:
        r"""What every household gets: :math:`\sum_r (a n_r + c k_r - 0.05\, e_r)^+` over its returns r.

        Args:
            adult: dollars a per adult, a number or a tensor whose last dimension is 1.
            child: dollars c per child under 17.
        Returns:
            dollars, shape (…, H); n are a return's adults, k its children and e its income above the threshold.
        """
        main = (self.filers * adult + self.children * child - PHASE_OUT * self.main).clamp(min=0)
        other = self.others * (adult - PHASE_OUT * self.other).clamp(min=0)
        return torch.where(self.filers > 0, main + other, 0.0)


def eligibility(people: Population) -> Eligibility:
    """Who files for a payment in each household, and how far their income is above the threshold.

    A householder and partner file together; without a partner the householder files as head of household where there
    are children, and alone otherwise; every further adult of 18 or over files alone. A household's income is shared
    equally by its adults. Group quarters, whose income isn't known, get nothing, and neither do dependants of 17.

    Args:
        people: the population, with `age`, `role`, `household` and `income` (dollars a year, NaN in group quarters).

    >>> import numpy as np, xarray as xr
    >>> incomes = {"income": ("household", [80_000.0, 170_000.0, 120_000.0])}
    >>> agents = {"age": [30, 40, 41, 8, 6, 50, 10], "role": [0, 0, 1, 2, 2, 0, 2], "household": [0, 1, 1, 1, 1, 2, 2]}
    >>> variables = incomes | {name: ("agent", values) for name, values in agents.items() if name != "household"}
    >>> people = Population(xr.Dataset(variables, {"household": ("agent", agents["household"])}))
    >>> eligibility(people).payment(1200.0, 500.0).tolist()
    [950.0, 2400.0, 1325.0]
    """
    home, age, role = people.network("household"), people["age"], people["role"]
    income = people["income"].float()
    known = torch.isfinite(income)
    adults = torch.where(known, home.total((age >= 18).int()), 0)
    children = torch.where(known, home.total((age < 17).int()), 0)
    couple = (home.total((role == PARTNER).int()) > 0) & (adults >= 2)
    filers = torch.where(couple, 2, adults.clamp(max=1))
    each = income.nan_to_num(0.0) / adults.clamp(min=1)
    threshold = torch.where(couple, COUPLE, torch.where(children > 0, HEAD, SINGLE))
    return Eligibility(
        filers.short(),
        (adults - filers).short(),
        children.short(),
        (each * filers - threshold).clamp(min=0),
        (each - SINGLE).clamp(min=0),
    )


def _bracket(people: Population, shares: Sequence[float]) -> Tensor:
    """How many of the shares of households each one's income is above, shape (H,); 0 where it isn't known."""
    income = people["income"].float()
    known = torch.isfinite(income)
    place = torch.bucketize(income, cuts(income[known], shares, people.ranks), right=True)
    return torch.where(known, place, 0)


def income_quartiles(people: Population) -> Groups:
    """The strata of spending: households by quartile of income, bottom first; group quarters are in the bottom one."""
    return Groups(
        "income quartile", _bracket(people, (0.25, 0.5, 0.75)).int(), len(QUARTILES), dims={"quartile": QUARTILES}
    )


def normal_spending(people: Population) -> Tensor:
    r"""What each household spends before the pandemic: :math:`\bar c \sqrt{y / \bar y}`, dollars a week, shape (H,).

    The mean household's spending c̄ and income ȳ are those of the Consumer Expenditure Surveys of 2019; the square root
    is chosen, near the slope between their quintiles. Group quarters spend nothing.
    """
    income = people["income"].nan_to_num(0.0).float()
    return MEAN_SPENDING / 52.0 * (income / MEAN_INCOME).sqrt()


def balances(people: Population) -> Tensor:
    """Savings at the start, dollars, shape (H,); none in group quarters."""
    upper, balance = zip(*BALANCES, strict=True)
    dollars = torch.tensor(balance, device=people.device)[_bracket(people, upper[:-1])]
    return torch.where(torch.isfinite(people["income"]), dollars, 0.0)


@dataclass(frozen=True, eq=False)
class _Day:
    """The action of a day on which there is money to move, in dollars: shape (…, H).

    `kept` is what is kept of how it was settled.
    """

    paid: Tensor
    spent: Tensor
    savings: Tensor
    unspent: Tensor
    kept: State


Settle: TypeAlias = Callable[[State, Tensor], tuple[Tensor, State]]
"""From the state, and the dollars that an adult gets, to the share each household means to spend, and what it keeps."""


def stimulus(setting: Setting, theta: Theta, settle: Settle | None = None, keeps: Sequence[str] = ()) -> Substep:
    r"""The substep in which payments come in, every day, and households spend, once a week.

    A payment p raises savings; of it the household means to spend the share :math:`m\, \ell(S)`, with
    :math:`\ell(S) = 1 / (1 + S / S_0)` of its savings S before, at an exponential pace. Each week it spends

    .. math::
        c_h \big(1 - e_q (1 - r)^2\big) \big(1 + (\alpha + \beta\, \ell(S)) (y_h / c_h - 1)\big)
        + (1 - e^{-7/\tau}) U_h

    with c its normal spending, r the activity in retail, e the share lost at home, y its spendable income, and U the
    part of payments that it means to spend and hasn't. Spendable income is wages and benefits less the share that tax
    and planned saving take in normal times, or plus the assistance that normal spending needs: it equals c then.
    Savings change by what comes in less what is spent, and may fall below 0: that is debt.

    Payments are those of `CHEQUES`, and on any day the state key `stimulus`, dollars per adult, which is set back to 0
    once it is paid.

    Args:
        setting: the people, with what `eligibility` and `labour.weekly_income` need.
        theta: the parameters of `PART`.
        settle: how households settle what share of a payment they mean to spend, in place of m ℓ(S).
        keeps: the state keys that it writes.
    """
    people = setting.people
    filing = people.derived("eligibility", lambda: eligibility(people))
    groups = people.derived("income quartiles", lambda: income_quartiles(people))
    normal, earnings = people.derived("normal spending", lambda: normal_spending(people)), weekly_income(setting)
    at_home = torch.tensor(AT_HOME, device=people.device)
    cheques = [(setting.day(day), adult, child) for day, adult, child in CHEQUES]
    nothing = torch.zeros_like(normal)
    nobody = Cohort(torch.empty(0, dtype=torch.int64, device=people.device), normal.shape).carrying(0.0)

    def payments(s: State) -> tuple[list[Tensor], Tensor]:
        """What households get today, and what an adult does."""
        t, dt = float(s["t"]), float(s["dt"])
        today = [(a, c) for day, a, c in cheques if t - 1e-6 * dt <= day < t + dt * (1 - 1e-6)]
        due = [filing.payment(a, c) for a, c in today]
        pulse = s["stimulus"]
        # Only a day with a payment costs a pass over the households; a derivative by the pulse counts as one.
        if bool((pulse != 0).any()) or differentiated(pulse):
            if bool((pulse < 0).any()):
                raise InputError(f"stimulus={float(pulse.min()):g} was given; a payment is 0 dollars or more")
            due.append(filing.payment(pulse, pulse * CHILD_SHARE))
        return due, pulse + sum(a for a, _ in today)

    def spendable(s: State, homes: slice) -> Tensor:
        """The income of a week that is left for spending, dollars."""
        usual = people["income"][homes].nan_to_num(0.0).float() / 52.0
        kept = torch.where(usual > 0, normal[homes] / usual.clamp(min=1e-6), 0.0).clamp(max=1.0)
        assistance = (normal[homes] - usual).clamp(min=0.0)
        return kept * earnings(s, homes) + assistance

    def act(s: State) -> _Day | None:
        (due, dollars), week = payments(s), _turn(s)
        if not due and not week:
            return None
        paid = sum(due[1:], start=due[0]) if due else nothing
        pace = -torch.expm1(-(WEEK if week else _to_next(s)) / theta["payment_time"])
        lost = (1.0 - s["mobility/retail"]).clamp(min=0.0) ** 2
        share, kept = settle(s, dollars) if settle and due else (None, {})

        def some(homes: slice) -> tuple[Tensor, Tensor, Tensor]:
            got, savings, unspent = paid[..., homes], s["savings"][..., homes], s["unspent"][..., homes]
            liquid = 1.0 / (1.0 + savings.clamp(min=0.0) / theta["liquidity"])
            meant = (theta["payment_spent"] * liquid if share is None else share[..., homes]) * got
            if not week:
                now = meant * pace
                return now, savings + (got - now), unspent + (meant - now)
            meant = unspent + meant
            now = meant * pace
            income = spendable(s, homes)
            response = theta["income_spent"] + theta["income_spent_poor"] * liquid
            usually = (normal[homes] + response * (income - normal[homes])).clamp(min=0.0)
            avoided = at_home[groups.index[homes].int()] * lost
            spent = usually * (1.0 - avoided).clamp(min=0.0) + now
            return spent, savings + (got + income - spent), meant - now

        spent, savings, unspent = by_blocks(paid.shape[-1], some)
        return _Day(paid, spent, savings, unspent, kept)

    def change(s: State, day: _Day | None) -> State:
        tally("spending", nobody if day is None else day.spent, by=groups, quantum=CENT, bound=MOST)
        tally("payments", nobody if day is None else day.paid, by=groups, quantum=CENT, bound=MOST)
        clear = {"stimulus": torch.zeros_like(s["stimulus"])}
        if day is None:
            return {**clear, "paid": nothing}
        return {**clear, **day.kept, "paid": day.paid, "savings": day.savings, "unspent": day.unspent}

    return Substep(
        "stimulus",
        reads=("stimulus", "savings", "unspent", "earners", "claimants", "mobility/retail"),
        writes=("stimulus", "savings", "unspent", "paid", *keeps),
        policy=act,
        transition=change,
        scale="household",
    )


def _turn(s: State) -> bool:
    """Whether the week begins in this step, as it does for the labour market."""
    t, dt = float(s["t"]), float(s["dt"])
    return (t + 1e-6 * dt) % WEEK < dt * (1 - 1e-6)


def _to_next(s: State) -> float:
    """Days until the next week begins."""
    return WEEK - float(s["t"]) % WEEK


def begin(setting: Setting, theta: Theta, t0: float) -> State:
    """The savings of every household, by its income; nothing is paid yet."""
    people = setting.people
    savings = people.derived("balances", lambda: balances(people))
    return {"savings": savings, "unspent": torch.zeros_like(savings), "paid": torch.zeros_like(savings)}


PART = Part(
    "stimulus",
    stimulus,
    begin,
    parameters=PARAMETERS,
    environment={"stimulus": 0.0},
    limits={"stimulus": (0.0, 1e6)},
    pulses=("stimulus",),
    targets={"stimulus": "household"},
    tallies={"spending": "household spending", "payments": "stimulus payments"},
    units={"spending": "dollars", "payments": "dollars"},
    dims=("quartile",),
)
