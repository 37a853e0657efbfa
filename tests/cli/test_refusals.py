"""Bad input ends with one line, exit code 2, and nothing left behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpmppl.cli.settings import Settings
from lpmppl.data import store

Run = Callable[..., Any]

TOO_LONG = "x" * 300

SPELLINGS = {
    "population": (["simulate", "nyk"], "unknown population 'nyk': did you mean 'nyc'?"),
    "model": (["simulate", "nyc", "--model", "seir"], "did you mean 'seirm'?"),
    "command": (["simulat"], "Did you mean 'simulate'?"),
    "option": (["simulate", "--agent", "2000"], "--agents"),
    "no days": (["simulate", "--days", "0"], "--days 0: simulate at least one day"),
    "no number": (["simulate", "--agents", "many"], "'many' for '--agents'"),
    "days without end": (["simulate", "--days", "100001"], "--days 100001: results are kept for every day"),
    "seed too large": (["simulate", "--seed", str(2**63)], f"--seed {2**63}: give a whole number from 0"),
    "seed too small": (["simulate", "--seed", "-1"], "--seed -1: give a whole number from 0"),
    "act twice": (
        ["simulate", "--intervene", "transmission=0.1@2", "--intervene", "transmission=0.2@2"],
        "gives 'transmission' twice on day 2",
    ),
    "long --out": (["simulate", "--out", TOO_LONG], f"{TOO_LONG}: File name too long"),
    "long --resume": (["simulate", "--resume", TOO_LONG], f"{TOO_LONG}/run.json: File name too long"),
    "long --population": (["simulate", "--population", TOO_LONG], "File name too long"),
    "long report": (["report", TOO_LONG], f"{TOO_LONG}/results.nc: File name too long"),
    "long population": (["population", "nyc", "--out", TOO_LONG], f"{TOO_LONG}: File name too long"),
    "long describe": (["population", "describe", TOO_LONG], f"{TOO_LONG}: File name too long"),
    "no text": (["simulate", "--out", "run\udce9"], "isn't valid UTF-8"),
    "no spelling": (["simulate", "--set", "beta"], "should read name=value"),
    "nan": (["simulate", "--set", "beta=nan"], "must be a finite number, not nan"),
    "infinite": (["simulate", "--set", "beta=-inf"], "must be a finite number, not -inf"),
    "word": (["simulate", "--set", "beta=high"], "'high' isn't a number"),
    "twice": (["simulate", "--set", "beta=1", "--set", "beta=2"], "gives 'beta' twice"),
    "no day": (["simulate", "--intervene", "transmission=0.3"], "should read name=value@day"),
    "half a day": (["simulate", "--intervene", "transmission=0.3@2.5"], "the day '2.5' isn't a whole number"),
    "nan act": (["simulate", "--intervene", "transmission=nan@2"], "must be a finite number"),
    "nowhere": (["simulate", "--out", "/proc/nowhere"], "--out /proc/nowhere can't be made"),
    "resume nothing": (["simulate", "--resume", "nothing"], "there is no run to go on with"),
    "report of nothing": (["report", "nothing"], "no result at nothing/results.nc"),
    "population city": (["population", "nyk", "--out", "a.zarr"], "Did you mean 'nyc'?"),
    "population folder": (["population", "nyc"], "'--out'"),
}
"""Refused before anything is built."""

MEANINGS = {
    "too few": (["simulate", "--agents", "-5"], "-5"),
    "too many": (["simulate", "--agents", "99999999999"], "99999999999"),
    "parameter": (["simulate", "--agents", "2000", "--set", "latent_maen=3"], "did you mean 'latent_mean'"),
    "negative parameter": (["simulate", "--agents", "2000", "--set", "latent_mean=-3"], "latent_mean"),
    "environment": (
        ["simulate", "--agents", "2000", "--intervene", "transmision=0.3@2"],
        "did you mean 'transmission'?",
    ),
    "late": (["simulate", "--agents", "2000", "--days", "5", "--intervene", "transmission=0.3@9"], "9"),
    "early": (["simulate", "--agents", "2000", "--intervene", "transmission=0.3@-1"], "-1"),
    "seed": (["simulate", "--agents", "2000", "--seed", "-1"], "seed"),
    "device": (["simulate", "--agents", "2000", "--device", "abacus"], "abacus"),
    "no saved population": (["simulate", "--population", "none.zarr"], "none.zarr"),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_bad_spelling_is_refused_in_one_line(lpm: Run, tmp_path: Path, case: str) -> None:
    arguments, words = SPELLINGS[case]
    assert words in lpm(*arguments).refused()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", MEANINGS)
def test_a_bad_value_is_refused_in_one_line_and_leaves_no_folder(here: Run, tmp_path: Path, case: str) -> None:
    arguments, words = MEANINGS[case]
    assert words in here(*arguments, "--json", "--out", "runs/a").refused()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_and_left_alone(here: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    line = here("simulate", "nyc", "--out", "mine").refused()
    assert re.match("--out mine exists and isn't empty: choose a new folder", line)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert "is a file" in here("simulate", "nyc", "--out", "mine/thesis.txt").refused()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_truncated_population_is_refused(here: Run, tmp_path: Path) -> None:
    assert here("population", "nyc", "--agents", "2000", "--out", "p.zarr").code == 0
    largest = max((p for p in (tmp_path / "p.zarr").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    for command in (["simulate", "nyc", "--population", "p.zarr"], ["population", "describe", "p.zarr"]):
        assert "p.zarr" in here(*command).refused()


def test_a_saved_population_of_another_size_is_refused(here: Run) -> None:
    assert here("population", "nyc", "--agents", "2000", "--out", "p.zarr").code == 0
    line = here("simulate", "nyc", "--population", "p.zarr", "--agents", "3000").refused()
    assert "holds 2000 people" in line
    assert "exists" in here("population", "nyc", "--agents", "2000", "--out", "p.zarr").refused()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"status": "running"}', '{"status": "running", "settings": {"days": 3}}']
)
def test_a_damaged_run_json_is_refused(here: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    assert "damaged" in here("simulate", "--resume", "run").refused()


@pytest.mark.parametrize(
    "edit",
    [
        {"agents": "1000"},
        {"agents": None},
        {"agents": True},
        {"days": 3.5},
        {"seed": "0"},
        {"saved": 3},
        {"device": None},
        {"name": ["nyc"]},
        {"set": [1]},
        {"set": {"beta": "x"}},
        {"set": {"beta": 10**400}},
        {"intervene": [["transmission", None, 2]]},
        {"intervene": [["transmission", 0.3, 2.5]]},
        {"intervene": "abc"},
    ],
    ids=lambda edit: str(edit)[:60],
)
def test_a_run_json_edited_to_other_types_is_refused(here: Run, tmp_path: Path, edit: dict[str, Any]) -> None:
    asked = Settings("nyc", "", "seirm", 2000, 3, 0, 0, "cpu", {}, ())
    (tmp_path / "run").mkdir()
    record = {"status": "running", "settings": {**asked.record(), **edit}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    line = here("simulate", "--resume", "run").refused()
    assert f"damaged ({next(iter(edit))}" in line


def test_a_population_without_known_provenance_runs_and_is_not_described(here: Run, tmp_path: Path) -> None:
    assert here("population", "nyc", "--agents", "2000", "--out", "p.zarr").code == 0
    store.save(store.load(tmp_path / "p.zarr").assign_attrs(provenance="a survey"), tmp_path / "q.zarr")
    assert "margins are known only for" in here("population", "describe", "q.zarr").refused()
    assert here("simulate", "--population", "q.zarr", "--days", "3", "--out", "a").code == 0
    assert json.loads((tmp_path / "a" / "run.json").read_text())["data"] == {}


def test_another_result_is_no_report(here: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.nc").write_text(json.dumps({"not": "netcdf"}))
    assert "can't be read as NetCDF" in here("report", "run").refused()
    assert not (tmp_path / "run" / "report.html").exists()
