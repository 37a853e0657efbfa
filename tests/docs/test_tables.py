"""The documentation's tables of parameters, environment, tallies and state are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import lpmppl.errors
from lpmppl.models.pandemic import PARTS

SCRIPT = Path(lpmppl.errors.__file__).parents[1] / "docs" / "tables.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the docs aren't beside the package")


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_is_as_the_code_has_it(tables):
    pages = tables.pages()
    stale = [page.name for page in pages if tables.filled(page.read_text("utf-8")) != page.read_text("utf-8")]
    assert stale == [], "run `python docs/tables.py`"
    assert {"pandemic.md", "progression.md", "transmission.md"} <= {page.name for page in pages}


def test_every_parameter_stands_with_its_default_and_source(tables):
    text = (SCRIPT.parent / "pandemic.md").read_text("utf-8")
    for part in PARTS:
        for name, parameter in part.parameters.items():
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
            assert parameter.source.replace("$", r"\$") in row
            assert parameter.units in row
        for name in (*part.environment, *part.tallies):
            assert any(line.startswith(f"| `{name}` |") for line in text.splitlines()), name


def test_numbers_read_as_people_write_them(tables):
    assert [tables.number(x) for x in (6.38e-7, 1e6, -1.0, 0.1, 8000.0)] == ["6.38·10⁻⁷", "1·10⁶", "−1", "0.1", "8000"]
