"""`lpmppl sensitivity`, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from tests.cli.conftest import Ended

Run = Callable[..., Ended]
SMALL = ("sensitivity", "nyc", "--agents", "2000", "--days", "15", "--set", "initial_infected=0.03", "--draws", "2")


def test_all_parameters_with_their_audit(here: Run) -> None:
    found = here(*SMALL, "--model", "seirm", "--of", "infections", "--wrt", "all", "--json").json
    assert next(iter(found["sensitivities"])) == "beta" and len(found["sensitivities"]) == 7
    beta = found["sensitivities"]["beta"]
    assert beta["low"] < beta["value"] < beta["high"] and beta["se"] > 0 and beta["at"] > 0
    audited = {n for n, x in found["sensitivities"].items() if x["difference"] is not None}
    assert 3 <= len(audited) <= 5 and "beta" in audited
    assert abs(beta["difference"] - beta["value"]) < 0.5 * beta["value"]
    assert "fatality" in found["without_effect"] and found["totals"]["infections"] > 0


def test_a_kept_sensitivity_has_its_files_and_figure(here: Run, tmp_path: Path) -> None:
    asked = ("--model", "sir", "--of", "infections", "--wrt", "beta", "--wrt", "gamma", "--no-audit", "--out", "run")
    ended = here(*SMALL, *asked)
    assert ended.code == 0, ended.err
    assert "beta" in ended.out and "report.html" in ended.out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done" and record["sensitivity"]["wrt"] == ["beta", "gamma"]
    with xr.open_datatree(tmp_path / "run" / "results.nc") as tree:
        assert list(tree["sensitivity"]["parameter"].values) == ["beta", "gamma"]
        assert float(tree["sensitivity"]["value"].sel(parameter="beta")) > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What it hangs on" in page and "in percent per percent of each parameter" in page
    assert here("report", "run").code == 0
    assert (tmp_path / "run" / "report.html").read_text() == page


@pytest.mark.filterwarnings("ignore:for .* of their time at risk")
def test_a_sensitivity_along_paths_is_kept_with_its_plateau(here: Run, tmp_path: Path) -> None:
    asked = ("--model", "seirm", "--of", "infections", "--wrt", "beta", "--no-audit", "--estimator", "pathwise")
    ended = here(*SMALL, *asked, "--out", "run")
    assert ended.code == 0, ended.err
    with xr.open_datatree(tmp_path / "run" / "results.nc") as tree:
        assert 0.0 <= float(tree["sensitivity"]["plateau"].sel(site="infection")) < 1.0


def test_bad_input_is_named(here: Run, tmp_path: Path) -> None:
    sir = (*SMALL, "--model", "sir")
    assert "did you mean 'infections'" in here(*sir, "--of", "infection").refused()
    assert "did you mean 'beta'" in here(*sir, "--of", "infections", "--wrt", "bta").refused()
    assert "did you mean 'flips'" in here(*sir, "--of", "infections", "--estimator", "flip").refused()
    assert "draws=1" in here(*sir, "--of", "infections", "--draws", "1", "--out", "run").refused()
    assert not (tmp_path / "run").exists()


def test_an_interrupted_sensitivity_is_not_taken_up_as_something_else(here: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "running", "sensitivity": {"of": "deaths"}}))
    assert "a sensitivity can't be taken up again" in here("simulate", "--resume", "run").refused()


def test_a_city_too_large_for_an_audit_is_audited_in_a_smaller_one(here: Run) -> None:
    few = ("sensitivity", "nyc", "--agents", "200500", "--days", "4", "--set", "initial_infected=0.03", "--draws", "2")
    found = here(*few, "--model", "sir", "--of", "infections", "--wrt", "beta", "--json").json
    beta = found["sensitivities"]["beta"]
    assert found["audited_agents"] == 200_000 and found["audit_seconds"] > 0
    assert beta["difference"] == pytest.approx(beta["value"], rel=0.2)


def test_draws_to_a_wanted_standard_error(here: Run) -> None:
    asked = ("--model", "sir", "--of", "infections", "--wrt", "beta", "--no-audit", "--json")
    found = here(*SMALL, *asked, "--precision", "0.05").json
    beta = found["sensitivities"]["beta"]
    assert found["draws"] > 2 and beta["se"] <= 0.05 * beta["value"] and found["audited_agents"] == 0
    refused = here(*SMALL, *asked, "--precision", "2")
    assert refused.code == 2 and refused.err.strip().count("\n") == 0 and "precision" in refused.err


def test_derivatives_of_a_smaller_city(here: Run) -> None:
    asked = ("--agents", "20000", "--model", "sir", "--of", "infections", "--wrt", "beta", "--wrt", "gamma", "--json")
    whole = here(*SMALL[:2], *SMALL[4:], *asked).json
    found = here(*SMALL[:2], *SMALL[4:], *asked, "--within", "4000").json
    assert found["within_agents"] == found["audited_agents"] == 4_000 and "within_agents" not in whole
    assert found["ratio_to_whole"] == pytest.approx(1.0, abs=0.5) and found["ratio_to_whole_se"] > 0
    for name in ("beta", "gamma"):
        apart = found["sensitivities"][name]["value"] - whole["sensitivities"][name]["value"]
        assert abs(apart) < 0.3 * abs(whole["sensitivities"][name]["value"])
    shown = here(*SMALL[:2], *SMALL[4:], *asked[:-1], "--within", "4000").out
    assert "elasticities of 4,000 people; the whole city's are" in shown
    assert "AUDITED" not in here(*SMALL[:2], *SMALL[4:], *asked, "--within", "-5").refused()


def test_a_large_city_of_many_parameters_takes_them_in_a_smaller_one(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpmppl.cli import sensitivity as module

    monkeypatch.setattr(module, "_LONG", 20_000)
    monkeypatch.setattr(module, "_LEAST", 1_000)
    asked = (*SMALL, "--model", "sir", "--of", "infections", "--no-audit", "--json")
    assert here(*asked, "--wrt", "all").json["within_agents"] == 1_000
    assert "within_agents" not in here(*asked, "--wrt", "beta").json
    assert "within_agents" not in here(*asked, "--wrt", "all", "--within", "0").json
    assert "within_agents" not in here(*asked, "--wrt", "all", "--estimator", "differences").json
