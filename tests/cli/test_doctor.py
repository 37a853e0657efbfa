"""The doctor finds what is wrong, and says when nothing is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from lpmppl.cli import doctor, machine, versions
from lpmppl.errors import InputError

Run = Callable[..., Any]
CONSTRAINTS = Path(versions.__file__).parents[2] / "constraints.txt"


def test_a_good_machine_is_usable(lpm: Run, here: Run) -> None:
    found = lpm("doctor", "--json").json
    assert found["usable"] is True
    assert found["versions"]["torch"]
    assert {"torch", "chirho", "ODEs through ChiRho", "cpu", "cache", "memory", "disk"} <= {
        f["about"] for f in found["findings"]
    }
    ended = here("doctor")
    assert ended.code == 0
    assert "lpmppl can work here" in ended.out


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/tmp/" + "x" * 300], ids=["nowhere", "too long"])
def test_a_cache_that_can_not_be_written_is_a_fault(here: Run, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("LPMPPL_CACHE", folder)
    ended = here("doctor", "--json")
    assert ended.code == 1
    assert ended.json["usable"] is False
    assert [f["about"] for f in ended.json["findings"] if f["verdict"] == "fault"] == ["cache"]


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("2.13.0", "fine"), ("2.13.0+cpu", "fine"), ("2.12.1", "note"), ("1.0", "fault"), ("", "fault")],
)
def test_versions_are_judged(monkeypatch: pytest.MonkeyPatch, version: str, verdict: str) -> None:
    monkeypatch.setattr(doctor, "installed", lambda: {**versions.KNOWN_TO_WORK, "torch": version})
    monkeypatch.setattr(doctor, "required", lambda: {"torch": Requirement("torch>=2.6")})
    judged = {f.about: f for f in doctor.stack()}
    assert judged["torch"].verdict == verdict
    assert bool(judged["torch"].remedy) == (verdict != "fine")
    assert {f.verdict for about, f in judged.items() if about != "torch"} == {"fine"}


def test_a_small_machine_is_told_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 1e9)
    assert doctor.memory().verdict == "note"
    assert "--agents" in doctor.memory().remedy
    monkeypatch.setattr(doctor, "free_memory", lambda: 64e9)
    assert doctor.memory().verdict == "fine"


@pytest.mark.skipif(not CONSTRAINTS.is_file(), reason="constraints.txt lies beside the sources only")
def test_the_versions_known_to_work_are_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", CONSTRAINTS.read_text(), flags=re.M))
    assert {name: pinned[name] for name in versions.KNOWN_TO_WORK} == versions.KNOWN_TO_WORK


def test_more_people_than_fit_are_refused_with_a_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1e9)
    machine.check_memory(1_000_000)
    with pytest.raises(InputError, match=r"--agents 8400000: .* give at most 1,800,000"):
        machine.check_memory(8_400_000)
