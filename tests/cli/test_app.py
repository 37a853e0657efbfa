"""The exposure-notification app at the command line: turned on in every command that makes the pandemic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lpmppl as lpm
from lpmppl.cli.settings import Settings
from tests.cli.conftest import Ended
from tests.cli.test_calibrate import SMALL as CALIBRATION
from tests.cli.test_calibrate import table

Run = Callable[..., Ended]
PEOPLE = ("--agents", "1000", "--days", "6")
SIMULATION = ("simulate", "nyc", "--model", "pandemic", *PEOPLE, "--set", "initial_infected=0.05", "--json")
GIVEN = ("--app", "--intervene", "app_seeds=0.3@2", "--intervene", "app_seeding=workplaces@0")

__all__ = ["table"]


def test_with_the_app_it_is_the_model_that_has_it(here: Run) -> None:
    totals = here(*SIMULATION, *GIVEN).json["totals"]
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000), app=True)
    acts = [("app_seeds", 0.3, 2), ("app_seeding", "workplaces", 0)]
    ran = lpm.run(model, 6, 0, set={"initial_infected": 0.05}, interventions=acts)["prior_predictive"]
    assert totals["app_given"] == int(ran["app_given"].sum()) > 0
    assert totals["infections"] == int(ran["infections"].sum())
    assert "app" not in here(*SIMULATION).json["totals"]


def test_a_run_goes_on_with_the_app_it_was_begun_with(here: Run, tmp_path: Path) -> None:
    whole = here(*SIMULATION, *GIVEN, "--checkpoint-every", "3", "--out", "a").json
    file = tmp_path / "a" / "run.json"
    record = json.loads(file.read_text())
    assert record["settings"]["app"] is True
    file.write_text(json.dumps({**record, "status": "running"}))
    assert here("simulate", "--resume", "a", "--json", "--app").json["totals"] == whole["totals"]
    file.write_text(json.dumps({**record, "status": "running", "settings": {**record["settings"], "app": False}}))
    assert "--resume goes on with app off, not on" in here("simulate", "--resume", "a", "--app").refused()


def test_settings_from_before_are_without_it() -> None:
    asked = Settings("nyc", "", "pandemic", 2000, 3, 0, 0, "cpu", {}, (), app=True)
    record = json.loads(json.dumps(asked.record()))
    assert Settings.read(record, "here") == asked
    assert not Settings.read({k: v for k, v in record.items() if k != "app"}, "here").app
    with pytest.raises(ValueError, match="app is 1"):
        Settings.read({**record, "app": 1}, "here")


def test_what_if_and_sensitivity_have_it(here: Run) -> None:
    asked = ("counterfactual", "nyc", *PEOPLE, "--app", "--do", "app_seeds=0.3@2", "--json")
    assert here(*asked).json["effects"]["app_given"]["mean"] > 0
    asked = ("sensitivity", "nyc", *PEOPLE, "--app", "--of", "app", "--wrt", "would_use", "--draws", "2", "--no-audit")
    found = here(*asked, "--set", "standalone=-1", "--json").json
    assert found["sensitivities"]["would_use"]["value"] > 0


@pytest.mark.usefixtures("table")
def test_a_calibration_has_it_and_keeps_it(here: Run, tmp_path: Path) -> None:
    found = here(*CALIBRATION, *GIVEN, "--out", "fit", "--json").json
    assert found["totals"]["app_given"] > 0
    assert json.loads((tmp_path / "fit" / "run.json").read_text())["settings"]["app"] is True


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "asked",
    [
        (*SIMULATION, "--intervene", "app_seeds=0.3@2"),
        (*SIMULATION, "--set", "detected=0.5"),
        ("counterfactual", "nyc", *PEOPLE, "--do", "app_answers=1@0"),
        ("sensitivity", "nyc", *PEOPLE, "--of", "app_installs", "--wrt", "beta"),
        ("sensitivity", "nyc", *PEOPLE, "--wrt", "would_use"),
        (*CALIBRATION, "--intervene", "app_seeds=0.3@2"),
        (*CALIBRATION, "--fit", "compliance"),
    ],
)
def test_what_the_app_has_alone_says_how_to_turn_it_on(here: Run, asked: tuple[str, ...]) -> None:
    assert "is of the app, which nobody has here: turn it on with --app" in here(*asked).refused()


def test_a_model_without_an_app_refuses_it(here: Run) -> None:
    assert "the model seirm has no app" in here("simulate", "nyc", "--model", "seirm", *PEOPLE, "--app").refused()
    # Its own names stay what they are, unknown.
    asked = ("simulate", "nyc", "--model", "sir", *PEOPLE, "--intervene", "app_seeds=1@0")
    assert "unknown part of the environment 'app_seeds'" in here(*asked).refused()
