"""The synthetic city: its layout, and that its people live plausible lives."""

import numpy as np
import pytest

from lpmppl.data import nyc
from lpmppl.data.acs import shipped
from lpmppl.data.households import PARENT_GAP, ROLES
from lpmppl.data.workplaces import establishment_sizes
from lpmppl.errors import InputError

WIDE = ("household", "workplace", "neighbourhood")
AGENT = ("age", "age_band", "sex", "borough", "puma", "role", "employment", "occupation", "industry", *WIDE)


def role(people, name):
    return people["role"].values == ROLES.index(name)


def by_home(people, name, otherwise=-1):
    """Age of the person with this role in each household."""
    ages = np.full(people.sizes["household"], otherwise)
    ages[people["household"].values[role(people, name)]] = people["age"].values[role(people, name)]
    return ages


@pytest.mark.parametrize("which", ["city", "village"])
def test_layout(which, request):
    people = request.getfixturevalue(which)
    assert set(AGENT) <= set(people.variables)
    assert all(people[name].dims == ("agent",) for name in AGENT)
    assert {name: people[name].dtype.name for name in AGENT} == {n: "int32" if n in WIDE else "uint8" for n in AGENT}
    for name in people.variables:
        if labels := people[name].attrs.get("labels"):
            assert people[name].values.max() < len(labels), name
    for name in ("puma", "neighbourhood", "household"):
        assert (np.diff(people[name].values.astype(int)) >= 0).all(), name
    for name in ("household", "neighbourhood"):
        members = np.bincount(people[name].values, minlength=people.sizes[name])
        assert members.size == people.sizes[name] and members.min() >= 1, name
    assert (people["household_size"].values == np.bincount(people["household"].values)).all()
    puma = people["puma"].values
    assert (people["neighbourhood_puma"].values[people["neighbourhood"].values] == puma).all()
    prefix = np.array([label[:2] for label in people["puma"].attrs["labels"]])
    borough = np.array(people["borough"].attrs["labels"])[people["borough"].values]
    assert set(zip(prefix[puma], borough, strict=True)) == {
        ("41", "Manhattan"), ("42", "Bronx"), ("43", "Brooklyn"), ("44", "Queens"), ("45", "Staten Island"),
    }  # fmt: skip
    assert (people["age_band"].values == np.minimum(people["age"].values // 10, 8)).all()


@pytest.mark.parametrize("which", ["city", "village"])
def test_every_household_has_a_grown_head(which, request):
    people = request.getfixturevalue(which)
    homes = people["household_kind"].values == 0
    heads = np.bincount(people["household"].values[role(people, "householder")], minlength=homes.size)
    assert (heads == homes).all()
    assert by_home(people, "householder")[homes].min() >= 18
    partners = np.bincount(people["household"].values[role(people, "partner")], minlength=homes.size)
    assert partners.max() == 1
    assert (role(people, "group quarters") == ~homes[people["household"].values]).all()


def test_parents_are_a_generation_older(city):
    head, partner = by_home(city, "householder"), by_home(city, "partner")
    age, home = city["age"].values.astype(int), city["household"].values
    least, most = PARENT_GAP
    for name, older in (("child", np.maximum(head, partner)), ("parent", None)):
        these = role(city, name)
        gap = older[home[these]] - age[these] if older is not None else age[these] - head[home[these]]
        assert gap.min() >= least
        assert 24 <= np.median(gap) <= 36
    young = role(city, "child") & (age < 18)
    assert (np.where(partner > 0, np.minimum(head, partner), head)[home[young]] - age[young]).max() <= most
    # Most people under 18 live with a parent: the rules above are kept by matching, not by renaming.
    assert young.sum() > 0.85 * (age < 18).sum()


def test_couples_are_of_like_age_and_mostly_of_two_sexes(city):
    head, partner = by_home(city, "householder"), by_home(city, "partner")
    couple = partner > 0
    assert 0.35 < couple[city["household_kind"].values == 0].mean() < 0.5
    assert np.mean(np.abs(head - partner)[couple] <= 10) > 0.85
    sexes = [np.full(couple.size, -1), np.full(couple.size, -1)]
    for of, name in zip(sexes, ("householder", "partner"), strict=True):
        of[city["household"].values[role(city, name)]] = city["sex"].values[role(city, name)]
    assert 0.9 < np.mean(sexes[0][couple] != sexes[1][couple]) < 1


def test_old_people_live_alone_more_often(city):
    alone = (city["household_size"].values == 1)[city["household"].values]
    age = city["age"].values
    assert alone[age >= 65].mean() > 1.5 * alone[(age >= 18) & (age < 65)].mean()
    assert not alone[age < 18].any()


def test_work(city):
    age, status = city["age"].values, city["employment"].values
    employed = status == city["employment"].attrs["labels"].index("employed")
    assert not employed[age < 16].any()
    assert ((city["industry"].values > 0) == employed).all()
    assert ((city["occupation"].values > 0) == employed).all()
    assert employed[(age >= 25) & (age < 55)].mean() > employed[(age >= 16) & (age < 25)].mean() + 0.1
    place, kind = city["workplace"].values, city["workplace_kind"].values
    assert kind[0] == 0 and (kind[1:] > 0).all()
    assert (city["workplace_size"].values[1:] == np.bincount(place, minlength=kind.size)[1:]).all()
    at_work = employed & (kind[place] == 1)
    assert (city["workplace_industry"].values[place[at_work]] == city["industry"].values[at_work]).all()
    manhattan = city["borough"].attrs["labels"].index("Manhattan")
    brooklyn = city["borough"].attrs["labels"].index("Brooklyn")
    commuters = at_work & (city["borough"].values == brooklyn)
    assert 0.3 < (city["workplace_borough"].values[place[commuters]] == manhattan).mean() < 0.5


def test_schools(city):
    place, kind, age = city["workplace"].values, city["workplace_kind"].values, city["age"].values
    at_school = kind[place] == 2
    pupils, staff = at_school & (age < 18), at_school & (age >= 18)
    assert 0.9 < at_school[(age >= 5) & (age < 18)].mean() <= 1
    assert not at_school[age < 3].any()
    education = next(i for i, name in enumerate(city["industry"].attrs["labels"]) if name.startswith("education"))
    assert (city["industry"].values[staff] == education).all()
    schools = np.flatnonzero(kind == 2)
    assert np.bincount(place[staff], minlength=kind.size)[schools].min() >= 1
    assert (city["borough"].values[pupils] == city["workplace_borough"].values[place[pupils]]).all()
    for school in schools:
        ages = age[pupils & (place == school)]
        assert ages.max() - ages.min() <= 7


def test_establishments_are_heavy_tailed_and_hold_everyone():
    sizes = establishment_sizes(1_000_000, 1.059, 4000, np.random.default_rng(0))
    assert sizes.sum() == 1_000_000 and sizes.max() <= 4000 and sizes.min() >= 1
    for least in (2, 10, 100):
        expected = least**-1.059
        assert np.mean(sizes >= least) == pytest.approx(expected, abs=4 * np.sqrt(expected / sizes.size))
    assert establishment_sizes(0, 1.059, 4000, np.random.default_rng(0)).size == 0


def test_income_falls_in_its_band_and_rises_with_work(city):
    band, income, kind = (city[name].values for name in ("income_band", "income", "household_kind"))
    assert ((band == 0) == (kind == 1)).all() and (np.isnan(income) == (kind == 1)).all()
    assert np.median(income[kind == 0]) == pytest.approx(shipped().city["MdHInc"], rel=1e-3)
    employed = np.bincount(city["household"].values, city["employment"].values == 2, band.size)
    size = city["household_size"].values
    pairs = (kind == 0) & (size == 2)
    means = [band[pairs & (employed == n)].mean() for n in (0, 1, 2)]
    assert means[0] + 0.5 < means[1] < means[2] - 0.5


def test_same_arguments_same_people_and_another_seed_others(village):
    again, other = nyc.build(1_000, 1), nyc.build(1_000, 2)
    for name in village.variables:
        np.testing.assert_array_equal(village[name].values, again[name].values, err_msg=name)
    assert (village["age"].values != other["age"].values).any()


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    nyc.build(1_000, 0)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize("agents", [1_000, 1_001, 1_017, 4_321])
def test_any_number_of_agents(agents):
    people = nyc.build(agents, 0)
    assert people.sizes["agent"] == agents


@pytest.mark.parametrize("agents", [999, -5, 0, 100_000_001, 1e4, "many", True, None])
def test_numbers_of_agents_that_are_no_city(agents):
    with pytest.raises(InputError, match="agents is"):
        nyc.build(agents, 0)


@pytest.mark.parametrize("seed", [-1, 0.5, "x"])
def test_seeds_that_are_none(seed):
    with pytest.raises(InputError, match="seed is"):
        nyc.build(1000, seed)
