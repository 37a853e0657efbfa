"""The map in a browser: what it shows is the result, day by day, and it asks nobody for anything."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lpmppl.data.areas import PUMAS
from lpmppl.report import map as maps

BROWSER = next((Path(p) for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)
api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no /usr/bin/chromium: apt-get install chromium")

CODES, DAYS = list(PUMAS), 30
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
TINY, K = 1e-9, CODES.index("4110")


@functools.cache
def numbers(worlds: int, draws: int = 1) -> np.ndarray:
    """Infections (draw, world, day, area), of which the second world has fewer from day 10 on."""
    x = np.random.default_rng(3).poisson(9 + np.arange(55) / 5.0, (draws, 1, DAYS, 55))
    return np.concatenate([x, x - (x // 3) * (np.arange(DAYS) >= 10)[:, None]][:worlds], 1)


@functools.cache
def page(worlds: int, draws: int = 1) -> str:
    values = numbers(worlds, draws)
    flow = xr.DataArray(values[None], dims=("chain", "draw", "policy", "day", "puma"))
    flow = flow.assign_coords(puma=CODES, policy=["as it was", "masks"][:worlds])
    flow = flow if worlds > 1 else flow.isel(policy=0, drop=True)
    tallies = {
        "infections": flow.assign_attrs(kind="flow", long_name="new infections", units="people per day"),
        "ill": (3 * flow).assign_attrs(kind="stock", long_name="people ill", units="people"),
    }
    people = xr.DataArray(np.full(55, 2_000), dims=("puma",), coords={"puma": CODES})
    attrs = {"agents": 110_000, "days": DAYS, "seed": 0, "model": "seirm", "population": "nyc", "start": "2020-03-01"}
    groups = {"/": xr.Dataset(attrs=attrs), "/prior_predictive": xr.Dataset(tallies)}
    return maps.render(xr.DataTree.from_dict({**groups, "/constant_data": xr.Dataset({"people": people})}))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(BROWSER), args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the map of a result; afterwards nothing was asked of a network and nothing went wrong."""
    opened: list[tuple[Any, list[str], str]] = []

    def show(worlds: int = 1, width: int = 1280, height: int = 900, draws: int = 1, **about: Any) -> Any:
        file = tmp_path / "map.html"
        file.write_text(page(worlds, draws), encoding="utf-8")
        tab = browser.new_context(viewport={"width": width, "height": height}, **about).new_page()
        tab.set_default_timeout(5_000)
        trouble: list[str] = []
        tab.on("console", lambda m: trouble.append(m.text))
        tab.on("pageerror", lambda e: trouble.append(str(e)))
        tab.on("request", lambda r: trouble.append(r.url) if r.url != file.as_uri() else None)
        opened.append((tab, trouble, file.as_uri()))
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-ready=yes]" if about.get("java_script_enabled", True) else "main")
        return tab

    yield show
    for tab, trouble, _ in opened:
        tab.context.close()
        assert trouble == []


def to(tab: Any, day: int) -> None:
    """Move the slider."""
    tab.evaluate(
        "d => { const s = document.getElementById('day'); s.value = d; s.dispatchEvent(new Event('input')); }", day
    )


def choose(tab: Any, **controls: str) -> None:
    for name, value in controls.items():
        tab.check(f"input[name={name}][value={value}]", force=True)


def shown(tab: Any, which: int = 0) -> np.ndarray:
    """The values of a map by area."""
    read = "m => [...m.querySelectorAll('.hex')].map(h => [+h.dataset.area, +h.dataset.value])"
    pairs = dict(tab.locator(".map").nth(which).evaluate(read))
    return np.array([pairs[a] for a in range(len(pairs))])


def until(tab: Any, done: Callable[[], bool]) -> None:
    """Wait for what the page does by itself, five seconds at most."""
    for _ in range(100):
        if done():
            return
        tab.wait_for_timeout(50)
    raise AssertionError("it never came to that")


def day(tab: Any) -> int:
    return int(tab.locator("#date").get_attribute("data-day"))


def test_the_slider_shows_the_days_of_the_result(show):
    tab, values = show(), numbers(1)[0, 0]
    week = np.stack([values[max(0, d - 6) : d + 1].mean(0) for d in range(DAYS)])
    for d in (0, 17, DAYS - 1):
        to(tab, d)
        assert day(tab) == d
        choose(tab, measure="count", series="daily")
        assert np.array_equal(shown(tab), values[d])
        choose(tab, series="sum")
        assert np.array_equal(shown(tab), values[: d + 1].sum(0))
        choose(tab, series="week", measure="rate")
        np.testing.assert_allclose(shown(tab), week[d] / 2, rtol=TINY)
    assert tab.locator("#date").inner_text() == "30 Mar 2020"


def test_pointing_at_a_district_reads_it(show):
    tab, values = show(), numbers(1)[0, 0]
    choose(tab, measure="count", series="daily")
    to(tab, 12)
    tab.locator(f".hex[data-area='{K}']").hover()
    lines = tab.locator("#tip").inner_text().split("\n")
    assert lines == ["Harlem", "Manhattan", f"{values[12, K]} people a day", "2,000 people"]
    # It follows the days while it is open.
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("ArrowRight")
    assert f"{values[13, K]} people a day" in tab.locator("#tip").inner_text()
    tab.mouse.move(2, 2)
    tab.wait_for_selector("#tip", state="hidden")


def test_a_district_that_is_kept_has_the_curve(show):
    tab, values = show(), numbers(1)[0, 0]
    choose(tab, measure="count", series="daily")
    to(tab, 20)
    assert f"{values[20].sum()} people a day" in tab.locator("#whose").inner_text()
    tab.locator(f".hex[data-area='{K}']").click()
    assert tab.locator("#whose").inner_text().startswith("Harlem, Manhattan")
    assert f"{values[20, K]} people a day" in tab.locator("#whose").inner_text()
    tab.keyboard.press("Escape")
    assert tab.locator("#whose").inner_text().startswith("NYC")


def test_it_plays_and_stops(show):
    tab = show(reduced_motion="no-preference")
    to(tab, 3)
    tab.click("#play")
    until(tab, lambda: day(tab) >= 6)
    tab.click("#play")
    stopped = day(tab)
    assert stopped >= 6 and tab.locator("#play").get_attribute("aria-label") == "Play"
    tab.wait_for_timeout(300)
    assert day(tab) == stopped


def test_the_last_day_ends_the_play(show):
    tab = show()
    to(tab, DAYS - 3)
    tab.click("#play")
    until(tab, lambda: tab.locator("#play").get_attribute("aria-label") == "Play")
    assert day(tab) == DAYS - 1


def test_the_keys_go_through_the_days(show):
    tab = show()
    to(tab, 5)
    for key, expected in [
        ("ArrowRight", 6),
        ("ArrowLeft", 5),
        ("Shift+ArrowRight", 12),
        ("End", DAYS - 1),
        ("Home", 0),
    ]:
        tab.keyboard.press(key)
        assert day(tab) == expected, key
    tab.keyboard.press("Space")
    until(tab, lambda: day(tab) >= 2)
    tab.keyboard.press("Space")
    assert tab.locator("#play").get_attribute("aria-pressed") == "false"


def test_the_keys_go_from_district_to_district(show):
    tab = show()
    tab.locator(f".hex[data-area='{CODES.index('4110')}']").focus()
    assert "Harlem" in tab.locator("#tip").inner_text() and "Harlem" in tab.locator("#reader").inner_text()
    before = day(tab)
    tab.keyboard.press("ArrowDown")
    here = tab.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "Harlem" not in here.split(",")[0] or here.startswith("East Harlem")
    assert day(tab) == before
    tab.keyboard.press("Enter")
    assert tab.locator("#whose").inner_text().split(",")[0] == here.split(",")[0]
    # One stop for the tab key on each map.
    assert tab.locator(".hex[tabindex='0']").count() == 1


def test_another_tally_is_another_map(show):
    tab, values = show(), numbers(1)[0, 0]
    choose(tab, measure="count", series="sum")
    tab.select_option("#tally", label="People ill")
    to(tab, 9)
    # What people are in isn't added up over days.
    assert tab.locator("input[value=sum]").is_disabled()
    assert np.array_equal(shown(tab), 3 * values[9])
    assert "People ill, people" in tab.locator("#legend").inner_text()


def test_two_worlds_stand_side_by_side_in_the_same_colours(show):
    tab, values = show(2), numbers(2)[0]
    choose(tab, measure="count", series="daily")
    to(tab, 25)
    assert tab.locator(".map").count() == 2
    assert [tab.locator(".map figcaption span").nth(k).inner_text() for k in (0, 1)] == ["as it was", "masks"]
    assert all(np.array_equal(shown(tab, w), values[w, 25]) for w in (0, 1))
    read = "() => [...document.querySelectorAll('.hex')].map(h => [+h.dataset.value, h.style.fill])"
    pairs = tab.evaluate(read)
    of: dict[float, set[str]] = {}
    for value, fill in pairs:
        of.setdefault(value, set()).add(fill)
    assert all(len(fills) == 1 for fills in of.values()) and len(of) > 10
    tab.locator(f".map >> nth=1 >> .hex[data-area='{K}']").hover()
    said = tab.locator("#tip").inner_text()
    assert f"as it was: {values[0, 25, K]} people a day" in said and f"masks: {values[1, 25, K]} people a day" in said
    a, b = (tab.locator(".map").nth(k).bounding_box() for k in (0, 1))
    assert a["y"] == b["y"] and a["x"] + a["width"] <= b["x"]


def test_the_difference_of_two_worlds(show):
    tab, values = show(2), numbers(2)[0]
    choose(tab, measure="count", series="daily", view="gap")
    to(tab, 25)
    assert tab.locator(".map").count() == 1
    assert np.array_equal(shown(tab), values[1, 25] - values[0, 25])
    assert "masks less as it was" in tab.locator(".map figcaption").inner_text()
    total = int((values[1, 25] - values[0, 25]).sum())
    assert f"−{-total:,}" in tab.locator("#whose").inner_text()
    # Before the policy acts there is none, and nought is the middle of the colours.
    to(tab, 5)
    assert not shown(tab).any()
    assert len(set(tab.evaluate("[...document.querySelectorAll('.hex')].map(h => h.style.fill)"))) == 1


def test_draws_have_their_band_in_brackets(show):
    # Of 21 draws, 5 % and 95 % are the second and the last but one.
    tab, values = show(2, draws=21), numbers(2, 21)
    choose(tab, measure="count", series="sum")
    to(tab, 20)
    sums = values[:, :, :21, K].sum(2)
    low, high = np.sort(sums, 0)[[1, 19]]
    tab.locator(f".map >> nth=0 >> .hex[data-area='{K}']").hover()
    said = tab.locator("#tip").inner_text()
    assert all(f"({low[w]} to {high[w]}) people" in said for w in (0, 1))
    choose(tab, view="gap")
    least, most = np.sort(sums[:, 1] - sums[:, 0])[[1, 19]]
    tab.locator(f".hex[data-area='{K}']").hover()
    assert f"(−{-least} to −{-most}) people" in tab.locator("#tip").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lightness_goes_one_way_in_both_schemes(show, scheme):
    tab = show(color_scheme=scheme)
    choose(tab, measure="count", series="daily")
    read = "() => [...document.querySelectorAll('.hex')].map(h => [+h.dataset.value, getComputedStyle(h).fill])"
    tab.add_style_tag(content=".hex { transition: none !important; }")
    to(tab, 15)
    pairs = sorted((v, tuple(json.loads("[" + c[4:-1] + "]"))) for v, c in tab.evaluate(read))
    linear = [[((u / 255 + 0.055) / 1.055) ** 2.4 if u > 10 else u / 255 / 12.92 for u in c] for _, c in pairs]
    light = np.array(linear) @ [0.2126, 0.7152, 0.0722]
    steps = np.diff(light)
    assert ((steps <= 1e-3) if scheme == "light" else (steps >= -1e-3)).all() and abs(light[-1] - light[0]) > 0.1


def test_a_phone_scrolls_downwards_alone(show):
    tab = show(2, 390, 844, has_touch=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    a, b = (tab.locator(".map").nth(k).bounding_box() for k in (0, 1))
    assert a["y"] + a["height"] <= b["y"] and a["x"] == b["x"]
    # The slider stays in view.
    bar = tab.locator(".time").bounding_box()
    assert bar["y"] >= 0 and bar["y"] + bar["height"] <= 844
    tab.locator(f".map >> nth=0 >> .hex[data-area='{K}']").tap()
    assert "Harlem" in tab.locator("#tip").inner_text()
    tip = tab.locator("#tip").bounding_box()
    assert tip["x"] >= 0 and tip["x"] + tip["width"] <= 390
    tab.click("summary")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_without_a_script_the_totals_are_read(show):
    tab = show(java_script_enabled=False)
    row = tab.locator("tr", has=tab.locator("th[scope=row]", has_text="Upper West Side")).inner_text()
    assert f"{int(numbers(1)[0, 0, :, CODES.index('4107')].sum())}" in row.replace(",", "").split()
    assert not tab.locator("#play").is_visible() and tab.locator("table").is_visible()
