"""What fits into the memory is known before it is taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference import memory


def test_a_control_group_limits_the_free_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in {"GROUP_LIMIT": "3000000", "GROUP_USED": "1000000", "MEMORY": "MemAvailable: 5000 kB"}.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(memory, name, tmp_path / name)
    assert memory.free_memory() == 2_000_000
    (tmp_path / "GROUP_LIMIT").write_text("max")
    assert memory.free_memory() == 5000 * 1024


def test_as_many_worlds_are_refused_as_are_said_not_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device=None: 3_000_000.0)
    model = lpm.nyc.seirm(lpm.nyc.population(2_000))
    scales = [0.5 + 0.01 * k for k in range(40)]
    with pytest.raises(InputError, match=r"40 policies at once take about .* GB here, and 0.003 GB are free") as error:
        lpm.counterfactual(model, {"transmission": scales}, at=1, days=3)
    found = re.search("give at most ([0-9]+) at once", str(error.value))
    assert found is not None
    fit = int(found[1])
    assert 1 < fit < 40
    with pytest.raises(InputError, match=f"give at most {fit} at once"):
        lpm.counterfactual(model, {"transmission": scales[: fit + 1]}, at=1, days=3)
    tree = lpm.counterfactual(model, {"transmission": scales[:fit]}, at=1, days=3)
    assert tree["prior_predictive"].sizes["policy"] == fit + 1


def test_where_not_even_one_policy_fits_fewer_people_are_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"x": torch.zeros(1000)}
    monkeypatch.setattr(memory, "free_memory", lambda device=None: 67_999.0)
    with pytest.raises(InputError, match=r"1 policy takes about 6.8e-05 GB here.* give fewer people"):
        memory.check_worlds(state, 2, people=1000, results=2000)
    monkeypatch.setattr(memory, "free_memory", lambda device=None: 68_000.0)
    memory.check_worlds(state, 2, people=1000, results=2000)
    monkeypatch.setattr(memory, "free_memory", lambda device=None: None)
    memory.check_worlds(state, 1000, people=1000)
