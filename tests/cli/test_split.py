"""`lpmppl party institution` and `server`: split learning by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import lpmppl
from lpmppl.inference import calibnn
from lpmppl.models.population import Population

Run = Callable[..., Any]
WHOSE = ("--institution", "hospitals=infections", "--institution", "registry=recoveries")
ASKED = (*WHOSE, "--days", "6", "--simulations", "20", "--seed", "3")
WHERE = ("--session", "s.json", "--certificates", "keys")
SEEN = {"hospitals": {"infections": [0.0, 1.0, 0.0, 2.0]}, "registry": {"recoveries": [0.0, 1.0, float("nan"), 0.0]}}


@pytest.fixture
def prepared(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hospitals.csv").write_text("day,infections\n0,0\n1,1\n2,0\n3,2\n")
    (tmp_path / "registry.csv").write_text('recoveries\n0\n1\n""\n0\n')
    assert "5 parties" in here("party", "session", "--out", "s.json", "--helpers", "2", *ASKED).out
    here("party", "certificates", "--session", "s.json", "--out", "keys")
    here("population", "nyc", "--agents", "1000", "--out", "city.zarr")


@pytest.mark.slow
def test_institutions_and_a_server_calibrate_as_one_place(
    prepared: None, here: Run, start: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibnn, "_REPLAY", 4)
    processes = {
        name: start("party", "institution", *WHERE, *ASKED, "--name", name, "--state", name, "--data", f"{name}.csv")
        for name in SEEN
    }
    ports = {name: json.loads(process.stderr.readline())["port"] for name, process in processes.items()}
    at = ",".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items())
    asked = ("party", "server", *WHERE, *ASKED, "--state", "st", "--people", "city.zarr", "--institutions", at)
    found = here(*asked, "--out", "fit.nc", "--draws", "30", "--json").json
    for process in processes.values():
        process.terminate()
        assert process.wait(60) == 0
    model = lpmppl.nyc.sir(Population.open("city.zarr"), by={"borough": "borough"})
    alone = lpmppl.SplitCalibNN(model, {"hospitals": "infections", "registry": "recoveries"}, 6, seed=3)
    assert found["loss"] == pytest.approx(alone.learn(20)[""], abs=1e-5)
    tree = alone.posterior(SEEN, draws=30)
    with xr.open_datatree("fit.nc") as fit:
        assert float(abs(fit["posterior"]["beta"] - tree["posterior"]["beta"]).max()) < 1e-4
    assert (found["agents"], found["steps"]) == (1000, 4)
    assert found["bytes"]["READING"] > found["bytes"]["STEPPED"] > 0


def test_bad_input_is_refused_in_one_line(prepared: None, here: Run) -> None:
    at = ("--institutions", "hospitals=127.0.0.1:1,registry=127.0.0.1:2")
    session, server = ("session", "--out", "t.json"), ("server", *WHERE, "--state", "st", "--people", "city.zarr")
    institution = ("institution", *WHERE, "--state", "h", "--data", "hospitals.csv")
    one = (*institution, "--name", "hospitals")
    for arguments, words in (
        (session, "--client NAME=AGENTS"),
        ((*session, "--institution", "a=infections"), "give two or more"),
        ((*session, "--institution", "a=infections", "--institution", "b=infections"), "given twice"),
        ((*session, "--institution", "a=infections", "--institution", "a=recoveries"), "'a' was given twice"),
        ((*session, *WHOSE, "--client", "a=5"), "leave --client"),
        ((*session, "--institution", "infections"), "write NAME=STREAM"),
        ((*session, "--institution", "a=infection", "--institution", "b=recoveries"), "did you mean 'infections'"),
        ((*server, *at, "--out", "f.nc"), "say whose streams are whose"),
        ((*server, *ASKED, *at[:1], "hospitals", "--out", "f.nc"), "write NAME=HOST:PORT"),
        ((*server, *ASKED, *at[:1], "hospitals=127.0.0.1:1", "--out", "f.nc"), "'registry' has no address"),
        ((*server, *ASKED[:-1], "4", *at, "--out", "f.nc"), "give those that the session was made with"),
        ((*server, *ASKED, *at, "--out", "f.nc", "--patience", "0.1"), "has been away for 0.1 s in step 0"),
        ((*one, *WHOSE), "give those that the session was made with"),
        ((*institution, *ASKED, "--name", "registry"), "unknown column of hospitals.csv 'recoveries'"),
        ((*institution, *ASKED, "--name", "nobody"), "keys/nobody.pem can't be read"),
    ):
        ended = here("party", *arguments)
        assert ended.code == 2
        assert words in ended.err.splitlines()[-1], (arguments, ended.err)
