"""What the documentation promises of itself: a first model in forty lines, and every page within reach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lpmppl.errors

DOCS = Path(lpmppl.errors.__file__).parents[1] / "docs"
pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the docs aren't beside the package")


def pages():
    return [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts]


def listed():
    """Every page that a table of contents names, by its path without a suffix."""
    found = set()
    for page in pages():
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M):
            for line in block.splitlines():
                if line.strip() and not line.startswith(":"):
                    found.add((page.parent / line.strip()).resolve().relative_to(DOCS.resolve()).as_posix())
    return found


def test_the_first_model_and_its_counterfactual_figure_take_forty_lines():
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", (DOCS / "start.md").read_text("utf-8"), re.S)
    lines = [line for cell in cells for line in cell.splitlines() if line.strip()]
    assert 20 < len(lines) <= 40
    assert any("lpm.counterfactual(" in line for line in lines)
    assert any("figure" in line for line in lines)


def test_every_page_is_in_a_table_of_contents():
    there = {page.relative_to(DOCS).with_suffix("").as_posix() for page in pages()} - {"index"}
    assert {name for name in there - listed() if not name.startswith("adr/0000")} == set()


def test_every_question_is_in_a_table_of_contents():
    questions = {f"questions/{path.stem}" for path in (DOCS.parent / "examples").glob("question_*.py")}
    assert questions and questions <= listed()


def test_what_is_listed_is_there():
    made = {f"questions/{path.stem}" for path in (DOCS.parent / "examples").glob("question_*.py")}
    there = {page.relative_to(DOCS).with_suffix("").as_posix() for page in pages()}
    assert listed() - there - made == set()
