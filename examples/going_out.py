"""Who goes out? Fit the decision to visits of shops and restaurants, and let a city decide by it.

`python examples/going_out.py [REPORT.csv]` fits random utility to the recorded weeks of 2020, tests it on weeks it
hasn't seen, and holds a run in which everybody decides against the record. With Google's Community Mobility Report, it
is held against the boroughs too.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pandas as pd
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.data import google
from lpmppl.data.recorded import Recorded, shipped
from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import Utility
from lpmppl.effects.ops import decide
from lpmppl.models.behaviour import OUTING
from lpmppl.models.pandemic import Pandemic

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", 400_000))
DAYS = 300 if AGENTS > 100_000 else 60
FEATURES = ["intercept", "stringency", "risk"]
BLOCK, GAP = 28, 4  # days held out together, and days beside them that share a week with them


def table(record: Recorded) -> pd.DataFrame:
    """A row for each day: what was observed, and of a thousand people how many went out as before."""
    out = 1000 * np.minimum(record.activity["retail"], 0.99)
    observed = {"stringency": record.stringency / 100, "risk": np.log1p(record.smoothed())}
    return pd.DataFrame({**observed, OUTING[0]: out, OUTING[1]: 1000 - out})


def fitted(days: pd.DataFrame) -> dict[str, float]:
    choices = Choices.of("outing", OUTING, days, attributes=[], observed=FEATURES[1:])
    return dict(lpm.fit_utility(choices, FEATURES).coefficients[OUTING[0]])


def expected(coefficients: dict[str, float], days: pd.DataFrame) -> np.ndarray:
    choices = Choices.of("outing", OUTING, days, attributes=[], observed=FEATURES[1:])
    with Utility({"outing": {OUTING[0]: coefficients}}):
        return decide("outing", choices.codes, OUTING, choices.context)[..., 0].numpy()


def held_out(days: pd.DataFrame) -> np.ndarray:
    """Each block of four weeks as expected by who has learnt from the rest."""
    day, guess = np.arange(len(days)), np.empty(len(days))
    for begin in range(0, len(day), BLOCK):
        rest = (day < begin - GAP) | (day >= begin + BLOCK + GAP)
        guess[begin : begin + BLOCK] = expected(fitted(days[rest]), days[begin : begin + BLOCK])
    return guess


def main() -> None:
    record = shipped()
    days, retail = table(record), record.activity["retail"]
    found = fitted(days)
    print("fitted          ", {name: round(value, 2) for name, value in found.items()})
    for what, guess in (("on the same days", expected(found, days)), ("held-out blocks ", held_out(days))):
        r2 = 1 - ((guess - retail) ** 2).sum() / ((retail - retail.mean()) ** 2).sum()
        print(f"{what} R² {r2:.2f}, error {np.abs(guess - retail).mean():.3f}")

    people = lpm.nyc.population(AGENTS)
    begin = int(np.searchsorted(record.days, np.datetime64("2020-03-01")))
    infected = {}
    for going_out in (False, True):
        city = lpm.nyc.pandemic(people, going_out=going_out)
        run = lpm.run(city, days=DAYS, seed=0)["prior_predictive"].to_dataset().isel(chain=0, draw=0)
        infected[going_out] = float(run["infections"].sum()) / AGENTS
    going = run["going_out"].sum("age")
    week = slice(3, None, 7)
    share = (going.sum("borough") / AGENTS).values[week]
    gap = share - retail[begin : begin + DAYS][week][: len(share)]
    print("a run, its share less the record's, by week:", *(f"{x:+.2f}" for x in gap))
    print(f"mean absolute difference {np.abs(gap).mean():.3f}")
    print(f"infected {infected[False]:.1%} with recorded activity, {infected[True]:.1%} where people decide")
    if len(sys.argv) > 1:
        boroughs(city, going, sys.argv[1])


def boroughs(city: Pandemic, going: xr.DataArray, report: str) -> None:
    """The share who go out in each borough from 30 March to 3 May, beside Google's visits there."""
    weeks = google.read(report)["retail_and_recreation"].sel(day=slice("2020-03-30", "2020-05-03")).mean("day")
    people = city.population
    residents = torch.bincount(people["borough"].long()).numpy()
    model = going.isel(day=slice(29, 64)).mean("day") / residents
    for k, name in enumerate(people.labels("borough")):
        google_says = 1 + float(weeks.sel(borough=name))
        print(f"{name:14} model {float(model[k]):.0%}, Google {google_says:.0%}")


if __name__ == "__main__":
    main()
