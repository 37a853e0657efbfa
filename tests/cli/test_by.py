"""What results are broken down by, and the map of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from lpmppl.cli import simulate
from lpmppl.cli.settings import Settings
from lpmppl.data.areas import PUMAS

Run = Callable[..., Any]
SMALL = ("simulate", "nyc", "--agents", "1000", "--days", "4", "--set", "initial_infected=0.05", "--json")


@pytest.fixture
def run(here: Run, tmp_path: Path) -> Path:
    ended = here(*SMALL, "--by", "puma,age=age_band", "--out", "a")
    assert ended.code == 0, ended.err
    assert ended.json["totals"] == here(*SMALL).json["totals"]
    return tmp_path / "a"


def about(page: Path) -> dict[str, Any]:
    found = re.search(r'id="about">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found
    said: dict[str, Any] = json.loads(found[1])
    return said


def test_results_are_by_what_was_asked_for_and_have_a_map(here: Run, run: Path) -> None:
    with xr.open_datatree(run / "results.nc", engine="h5netcdf") as tree:
        infections = tree["prior_predictive"]["infections"]
        assert infections.dims == ("chain", "draw", "day", "puma", "age")
        assert infections["puma"].values.tolist() == sorted(PUMAS)
        total = int(infections.sum())
    kept = json.loads((run / "run.json").read_text())
    assert kept["settings"]["by"] == [["puma", "puma"], ["age", "age_band"]] and kept["totals"]["infections"] == total
    ended = here("report", "a", "--map")
    assert ended.out.split() == ["a/report.html", "a/map.html"]
    assert len(about(run / "map.html")["areas"]) == 55
    assert 'href="report.html"' in (run / "map.html").read_text("utf-8")


def test_a_run_goes_on_by_what_it_was_begun(here: Run, run: Path) -> None:
    file = run / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "status": "running"}))
    assert (
        "--resume goes on with by puma,age=age_band, not puma"
        in here("simulate", "--resume", "a", "--by", "puma").refused()
    )
    ended = here("simulate", "--resume", "a", "--json", "--by", "puma", "--by", "age=age_band")
    assert ended.json["totals"] == record["totals"]
    with xr.open_datatree(run / "results.nc", engine="h5netcdf") as tree:
        assert tree["prior_predictive"]["infections"].dims[-2:] == ("puma", "age")


def test_settings_from_before_are_by_the_models_own_strata() -> None:
    asked = Settings("nyc", "", "seirm", 2000, 3, 0, 0, "cpu", {}, (), by=(("puma", "puma"),))
    record = asked.record()
    assert Settings.read(json.loads(json.dumps(record)), "here") == asked
    assert Settings.read({k: v for k, v in record.items() if k != "by"}, "here").by == ()
    with pytest.raises(ValueError, match="by puma is 3"):
        Settings.read({**record, "by": [["puma", 3]]}, "here")


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("pumma", "did you mean 'puma'"),
        ("puma,puma", "--by gives 'puma' twice: give each name once"),
        ("puma=", "should read VARIABLE or name=VARIABLE"),
        ("a=b=c", "should read VARIABLE or name=VARIABLE"),
        (",", "should read VARIABLE or name=VARIABLE"),
        ("day=age_band", "can't be called 'day'"),
        ("income", "holds torch.float32"),
    ],
)
def test_what_cant_be_is_refused(here: Run, tmp_path: Path, by: str, said: str) -> None:
    assert said in here(*SMALL, "--by", by, "--out", "b").refused()
    assert not (tmp_path / "b").exists()


def test_too_many_groups_are_refused(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "MOST_GROUPS", 54)
    assert "--by puma makes 55 groups" in here(*SMALL, "--by", "puma").refused()


def test_worlds_of_a_counterfactual_have_a_map_each(here: Run, tmp_path: Path) -> None:
    ended = here(
        *("counterfactual", "nyc", "--model", "seirm", "--agents", "1000", "--days", "4", "--by", "puma"),
        *("--do", "transmission=0.2@1", "--out", "c"),
    )
    assert ended.code == 0, ended.err
    assert here("report", "c", "--map").code == 0
    assert about(tmp_path / "c" / "map.html")["worlds"] == ["as it was", "transmission=0.2@1"]


def test_a_result_without_areas_has_no_map(here: Run, tmp_path: Path) -> None:
    assert here(*SMALL, "--by", "age=age_band", "--out", "d").code == 0
    ended = here("report", "d", "--map")
    assert ended.code == 2 and "--by puma" in ended.err and ended.out.split() == ["d/report.html"]
    assert not (tmp_path / "d" / "map.html").exists()
    assert here("report", "d", "--map", "--geo", "age").code == 0
    assert "give --map too" in here("report", "d", "--geo", "age").refused()
