"""What `lpmppl simulate` prints and keeps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from lpmppl.report import datatree, tables

Run = Callable[..., Any]
SMALL = ("simulate", "nyc", "--agents", "2000", "--days", "40", "--set", "initial_infected=0.01", "--json")


def test_json_is_one_line_with_the_numbers_of_the_run(lpm: Run, tmp_path: Path) -> None:
    found = lpm(*SMALL).json
    assert (found["agents"], found["days"], found["seed"], found["model"]) == (2000, 40, 0, "seirm")
    assert {"infections", "peak_infectious", "deaths"} <= set(found["totals"])
    assert 0 < found["totals"]["infections"] <= 2000
    assert 0 < found["seconds"] < 300
    assert found["population_seconds"] > 0
    assert found["peak_rss_mb"] > 50
    assert "out" not in found
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_gives_the_same_numbers_and_another_seed_others(lpm: Run, here: Run) -> None:
    first, again, other = lpm(*SMALL).json, here(*SMALL).json, here(*SMALL, "--seed", "1").json
    assert first["totals"] == again["totals"]
    assert first["totals"] != other["totals"]


def test_less_transmission_means_fewer_infections(here: Run) -> None:
    with_act = here(*SMALL, "--intervene", "transmission=0.1@10").json
    assert with_act["interventions"] == [["transmission", 0.1, 10]]
    assert with_act["totals"]["infections"] < here(*SMALL).json["totals"]["infections"]


def test_a_parameter_that_is_set_reaches_the_model(here: Run) -> None:
    found = here(*SMALL, "--set", "latent_mean=9").json
    assert found["set"] == {"initial_infected": 0.01, "latent_mean": 9.0}
    assert found["totals"] != here(*SMALL).json["totals"]


def test_the_other_model_runs(here: Run) -> None:
    found = here("simulate", "nyc", "--model", "sir", "--agents", "2000", "--days", "40", "--json").json
    assert found["model"] == "sir"
    assert found["totals"]["infections"] > 0


def test_out_keeps_result_report_and_record(here: Run, tmp_path: Path) -> None:
    found = here(*SMALL, "--out", "runs/a").json
    folder = tmp_path / "runs" / "a"
    assert found["out"] == "runs/a"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.nc", "run.json"]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["totals"] == found["totals"]
    assert record["settings"]["agents"] == 2000
    assert record["versions"]["torch"]
    assert record["data"]["tables_sha256"]
    assert "lpmppl simulate nyc --agents 2000" in record["command"]
    tree = datatree.load(folder / "results.nc")
    assert tables.totals(tree) == found["totals"]
    assert f"{found['totals']['infections']:,}" in (folder / "report.html").read_text()


def test_report_makes_the_page_again(here: Run, tmp_path: Path) -> None:
    here(*SMALL, "--out", "a")
    page = tmp_path / "a" / "report.html"
    before = page.read_text()
    page.unlink()
    ended = here("report", "a")
    assert (ended.code, ended.out) == (0, "a/report.html\n")
    assert page.read_text() == before


def test_without_json_a_table_is_printed(here: Run) -> None:
    ended = here(*SMALL[:-1])
    assert ended.code == 0
    assert "infections" in ended.out
    assert "2,000 people, 40 days, seed 0" in ended.out


def test_a_saved_population_gives_the_same_numbers_as_a_built_one(here: Run) -> None:
    here("population", "nyc", "--agents", "2000", "--out", "p.zarr")
    saved = here(
        "simulate", "nyc", "--population", "p.zarr", "--days", "40", "--set", "initial_infected=0.01", "--json"
    ).json
    assert saved["agents"] == 2000
    assert saved["totals"] == here(*SMALL).json["totals"]


def test_describe_puts_every_margin_beside_its_target(here: Run) -> None:
    found = here("population", "describe", "--agents", "2000", "--json").json
    assert found["agents"] == 2000
    assert {"margin", "group", "target", "built", "difference_percent", "source", "kind"} <= set(found["margins"][0])
    assert "target" in here("population", "describe", "--agents", "2000").out


@pytest.mark.parametrize("stratum", ["borough", "age"])
def test_residents_of_the_strata_add_up_to_the_agents(here: Run, tmp_path: Path, stratum: str) -> None:
    here(*SMALL, "--days", "3", "--out", "a")
    tree: xr.DataTree = datatree.load(tmp_path / "a" / "results.nc")
    assert sum(tables.people(tree, stratum).values()) == 2000
