"""`lpmppl party`: a trial of everything, what it would open, and what it refuses."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpmppl.parties.terms import Rule, Terms

Run = Callable[..., Any]


def test_a_trial_among_real_parties_is_the_run_in_one_place(lpm: Run) -> None:
    found = lpm("party", "demo", "--helpers", "3", "--agents", "1000", "--days", "4", "--json").json
    assert found["equal_to_central"] is True
    assert 0.8 * 4000 < found["agents_included"] < 4000
    # Three tallies of ones a day, and what is shed in steps of 1/64, each with its proof; two seeds, slots and headers.
    counted, shed = Terms(rule=Rule.AT_MOST_ONE).words(5), Terms(rule=Rule.AT_MOST_ONE_BOUNDED, bits=7).words(5)
    assert found["bytes_per_agent"] <= 8 * (3 * counted + shed) / 4 + 2 * 32 + 40
    assert found["sums"] == 16
    assert found["totals"]["infections"] > 0
    assert {"agents", "days", "seed", "seconds", "peak_rss_mb"} <= set(found)


def test_what_a_run_would_tell_is_said(here: Run) -> None:
    asked = ("party", "leakage", "nyc", "--model", "seirm", "--agents", "2000", "--days", "20")
    found = here(*asked, "--json").json
    assert found["people_identified"] == 0
    assert found["bits_to_fewer_than_all_helpers"] == 0
    assert found["opened"] == sum(row["sums"] for row in found["learnt"] if "bits" in row) > 0
    assert found["kept"] == sum(row["sums"] for row in found["learnt"] if "bits" not in row) > 0
    said = here(*asked).out
    assert "0 people identified" in said
    assert "household: 40 sums, which only custodians have" in said
    noised = here(*asked, "--noise", "50", "--json").json
    assert noised["epsilon"] > 0
    assert "ε =" in here(*asked, "--noise", "50").out


def test_what_would_tell_of_few_is_refused(here: Run) -> None:
    said = here("party", "leakage", "nyc", "--model", "seirm", "--agents", "2000", "--by", "borough,age").refused()
    assert "groups of fewer than 10 members" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "--helpers", "1"), "one helper would see"),
        (("demo", "--dropout", "1.5"), "dropout=1.5"),
        (("demo", "--agents", "10"), "10"),
        (("demo", "--days", "0"), "days=0"),
        (("demo", "--clients", "100000"), "clients can't share"),
        (("leakage", "nyc", "--agents", "2000", "--least", "1"), "least=1"),
        (("leakage", "nyc", "--agents", "2000", "--noise", "0"), "sigma=0"),
        (("leakage", "nyx"), "population 'nyx'"),
        (("session", "--out", "s.json", "--client", "bronx"), "write NAME=AGENTS"),
        (("session", "--out", "s.json", "--client", "a=5", "--least", "1"), "least=1"),
        (("session", "--out", "s.json", "--client", "a=50", "--set", "betta=1"), "did you mean 'beta'"),
        (("session", "--out", "s.json", "--client", "a=50", "--streams", "infection"), "did you mean 'infections'"),
        (("session", "--out", "s.json", "--client", "a=50", "--threshold", "9"), "threshold=9"),
        (("session", "--out", "s.json", "--client", "a=50", "--threshold", "2", "--noise", "5"), "add no noise"),
        (("session", "--out", "s.json", "--client", "a=50", "--noise", "nan"), "sigma=nan"),
        (("session", "--out", "s.json", "--client", "a=50", "--threshold", "2", "--proofs"), "proofs need all helpers"),
        (("session", "--out", "s.json", "--client", "a=1", "--streams", "infections", "--proofs"), "no range to be"),
        (("session", "--out", "s.json", "--client", "a=1", "--streams", "infections", "--noise", "2"), "no range to"),
    ],
)
def test_bad_input_is_refused_in_one_line(here: Run, tmp_path: Path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("--agents", "1000") if arguments[0] == "demo" and "--agents" not in arguments else ()
    assert words in here("party", *arguments, *few).refused()


def test_a_folder_that_holds_something_is_not_used(here: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    said = here("party", "demo", "--agents", "1000", "--days", "1", "--folder", str(tmp_path)).refused()
    assert "isn't empty" in said
    assert (tmp_path / "x").read_text() == "mine"


def test_parties_are_prepared_by_hand(here: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "pool-1.zarr" in here("party", "people", "--agents", "1000", "--clients", "2", "--out", "people").out
    assert "6 parties" in here("party", "session", "--out", "s.json", "--client", "a=500", "--client", "b=500").out
    assert "6 certificates" in here("party", "certificates", "--session", "s.json", "--out", "keys").out
    where = ("--session", "s.json", "--certificates", "keys")
    away = ("--helpers", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", "--coordinator", "127.0.0.1:4", "--out", "o")
    client = ("party", "client", *where, "--name", "a", "--people", "people/pool-0.zarr", *away)
    assert "give those that the session was made with" in here(*client, "--days", "31").refused()
    assert "--noise make" in here(*client, "--noise", "2").refused()
    assert json.loads((tmp_path / "s.json").read_text())["proofs"] is True
    assert "keys/c.pem can't be read" in here(*client[:7], "c", *client[8:]).refused()
    helper = ("party", "aggregator", *where, "--state", "st")
    assert "keys/helper-7.pem can't be read" in here(*helper, "--index", "7").refused()


def test_each_borough_is_an_institutions(here: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = here("party", "people", "--agents", "1000", "--boroughs", "--out", "people").out.splitlines()
    sizes = {line.split(":")[0]: int(line.split(":")[1].split()[0]) for line in said}
    boroughs = ("bronx", "brooklyn", "manhattan", "queens", "staten-island")
    assert set(sizes) == {f"people/{name}.zarr" for name in boroughs}
    assert sum(sizes.values()) == 1000
    assert all((tmp_path / path).is_dir() for path in sizes)


@pytest.mark.slow
def test_told_to_end_a_trial_ends_its_parties(start: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "parties"
    process = start("party", "demo", "--agents", "1000", "--days", "300", "--folder", str(folder))
    log = folder / "coordinator.log"
    until = time.monotonic() + 120
    while not (log.exists() and '"opened"' in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    for party in ("coordinator", "helper-0", "helper-1", "helper-2"):
        assert '"ended"' in (folder / f"{party}.log").read_text()
