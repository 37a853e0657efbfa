"""The reader of published ACS tables: the same people from the user's own file, and errors that name the fault."""

import os
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from lpmppl.data import acs, nyc
from lpmppl.errors import InputError


@pytest.fixture
def frame():
    return pd.read_csv(files("lpmppl.data").joinpath("tables", "acs_2020_2024.csv"), dtype={"Geog": str})


def written(frame, folder, name="own.csv"):
    path = folder / name
    frame.to_csv(path, index=False)
    return path


def test_own_file_builds_the_same_people(frame, tmp_path):
    tables = acs.read(written(frame, tmp_path))
    pd.testing.assert_frame_equal(tables.acs, acs.shipped().acs)
    own, ours = nyc.build(1000, 3, tables), nyc.build(1000, 3)
    assert all((own[name].values == ours[name].values).all() for name in ("age", "household", "industry", "workplace"))


def test_another_vintage_in_several_files(frame, tmp_path):
    older = frame.rename(columns=lambda name: name.replace("_24", "_21"))
    people = [name for name in older if name == "Geog" or name.startswith(("Pop1", "PU16", "P16", "P65"))]
    rest = ["Geog", *(name for name in older if name not in people)]
    tables = acs.read(written(older[people], tmp_path, "people.csv"), written(older[rest], tmp_path, "rest.csv"))
    assert len(tables.pumas) == 55
    assert "2021" in tables.source
    assert tables.acs["Pop1"].sum() == 8_480_225


def test_shipped_table_adds_up():
    tables = acs.shipped()
    assert tables.acs[list(acs.AGE_GROUPS)].sum().sum() == 8_480_225
    assert tables.acs["HHlds3"].sum() == 3_334_093
    assert not tables.typed["source"].isna().any()
    assert set(tables.typed["kind"]) == {"typed in", "modelled"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="LF_24E"), "column 'LF_24E' is missing"),
        (lambda f: f.drop(columns="Geog"), "no column 'Geog'"),
        (lambda f: f[f["Geog"] != "NYC"], "row 'NYC' is missing"),
        (lambda f: f[~f["Geog"].str.startswith("45")], "no row of a PUMA of Staten Island"),
        (lambda f: f.assign(PU16_24E=f["PU16_24E"].where(f["Geog"] != "4204")), "row '4204', column 'PU16_24E'"),
        (lambda f: f.assign(Pop1_24E=f["Pop1_24E"].where(f["Geog"] != "4301", 0)), "row '4301', column 'Pop1_24E'"),
        (lambda f: f.assign(Geog=f["Geog"].replace("4501", "4601")), "row '4601' is no PUMA"),
        (lambda f: f.assign(ELI_24E=f["ELI_24E"].where(f["Geog"] != "4101", 0) * 2), "add to"),
        (lambda f: pd.concat([f, f.tail(1)]), "row '4503' twice"),
        (lambda f: f.assign(LF_23E=1), "exactly one vintage"),
    ],
)
def test_faults_are_named(frame, tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        acs.read(written(change(frame), tmp_path))
    assert "\n" not in str(error.value)


def test_no_file_and_no_table(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        acs.read(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 20)
    with pytest.raises(InputError, match=r"binary\.csv"):
        acs.read(tmp_path / "binary.csv")


def published() -> Path:
    """The published tables, in the folder LPMPPL_DATA."""
    folder = Path(os.environ.get("LPMPPL_DATA", "data"))
    if not (folder / "acs2020_2024_all.csv").is_file():
        pytest.skip("the published ACS tables are not here; set LPMPPL_DATA to their folder")
    return folder


def test_published_table_is_the_shipped_one():
    tables = acs.read(published() / "acs2020_2024_all.csv")
    pd.testing.assert_frame_equal(tables.acs, acs.shipped().acs)


def test_published_vintage_of_2017_2021_builds():
    names = ("acs2017_2021_demographic.csv", "acs2017_2021_econ.csv", "acs2017_2021_housing_commute.csv")
    tables = acs.read(*(published() / name for name in names))
    assert tables.acs["Pop1"].sum() == pytest.approx(8_736_402, rel=1e-4)
    people = nyc.build(20_000, 0, tables)
    size = people["household_size"].values[people["household_kind"].values == 0]
    assert size.mean() == pytest.approx(2.63, rel=0.01)
