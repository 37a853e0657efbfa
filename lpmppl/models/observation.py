"""Observation: what the health department's daily counts show of the epidemic, late and with noise."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from lpmppl.effects.distributions import Counted
from lpmppl.effects.ops import ring_sum, tally
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["CLAIMS", "PART", "STREAMS", "claims", "delays", "observation"]

STREAMS = {"cases": "learnt", "admissions": "admitted", "deaths": "died"}
"""What is reported, and the mask in the state that says to whom it happened in this step."""

WEEKDAYS = {
    "cases": (1.12, 1.10, 1.08, 1.05, 1.03, 0.83, 0.79),
    "admissions": (1.06, 1.04, 1.02, 1.02, 1.00, 0.94, 0.92),
    "deaths": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
}
"""Reports by weekday from Monday, relative to the week's mean (chosen: fewer tests and admissions at weekends)."""

_LONGEST = 15


def delays(mean: Tensor, spread: float = 0.6) -> Tensor:
    """The share of events reported after 0, 1, … 14 days, log-normal around a mean in days: shape (…, 15).

    The mean is one number, or several of shape (…, 1).

    >>> d = delays(torch.tensor(2.0))
    >>> round(float(d.sum()), 6), round(float((d * torch.arange(15)).sum()), 1)
    (1.0, 2.0)
    """
    edges = torch.arange(_LONGEST, dtype=torch.float32, device=mean.device) + 0.5
    location = torch.log(mean) - spread**2 / 2
    below = torch.special.ndtr((torch.log(edges) - location) / spread)
    share = torch.diff(below, dim=-1, prepend=torch.zeros_like(below[..., :1]))
    return share / share.sum(-1, keepdim=True)


def observation(setting: Setting, theta: Theta) -> Substep:
    """The substep in which the day's counts are reported: city-wide, by borough and age, for the city's residents.

    What happened to agents is scaled to the residents whom they stand for, reported after a delay, unevenly over the
    week, and counted with more variance than a Poisson's. Each stream is a site, `reported/cases` and so on, negative
    binomial, of shape (strata,), which data can condition.

    Args:
        setting: where it plays.
        theta: `report_delay`, mean days from event to report; `report_dispersion`, the size of the negative binomial.
    """
    by, cells = setting.by, _cells(setting)
    count = cells.count

    def change(s: State, _: object) -> State:
        updates = {}
        share = delays(theta["report_delay"])
        weekday = setting.date_of(float(s["t"])).weekday()
        for stream, mask in STREAMS.items():
            happened = ring_sum(setting.people.cohort(s[mask]).carrying(1), by).float()
            pending = s[f"pending/{stream}"].unflatten(-1, (_LONGEST, count))
            pending = pending + share.unsqueeze(-1) * happened.unsqueeze(-2)
            due, rest = pending[..., 0, :], pending[..., 1:, :]
            mean = due * setting.weight * WEEKDAYS[stream][weekday]
            _report(stream, mean, theta, cells)
            updates[f"pending/{stream}"] = torch.nn.functional.pad(rest, (0, 0, 0, 1)).flatten(-2)
        return updates

    pending = tuple(f"pending/{stream}" for stream in STREAMS)
    return Substep(
        "observation",
        reads=(*pending, *STREAMS.values()),
        writes=pending,
        policy=lambda s: s,
        transition=change,
        scale="borough",
    )


def claims(setting: Setting, theta: Theta) -> Substep:
    """The substep in which the week's initial claims of unemployment insurance are reported, for the city's residents.

    They are a site, `reported/ui_claims`, negative binomial like the others, without delay: the Department of Labor
    counts claims by the week in which they are filed.

    Args:
        setting: where it plays.
        theta: `report_dispersion`, the size of the negative binomial.
    """
    cells = _cells(setting)

    def change(s: State, _: object) -> State:
        filed = ring_sum(setting.people.cohort(s["filed"]).carrying(1), setting.by).float()
        _report("ui_claims", filed * setting.weight, theta, cells)
        return {}

    return Substep(
        "claims", reads=("filed",), writes=(), policy=lambda s: s, transition=change, every=7, scale="borough"
    )


def _cells(setting: Setting) -> Groups:
    """The strata themselves as those whose reports are tallied."""
    count, dims = (setting.by.count, setting.by.dims) if setting.by else (1, {})
    index = torch.arange(count, device=setting.people.device)
    return Groups("reports", index, count, quantum=1.0, bound=2.0**40, dims=dims, public=True)


def _report(stream: str, mean: Tensor, theta: Theta, cells: Groups) -> None:
    reported = pyro.sample(f"reported/{stream}", Counted(mean, theta["report_dispersion"]))
    tally(f"reported_{stream}", reported.round().to(torch.int64), by=cells)


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nothing awaits its report."""
    count = setting.by.count if setting.by else 1
    return {f"pending/{stream}": torch.zeros(_LONGEST * count, device=setting.people.device) for stream in STREAMS}


PART = Part(
    "observation",
    observation,
    start,
    parameters={
        "report_delay": Parameter(around(1.5), 1.5, "from event to report", "days", "chosen"),
        "report_dispersion": Parameter(
            around(20.0), 20.0, "size of the reports' negative binomial", "events", "chosen"
        ),
    },
    tallies={f"reported_{stream}": f"{stream} as reported, of the city's residents" for stream in STREAMS},
    units={f"reported_{stream}": "reports" for stream in STREAMS},
)
CLAIMS = Part(
    "claims",
    claims,
    parameters={"report_dispersion": PART.parameters["report_dispersion"]},
    tallies={"reported_ui_claims": "initial claims as reported, of the city's residents"},
    units={"reported_ui_claims": "reports"},
)
