"""The synthetic population of New York City: people in households, at work, at school and in neighbourhoods."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data import composition, households, income, labour, workplaces
from lpmppl.data.acs import BOROUGHS, INDUSTRIES, OCCUPATIONS, Tables, shipped
from lpmppl.data.targets import scale
from lpmppl.errors import InputError

__all__ = ["AGE_BANDS", "BUILDER", "HOMES", "PEOPLE", "City", "Columns", "build", "check_agents"]

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


PEOPLE = {
    **dict.fromkeys(("age", "sex", "puma", "role", "employment", "occupation", "industry"), np.uint8),
    **dict.fromkeys(("household", "neighbourhood"), np.int32),
    "institution": np.bool_,
}
"""What an area says of each of its people, and in what kind of numbers."""

HOMES = {"household_size": np.int32, "household_kind": np.uint8, "income_band": np.uint8, "income": np.float32}
"""What it says of each household and facility."""

Columns = dict[str, NDArray[Any]]


class City:
    """The city of so many people before anybody lives in it: how many there are of what kind in each PUMA.

    Args:
        agents: how many people.
        seed: the seed of the synthesis.
        tables: the margins to rake to, by default those of the package.
    Attributes:
        residents: people in each PUMA, shape (P,).
        neighbourhoods: neighbourhoods in each PUMA, shape (P,).
    Raises:
        InputError: for a number of agents outside 1,000 … 100,000,000 or a seed that is no whole number from 0.
    """

    def __init__(self, agents: int, seed: int, tables: Tables | None = None) -> None:
        check_agents(agents)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"seed is {seed!r}: give a whole number from 0")
        self.agents, self.seed = int(agents), int(seed)
        self.tables = tables = shipped() if tables is None else tables
        self.targets = targets = scale(tables, self.agents)
        self._expected, self._needs = composition.weights(targets), composition.needs(targets)
        self._odds, self._wage, self._median = (
            labour.propensity(tables),
            income.wages(tables),
            income.area_median(tables),
        )
        self._facility = tables.value("quarters", "facility", "people")
        block = tables.value("neighbourhoods", "size", "people")
        self.residents = targets.persons.sum(axis=(1, 2)).astype(np.int64)
        self.neighbourhoods = np.maximum(1, np.round(self.residents / block)).astype(np.int64)

    def area(self, p: int) -> tuple[Columns, Columns]:
        """The people of one PUMA and their homes, sorted by neighbourhood and household.

        Its households are numbered from 0; its neighbourhoods as those of the city.
        """
        targets = self.targets
        rng = np.random.default_rng([self.seed, BUILDER, 0, p])
        homes = composition.draw(self._expected[p], self._needs[p], rng)
        there = households.settle(homes, targets.persons[p], targets.quarters[p], self._facility, rng)
        in_quarters = there.quarters[there.household]
        work = labour.assign(
            there.age,
            there.sex,
            in_quarters,
            targets.jobs[p],
            int(targets.labour_force[p]),
            int(targets.employed_seniors[p]),
            self._odds,
            rng,
        )
        band, dollars = income.assign(
            there.household,
            there.age,
            work.industry,
            there.size,
            there.quarters,
            targets.bands[p],
            self._wage,
            self._median,
            rng,
        )
        # A neighbourhood is a run of households; a household belongs where its first person does.
        first = np.cumsum(there.size) - there.size
        hood = first * self.neighbourhoods[p] // there.age.size + self.neighbourhoods[:p].sum()
        people = {
            "age": there.age,
            "sex": there.sex,
            "role": there.role,
            "employment": work.employment,
            "occupation": work.occupation,
            "industry": work.industry,
            "puma": np.full(there.age.size, p),
            "household": there.household,
            "neighbourhood": hood[there.household],
            "institution": in_quarters,
        }
        dwellings = {
            "household_size": there.size,
            "household_kind": there.quarters,
            "income_band": band,
            "income": dollars,
        }
        return (
            {name: people[name].astype(kind) for name, kind in PEOPLE.items()},
            {name: dwellings[name].astype(kind) for name, kind in HOMES.items()},
        )

    def dataset(self, person: Columns, home: Columns) -> xr.Dataset:
        """The population of all areas' people and homes, in order, once they have found work and schools."""
        places = workplaces.assign(
            person["age"],
            person["industry"],
            person["puma"],
            self.targets.borough,
            person["institution"],
            self.tables,
            np.random.default_rng([self.seed, BUILDER, 1]),
        )
        hood_puma = np.repeat(np.arange(len(self.residents), dtype=np.uint8), self.neighbourhoods)
        return _dataset(self, person, home, hood_puma, places)


def build(agents: int, seed: int, tables: Tables | None = None) -> xr.Dataset:
    """The population of New York, a proportional sample of `agents` people, the same for the same arguments.

    People are sorted by PUMA, neighbourhood and household. Agent variables: `age` (years), `age_band`, `sex`,
    `borough`, `puma`, `household`, `role`, `employment`, `occupation`, `industry`, `workplace` (0 for none),
    `neighbourhood` (xarray keeps the three that have the name of a dimension as coordinates); coded variables carry
    `attrs["labels"]`. `tables` are the margins to rake to, by default those of the package.

    Raises InputError as `City` does.
    """
    city = City(agents, seed, tables)
    person: Columns = {name: np.zeros(city.agents, kind) for name, kind in PEOPLE.items()}
    homes: dict[str, list[NDArray[Any]]] = {name: [] for name in HOMES}
    low = count = 0
    for p, residents in enumerate(city.residents.tolist()):
        people, dwellings = city.area(p)
        people["household"] += count
        for name, values in people.items():
            person[name][low : low + residents] = values
        for name, values in dwellings.items():
            homes[name].append(values)
        low, count = low + residents, count + len(dwellings["household_size"])
    return city.dataset(person, {name: np.concatenate(parts) for name, parts in homes.items()})


def _dataset(
    city: City, person: Columns, home: Columns, hood_puma: NDArray[np.uint8], places: workplaces.Workplaces
) -> xr.Dataset:
    tables, of_puma = city.tables, city.targets.borough.astype(np.uint8)
    boroughs, pumas = list(BOROUGHS), tables.pumas
    industries = ["none", *INDUSTRIES.values()]
    age = person["age"]

    def coded(dim: str, values: NDArray[np.generic], labels: list[str], long_name: str) -> xr.Variable:
        return xr.Variable(dim, values, {"long_name": long_name, "labels": labels})

    def plain(dim: str, values: NDArray[np.generic], long_name: str, **attrs: str) -> xr.Variable:
        return xr.Variable(dim, values, {"long_name": long_name, **attrs})

    # HUD's area medians carry its high-housing-cost adjustment and a year of their own; one factor takes them to the
    # median household income of the table.
    area = income.area_median(tables)
    dollars = tables.city["MdHInc"] / np.nanmedian(home["income"])
    earned = home["income"] * np.float32(dollars)
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
        "income": plain("household", earned, "household income; nan for group quarters", units="dollars per year"),
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
        "agents": city.agents,
        "seed": city.seed,
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
