"""The built site as its reader has it: without a network, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import lpmppl.errors

SITE = Path(lpmppl.errors.__file__).parents[1] / "docs/_build/html"
PAGES = sorted(page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html"))
SOURCES = [page for page in PAGES if page.startswith("_modules/")]
WRITTEN = [page for page in PAGES if page not in SOURCES]
BROWSER = next((Path(p) for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)
# Slow, for what an old build holds says nothing of what the docs are now: `.ci/run` runs them right after `make docs`.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the site isn't built: make docs"),
]
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="there is no /usr/bin/chromium: apt-get install chromium")

WIDTH, HEIGHT = 375, 812
LOADS = {
    "script": ["src"],
    "img": ["src", "srcset"],
    "link": ["href"],
    "iframe": ["src"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "audio": ["src"],
    "embed": ["src"],
    "object": ["data"],
    "image": ["href", "xlink:href"],
    "use": ["href", "xlink:href"],
}


class Page(HTMLParser):
    """What a page loads, its formulas as they were written, and its text outside code and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.formulas: list[str] = []
        self.text, self._within = "", [""]
        self.feed((SITE / page).read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value for name, value in attrs if value and name in LOADS.get(tag, ())]
        self.formulas += [""] if tag == "math" else []
        if tag in {"code", "pre", "script", "style", "annotation", "textarea"}:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within[-1]:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within[-1] == "annotation":
            self.formulas[-1] += data
        elif len(self._within) == 1:
            self.text += data


def foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc) or urlsplit(address).scheme not in {"", "data"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_only_what_lies_beside_it(page):
    loads = Page(page).loads
    assert [address for address in loads if foreign(address)] == []
    files = {(SITE / page).parent / unquote(urlsplit(a).path) for a in loads if not a.startswith("data:")}
    assert [file for file in files if not file.exists()] == []
    assert any(file.suffix == ".css" for file in files)


def test_neither_does_a_style():
    styles = list(SITE.rglob("*.css"))
    assert styles
    for style in styles:
        urls = re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", style.read_text("utf-8"))
        assert [a for pair in urls for a in pair if foreign(a)] == [], style


def test_it_is_small_enough_to_take_along():
    # What Sphinx keeps for the next build lies in it too.
    assert sum(file.stat().st_size for file in SITE.rglob("*") if file.is_file()) < 60e6


def test_formulas_are_mathml_and_nowhere_raw():
    said = {page: Page(page) for page in WRITTEN}
    assert len(said["ops/aggregate.html"].formulas) >= 2 and r"\bigoplus" in said["ops/aggregate.html"].formulas[0]
    assert len(said["questions/question_port.html"].formulas) >= 3  # of a notebook
    raw = re.compile(r"\\[a-zA-Z]{2,}|\$\$|\\\(")
    assert {page: found for page, about in said.items() if (found := raw.findall(about.text))} == {}


def test_sums_of_money_are_no_formulas():
    words = re.compile(r"(?<![\\a-z])(the|of|for|and|where|million|trillion)\b")
    for page in WRITTEN:
        formulas = [re.sub(r"\\text\{.*?\}", "", formula) for formula in Page(page).formulas]
        assert [formula for formula in formulas if words.search(formula)] == [], page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install playwright")
    with api.sync_playwright() as play:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = play.chromium.launch(executable_path=str(BROWSER), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def phone(browser: Any) -> Iterator[Any]:
    """A tab as wide as a phone; afterwards nothing was asked of a network and no script went wrong."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, has_touch=True, is_mobile=True)
    tab, trouble = context.new_page(), []
    tab.set_default_timeout(10_000)
    # A search shows no lines of what it finds in file://, where a page may not read another: titles alone.
    tab.on("pageerror", lambda e: trouble.append(str(e)) if str(e) != "Failed to fetch" else None)
    tab.on("request", lambda r: trouble.append(r.url) if urlsplit(r.url).scheme not in {"file", "data"} else None)
    yield tab
    context.close()
    assert trouble == []


def show(tab: Any, page: str, query: str = "") -> None:
    tab.goto((SITE / page).as_uri() + query)


# What sticks out of the screen, and has nothing about it that scrolls sideways but the whole text.
STICKS_OUT = """() => [...document.querySelectorAll('article *')].filter(e => {
    if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let a = e.parentElement; a.tagName !== 'ARTICLE'; a = a.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(a).overflowX)) return false;
    return true;
}).slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""


# Pages of source code are all made alike: every twentieth stands for them.
@in_a_browser
@pytest.mark.parametrize("page", [*WRITTEN, *SOURCES[::20]])
def test_on_a_phone_a_page_scrolls_downwards_alone(phone, page):
    show(phone, page)
    assert phone.evaluate("innerWidth") == WIDTH
    assert phone.evaluate("document.documentElement.scrollWidth") <= WIDTH, phone.evaluate(STICKS_OUT)
    assert phone.evaluate(STICKS_OUT) == []


@in_a_browser
def test_text_is_of_a_readable_size(phone):
    read = "s => [...document.querySelectorAll(s)].map(e => parseFloat(getComputedStyle(e).fontSize))"
    for page in ("index.html", "start.html", "ops/aggregate.html", "handlers/flips.html"):
        show(phone, page)
        text = phone.evaluate(read, "article section > p, article li > p")
        assert text and min(text) >= 16
        assert min(phone.evaluate(read, "article pre, article table, article math[display=block]") or [16]) >= 12.5


@in_a_browser
def test_a_formula_is_drawn(phone):
    show(phone, "ops/aggregate.html")
    formula = phone.locator("div.math math").first
    # The sum's limits stand below it.
    sign, below = (formula.locator(f"munder > :nth-child({k})").first.bounding_box() for k in (1, 2))
    assert sign["y"] + sign["height"] / 2 < below["y"]
    assert formula.bounding_box()["height"] > 30
    assert not phone.locator("annotation").first.is_visible()


@in_a_browser
def test_the_menu_opens_and_leads_on(phone):
    show(phone, "index.html")
    link = phone.locator(".sidebar-tree a", has_text="Fifteen minutes")
    assert link.bounding_box()["x"] < 0
    phone.locator("header label[for=__navigation]").tap()
    phone.wait_for_function("() => document.querySelector('.sidebar-drawer').getBoundingClientRect().left >= 0")
    link.tap()
    phone.wait_for_url("**/start.html")


@in_a_browser
def test_a_search_finds_pages_without_a_server(phone):
    show(phone, "search.html", "?q=counterfactual")
    phone.wait_for_selector("#search-results ul.search li a")
    phone.wait_for_function("() => /found|matching/.test(document.querySelector('#search-results').innerText)")
    found = phone.eval_on_selector_all("#search-results ul.search li a", "l => l.map(a => a.href)")
    files = {Path(unquote(urlsplit(a).path)).relative_to(SITE).as_posix() for a in found}
    assert files <= set(PAGES) and {"counterfactual.html", "start.html"} <= files
    phone.locator("#search-results ul.search li a").first.tap()
    phone.wait_for_selector("article h1")
