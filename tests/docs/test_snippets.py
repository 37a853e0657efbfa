"""Every Python block of the README and the docs runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import lpmppl.errors

ROOT = Path(lpmppl.errors.__file__).parents[1]
WRITTEN = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
PAGES = [page for page in (ROOT / "README.md", *WRITTEN) if page.exists()]
BLOCKS = [
    pytest.param(code, id=f"{page.parent.name}/{page.name}-{k}")
    for page in PAGES
    for k, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M))
]


@pytest.mark.skipif(not BLOCKS, reason="the docs aren't beside the package")
@pytest.mark.parametrize("code", BLOCKS)
def test_the_block_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    exec(compile(PRELUDE + code, "<docs>", "exec"), {})
    assert torch.equal(before, torch.get_rng_state())


PRELUDE = """
import pyro
import pyro.distributions as dist
import torch
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import aggregate, happens, tally
"""
