"""What meanings are given by, and what asks questions, knows no disease: the science is in models alone.

Every name, attribute, argument and string in `effects` and `inference` is read, but for documentation: docstrings, and
the strings under a name that say what it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lpmppl.errors

PACKAGE = Path(lpmppl.errors.__file__).parent
MODULES = sorted(path for floor in ("effects", "inference") for path in (PACKAGE / floor).rglob("*.py"))

WORDS = (
    *(
        "infect",
        "epidem",
        "pandemic",
        "covid",
        "virus",
        "viral",
        "vaccin",
        "hospital",
        "admission",
        "disease",
        "illness",
    ),
    *("immun", "quarantin", "patient", "contagio", "outbreak", "pathogen", "symptom", "death"),
    *("household", "borough"),
)

KNOWN = {("effects/opening.py", "household")}
"""What is left: the networks whose sums stay at home by default are said by their names."""


def documentation(tree: ast.AST) -> set[int]:
    """Strings that stand alone: docstrings, and what is said of the name above."""
    alone = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(value) for value in alone if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def words(source: str) -> Iterator[tuple[int, str]]:
    """Every name and string of a module, with its line."""
    tree = ast.parse(source)
    prose = documentation(tree)
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        for field in ("id", "attr", "arg", "name", "asname", "module", "rest", "value"):
            said = getattr(node, field, None)
            if isinstance(said, str):
                yield getattr(node, "lineno", 0), said
        for said in getattr(node, "names", None) or ():
            if isinstance(said, str):
                yield getattr(node, "lineno", 0), said


def found(source: str) -> list[tuple[int, str, str]]:
    """Where a module says a word of the science, and in what."""
    return [(line, word, said) for line, said in words(source) for word in WORDS if word in said.lower()]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_module_knows_no_epidemiology(module):
    name = module.relative_to(PACKAGE).as_posix()
    left = [(line, said) for line, word, said in found(module.read_text("utf-8")) if (name, word) not in KNOWN]
    assert left == [], "make it general, or take the word from the model at hand"


def test_what_is_left_is_still_there():
    there = {(name, word) for name, _ in KNOWN for _, word, _ in found((PACKAGE / name).read_text("utf-8"))}
    assert there == KNOWN, "it is mended: take it off the list"


def test_both_floors_are_read():
    names = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert {"effects/ops.py", "effects/handlers/noise.py", "inference/run.py", "inference/calibrate.py"} <= names


@pytest.mark.parametrize(
    "source",
    [
        "infected = 1",
        "x.infected",
        "f(infected=1)",
        "def f(infected): pass",
        "def infect(): pass",
        "class Virus: pass",
        "from lpmppl.models import vaccination",
        "import lpmppl.models.immunity as x",
        "from lpmppl.models.immunity import x",
        "x = 'an Infection'",
        "raise ValueError(f'{x} was infected')",
        "def f():\n    global infected",
        "match x:\n    case {**infected}: pass",
        "try: pass\nexcept ValueError as infected: pass",
    ],
)
def test_the_law_finds_a_word_wherever_it_stands(source):
    assert found(source)


@pytest.mark.parametrize(
    "source", ["'Infection.'", "def f():\n    'Infection.'", "x = 1\n'Of the infected.'", "# infected"]
)
def test_documentation_may_give_examples(source):
    assert not found(source)
