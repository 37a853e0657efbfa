"""Every margin beside its target, within what sampling allows."""

import numpy as np
import pytest
import xarray as xr

from lpmppl.data import acs, nyc
from lpmppl.data.describe import margins
from lpmppl.errors import InputError


@pytest.fixture(scope="module")
def table(city):
    return margins(city)


def test_counts_are_met_up_to_whole_people(table):
    # Apportioned and cascaded tables are off by less than one person for each PUMA and cell they add up.
    counts = table[table["margin"].isin(["residents", "age group", "sex", "households", "labour force, 16–64"])]
    assert len(counts) > 300
    assert np.abs(counts["built"] - counts["target"]).max() <= 14
    pumas = counts[counts["group"].str.match(r"\d{4}")]
    assert np.abs(pumas["built"] - pumas["target"]).max() <= 1.5


@pytest.mark.parametrize(
    "margin",
    ["age band and sex", "employed, 16–64", "occupation, 16–64", "industry, 16–64", "household income"],
)
def test_city_and_boroughs_are_within_a_percent_or_few_people(table, margin):
    rows = table[(table["margin"] == margin) & ~table["group"].str.match(r"\d{4}")]
    assert len(rows) > 0
    assert (np.abs(rows["built"] - rows["target"]) <= np.maximum(0.01 * rows["target"], 12)).all()


def test_households(table):
    rows = table.set_index(["margin", "group"])
    assert abs(rows.loc[("mean household size", "city"), "difference_percent"]) < 0.2
    assert abs(rows.loc[("household size", "1 of all households"), "difference_percent"]) < 1
    assert rows.loc[("household size", "1 of all households"), "target"] == pytest.approx(0.325)
    sizes = table[table["margin"] == "household size"]
    # 19,700 households: four standard deviations of a share.
    spread = np.sqrt(sizes["target"] * (1 - sizes["target"]) / 19_700)
    assert (np.abs(sizes["built"] - sizes["target"]) < 4 * spread).all()
    assert sizes["target"].sum() == pytest.approx(1)


def test_commuting_follows_its_matrix(table):
    flows = table[table["margin"] == "place of work"]
    assert len(flows) == 30
    assert (np.abs(flows["built"] - flows["target"]) < 0.035).all()
    by_home = flows.groupby(flows["group"].str.split(" to ").str[0])
    np.testing.assert_allclose(by_home["target"].sum(), 1)
    np.testing.assert_allclose(by_home["built"].sum(), 1)


def test_every_row_has_its_source_and_kind(table):
    assert list(table) == ["margin", "group", "target", "built", "difference_percent", "source", "kind"]
    assert set(table["kind"]) == {"tabulated", "typed in", "modelled"}
    assert (table["source"].str.len() > 10).all()
    assert (table.loc[table["kind"] == "modelled", "source"].str.startswith("modelled")).all()


def test_a_wrong_population_shows(city):
    aged = city.copy()
    aged["age"] = aged["age"].copy(data=np.minimum(aged["age"].values + 10, 99).astype(np.uint8))
    rows = margins(aged).set_index(["margin", "group"])
    assert rows.loc[("age group", "city, under 16"), "difference_percent"] < -40


def test_foreign_populations_are_refused(city, tmp_path):
    with pytest.raises(InputError, match="population nyc"):
        margins(xr.Dataset({"age": ("agent", np.zeros(3))}))
    other = acs.Tables(**{**vars(acs.shipped()), "checksum": "0"})
    with pytest.raises(InputError, match="other tables"):
        margins(city, other)


@pytest.mark.slow
def test_whole_city_is_within_a_percent_for_groups_over_50_000():
    table = margins(nyc.build(8_400_000, 0))
    people = table[(table["target"] > 50_000) & (table["margin"] != "median household income")]
    assert len(people) > 550
    assert people["difference_percent"].abs().max() < 0.1
    rows = table.set_index(["margin", "group"])["difference_percent"]
    assert abs(rows[("mean household size", "city")]) < 0.01
    assert rows["household size"].abs().max() < 0.1
    assert rows["school size"].abs().max() < 2
