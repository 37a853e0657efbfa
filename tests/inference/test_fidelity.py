"""What groups of people do under a behaviour is held against a survey, with the survey's own noise told apart."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import lpmppl as lpm
from lpmppl.effects.handlers import Utility
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError
from lpmppl.inference.error_budget import error_budget, surveyed_budget
from lpmppl.inference.fidelity import fidelity, fidelity_text
from lpmppl.inference.omitted import omitted
from lpmppl.inference.rephrasing import rephrased
from lpmppl.models.archetypes import Bins, Lookup
from lpmppl.models.behaviour import MASK, UTILITY, archetypes
from lpmppl.models.population import Population

ROOT = Path(__file__).parents[2]
AGES = Bins("age", (18, 30, 45, 65), ("0-17", "18-29", "30-44", "45-64", "65+"))
INCOMES = Bins("income", (40e3, 80e3), ("under 40k", "40-80k", "over 80k"), unknown="unknown")
BOROUGH = Lookup("borough")


def people(n: int = 1200, seed: int = 0) -> Population:
    rng = np.random.default_rng(seed)
    return Population(
        xr.Dataset(
            {
                "age": ("agent", rng.integers(0, 90, n).astype(np.uint8)),
                "household": ("agent", (np.arange(n) // 3).astype(np.int32)),
                "borough": ("agent", rng.integers(0, 3, n).astype(np.uint8), {"labels": ["Bronx", "Queens", "Kings"]}),
                "income": ("household", rng.choice([2e4, 5e4, 9e4, np.nan], n // 3).astype(np.float32)),
            }
        )
    )


def rows(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"n": 100, **columns})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99))
def test_a_groups_share_is_the_mean_of_its_agents_in_every_draw(seed: int) -> None:
    p, rng = people(seed=seed), np.random.default_rng(seed)
    chance = rng.random((2, 3, p.size))
    survey = rows(
        age=["18-29", None, "65+", np.nan],
        income=[np.nan, "unknown", "over 80k", np.nan],
        share=[0.2, 0.5, 0.9, 1.0],
    )
    where = rng.random(p.size) < 0.8
    found = fidelity(p, chance, survey, {"age": AGES, "income": INCOMES, "borough": BOROUGH}, where)
    age, income = p["age"].numpy(), p["income"].numpy()[p["household"].numpy()]
    for g, mask in enumerate(
        [(age >= 18) & (age < 30), np.isnan(income), (age >= 65) & (income > 80e3), np.ones(p.size, dtype=bool)]
    ):
        mine = mask & where
        assert found["agents"][g] == mine.sum()
        assert found["model"][:, g].values == pytest.approx(chance.reshape(6, -1)[:, mine].mean(-1))
    assert found["model"].dims == ("draw", "group")
    assert found["group"].values.tolist() == ["age=18-29", "income=unknown", "age=65+, income=over 80k", "everybody"]
    assert found["age"].values.tolist() == ["18-29", "", "65+", ""]
    assert "borough" not in found.coords


def test_standard_errors_are_wilsons_and_sums_are_of_them() -> None:
    p = people()
    survey = pd.DataFrame(
        {"borough": ["Bronx", "Queens", "Kings"], "share": [0.8, 1.0, 0.3], "n": [50, 20, 400]}, index=[7, 7, 2]
    )
    found = fidelity(p, torch.full((p.size,), 0.75), survey, {"borough": BOROUGH})
    # Wilson's interval of level z = 1: half its width.
    error = [math.sqrt(s * (1 - s) / n + 1 / (4 * n * n)) / (1 + 1 / n) for s, n in [(0.8, 50), (1.0, 20), (0.3, 400)]]
    difference = [-0.05, -0.25, 0.45]
    assert found["standard_error"].values == pytest.approx(error)
    assert found["difference"].values == pytest.approx(difference)
    z = np.divide(difference, error)
    assert found["z"].values == pytest.approx(z)
    assert float(found["chi_square"]) == pytest.approx((z**2).sum())
    assert float(found["p"]) == pytest.approx(chi2.sf((z**2).sum(), 3))
    squared, noise = np.square(difference).mean(), np.square(error).mean()
    assert float(found["mean_squared"]) == pytest.approx(squared)
    assert float(found["noise"]) == pytest.approx(noise)
    assert float(found["beyond"]) == pytest.approx(math.sqrt(squared - noise))
    assert "draw" not in found.dims


def test_a_true_model_is_refused_as_often_as_it_should_be_and_has_no_error_beyond_noise() -> None:
    """Failure rate below 1e-3: 600 surveys, of which 5 % are refused (standard error 0.9 %)."""
    p, rng = people(), np.random.default_rng(3)
    truth = np.array([0.7, 0.85, 0.5])
    chance = truth[p["borough"].numpy()]
    names, refused, left = ["Bronx", "Queens", "Kings"], [], []
    for _ in range(600):
        survey = pd.DataFrame({"borough": names, "share": rng.binomial(120, truth) / 120, "n": 120})
        found = fidelity(p, chance, survey, {"borough": BOROUGH})
        refused.append(float(found["p"]) < 0.05)
        left.append(float(found["mean_squared"] - found["noise"]))
    assert 0.02 < np.mean(refused) < 0.085
    assert abs(np.mean(left)) < 4 * np.std(left) / math.sqrt(600)
    # A model that is 10 points off everywhere is found out, and its error is known.
    wrong = fidelity(p, chance - 0.1, rows(borough=names, share=truth).assign(n=2000), {"borough": BOROUGH})
    assert float(wrong["p"]) < 1e-6
    assert float(wrong["beyond"]) == pytest.approx(0.1, abs=0.001)


def test_a_group_without_agents_is_nan_and_said_and_the_rest_is_as_without_it() -> None:
    p = people()
    survey = rows(age=["18-29", "65+"], share=[0.5, 0.5])
    young = p["age"] < 60
    chance = torch.where(young, 0.6, torch.nan)
    both = fidelity(p, chance, survey, {"age": AGES}, young)
    one = fidelity(p, chance, survey[:1], {"age": AGES}, young)
    assert both.attrs["empty"] == ["age=65+"] and one.attrs["empty"] == []
    assert both["agents"].values.tolist()[1] == 0
    for name in ("model", "difference", "z"):
        assert np.isnan(both[name].values).tolist() == [False, True]
    for name in ("mean_squared", "noise", "beyond", "chi_square", "p", "degrees"):
        assert float(both[name]) == float(one[name])
    assert "| age=65+ | no agents |" in fidelity_text(both)


def test_groups_that_share_people_have_no_p() -> None:
    p = people()
    survey = rows(age=["18-29", np.nan], borough=[np.nan, "Bronx"], share=0.5)
    found = fidelity(p, np.full(p.size, 0.6), survey, {"age": AGES, "borough": BOROUGH})
    assert np.isnan(found["p"]) and not found.attrs["apart"]
    assert "groups share people" in fidelity_text(found)
    apart = fidelity(p, np.full(p.size, 0.6), survey[:1], {"age": AGES, "borough": BOROUGH})
    assert float(apart["p"]) > 0 and apart.attrs["apart"]


GOOD = rows(age=["18-29", "65+"], share=[0.5, 0.5])


@pytest.mark.parametrize(
    ("survey", "said"),
    [
        (GOOD.rename(columns={"age": "agge"}), "did you mean 'age'"),
        (GOOD.assign(age=["18-29", "65"]), "did you mean '65+'"),
        (GOOD.assign(age="65+"), "'age=65+' twice"),
        (GOOD.drop(columns="n"), "no column 'n'"),
        (GOOD.assign(share=[0.5, 80]), "share=80"),
        (GOOD.assign(share=[0.5, np.nan]), "share=nan"),
        (GOOD.assign(n=0), "n=0"),
        (GOOD.assign(share="half"), "aren't numbers"),
        (GOOD[:0], "without rows"),
        ({"share": 0.5}, "dict"),
    ],
)
def test_a_survey_that_cannot_be_used_is_refused(survey: Any, said: str) -> None:
    p = people()
    with pytest.raises(InputError, match=re.escape(said)) as error:
        fidelity(p, np.full(p.size, 0.5), survey, {"age": AGES})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"chance": np.full(7, 0.5)}, "1200 agents"),
        ({"chance": 0.5}, "shape ()"),
        ({"chance": ["x"]}, "probability"),
        ({"chance": np.full(1200, np.nan)}, "where="),
        ({"chance": np.full(1200, 1.5)}, "age=18-29"),
        ({"where": np.ones(1200)}, "float64"),
        ({"where": np.zeros(1200, dtype=bool)}, "none of the survey's 2 groups"),
        ({"attributes": {"age": "age"}}, "Bins or Lookup"),
        ({"attributes": {"age": Bins("agge", (18,), ("a", "b"))}}, "did you mean 'age'"),
        ({"attributes": {"age": AGES, "share": AGES}}, "can't be called 'share'"),
    ],
)
def test_what_does_not_go_with_the_people_is_refused(given: dict[str, Any], said: str) -> None:
    call = {"chance": np.full(1200, 0.5), "survey": GOOD, "attributes": {"age": AGES}, **given}
    with pytest.raises(InputError, match=re.escape(said)):
        fidelity(people(), **call)


def test_templates_that_say_the_same_are_no_distance_apart() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    found = rephrased([p, p, p])
    assert [float(found[name]) for name in ("mean", "largest", "variance", "beyond")] == pytest.approx([0] * 4)


def test_how_far_templates_are_apart_where_most_and_in_which_option() -> None:
    base = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
    chances = np.array([base, base, base])
    chances[2, 1] = [0.1, 0.4, 0.5]
    chances[0, 2] = [0.4, 0.31, 0.29]
    weight, options = [1, 2, 1], ("never", "often", "always")
    found = rephrased(torch.from_numpy(chances), weight, options=options)
    distance = abs(chances - chances.mean(0)).sum(-1) / 2
    assert found["distance"].values == pytest.approx(distance)
    assert float(found["mean"]) == pytest.approx(distance.mean(0) @ [0.25, 0.5, 0.25])
    assert float(found["largest"]) == pytest.approx(0.2)
    assert found["largest"].attrs == {"template": 2, "archetype": 1, "option": "often"}
    variance = chances.var(0, ddof=1).sum(-1) @ [0.25, 0.5, 0.25]
    assert float(found["variance"]) == pytest.approx(variance)
    assert float(found["beyond"]) == pytest.approx(float(found["mean"]))
    # Archetypes of nobody, and those by which nobody decides, aren't looked at.
    assert rephrased(chances, [1, 0, 1])["largest"].attrs["archetype"] == 2
    chances[:, 1] = np.nan
    nobody = rephrased(chances, weight)
    assert nobody["largest"].attrs["archetype"] == 2
    assert np.isnan(nobody["distance"]).values.any(0).tolist() == [False, True, False]


def test_sampling_is_taken_off_the_variance_between_templates() -> None:
    """Failure rate below 1e-3: four standard errors of the mean of 400 repetitions."""
    rng = np.random.default_rng(1)
    same, other = rng.dirichlet(np.full(2, 3.0), (1, 30)).repeat(4, 0), rng.dirichlet(np.full(2, 9.0), (4, 30))
    many = rng.integers(4, 12, (4, 30))
    for true in (same, other):
        found = []
        for _ in range(400):
            share = rng.binomial(many, true[..., 0]) / many
            found.append(rephrased(np.stack([share, 1 - share], -1), samples=many))
        variance = np.array([float(f["variance"]) for f in found])
        exact = rephrased(true)
        assert abs(variance.mean() - float(exact["variance"])) < 4 * variance.std() / 20
        raw, beyond = (np.mean([float(f[name]) for f in found]) for name in ("mean", "beyond"))
        assert abs(beyond - float(exact["mean"])) < 0.5 * (raw - float(exact["mean"]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"chances": np.ones((1, 2, 2)) / 2}, "two or more templates"),
        ({"chances": "x"}, "(T, K, A)"),
        ({"chances": np.ones((2, 2, 2))}, "add up to 1"),
        ({"chances": np.full((2, 2, 2), np.nan)}, "add up to 1"),
        ({"chances": [[[0.5, 0.5]], [[np.nan, np.nan]]]}, "ask all of the same people"),
        ({"weight": [1, 2, 3]}, "give 2 numbers"),
        ({"samples": 1}, "two answers or more"),
        ({"samples": [3, 3, 3]}, "(2, 2)"),
        ({"options": ("a",)}, "1 options"),
    ],
)
def test_templates_that_cannot_be_compared_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        rephrased(**{"chances": np.ones((2, 2, 2)) / 2, **given})


def test_a_report_says_all_of_it() -> None:
    p = people()
    found = fidelity(p, np.full((2, p.size), 0.6), GOOD, {"age": AGES})
    chance, label, code = [0.2, 0.4, 0.6, 0.7], ["employed", "none", "employed", "none"], [0, 0, 1, 1]
    text = fidelity_text(
        found,
        error_budget(chance, code, samples=5),
        {"work": omitted([[0.3, 0.3, 0.6, 0.6]], chance, label, code)},
        rephrased([[[0.5, 0.5]], [[0.7, 0.3]]]),
    )
    assert "| age=18-29 | 60.0 % | 50.0 ± 5.0 % (100) | +10.0 | +2.0 |" in text
    assert "within archetypes 0.0063" in text
    assert "work: bias up to -10.0 points (none), 100 %" in text
    assert "In other words: 10.0 points" in text


def november(city: Population) -> torch.Tensor:
    """Everybody's probability of a mask on 15 November 2020, with last week's neighbours wearing as many."""
    kinds, borough = archetypes(city), city.network("borough")
    nobody = torch.zeros(city.size, dtype=torch.bool)
    kind = kinds.code(employment=city["employment"] == 2, savings=nobody, health=nobody.int())
    place = kind + borough.index.long() * kinds.size
    observed = {"attributes": kinds.labels, "risk": math.log1p(1.28), "fatigue": 1 - math.exp(-238 / 180)}
    chance = torch.full((city.size,), 0.84)
    with Utility(UTILITY):
        for _ in range(8):
            share = torch.bincount(borough.index.long(), chance.double()) / torch.bincount(borough.index.long())
            context = {**observed, "advice": 1.0, "mandate": 1.0, "neighbours": share.float().unsqueeze(-1)}
            chance = kinds.read(decide("mask", kinds.table, MASK, context)[..., 0].flatten(), place)
    return chance


@pytest.fixture(scope="module")
def masks() -> pd.DataFrame:
    file = (ROOT / os.environ.get("LPMPPL_DATA", "../shared/data")).resolve() / "us_mask_survey_by_group.csv"
    if not file.is_file():
        pytest.skip(f"the survey is not in {file.parent}; set LPMPPL_DATA to the folder of {file.name}")
    found = pd.read_csv(file)
    return found[(found["wave"] == 3) & (found["question"] == "q8")].rename(columns={"share_every_time": "share"})


@pytest.mark.parametrize("by", ["age", "income", "age+income"])
def test_new_yorks_masks_agree_with_the_survey_and_one_share_for_all_agrees_less(masks: pd.DataFrame, by: str) -> None:
    """November's survey made the coefficients of age and income: this says that what they imply hangs together."""
    city = lpm.nyc.population(20_000)
    columns = by.split("+")
    survey = masks.loc[masks["by"] == by, [*columns, "share", "n"]]
    attributes = {"age": AGES, "income": INCOMES}
    adults, chance = city["age"] >= 18, november(city)
    found = fidelity(city, chance, survey, attributes, adults)
    same = fidelity(city, torch.full((city.size,), 0.84), survey, attributes, adults)
    assert found.attrs["empty"] == [] and found.attrs["apart"]
    assert int(found["agents"].sum()) == int(adults.sum())
    assert int(found["respondents"].sum()) == pytest.approx(1496, abs=1)
    assert float(found["p"]) > 0.05
    assert abs(found["z"]).max() < 3
    assert float(found["mean_squared"]) < float(same["mean_squared"])
    assert float(found["chi_square"]) < float(same["chi_square"]) - 2
    if by == "age":
        assert float(same["p"]) < 0.01 and float(same["beyond"]) > 0.025 > 2 * float(found["beyond"])


def test_of_the_surveys_cells_little_varies_within_archetypes_of_age(masks: pd.DataFrame) -> None:
    """Cells of age, income and work vary within ages hardly more than by chance, as few respondents as there are."""
    cells = masks[masks["by"] == "age+income+work"]
    code = pd.factorize(cells["age"])[0]
    chosen = (cells["share"] * cells["n"]).round()
    found = surveyed_budget(chosen, cells["n"], code, samples=5)
    assert 0 < found.standard_error < 0.005
    assert abs(found.within) < 0.01 < found.sampling
    naive = error_budget(cells["share"], code, weight=cells["n"]).within
    assert naive > found.within + 2 * found.standard_error
