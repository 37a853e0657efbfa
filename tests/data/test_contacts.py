"""Contact matrices: contacts per day, reciprocal, and no contact lost on the way to the population's age bands."""

import numpy as np
import pytest

from lpmppl.data import contacts
from lpmppl.data.nyc import AGE_BANDS
from lpmppl.errors import InputError

LOWER = [*range(0, 80, 5), 80, 84]
NAMES = {
    **{name: f"nys_contact_F_{name}_setting_18.csv" for name in contacts.WEIGHTS},
    "overall": "nys_contact_M_overall_contact_matrix_18.csv",
}


@pytest.fixture
def world():
    """People of 85 single years and a reciprocal matrix of theirs: who meets whom is symmetric in meetings."""
    chance = np.random.default_rng(0)
    people = chance.integers(2_000, 9_000, 85).astype(float)
    meetings = chance.uniform(1, 100, (85, 85)) * (chance.uniform(size=(85, 85)) < 0.8)
    meetings = meetings + meetings.T
    return people, meetings / people[:, None]


def coarse(people, matrix):
    """The same for 18 groups, by a plain loop over pairs of years."""
    group = np.searchsorted(LOWER, np.arange(85), side="right") - 1
    size, met = np.zeros(18), np.zeros((18, 18))
    for i in range(85):
        size[group[i]] += people[i]
        for j in range(85):
            met[group[i], group[j]] += people[i] * matrix[i, j]
    return size, met / size[:, None]


@pytest.fixture
def write(tmp_path):
    def table(rows, name="New_York_M_overall_contact_matrix_85.csv", header=False):
        path = tmp_path / name
        rows = [[f"{cell:.16f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        lines = [",".join(map(str, range(len(rows[0]))))] if header else []
        path.write_text("\n".join([*lines, *(",".join(row) for row in rows)]) + "\n")
        return path

    return table


def ages(people):
    return [[float(age), float(count)] for age, count in enumerate(people)]


@pytest.mark.parametrize("header", [False, True])
def test_years_are_read_as_they_stand(world, write, header):
    people, matrix = world
    read = contacts.read(write(matrix, header=header), write(ages(people), "ages.csv", header))
    np.testing.assert_allclose(read["contacts"], matrix, rtol=1e-12)
    np.testing.assert_array_equal(read["people"], people)
    assert read["contacts"].dims == ("age", "contact")
    assert read["age"].values[[0, 83, 84]].tolist() == ["0", "83", "84+"]
    assert read["contacts"].attrs["units"] == "per day"


def test_groups_of_five_years_end_with_80_to_83_and_84_on(world, write):
    people, matrix = world
    size, few = coarse(people, matrix)
    path = write(few, "New_York_M_overall_contact_matrix_18.csv")
    read = contacts.read(path, write(ages(people), "years.csv"))
    np.testing.assert_allclose(read["contacts"], few, rtol=1e-12)
    np.testing.assert_array_equal(read["people"], size)
    assert read["age"].values[[0, 1, 15, 16, 17]].tolist() == ["0–4", "5–9", "75–79", "80–83", "84+"]
    same = contacts.read(path, write(ages(size), "groups.csv"))
    np.testing.assert_array_equal(read["people"], same["people"])


def test_bands_keep_every_contact(world, write):
    people, matrix = world
    _, few = coarse(people, matrix)
    years = write(ages(people), "years.csv")
    read = contacts.bands(contacts.read(write(matrix), years))
    group = np.minimum(np.arange(85) // 10, 8)
    for a in range(9):
        for b in range(9):
            met = sum(people[i] * matrix[i, j] for i in np.flatnonzero(group == a) for j in np.flatnonzero(group == b))
            assert read["contacts"].values[a, b] == pytest.approx(met / people[group == a].sum(), rel=1e-12)
    meetings = read["people"].values[:, None] * read["contacts"].values
    np.testing.assert_allclose(meetings, meetings.T, rtol=1e-12)
    assert meetings.sum() == pytest.approx((people[:, None] * matrix).sum(), rel=1e-12)
    assert read["age"].values.tolist() == read["contact"].values.tolist() == AGE_BANDS
    by_fives = contacts.bands(contacts.read(write(few, "M.csv"), years, "overall"))
    np.testing.assert_allclose(read["contacts"], by_fives["contacts"], rtol=1e-12)
    np.testing.assert_allclose(contacts.bands(read)["contacts"], read["contacts"], rtol=1e-12)


def test_a_setting_is_weighed(world, write):
    people, matrix = world
    years = write(ages(people), "ages.csv")
    for name, weight in (("household", 4.11), ("school", 11.41), ("work", 8.07), ("community", 2.79)):
        read = contacts.read(write(matrix, f"New_York_F_{name}_setting_85.csv"), years)
        assert read.attrs["setting"] == name
        np.testing.assert_allclose(read["contacts"], weight * matrix, rtol=1e-12)
    own = write(matrix, "mine.csv")
    np.testing.assert_allclose(contacts.read(own, years, "work")["contacts"], 8.07 * matrix, rtol=1e-12)
    with pytest.raises(InputError, match=r"mine\.csv.*setting= one of household"):
        contacts.read(own, years)
    with pytest.raises(InputError, match="did you mean 'school'"):
        contacts.read(own, years, "schools")


def test_faults_of_a_matrix_are_named(world, write, refused, tmp_path):
    people, matrix = world
    years = write(ages(people), "ages.csv")

    def check(rows, *names):
        refused(lambda path: contacts.read(path, years, "overall"), write(rows, "m.csv"), *names)

    def changed(i, j, cell):
        rows = matrix.tolist()
        rows[i][j] = cell
        return rows

    check(matrix[:-2], "83 rows and 85 columns", "square")
    check(matrix[:20, :20], "20 age groups", "18 or 85")
    check(changed(3, 4, -0.5), "row 4, column 5", "below 0")
    check(changed(3, 4, "x"), "row 4, column 5", "'x'")
    check(changed(3, 4, ""), "row 4, column 5", "empty")
    check(changed(3, 4, "nan"), "row 4, column 5", "'nan'")
    check([*matrix.tolist()[:7], matrix.tolist()[7][:-1], *matrix.tolist()[8:]], "row 8", "84 numbers", "have 85")
    check(changed(3, 4, matrix[3, 4] + 1), "does not fit the ages", "ages.csv", "groups 4 and 5")
    check(matrix * 0, "nobody meets anybody")
    for content, name in (
        (b"", "empty"),
        (b"\0\1\2", "binary"),
        (b"<html>", "web page"),
        (b"\xff1,2\n", "no CSV table"),
    ):
        (tmp_path / "m.csv").write_bytes(content)
        refused(lambda path: contacts.read(path, years, "overall"), tmp_path / "m.csv", name)
    refused(lambda path: contacts.read(path, years, "overall"), tmp_path / "none.csv", "is not there")


def test_faults_of_ages_are_named(world, write, refused, tmp_path):
    people, matrix = world
    path = write(matrix)

    def check(rows, *names):
        refused(lambda years: contacts.read(path, years), write(rows, "ages.csv"), *names)

    check(ages(people[::-1]), "does not fit the ages", path.name)
    check(ages(people[:80]), "80 age groups", path.name)
    check(ages(coarse(people, matrix)[0]), "18 age groups", "with 85")
    check([[row[1]] for row in ages(people)], "1 columns", "two are needed")
    check([*ages(people)[:5], *ages(people)[6:], [85.0, 1.0]], "row 6", "age 6 where 5 is due")
    check([*ages(people)[:5], [5.0, 0.0], *ages(people)[6:]], "no people of age 5")
    check([*ages(people)[:5], [5.0, -3.0], *ages(people)[6:]], "row 6, column 2", "below 0")
    refused(lambda years: contacts.read(path, years), tmp_path / "none.csv", "is not there")


def test_bands_refuse_what_is_not_reciprocal(world, write):
    people, matrix = world
    read = contacts.read(write(matrix), write(ages(people), "ages.csv"))
    read["people"] = read["people"][::-1].drop_vars(["age", "lower"])
    with pytest.raises(InputError, match="does not fit its 'people'"):
        contacts.bands(read)


def test_published_settings_add_to_the_published_whole(published):
    """The weights are right: Σ w F is M, to the digits of the weights."""
    years = published("nys_contact_age_distribution_85.csv")
    read = {
        name: contacts.read(published(file), years, None if name != "overall" else "overall")
        for name, file in NAMES.items()
    }
    total = sum(read[name]["contacts"].values for name in contacts.WEIGHTS)
    np.testing.assert_allclose(total, read["overall"]["contacts"], atol=0.003)
    coarse_total = contacts.bands(read["overall"])
    assert coarse_total["people"].sum() == read["overall"]["people"].sum()
    # In the community everyone meets all ages in proportion to their number.
    community = contacts.bands(read["community"])
    share = community["people"].values / community["people"].values.sum()
    np.testing.assert_allclose(community["contacts"], np.tile(2.79 * share, (9, 1)), rtol=1e-3)


def test_published_matrix_needs_its_own_ages(published, write):
    years = published("nys_contact_age_distribution_85.csv")
    even = write(ages([5000] * 85), "even.csv")
    matrix = published(NAMES["household"])
    contacts.read(matrix, years)
    with pytest.raises(InputError, match="does not fit the ages"):
        contacts.read(matrix, even)
