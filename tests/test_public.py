"""Every public name: it says what it is, shows how it is used, has its place in the docs, and there are few."""

from __future__ import annotations

import doctest
import inspect
import re
import sys
import types
from pathlib import Path

import pytest

import lpmppl
import lpmppl.errors

DOCS = Path(lpmppl.errors.__file__).parents[1] / "docs"
NAMES = [name for name in lpmppl.__all__ if not isinstance(getattr(lpmppl, name), types.ModuleType)]
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text("utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
needs_docs = pytest.mark.skipif(not PAGES, reason="the docs aren't beside the package")
ROW = re.compile(r"^\| \[`(\w+)`\]\(([^)#]*)(?:#([^)]+))?\) \| (\S.*) \|$", re.M)


def code_of(text: str) -> str:
    """What of a page is code: blocks, and what stands in backticks."""
    blocks = re.findall(r"^[`:]{3,}.*?\n(.*?)^[`:]{3,}", text, re.S | re.M)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", rest)])


# That the page of names lists a name shows nothing of it.
SHOWN = {name: code_of(ROW.sub("", text)) for name, text in PAGES.items() if name != "api.md"}


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as MyST makes them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    heads = re.findall(r"^#+ (.*)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_it_says_in_a_sentence_what_it_is(name):
    said = (inspect.getdoc(getattr(lpmppl, name)) or "").partition("\n\n")[0]
    assert said.endswith("."), f"lpm.{name}'s docstring begins with {said!r}: end its first sentence with a full stop"
    assert said[0].isupper()


@pytest.mark.parametrize("name", NAMES)
def test_it_has_an_example_that_runs_with_the_tests(name):
    thing = getattr(lpmppl, name)
    module = sys.modules[thing.__module__]
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test.examples for test in finder.find(module, module.__name__)}
    examples = found.get(f"{module.__name__}.{thing.__name__}", [])
    run = [example for example in examples if not example.options.get(doctest.SKIP)]
    assert any(example.want for example in run), f"give lpm.{name}'s docstring an example (>>>) with what it gives"
    assert any(re.search(rf"\b{name}\b", example.source) for example in run), f"lpm.{name}'s example doesn't use it"


def test_examples_are_among_the_tests(request):
    assert request.config.option.doctestmodules
    assert "lpmppl" in request.config.getini("testpaths")


@needs_docs
@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_it(name):
    assert any(re.search(rf"\b{name}\b", code) for code in SHOWN.values()), f"no page of docs/ has `{name}` in code"


def test_there_are_few():
    assert len(lpmppl.__all__) <= 60
    assert len(set(lpmppl.__all__)) == len(lpmppl.__all__)


def test_what_is_asked_for_and_not_there_is_said():
    with pytest.raises(AttributeError, match="no attribute 'simulate_everything'"):
        _ = lpmppl.simulate_everything


@needs_docs
def test_the_page_of_names_has_each_of_them_once():
    listed = [name for name, *_ in ROW.findall(PAGES["names.md"])]
    assert sorted(listed) == sorted(lpmppl.__all__), "docs/names.md: a line for each name of lpmppl.__all__"


@needs_docs
@pytest.mark.parametrize(("name", "page", "anchor", "what"), ROW.findall(PAGES.get("names.md", "")))
def test_the_page_of_names_leads_to_where_a_name_is_shown(name, page, anchor, what):
    page = page or "names.md"
    assert page in PAGES
    assert not anchor or anchor in anchors(PAGES[page])
    assert re.search(rf"\b{name}\b", SHOWN[page]), f"{page} doesn't show `{name}`"
    assert len(what) <= 110 and not what.endswith(".")


def test_the_tour_is_short_and_shows_what_there_is():
    tour = lpmppl.__doc__ or ""
    assert len(tour.splitlines()) <= 60
    shown = set(re.findall(r"\blpm\.(\w+)", tour))
    assert shown <= {*lpmppl.__all__}
    assert {"Model", "run", "counterfactual", "calibrate", "sensitivity", "SecretShared", "Sharded"} <= shown
