"""The pandemic at the command line: the default model, its dates, and policies in words."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from lpmppl.cli.app import app
from tests.cli.conftest import Ended

Run = Callable[..., Ended]
BASE = ("simulate", "nyc", "--model", "pandemic", "--agents", "2000", "--days", "10")


def test_the_pandemic_is_what_runs_where_no_model_is_named(here: Run) -> None:
    ran = CliRunner().invoke(app, ["simulate", "nyc", "--agents", "2000", "--days", "2", "--json"])
    found = json.loads(ran.output.splitlines()[-1])
    assert found["model"] == "pandemic"
    named = ("infections", "cases", "admissions", "deaths", "tests", "doses", "ui_claims", "unemployed")
    assert set(named) <= set(found["totals"])


def test_policies_are_said_in_words_or_numbers(here: Run) -> None:
    word = here(*BASE, "--intervene", "test=antigen@1", "--intervene", "second_dose=delayed@0", "--json").json
    number = here(*BASE, "--intervene", "test=1@1", "--intervene", "second_dose=1@0", "--json").json
    assert word["totals"] == number["totals"]
    assert word["interventions"][0] == ["test", "antigen", 1]


def test_the_date_of_the_start_decides_what_is_recorded(here: Run) -> None:
    spring = here(*BASE, "--start", "2020-04-20", "--json").json["totals"]
    winter = here(*BASE, "--start", "2019-12-02", "--json").json["totals"]
    vaccine = here(*BASE, "--start", "2020-12-20", "--json").json["totals"]
    assert spring["masked"] > 0.5 * 2000 > 0.1 * 2000 > winter["masked"]
    assert vaccine["doses"] > spring["doses"] == 0


def test_a_pandemic_with_a_policy_in_words_is_resumed_and_reported(here: Run, tmp_path) -> None:
    whole = here(*BASE, "--intervene", "test=antigen@3", "--out", "a", "--json").json
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["settings"]["intervene"] == [["test", "antigen", 3]]
    assert (tmp_path / "a" / "report.html").stat().st_size > 20_000
    (tmp_path / "a" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert here("simulate", "--resume", "a", "--json").json["totals"] == whole["totals"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--intervene", "test=antigenn@0"], "did you mean 'antigen'"),
        (["--intervene", "test=0.5@0"], "give one of pcr, antigen"),
        (["--intervene", "tracing=1.2@0"], "give 0 to 1"),
        (["--intervene", "doses_per_day=2@0"], "give 0 to 1"),
        (["--intervene", "stringency=101@0"], "give 0 to 100"),
        (["--intervene", "stimulus=-5@0"], "give 0 to 1e+06"),
        (["--intervene", "viral_load=1@0"], "unknown part of the environment 'viral_load'"),
        (["--start", "2020-31-01"], "is no date"),
        (["--start", "1"], "is no date"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(here: Run, arguments: list[str], said: str) -> None:
    assert said in here(*BASE, *arguments).refused()


def test_models_without_dates_refuse_one(here: Run) -> None:
    asked = ("simulate", "--model", "sir", "--agents", "2000", "--days", "2", "--start", "2020-03-01")
    assert "leave --start out" in here(*asked).refused()
