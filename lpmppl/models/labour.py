"""Labour: who has a job, who is laid off and hired again, and who claims unemployment insurance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Choice
from lpmppl.effects.ops import happens, ring_sum, tally
from lpmppl.effects.ranks import Ranks
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = [
    "INDUSTRY",
    "OCCUPATION",
    "PART",
    "WAGE",
    "WEEK",
    "cuts",
    "labour",
    "relative_layoffs",
    "wages",
    "weekly_income",
]

OUTSIDE, UNEMPLOYED, EMPLOYED = range(3)
"""The codes of the population's `employment`."""

WEEK = 7.0
"""Days between two turns of the substep, and the time over which a turn's hazards act."""

INDUSTRY = (1.0, 0.6, 1.5, 1.0, 0.9, 1.5, 1.0, 0.6, 0.25, 0.6, 0.6, 3.0, 1.8, 0.15)
"""Relative hazard of layoff by the population's `industry`: chosen.

In the order of job losses from February to April 2020 in the Current Employment Statistics of the Bureau of Labor
Statistics: leisure and hospitality first; then other services, retail and construction; finance and government last.
"""

OCCUPATION = (1.0, 0.6, 1.5, 1.1, 1.3, 1.1)
"""Relative hazard of layoff by the population's `occupation`: chosen.

Lowest where work can be done at home: Dingel and Neiman, Journal of Public Economics 189 (2020).
"""

WAGE = (1.15, 1.19, 0.95, 1.0)
"""Relative hazard of layoff by quartile of the worker's wage: chosen, see docs/labour.md."""

BENEFIT = (104.0, 504.0)
"""Least and most unemployment insurance that New York paid in 2020, dollars a week; between them half the wage."""

SUPPLEMENT = (600.0, "2020-03-30", "2020-07-26")
"""Federal supplement, dollars a week, and the first and last day of the weeks for which it was paid (CARES Act)."""

LAYOFFS = "chosen: fits the recorded employment of spring 2020, see docs/labour.md"
CLAIMS = "chosen: fits the recorded initial claims of spring 2020, see docs/labour.md"


KEYS = (
    "employed",
    "filed",
    "job_changes",
    "job_hazard",
    "claim_due",
    "claiming",
    "earners",
    "claimants",
    "unemployed",
    "labour/activity",
    "labour/pressure",
)
"""What the substep writes."""


PARAMETERS = {
    "turnover": Parameter(
        around(0.00028), 0.00028, "layoffs in normal times", "per worker and day", "chosen: 7,000 claims a week"
    ),
    "layoff_fall": Parameter(around(0.73), 0.73, "layoffs by a fall of activity", "hazard per unit of fall", LAYOFFS),
    "layoff_delay": Parameter(around(6.6), 6.6, "time over which firms react to a fall", "days", LAYOFFS),
    "layoff_closure": Parameter(
        around(0.0011), 0.0011, "layoffs while activity is low", "per day and unit below normal", LAYOFFS
    ),
    "rehiring": Parameter(around(1.16), 1.16, "hiring by a rise of activity", "hazard per unit of rise", LAYOFFS),
    "claim_share": Parameter(dist.Beta(19.0, 1.0), 0.945, "laid-off workers who file", "share", CLAIMS),
    "claim_delay": Parameter(around(31.5), 31.5, "mean wait for a claim after its first week", "days", CLAIMS),
}


def wages(people: Population) -> tuple[Tensor, Tensor]:
    """What each worker of a household earns, and in which quartile of all workers that is.

    A household's income is shared equally by those of its members who are employed at the start.

    Args:
        people: the population, with `employment`, `household` and `income` (dollars a year, NaN in group quarters).
    Returns:
        dollars a week per worker of each household, shape (H,), and the quartile 0 … 3, uint8 of shape (H,); without a
        worker or an income the wage is 0 and the quartile the lowest.

    >>> import xarray as xr
    >>> incomes = {"income": ("household", [104_000.0, 26_000.0, 50_000.0]), "employment": ("agent", [2, 2, 2, 0])}
    >>> people = Population(xr.Dataset(incomes, {"household": ("agent", [0, 0, 1, 2])}))
    >>> [x.tolist() for x in wages(people)]
    [[1000.0, 500.0, 0.0], [2, 0, 0]]
    """
    workers = people.network("household").total((people["employment"] == EMPLOYED).int())
    wage = people["income"].nan_to_num(0.0).float() / 52.0 / workers.clamp(min=1)
    wage = torch.where(workers > 0, wage, 0.0)
    each = torch.repeat_interleave(wage, torch.where(wage > 0, workers, 0))
    quartile = torch.bucketize(wage, cuts(each, (0.25, 0.5, 0.75), people.ranks), right=True).to(torch.uint8)
    return wage, torch.where(wage > 0, quartile, 0)


def cuts(values: Tensor, shares: Sequence[float], ranks: Ranks | None = None) -> Tensor:
    """The least values above which each share of the values lies, infinite where there is none; shape of `shares`.

    Where ranks share the population, of the values of all of them.

    >>> cuts(torch.tensor([4.0, 1.0, 3.0, 2.0]), (0.25, 0.5, 1.0)).tolist()
    [2.0, 3.0, inf]
    """
    many = len(values) if ranks is None else sum(ranks.agree("cuts", len(shares), len(values)))
    places = np.minimum(np.ceil(np.asarray(shares) * many).astype(np.int64), many)
    if ranks is None:
        # NumPy sorts millions of numbers ten times as fast as torch.
        found = torch.from_numpy(np.append(np.sort(values.cpu().numpy()), np.float32(np.inf))[places])
    elif many:
        found = ranks.ordered(values, np.minimum(places, many - 1).tolist())
        found = torch.where(torch.from_numpy(places) < many, found, math.inf)
    else:
        found = torch.full((len(shares),), math.inf)
    return found.to(values.device)


def relative_layoffs(people: Population) -> tuple[Groups, Tensor]:
    """The kinds of jobs and the hazard of layoff in each, relative to the average worker's.

    Args:
        people: the population, with `industry` and `occupation` besides what `wages` needs.
    Returns:
        the group of each agent by industry, occupation and quartile of the wage, and the factor of each group, float32
        of shape (G,), whose mean over workers is 1.
    """
    _, quartile = people.derived("wages", lambda: wages(people))
    kind = (people["industry"].int() * len(OCCUPATION)).add_(people["occupation"]).mul_(len(WAGE))
    kind.add_(quartile[people["household"].long()])
    kinds = Groups("kinds of jobs", kind, len(INDUSTRY) * len(OCCUPATION) * len(WAGE))
    by_industry, by_occupation, by_wage = (
        torch.tensor(x, dtype=torch.float64, device=people.device) for x in (INDUSTRY, OCCUPATION, WAGE)
    )
    factor = (by_industry[:, None, None] * by_occupation[:, None] * by_wage).reshape(-1)
    workers = people.together(kinds.total((people["employment"] == EMPLOYED).int()))
    mean = (factor * workers).sum() / workers.sum().clamp(min=1)
    return kinds, (factor / mean if bool(workers.sum() > 0) else factor).float()


def weekly_income(setting: Setting) -> Callable[..., Tensor]:
    r"""How much the households earn and get from unemployment insurance in the week from today.

    .. math:: y_h = w_h e_h + o_h + b_h c_h, \qquad b_h = \min(\max(w_h / 2, 104), 504) + 600 \cdot \mathbb 1_{CARES}

    with w the wage of `wages`, e the employed, c those on unemployment insurance and o the income of households that
    had no worker at the start.

    Returns:
        the state, of which it reads `earners` and `claimants`, and which households, by default all, to their dollars
        a week before tax, shape (…, H).
    """
    wage, _ = setting.people.derived("wages", lambda: wages(setting.people))
    amount, first, last = SUPPLEMENT
    paid = setting.day(first), setting.day(last)

    def income(s: State, homes: slice = slice(None)) -> Tensor:
        earned = wage[homes]
        other = torch.where(earned > 0, 0.0, setting.people["income"][homes].nan_to_num(0.0).float() / 52.0)
        benefit = (earned / 2).clamp(*BENEFIT) + (amount if paid[0] <= float(s["t"]) <= paid[1] else 0.0)
        benefit = torch.where(earned > 0, benefit, 0.0)
        return other + earned * s["earners"][..., homes] + benefit * s["claimants"][..., homes]

    return income


@dataclass(frozen=True)
class _Turn:
    """The action of a week: who is laid off and hired, when who was laid off files a claim, and who does today."""

    activity: Tensor
    pressure: Tensor
    job: Exposure
    turning: Cohort
    laid_off: Tensor
    claim_due: Tensor
    filing: Cohort


def labour(setting: Setting, theta: Theta) -> Substep:
    r"""The substep, once a week, in which workers are laid off and hired, and file for unemployment insurance.

    With the activity a, the mean of workplaces and retail relative to before the pandemic, the hazards per day are

    .. math::
        h^{layoff}_i &= \lambda + r_i \Big[\frac{\phi}{7} P_t + \kappa (1 - a_t)^+\Big], \qquad
        P_t = \rho P_{t-7} + (1 - \rho)(a_{t-7} - a_t)^+, \quad \rho = e^{-7/\delta} \\
        h^{hiring} &= \lambda \frac{E_0}{U_0} \min(a_t, 1) + \frac{\mu}{7} (\min(a_t, 1) - \min(a_{t-7}, 1))^+

    with λ the turnover, r the relative hazard of `relative_layoffs`, φ, δ and κ the layoffs by a fall of activity,
    firms' delay and closures, μ the rehiring, and E₀, U₀ the employed and unemployed at the start, so that employment
    stays in normal times. A worker is exposed to the one and a jobseeker to the other, from zero after each change of
    job. A worker who is laid off files with a probability, after a week and an exponential wait, and draws benefits
    from then until hired.

    Args:
        setting: the people, with what `relative_layoffs` needs.
        theta: the parameters of `PART`.
    """
    people = setting.people
    kinds, relative = people.derived("relative layoffs", lambda: relative_layoffs(people))
    everyone, home = people.everyone(), people.network("household")
    in_labour_force = people["employment"] != OUTSIDE
    balance = theta["turnover"] * _jobs_per_seeker(people)

    def hazards(s: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        now, before = (s["mobility/workplaces"] + s["mobility/retail"]) / 2, s["labour/activity"]
        keep = torch.exp(-WEEK / theta["layoff_delay"])
        pressure = keep * s["labour/pressure"] + (1 - keep) * (before - now).clamp(min=0)
        pandemic = theta["layoff_fall"] / WEEK * pressure + theta["layoff_closure"] * (1 - now).clamp(min=0)
        rise = (now.clamp(max=1) - before.clamp(max=1)).clamp(min=0)
        hiring = balance * now.clamp(max=1) + theta["rehiring"] / WEEK * rise
        return now, pressure, theta["turnover"] + relative * pandemic, hiring

    def turn(s: State) -> _Turn:
        t = float(s["t"])
        activity, pressure, layoffs, hires = hazards(s)
        at_work = s["employed"]
        # Nobody is at risk of both, so that one cumulative hazard serves.
        hazard = kinds.field(layoffs) * Choice(at_work, 1.0, 0.0) + everyone.field(hires) * Choice(at_work, 0.0, 1.0)
        job = Exposure(s["job_hazard"], hazard, in_labour_force | at_work, s["job_changes"], WEEK)
        with people.plate():
            turning = people.cohort(happens("job_change", job)[0])
        laid_off = turning.read(at_work)
        out = turning.select(laid_off)
        filing = people.due(s["claim_due"], t, WEEK)
        due = out.write(filing.write(s["claim_due"], math.inf), _claim(out, theta, s["job_changes"], t + WEEK))
        return _Turn(activity, pressure, job, turning, laid_off, due, filing)

    def change(s: State, turn: _Turn) -> State:
        turning, out = turn.turning, turn.laid_off
        employed = turning.write(s["employed"], ~out)
        back = turning.select(~out)
        # Whoever is at work again when the claim is processed draws nothing more.
        filing = turn.filing.expand(employed.shape[:-1])
        started = filing.select(~(filing.read(employed) | filing.read(s["claiming"])))
        stopped = back.select(back.read(s["claiming"]))
        off = out.int()
        claimants = ring_sum(stopped.carrying(torch.tensor(-1, dtype=torch.int32)), home, s["claimants"])
        tally("ui_claims", filing, by=setting.by)
        return {
            "labour/activity": turn.activity,
            "labour/pressure": turn.pressure,
            "employed": employed,
            "job_changes": turning.write(s["job_changes"], turning.read(s["job_changes"]) + 1),
            "job_hazard": turning.write(turn.job.after, 0.0),
            "claim_due": turn.claim_due,
            "filed": turn.filing.mask(),
            "claiming": started.write(stopped.write(s["claiming"], False), True),
            "earners": ring_sum(turning.carrying(1 - 2 * off), home, s["earners"]),
            "claimants": ring_sum(started.carrying(torch.tensor(1, dtype=torch.int32)), home, claimants),
            "unemployed": tally(
                "unemployed", turning.carrying(2 * off.long() - 1), by=setting.by, onto=s["unemployed"]
            ),
        }

    return Substep(
        "labour",
        reads=("mobility/workplaces", "mobility/retail", *KEYS),
        writes=KEYS,
        policy=turn,
        transition=change,
        every=int(WEEK),
    )


def _jobs_per_seeker(people: Population) -> float:
    employment = people["employment"]
    employed, seeking = people.together(torch.stack([(employment == kind).sum() for kind in (EMPLOYED, UNEMPLOYED)]))
    return float(employed) / max(float(seeking), 1.0)


def _claim(cohort: Cohort, theta: Theta, episode: Tensor, earliest: float) -> Tensor:
    """The day on which each member's claim is processed, infinite where none is filed: shape (k,)."""
    with cohort.plate(episode=cohort.read(episode)):
        files = pyro.sample("claim", dist.Bernoulli(each(cohort, theta["claim_share"])))
        wait = pyro.sample("claim_wait", dist.Exponential(1.0 / each(cohort, theta["claim_delay"])))
    return torch.where(files > 0, earliest + wait, math.inf)


def begin(setting: Setting, theta: Theta, t0: float) -> State:
    """Everybody's job at the start, with as many claims waiting as normal times have."""
    people, device = setting.people, setting.people.device
    employment = people["employment"]
    employed, seeking = employment == EMPLOYED, employment == UNEMPLOYED
    share = theta["claim_share"] * theta["turnover"] * theta["claim_delay"] * _jobs_per_seeker(people)
    with people.plate():
        files = pyro.sample("pending_claim", dist.Bernoulli(share.clamp(max=1.0))).bool()
    waiting = people.cohort(seeking & files)
    with waiting.plate(episode=0):
        wait = pyro.sample("pending_wait", dist.Exponential(1.0 / each(waiting, theta["claim_delay"])))
    never = torch.full((people.size,), math.inf, device=device)
    home = people.network("household")
    return {
        "employed": employed,
        "filed": torch.zeros(people.size, dtype=torch.bool, device=device),
        "job_changes": torch.zeros(people.size, dtype=torch.uint8, device=device),
        # A week's hazard is a thousandth or more, which float32 doesn't lose beside what has accrued.
        "job_hazard": torch.zeros(people.size, device=device),
        "claim_due": waiting.write(never, t0 + wait),
        "claiming": torch.zeros(people.size, dtype=torch.bool, device=device),
        "earners": ring_sum(employed.int(), home),
        "claimants": torch.zeros(home.count, dtype=torch.int32, device=device),
        "unemployed": ring_sum(people.cohort(seeking).carrying(1), setting.by),
        "labour/activity": torch.ones(1, device=device),
        "labour/pressure": torch.zeros(1, device=device),
    }


PART = Part(
    "labour",
    labour,
    begin,
    parameters=PARAMETERS,
    outcomes={"out of work": lambda people, s: (people["employment"] != OUTSIDE) & ~s["employed"]},
    tallies={"ui_claims": "initial claims of unemployment insurance", "unemployed": "unemployed"},
)
