"""Results of the published layout, made by a small deterministic epidemic rather than by a simulation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from lpmppl.inference.contrasts import contrast

AGES = ["0–9", "10–19", "20–29", "30–39", "40–49", "50–59", "60–69", "70–79", "80+"]
BOROUGHS = ["Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island"]
BY_AGE = np.array([1.03, 0.90, 1.34, 1.33, 1.07, 1.06, 0.86, 0.51, 0.32])
BY_BOROUGH = np.array([1.38, 2.58, 1.60, 2.27, 0.49])
FATALITY = np.array([0.00002, 0.00005, 0.0002, 0.0005, 0.0012, 0.004, 0.011, 0.03, 0.08])


def epidemic(days: int, draws: int, agents: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """New infections and deaths (draws, days, boroughs, ages) of a logistic wave that differs by borough and age."""
    rng = np.random.default_rng(seed)
    people = np.rint(agents * np.outer(BY_BOROUGH / BY_BOROUGH.sum(), BY_AGE / BY_AGE.sum()))
    day = np.arange(days)[:, None, None]
    wave = np.empty((draws, days, 5, 9))
    for k in range(draws):
        middle = 44 + 4 * np.arange(5)[:, None] / 5 + rng.normal(0, 1.5)
        height = strength * (0.5 + 0.05 * np.arange(9)[::-1]) * np.exp(rng.normal(0, 0.08))
        logistic = 1 / (4 * 7 * np.cosh((day - middle) / 14) ** 2)
        wave[k] = rng.poisson(people * height * logistic)
    deaths = np.zeros_like(wave)
    deaths[:, 18:] = rng.poisson(wave[:, :-18] * FATALITY) if days > 18 else 0
    return wave, deaths


def result(
    days: int = 90,
    draws: int = 1,
    agents: int = 8_400_000,
    worlds: tuple[str, ...] = (),
    by: tuple[str, ...] = ("borough", "age"),
    interventions: tuple[tuple[str, float, int], ...] = (("transmission", 0.3, 40),),
    start: str = "",
) -> xr.DataTree:
    """A result with the tallies infections, infectious and deaths."""
    coords = {"borough": BOROUGHS, "age": AGES, "day": np.arange(days), "chain": [0], "draw": np.arange(draws)}
    if worlds:
        coords["world"] = list(worlds)
    parts = [epidemic(days, draws, agents, 0.6 / (1 + w), seed=w) for w in range(max(1, len(worlds)))]
    series = {"infections": [p[0] for p in parts], "deaths": [p[1] for p in parts]}
    window = np.apply_along_axis
    series["infectious"] = [window(lambda v: np.convolve(v, np.ones(6))[:days], 1, p[0]) for p in parts]
    about = {
        "infections": ("flow", "new infections", "people per day"),
        "infectious": ("stock", "infectious people", "people"),
        "deaths": ("flow", "deaths", "people per day"),
    }
    variables = {}
    for name, (kind, long_name, units) in about.items():
        full = xr.DataArray(
            np.stack(series[name], 1)[None], dims=("chain", "draw", "world", "day", "borough", "age"), name=name
        )
        full = full.assign_coords({k: v for k, v in coords.items() if k != "world" or worlds})
        full = full if worlds else full.isel(world=0)
        full = full.sum([d for d in ("borough", "age") if d not in by])
        variables[name] = full.assign_attrs(kind=kind, long_name=long_name, units=units)
    people = np.rint(agents * np.outer(BY_BOROUGH / BY_BOROUGH.sum(), BY_AGE / BY_AGE.sum()))
    people = xr.DataArray(people, dims=("borough", "age"), coords={"borough": BOROUGHS, "age": AGES})
    rng = np.random.default_rng(5)
    sources = {
        "beta_household": (
            0.31,
            "per day",
            "Household secondary attack rate of 17 %: Madewell et al. 2020, doi:10.1001/x",
        ),
        "latent_period": (3.4, "days", "Xin et al. 2022, doi:10.1093/cid/ciab746"),
        "infectious_period": (6.1, "days", "Puhach et al. 2023, doi:10.1038/s41579-022-00822-w"),
    }
    prior = {
        name: xr.DataArray(
            value * np.exp(0.1 * rng.normal(size=(1, draws))) if draws > 1 else np.full((1, 1), value),
            dims=("chain", "draw"),
            attrs={"units": units, "long_name": name.replace("_", " "), "source": source},
        )
        for name, (value, units, source) in sources.items()
    }
    attrs = {
        "agents": agents,
        "days": days,
        "seed": 0,
        "model": "seirm",
        "population": "nyc",
        "start": start,
        "seconds": 5.83,
        "device": "cpu",
        "lpmppl_version": "0.1.0",
        "created": "2026-01-05T10:11:12+00:00",
        "versions": json.dumps({"torch": "2.13.0", "pyro-ppl": "1.9.2", "chirho": "0.3.0", "python": "3.11.9"}),
        "parameters": json.dumps({name: value for name, (value, _, _) in sources.items()}),
        "interventions": json.dumps([list(i) for i in interventions]),
        "population_provenance": json.dumps(
            {
                "builder": "lpmppl.data.nyc",
                "seed": 0,
                "sources": {"acs": "American Community Survey 2020–2024, table DP05"},
            }
        ),
    }
    groups = {"/": xr.Dataset(attrs=attrs), "/prior": xr.Dataset(prior), "/prior_predictive": xr.Dataset(variables)}
    if by:
        groups["/constant_data"] = xr.Dataset({"people": people.sum([d for d in people.dims if d not in by])})
    return xr.DataTree.from_dict(groups)


@pytest.fixture(name="result")
def result_fixture() -> xr.DataTree:
    """One draw of New York by borough and age, with an intervention."""
    return result()


@pytest.fixture
def make_result() -> Callable[..., xr.DataTree]:
    """The maker of results, for other shapes."""
    return result


def with_policies(
    acts: dict[str, list[str]],
    effects: tuple[float, ...],
    draws: int = 1,
    days: int = 60,
    by: tuple[str, ...] = ("borough", "age"),
    replicates: int = 1,
    **about: str,
) -> xr.DataTree:
    """A counterfactual run: policy k takes the share `effects[k]` of infections and deaths away from its first act on.

    An effect of nought is a policy that does nothing; a negative one makes things worse. The individual outcome
    `infected` follows from the totals.
    """
    names = list(acts)
    factual = result(days, draws, 84_000, by=by, interventions=(), start=about.pop("start", ""))
    first = factual["prior_predictive"].to_dataset()
    worlds = [first]
    for name, effect in zip(names, effects, strict=True):
        day = min((int(d) for act in acts[name] for d in re.findall(r"@(\d+)", act)), default=0)
        # What is taken is whole people, a little more of them in each draw.
        less = xr.where(first["day"] >= day, effect, 0.0) * (1 + 0.1 * xr.DataArray(np.arange(draws), dims="draw"))
        worlds.append(xr.Dataset({n: x - np.rint(x * less).transpose(*x.dims) for n, x in first.items()}))
    tallies = xr.concat(worlds, "policy").transpose("chain", "draw", "policy", "day", ...)
    whose = ("draw", np.arange(draws) // replicates)
    tallies = tallies.assign_coords(policy=["as it was", *names], parameters=whose)
    for name, x in first.items():
        tallies[name].attrs = x.attrs
    attrs = {"draws_from": "prior" if draws > 1 else "defaults", **about}
    factual.attrs.update(policies=json.dumps(acts), parameters=json.dumps({"latent_period": 3.4}), **attrs)
    groups = {f"/{name}": node.to_dataset() for name, node in factual.children.items()}
    groups |= {"/": xr.Dataset(attrs=factual.attrs), "/prior_predictive": tallies}
    total = tallies["infections"].sum("day")
    had, residents = total.isel(policy=0), xr.DataArray(84_000.0) / max(1, int(np.prod([total.sizes[b] for b in by])))
    averted, caused = ((s * (had - total.isel(policy=slice(1, None)))).clip(min=0) for s in (1, -1))
    cells = [residents - had - caused, caused, averted, had - averted]
    flows = xr.concat([xr.concat(cells[i : i + 2], "would") for i in (0, 2)], "was")
    flows = flows.assign_coords(was=["no", "yes"], would=["no", "yes"]).transpose("chain", "draw", "policy", ...)
    groups["/flows"] = xr.Dataset({"infected": flows.transpose(..., "was", "would").assign_attrs(units="people")})
    tree = xr.DataTree.from_dict(groups)
    tree["effects"] = xr.DataTree(contrast(tree))
    tree["effects_daily"] = xr.DataTree(contrast(tree, daily=True))
    for stratum in by:
        tree[f"effects_by_{stratum}"] = xr.DataTree(contrast(tree, by=stratum))
    return tree


@pytest.fixture(scope="session")
def make_policies() -> Callable[..., xr.DataTree]:
    """The maker of counterfactual runs."""
    return with_policies
