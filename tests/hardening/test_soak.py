"""Long runs and many runs in one process need no more memory than short ones and few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hardening.forks import environment
from tests.hardening.strategies import Shown

LONG = """
import json, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
import lpmppl as lpm
from lpmppl._compat import Messenger

PAGE = resource.getpagesize()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE

model, days, agents = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
seen = {}
class Days(Messenger):
    def _pyro_post_tally(self, msg):
        time, _, _ = msg["args"][0].partition("/")
        if time.startswith("t="):
            seen[float(time[2:])] = resident()

made = getattr(lpm.nyc, model)(lpm.nyc.population(agents))
with Days():
    tree = lpm.run(made, days=days, seed=1)
finite = all(np.isfinite(x.values).all() for x in tree["prior_predictive"].to_dataset().data_vars.values())
print(json.dumps({"resident": [seen[day] for day in sorted(seen)], "days": len(seen), "finite": bool(finite)}))
"""

MANY = """
import json, resource, sys
import torch
torch.set_num_threads(1)
import lpmppl as lpm

PAGE = resource.getpagesize()
model = getattr(lpm.nyc, sys.argv[1])(lpm.nyc.population(int(sys.argv[3])))
found, totals = [], set()
for k in range(int(sys.argv[2])):
    tree = lpm.run(model, days=10, seed=0)
    totals.add(float(tree["prior_predictive"]["infections"].sum()))
    with open("/proc/self/statm") as file:
        found.append(int(file.read().split()[1]) * PAGE)
print(json.dumps({"resident": found, "totals": sorted(totals)}))
"""

MOST = 1.05
"""How much more memory may be resident at the end than early on."""


def measured(program: str, cache: Path, *arguments: object) -> dict[str, Any]:
    """What a program of its own process says of itself."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(cache),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("model", ["seirm", "pandemic"])
def test_a_thousand_days_take_no_more_memory_than_a_hundred(model: str, tmp_path: Path, shown: Shown) -> None:
    found = measured(LONG, tmp_path, model, 1_000, 20_000)
    resident = found["resident"]
    assert found["days"] == 1_000 and found["finite"]
    shown("growth", max(resident[100:]) / resident[100] - 1)
    assert max(resident[100:]) <= MOST * resident[100], (resident[100], max(resident[100:]), resident[-1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("model", ["seirm", "pandemic"])
def test_two_hundred_runs_take_no_more_memory_than_twenty(model: str, tmp_path: Path, shown: Shown) -> None:
    found = measured(MANY, tmp_path, model, 200, 5_000)
    resident = found["resident"]
    assert len(found["totals"]) == 1
    shown("growth", max(resident[20:]) / resident[20] - 1)
    assert max(resident[20:]) <= MOST * resident[20], (resident[20], max(resident[20:]), resident[-1])
