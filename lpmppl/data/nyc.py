"""The synthetic population of New York City: people in households, at work, at school and in neighbourhoods."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data import composition, households, income, labour, workplaces
from lpmppl.data.acs import BOROUGHS, INDUSTRIES, OCCUPATIONS, Tables, shipped
from lpmppl.data.targets import scale
from lpmppl.errors import InputError

__all__ = ["AGE_BANDS", "BUILDER", "build", "check_agents"]

BUILDER = 1
"""Version of the builder: a population of another version is another population."""

AGE_BANDS = [*(f"{low}–{low + 9}" for low in range(0, 80, 10)), "80+"]
_FEWEST, _MOST = 1_000, 100_000_000


def check_agents(agents: int) -> None:
    """Raise InputError unless `agents` is a whole number of people that a city can have.

    >>> check_agents(10)
    Traceback (most recent call last):
    lpmppl.errors.InputError: agents is 10: give a whole number from 1,000 to 100,000,000
    """
    if isinstance(agents, bool) or not isinstance(agents, int | np.integer) or not _FEWEST <= agents <= _MOST:
        raise InputError(f"agents is {agents!r}: give a whole number from {_FEWEST:,} to {_MOST:,}")


def build(agents: int, seed: int, tables: Tables | None = None) -> xr.Dataset:
    """The population of New York, a proportional sample of `agents` people, the same for the same arguments.

    People are sorted by PUMA, neighbourhood and household. Agent variables: `age` (years), `age_band`, `sex`,
    `borough`, `puma`, `household`, `role`, `employment`, `occupation`, `industry`, `workplace` (0 for none),
    `neighbourhood` (xarray keeps the three that have the name of a dimension as coordinates); coded variables carry
    `attrs["labels"]`. `tables` are the margins to rake to, by default those of the package.

    Raises InputError for a number of agents outside 1,000 … 100,000,000 or a seed that is no whole number from 0.
    """
    check_agents(agents)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed is {seed!r}: give a whole number from 0")
    agents, seed = int(agents), int(seed)
    tables = shipped() if tables is None else tables
    targets = scale(tables, agents)
    expected, needs = composition.weights(targets), composition.needs(targets)
    odds, wage, median = labour.propensity(tables), income.wages(tables), income.area_median(tables)
    facility = tables.value("quarters", "facility", "people")
    block = tables.value("neighbourhoods", "size", "people")

    person: dict[str, NDArray[np.integer]] = {
        name: np.zeros(agents, np.uint8)
        for name in ("age", "sex", "puma", "role", "employment", "occupation", "industry")
    }
    person |= {name: np.zeros(agents, np.int32) for name in ("household", "neighbourhood")}
    institution = np.zeros(agents, bool)
    homes: dict[str, list[NDArray[np.generic]]] = {
        "household_size": [],
        "household_kind": [],
        "income_band": [],
        "income": [],
    }
    hood_puma: list[NDArray[np.uint8]] = []
    low = home_count = hood_count = 0
    for p in range(len(tables.pumas)):
        rng = np.random.default_rng([seed, BUILDER, 0, p])
        there = households.settle(
            composition.draw(expected[p], needs[p], rng), targets.persons[p], targets.quarters[p], facility, rng
        )
        in_quarters = there.quarters[there.household]
        work = labour.assign(
            there.age,
            there.sex,
            in_quarters,
            targets.jobs[p],
            int(targets.labour_force[p]),
            int(targets.employed_seniors[p]),
            odds,
            rng,
        )
        band, dollars = income.assign(
            there.household, there.age, work.industry, there.size, there.quarters, targets.bands[p], wage, median, rng
        )
        hoods = max(1, round(there.age.size / block))
        # A neighbourhood is a run of households; a household belongs where its first person does.
        first = np.cumsum(there.size) - there.size
        hood = first * hoods // there.age.size
        high = low + there.age.size
        span = slice(low, high)
        for name, values in (
            ("age", there.age),
            ("sex", there.sex),
            ("role", there.role),
            ("employment", work.employment),
            ("occupation", work.occupation),
            ("industry", work.industry),
            ("puma", p),
            ("household", there.household + home_count),
            ("neighbourhood", hood[there.household] + hood_count),
        ):
            person[name][span] = values
        institution[span] = in_quarters
        homes["household_size"].append(there.size.astype(np.int32))
        homes["household_kind"].append(there.quarters.astype(np.uint8))
        homes["income_band"].append(band.astype(np.uint8))
        homes["income"].append(dollars.astype(np.float32))
        hood_puma.append(np.full(hoods, p, np.uint8))
        low, home_count, hood_count = high, home_count + there.size.size, hood_count + hoods

    places = workplaces.assign(
        person["age"],
        person["industry"],
        person["puma"],
        targets.borough,
        institution,
        tables,
        np.random.default_rng([seed, BUILDER, 1]),
    )
    return _dataset(agents, seed, tables, targets.borough, person, homes, np.concatenate(hood_puma), places)


def _dataset(
    agents: int,
    seed: int,
    tables: Tables,
    borough: NDArray[np.int64],
    person: dict[str, NDArray[np.integer]],
    homes: dict[str, list[NDArray[np.generic]]],
    hood_puma: NDArray[np.uint8],
    places: workplaces.Workplaces,
) -> xr.Dataset:
    of_puma = borough.astype(np.uint8)
    boroughs, pumas = list(BOROUGHS), tables.pumas
    industries = ["none", *INDUSTRIES.values()]
    age = person["age"]

    def coded(dim: str, values: NDArray[np.generic], labels: list[str], long_name: str) -> xr.Variable:
        return xr.Variable(dim, values, {"long_name": long_name, "labels": labels})

    def plain(dim: str, values: NDArray[np.generic], long_name: str, **attrs: str) -> xr.Variable:
        return xr.Variable(dim, values, {"long_name": long_name, **attrs})

    home = {name: np.concatenate(parts) for name, parts in homes.items()}
    # HUD's area medians carry its high-housing-cost adjustment and a year of their own; one factor takes them to the
    # median household income of the table.
    area = income.area_median(tables)
    dollars = tables.city["MdHInc"] / np.nanmedian(home["income"])
    home["income"] *= np.float32(dollars)
    variables = {
        "age": plain("agent", age, "age", units="years"),
        "age_band": coded("agent", np.minimum(age // np.uint8(10), np.uint8(8)), AGE_BANDS, "decade of age"),
        "sex": coded("agent", person["sex"], ["female", "male"], "sex"),
        "borough": coded("agent", of_puma[person["puma"]], boroughs, "borough of residence"),
        "puma": coded("agent", person["puma"], pumas, "public use microdata area of residence"),
        "household": plain("agent", person["household"], "household or facility"),
        "role": coded("agent", person["role"], list(households.ROLES), "role in the household"),
        "employment": coded("agent", person["employment"], list(labour.EMPLOYMENT), "employment status"),
        "occupation": coded("agent", person["occupation"], ["none", *OCCUPATIONS.values()], "occupation"),
        "industry": coded("agent", person["industry"], industries, "industry"),
        "workplace": plain("agent", places.of, "workplace or school; 0 for none, at home or outside the city"),
        "neighbourhood": plain("agent", person["neighbourhood"], "neighbourhood"),
        "household_size": plain(
            "household", home["household_size"], "people in the household or facility", units="people"
        ),
        "household_kind": coded(
            "household", home["household_kind"], ["household", "group quarters"], "kind of household"
        ),
        "income_band": coded(
            "household", home["income_band"], income.labels(dollars * area[3]), "household income, area medians"
        ),
        "income": plain(
            "household", home["income"], "household income; nan for group quarters", units="dollars per year"
        ),
        "workplace_kind": coded("workplace", places.kind, list(workplaces.KINDS), "kind of workplace"),
        "workplace_size": plain("workplace", places.size, "agents who work or learn there", units="people"),
        "workplace_industry": coded("workplace", places.industry, industries, "industry of the workplace"),
        "workplace_puma": coded("workplace", places.puma, pumas, "where the workplace is; unused for workplace 0"),
        "workplace_borough": coded(
            "workplace", places.borough, boroughs, "where the workplace is; unused for workplace 0"
        ),
        "neighbourhood_puma": coded("neighbourhood", hood_puma, pumas, "where the neighbourhood is"),
        "neighbourhood_borough": coded("neighbourhood", of_puma[hood_puma], boroughs, "where the neighbourhood is"),
    }
    provenance = {
        "builder": f"lpmppl.data.nyc {BUILDER}",
        "agents": agents,
        "seed": seed,
        "tables": tables.source,
        "tables_sha256": tables.checksum,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "lpmppl": _version(),
        "numpy": np.__version__,
        "sources": sorted(
            {
                str(source)
                for kind, source in zip(tables.typed["kind"], tables.typed["source"], strict=True)
                if kind == "typed in"
            }
        ),
    }
    attrs = {"title": "Synthetic population of New York City", "name": "nyc", "provenance": json.dumps(provenance)}
    return xr.Dataset(variables, attrs=attrs)


def _version() -> str:
    try:
        return version("lpmppl")
    except PackageNotFoundError:
        return "unreleased"
