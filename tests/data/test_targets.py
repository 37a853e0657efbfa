"""The targets against the raw tables they come from."""

import numpy as np
import pytest

from lpmppl.data import composition, targets
from lpmppl.data.acs import BOROUGHS, INDUSTRIES, OCCUPATIONS, shipped


@pytest.fixture(scope="module")
def people():
    return targets.persons(shipped())


def test_age_groups_are_the_acs_and_sexes_the_county(people):
    tables = shipped()
    groups = np.stack([people[:, :16].sum((1, 2)), people[:, 16:65].sum((1, 2)), people[:, 65:].sum((1, 2))], axis=1)
    np.testing.assert_allclose(groups, tables.acs[["PU16", "P16t64", "P65pl"]], rtol=1e-6)
    for code, borough in enumerate(BOROUGHS):
        mine = people[np.equal(tables.boroughs, code)].sum((0, 1))
        county = tables.county.loc[borough]
        assert mine[0] / mine.sum() == pytest.approx(county["female"] / (county["female"] + county["male"]), rel=1e-6)


def test_decades_within_an_age_group_keep_the_shape_of_the_county(people):
    tables = shipped()
    for code, borough in enumerate(BOROUGHS):
        age = people[np.equal(tables.boroughs, code)].sum((0, 2))
        decades = age[20:60].reshape(4, 10).sum(axis=1)
        county = tables.county.loc[borough, ["age_20_29", "age_30_39", "age_40_49", "age_50_59"]].to_numpy(float)
        np.testing.assert_allclose(decades / decades.sum(), county / county.sum(), rtol=2e-3)
    assert (people >= 0).all()


def test_group_quarters_and_household_sizes(people):
    tables = shipped()
    institutional = targets.quarters(tables, people)
    assert institutional.sum() == pytest.approx(0.0214 * people.sum())
    assert (institutional <= people).all()
    shares = targets.size_shares(tables)
    mean = (people.sum() - institutional.sum()) / tables.acs["HHlds3"].sum()
    assert shares.sum() == pytest.approx(1) and shares[0] == pytest.approx(0.325)
    assert shares @ [1, 2, 3, 4, 5, 6, 7.41] == pytest.approx(mean)
    assert mean == pytest.approx(2.489, abs=0.001)


@pytest.mark.parametrize("agents", [1_000, 77_777, 8_400_000])
def test_whole_numbers(agents):
    scaled = targets.scale(shipped(), agents)
    assert scaled.persons.sum() == agents
    assert (scaled.quarters <= scaled.persons).all()
    assert (scaled.bands.sum(axis=1) == scaled.households).all()
    assert (scaled.jobs.sum(axis=(1, 2)) == scaled.employed).all()
    assert (scaled.employed <= scaled.labour_force).all()
    factor = agents / shipped().acs["Pop1"].sum()
    for axis, codes in ((2, OCCUPATIONS), (1, INDUSTRIES)):
        exact = shipped().acs[list(codes)].sum().to_numpy() * factor
        assert np.abs(scaled.jobs.sum(axis=(0, axis)) - exact).max() <= max(30, 1e-3 * exact.max())


@pytest.mark.parametrize("agents", [1_000, 50_000])
def test_drawn_households_hold_exactly_the_people(agents):
    scaled = targets.scale(shipped(), agents)
    expected, needs = composition.weights(scaled), composition.needs(scaled)
    for p, need in enumerate(needs):
        homes = composition.draw(expected[p], need, np.random.default_rng(p))
        assert (homes.members.sum(axis=0) == need).all()
        assert len(homes.form) == scaled.households[p]
        assert homes.members[:, 1:].sum(axis=1).min() >= 1
        assert ((homes.form == composition.ALONE) == (homes.members.sum(axis=1) == 1)).all()


def test_household_weights_meet_every_puma_and_the_sizes_of_the_city():
    scaled = targets.scale(shipped(), 8_400_000)
    weights, needs = composition.weights(scaled), composition.needs(scaled)
    np.testing.assert_allclose(weights.sum(axis=1), scaled.households, rtol=1e-6)
    np.testing.assert_allclose(weights @ composition._MEMBERS, needs, rtol=1e-6)
    shares = np.bincount(composition._SIZE, weights.sum(axis=0), 7) / weights.sum()
    np.testing.assert_allclose(shares, scaled.sizes, rtol=1e-3)
