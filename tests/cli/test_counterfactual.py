"""`lpmppl counterfactual`, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from tests.cli.conftest import Ended

Run = Callable[..., Ended]
SMALL = ("counterfactual", "nyc", "--agents", "3000", "--days", "40", "--set", "initial_infected=0.02")


def test_effects_come_by_policy(here: Run) -> None:
    masks = "masks: mask_mandate=1@5, transmission=0.5@5"
    found = here(*SMALL, "--do", "stimulus=500@30", "--do", masks, "--json").json
    assert list(found["policies"]) == ["stimulus=500@30", "masks"]
    assert found["effects"] == found["policies"]["stimulus=500@30"]
    assert found["effects"]["payments"]["mean"] > 0 and found["effects"]["spending"]["mean"] > 0
    fewer = found["policies"]["masks"]["infections"]
    assert fewer["mean"] == fewer["low"] == fewer["high"] < 0
    totals = found["totals"]
    assert totals["infections[masks]"] - totals["infections[as it was]"] == fewer["mean"]


def test_a_null_policy_has_no_effect_at_all(here: Run) -> None:
    found = here(*SMALL, "--do", "stimulus=0@30", "--draws", "2", "--json").json
    assert found["draws"] == 2 and len(found["effects"]) > 15
    assert all(x == {"mean": 0.0, "low": 0.0, "high": 0.0} for x in found["effects"].values())


def test_a_run_that_is_kept_has_its_files(here: Run, tmp_path: Path) -> None:
    arms = ("--do", "some: transmission=0.5@5", "--do", "more: transmission=0.2@9", "--factorial")
    ended = here(*SMALL, "--model", "seirm", *arms, "--replicates", "2", "--out", "run")
    assert ended.code == 0, ended.err
    assert "some + more" in ended.out and "90 % of draws" in ended.out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "done" and list(record["policies"]) == ["some", "more", "some + more"]
    with xr.open_datatree(tmp_path / "run" / "results.nc") as tree:
        assert tree["flows"]["infected"].sizes["policy"] == 3
        assert tree["effects"]["infections"].dims == ("policy", "estimate")
        assert tree["prior_predictive"]["policy"].values[0] == "as it was"
    before = (tmp_path / "run" / "report.html").read_text()
    assert here("report", "run").code == 0
    assert (tmp_path / "run" / "report.html").read_text() == before and "as it was" in before


def test_labels_are_text_and_no_markup(here: Run) -> None:
    ended = here(*SMALL, "--days", "2", "--do", "masks [strict]: mask_mandate=1@1", "--do", "[/]: mask_mandate=1@0")
    assert ended.code == 0 and "masks [strict]" in ended.out and "[/]" in ended.out


def test_an_interrupted_counterfactual_is_not_taken_up_as_something_else(here: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "running", "policies": ["stimulus=5@1"]}))
    assert "a counterfactual can't be taken up again" in here("simulate", "--resume", "run").refused()
    (tmp_path / "run" / "results.nc").write_bytes(b"of it there is a result")
    again = here(*SMALL, "--do", "stimulus=5@1", "--out", "run").refused()
    assert "choose a new folder" in again and "--resume" not in again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no policy: say one, such as --do stimulus=500@30"),
        (["--do", "stimulus=500"], "should read name=value@day"),
        (["--do", "stimulus=500@x"], "should read name=value@day"),
        (["--do", "stimulos=500@3"], "did you mean 'stimulus'"),
        (["--do", "stimulus=500@40"], "lies outside the run: give a day below 40"),
        (["--do", "stimulus=5@3", "--do", "stimulus=5@3"], "twice"),
        (["--do", "schools=0@admissions/week>x"], "'x' isn't a number"),
        (["--do", "schools=0@admission/week>1"], "did you mean 'admissions/week'"),
        (["--do", "as it was: stimulus=5@3"], "can't be called 'as it was'"),
        (["--do", "transmission=-5@1", "--model", "seirm"], "transmission=-5 can't be: give 0 to 1000"),
        (["--do", "stimulus=5@3", "--draws", "0"], "draws=0"),
        (["--do", "stimulus=5@3", "--replicates", "0"], "replicates=0"),
        (["--do", "stimulus=5@3", "--posterior", "none.nc"], "none.nc"),
        (["--do", "stimulus=5@3", "--model", "sir"], "unknown part of the environment 'stimulus'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    here: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    assert said in here(*SMALL, *arguments, "--out", "run").refused()
    assert not (tmp_path / "run").exists()


def test_more_worlds_than_fit_are_refused_with_how_many_do(
    here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lpmppl.inference import memory

    monkeypatch.setattr(memory, "free_memory", lambda device=None: 1e6)
    arms = [text for k in range(30) for text in ("--do", f"stimulus={100 + k}@3")]
    assert "policies at once take about" in here(*SMALL, *arms, "--out", "run").refused()
    assert not (tmp_path / "run").exists()
