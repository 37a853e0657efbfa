"""`lpmppl calibrate`, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.cli.conftest import Ended

Run = Callable[..., Ended]
DAYS = 24
SMALL = (
    "calibrate", "nyc", "--agents", "2000", "--coarse", "1000", "--rounds", "1", "--simulations", "2",
    "--data", "days.csv", "--until", "2020-03-24", "--set", "initial_infected=0.1", "--fit", "beta",
    "--fit", "severity",
)  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Counts as the Health Department publishes them, in its columns."""
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {"date_of_interest": pd.date_range("2020-03-01", periods=DAYS).strftime("%m/%d/%Y")}
    for code, level in (
        ("CASE_COUNT", 50),
        ("PROBABLE_CASE_COUNT", 1),
        ("HOSPITALIZED_COUNT", 900),
        ("DEATH_COUNT", 20),
    ):
        boroughs = {
            f"{b}_{code}": rng.poisson(level * np.linspace(0.01, 1, DAYS)) for b in ("BX", "BK", "MN", "QN", "SI")
        }
        columns |= {code: sum(boroughs.values()), **boroughs}
    pd.DataFrame(columns).to_csv(tmp_path / "days.csv", index=False)
    return tmp_path / "days.csv"


@pytest.mark.usefixtures("table")
def test_a_calibration_is_kept_and_asked_what_if(here: Run, tmp_path: Path) -> None:
    found = here(*SMALL, "--ahead", "7", "--out", "fit", "--json").json
    beta = found["posterior"]["beta"]
    assert beta["low"] < beta["mean"] < beta["high"] and found["fitted_days"] == DAYS and found["days"] == DAYS + 7
    assert any("whole society departs" in s for s in found["verdict"])
    with xr.open_datatree(tmp_path / "fit" / "results.nc") as tree:
        assert {"posterior", "prior", "posterior_predictive", "observed_data", "log_likelihood"} <= set(tree.children)
        assert tree["forecast"].sizes["day"] == 7 and tree["observed_data"]["deaths"].dims == ("day", "borough")
    record = json.loads((tmp_path / "fit" / "run.json").read_text())
    assert record["status"] == "done" and not (tmp_path / "fit" / "checkpoint.npz").exists()
    page = (tmp_path / "fit" / "report.html").read_text()
    assert len(page) > 20_000
    assert here("report", "fit").code == 0
    weeks = here("forecast", "fit", "--csv", "hub.csv", "--json").json
    assert weeks["from"] == "2020-03-25" and len(weeks["forecast"]["deaths"]) == 1
    rows = (tmp_path / "hub.csv").read_text().splitlines()
    assert rows[0].startswith("forecast_date,target,target_end_date,location") and len(rows) == 1 + 2 * 5 * 23
    assert "2020-03-24,1 wk ahead inc death,2020-03-31," in rows[-1]
    assert "lacks day 24" in here("forecast", "fit", "--data", "days.csv").refused()
    asked = ("counterfactual", "nyc", "--agents", "1000", "--days", "5", "--do", "transmission=0@0", "--draws", "2")
    what = here(*asked, "--posterior", "fit/results.nc", "--json").json
    assert what["effects"]["infections"]["mean"] < 0


@pytest.mark.usefixtures("table")
def test_an_interrupted_calibration_goes_on_to_the_same_posterior(here: Run, tmp_path: Path) -> None:
    whole = here(*SMALL, "--out", "whole", "--json").json
    assert here(*SMALL, "--out", "broken", "--json").code == 0
    record = json.loads((tmp_path / "broken" / "run.json").read_text())
    (tmp_path / "broken" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    for name in ("results.nc", "report.html"):
        (tmp_path / "broken" / name).unlink()
    again = here("calibrate", "--resume", "broken", "--json").json
    assert again["posterior"] == whole["posterior"] and again["totals"] == whole["totals"]
    assert "this run is done" in here("calibrate", "--resume", "broken").refused()
    (tmp_path / "broken" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert "a run of lpmppl calibrate" in here("simulate", "--resume", "broken").refused()
    assert "leave --agents out" in here("calibrate", "--resume", "broken", "--agents", "2000").refused()


@pytest.mark.usefixtures("table")
def test_bad_input_is_named_and_leaves_no_folder(here: Run, tmp_path: Path) -> None:
    assert "--data: give the file" in here("calibrate", "nyc", "--agents", "2000").refused()
    assert "did you mean 'beta'" in here(*SMALL, "--fit", "bta", "--out", "run").refused()
    assert "did you mean 'deaths'" in here(*SMALL, "--stream", "death", "--out", "run").refused()
    assert "did you mean 'normal'" in here(*SMALL, "--guide", "normals", "--out", "run").refused()
    assert "write both as dates" in here(*SMALL, "--until", "May", "--out", "run").refused()
    assert "comes before --start" in here(*SMALL, "--until", "2020-02-01", "--out", "run").refused()
    assert "rounds=0" in here(*SMALL, "--rounds", "0", "--out", "run").refused()
    (tmp_path / "wrong.csv").write_text("day,deaths\n2020-03-01,1\n")
    assert "date_of_interest" in here(*SMALL, "--data", "wrong.csv", "--out", "run").refused()
    assert "nothing-there.csv" in here(*SMALL, "--data", "nothing-there.csv", "--out", "run").refused()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """What was known of the city on three days, of which the second and third know more."""
    rng = np.random.default_rng(1)
    days = pd.date_range("2020-03-01", "2020-04-20")
    counts = {c: rng.poisson(level, len(days)) for c, level in (("CASE", 50), ("HOSPITALIZED", 900), ("DEATH", 20))}
    rows = []
    for number, vintage in enumerate(("2020-04-01", "2020-04-08", "2020-04-20")):
        known = days[days < vintage]
        table = {f"{c}_COUNT": x[: len(known)] for c, x in counts.items()}
        stamp = {"vintage_commit_date": vintage, "vintage_commit": f"{number:040x}"}
        rows.append(pd.DataFrame({**stamp, "DATE_OF_INTEREST": known.strftime("%Y-%m-%d"), **table}))
    pd.concat(rows).to_csv(tmp_path / "versions.csv", index=False)
    return tmp_path / "versions.csv"


@pytest.mark.slow
def test_what_was_known_on_a_day_is_fitted_and_scored_by_what_came(here: Run, tmp_path: Path, versions: Path) -> None:
    small = ("calibrate", "nyc", "--agents", "1000", "--coarse", "0", "--rounds", "1", "--simulations", "2", "--data",
             versions.name, "--set", "initial_infected=0.1", "--fit", "beta", "--ahead", "7")  # fmt: skip
    first = here(*small, "--vintage", "2020-04-01", "--out", "one", "--json").json
    assert first["fitted_days"] == 24  # to 24 March
    second = here(*small, "--vintage", "2020-04-08", "--before", "one/results.nc", "--out", "two", "--json").json
    assert second["fitted_days"] == 31 and any("since the posterior before" in s for s in second["verdict"])
    with xr.open_datatree(tmp_path / "two" / "results.nc") as tree:
        assert tree["observed_data"]["deaths"].dims == ("day",)
        assert not [n for n in tree["posterior"].data_vars if "Bronx" in str(n)]
    scored = here("forecast", "one", "two", "--data", versions.name, "--csv", "hub.csv", "--json").json
    assert [o["from"] for o in scored["origins"]] == ["2020-03-25", "2020-04-01"] and scored["from"] == "2020-04-01"
    assert {*scored["wis"]["deaths"]} == {"model", "hybrid", "persistence", "arima"}
    assert "one was given twice" in here("forecast", "one", "two", "one/../one").refused()
    each = [o["wis"]["deaths"]["arima"] for o in scored["origins"]]
    assert scored["wis"]["deaths"]["arima"] == pytest.approx(sum(each) / 2, abs=1e-3)
    assert 0 <= scored["covered_half"]["admissions"]["hybrid"] <= scored["covered"]["admissions"]["hybrid"] <= 1
    rows = (tmp_path / "hub.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 23 and rows[-1].startswith("2020-03-31,1 wk ahead inc death,2020-04-07,")
    said = here("forecast", "two", "--data", versions.name).out
    assert "weighted interval score" in said and "hybrid" in said


def test_versions_that_there_are_not_are_named(here: Run, versions: Path) -> None:
    asked = ("calibrate", "nyc", "--agents", "1000", "--data", versions.name)
    said = here(*asked, "--vintage", "2020-04-02", "--out", "run").refused()
    assert "2020-04-01, 2020-04-08, 2020-04-20" in said
    assert "write it as a date" in here(*asked, "--vintage", "April", "--out", "run").refused()
    assert "write it as a date" in here(*asked, "--vintage", "0001-01-01", "--out", "run").refused()
    late = here(*asked, "--vintage", "2020-04-01", "--until", "2020-04-05", "--out", "run").refused()
    assert "no day after 2020-03-31 was known" in late
    assert "no-such.nc" in here(*asked, "--vintage", "2020-04-01", "--before", "no-such.nc", "--out", "run").refused()


NETWORK = (*SMALL[:6], *SMALL[8:], "--guide", "calibnn", "--network", "kept.npz")


@pytest.mark.usefixtures("table")
@pytest.mark.filterwarnings("ignore:.* more or fewer were seen than in any")
def test_a_network_learns_is_kept_and_reads_again_without_a_run(here: Run, tmp_path: Path) -> None:
    found = here(*NETWORK, "--learn", "32", "--ahead", "7", "--out", "read", "--json").json
    beta = found["posterior"]["beta"]
    assert beta["low"] < beta["mean"] < beta["high"] and found["fitted_days"] == DAYS and found["days"] == DAYS + 7
    with xr.open_datatree(tmp_path / "read" / "results.nc") as tree:
        assert tree.attrs["guide"] == "calibnn" and tree["forecast"].sizes["day"] == 7
        assert tree["observed_data"]["deaths"].dims == ("day", "borough")
    assert here("report", "read").code == 0
    weeks = here("forecast", "read", "--json").json
    assert weeks["from"] == "2020-03-25"
    before = (tmp_path / "kept.npz").read_bytes()
    again = here(*NETWORK, "--learn", "16", "--ahead", "7", "--json").json
    assert again["posterior"] == found["posterior"] and (tmp_path / "kept.npz").read_bytes() == before
    more = here(*NETWORK, "--learn", "48", "--ahead", "7", "--json").json
    assert more["posterior"] != found["posterior"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--guide", "calibnn", "--before", "x.nc"), "--before: a network has none"),
        (("--guide", "calibnn", "--misfit", "0.2"), "--misfit: a network has none"),
        (("--learn", "10"), "--learn: only a network has it: give --guide calibnn"),
        (("--network", "kept.npz"), "--network: only a network has it"),
        (("--guide", "calibnn", "--learn", "0"), "--learn 0: give 1 run or more"),
        (("--guide", "calibnn", "--network", "days.csv"), "days.csv"),
        (("--guide", "calibnn", "--network", "no/kept.npz"), "no/kept.npz can't be written: give a file in a folder"),
    ],
)
def test_options_that_do_not_go_with_the_guide_are_refused(here: Run, more: tuple[str, ...], said: str) -> None:
    small = [x for k, x in enumerate(SMALL) if SMALL[k - 1] != "--rounds" and x != "--rounds"]
    ended = here(*small, *more)
    assert ended.code == 2 and said in ended.err


@pytest.mark.usefixtures("table")
@pytest.mark.filterwarnings("ignore:.* more or fewer were seen than in any")
def test_a_network_of_another_society_or_of_other_days_is_refused(here: Run) -> None:
    learnt = here(*NETWORK, "--learn", "8", "--coarse", "1000", "--json").json
    assert any(s.startswith("in the last 8 runs of 1,000 people, ") for s in learnt["verdict"])
    later = ("--start", "2020-03-02", "--until", "2020-03-25", "--coarse", "1000")
    for other in (("--coarse", "0"), later):
        ended = here(*NETWORK, "--learn", "8", *other)
        assert ended.code == 2 and "another network" in ended.err
