"""The report holds the run's numbers, stands alone, and takes results of any shape."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.report import page, tables

Make = Callable[..., xr.DataTree]
VOID = {"meta", "br", "link", "img", "input", "hr"}
SHAPES = {
    "plain": {},
    "draws": {"draws": 7},
    "worlds": {"worlds": ("as it was", "half"), "draws": 3},
    "dated": {"start": "2020-03-01", "interventions": (("transmission", 0.3, 5), ("transmission", 1.0, 5))},
    "no strata": {"by": ()},
    "age only": {"by": ("age",)},
    "one day": {"days": 1, "interventions": ()},
    "nobody ill": {"agents": 1000, "days": 10},
}


class Nesting(HTMLParser):
    """Checks that every tag is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(html: str) -> list[ET.Element]:
    return [ET.fromstring(s) for s in re.findall(r"<svg.*?</svg>", html, flags=re.S)]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_result_makes_a_sound_page_that_stands_alone(make_result: Make, shape: str) -> None:
    html = page.render(make_result(**SHAPES[shape]))
    nesting = Nesting()
    nesting.feed(html)
    assert nesting.open == []
    assert len(html.encode()) < 500_000
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)""", html)
    assert "nan" not in re.sub(r"<script>.*?</script>|<style>.*?</style>", "", html, flags=re.S).lower().split()
    for drawing in drawings(html):
        assert not re.search(r"\bnan\b|\binf\b", ET.tostring(drawing, encoding="unicode"))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_drawing_keeps_its_text_inside(make_result: Make, shape: str) -> None:
    for drawing in drawings(page.render(make_result(**SHAPES[shape]))):
        width, height = (float(v) for v in drawing.attrib["viewBox"].split()[2:])
        for text in drawing.iter("text"):
            x, y, long = float(text.attrib["x"]), float(text.attrib["y"]), 5.5 * len(text.text or "")
            left = x - long * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
            assert left >= -8, text.text
            assert left + long <= width + 8, text.text
            assert 8 <= y <= height, text.text


def test_the_numbers_of_the_run_are_on_the_page(result: xr.DataTree) -> None:
    html = unescape(page.render(result))
    for value in tables.totals(result).values():
        assert f"{value:,}" in html
    summary = tables.summary(result)
    for row in summary[summary["stratum"] != ""].itertuples():
        assert f"<td>{row.value:,.0f}</td>" in html
    for words in (
        "transmission is set to 0.3",
        "transmission = 0.3",
        "doi:10.1093/cid/ciab746",
        "3.4 days",
        "torch 2.13.0",
    ):
        assert words in html


def test_curves_pass_through_the_data(result: xr.DataTree) -> None:
    daily = result["prior_predictive"]["infections"].sum(["borough", "age"]).to_numpy().ravel()
    first = drawings(page.render(result))[0]
    plot = json.loads(first.attrib["data-plots"])[0]
    assert plot["series"][0]["values"] == daily.tolist()
    left, top, right, bottom = plot["box"]
    line = next(p for p in first.iter("path") if p.attrib.get("class") == "line")
    points = np.array([[float(v) for v in p.split(",")] for p in line.attrib["d"][1:].split("L")])
    np.testing.assert_allclose(points[:, 0], np.linspace(left, right, len(daily)), atol=0.11)
    np.testing.assert_allclose(points[:, 1], bottom - (bottom - top) * daily / plot["most"], atol=0.11)


def test_bars_are_as_long_as_their_rates(result: xr.DataTree) -> None:
    summary = tables.summary(result)
    rows = summary[(summary["stratum"] == "age") & (summary["tally"] == "deaths")]
    drawing = next(d for d in drawings(page.render(result)) if d.attrib["aria-label"] == "Deaths in all by age")
    widths = np.array([float(r.attrib["width"]) for r in drawing.iter("rect")])
    np.testing.assert_allclose(widths / widths.max(), rows["per_100000"] / rows["per_100000"].max(), atol=0.01)


def test_an_intervention_is_marked_on_its_day(make_result: Make) -> None:
    first = drawings(page.render(make_result(interventions=(("transmission", 0.3, 40),))))[0]
    left, _, right, _ = json.loads(first.attrib["data-plots"])[0]["box"]
    mark = next(e for e in first.iter("line") if e.attrib["class"] == "mark")
    assert float(mark.attrib["x1"]) == pytest.approx(left + (right - left) * 40 / 89, abs=0.11)
    without = page.render(make_result(interventions=()))
    assert 'class="mark"' not in without


def test_draws_give_a_band_and_worlds_a_key(make_result: Make) -> None:
    assert 'class="band"' not in page.render(make_result())
    assert 'class="band"' in page.render(make_result(draws=5))
    html = page.render(make_result(worlds=("as it was", "half <of> it")))
    assert 'class="key"' in html
    assert "half &lt;of&gt; it" in html
    assert "half <of> it" not in html


def test_names_from_outside_can_not_break_the_page(make_result: Make) -> None:
    tree = make_result(days=5)
    nasty = """</script><script>alert('x')</script>"&'"""
    tree.attrs["model"] = nasty
    tree.attrs["command"] = nasty
    tree["prior_predictive"]["infections"].attrs["long_name"] = nasty
    html = page.render(tree)
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    drawings(html)


def test_many_groups_are_cut_to_the_largest_and_said(make_result: Make) -> None:
    tree = make_result(days=20)
    many = xr.DataArray(
        np.arange(40.0)[None, None, None, :] * np.ones((1, 1, 20, 1)),
        dims=("chain", "draw", "day", "area"),
        coords={"area": [f"Area {i}" for i in range(40)]},
        attrs={"kind": "flow", "long_name": "visits", "units": "visits per day"},
    )
    tree["prior_predictive"] = xr.DataTree(xr.Dataset({"visits": many}))
    html = page.render(tree)
    assert "The 12 largest of 40 groups." in html
    assert "The 25 largest of 40 groups." in html
    assert "Area 39" in html


def test_a_folder_gets_report_html_and_rendering_is_deterministic(result: xr.DataTree, tmp_path: Path) -> None:
    written = page.write(result, tmp_path / "runs" / "a")
    assert written == tmp_path / "runs" / "a" / "report.html"
    assert written.read_text(encoding="utf-8") == page.render(result)


def test_a_tree_without_tallies_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to report"):
        page.render(xr.DataTree.from_dict({"/": xr.Dataset(attrs={"agents": 1})}))


def test_a_path_that_can_not_be_written_is_refused(result: xr.DataTree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "none" / "a.html"):
        with pytest.raises(InputError, match="can't"):
            page.write(result, path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_calls_agents_what_they_are():
    people = Population.of({"household": np.arange(1_000) // 3}, agents_are="robots", title="a hall")
    model = SIR(people, [people.network("household")])
    text = page.render(lpm.counterfactual(model, {"transmission": 0.5}, at=1, days=3, replicates=2))
    assert "1,000 robots of a hall" in text and "same robots and the same chance" in text
    assert "1,000 people" not in text
