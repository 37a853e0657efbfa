"""The page of a counterfactual run says what its policies did, in the right numbers, whoever they are."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from lpmppl.inference.contrasts import fates
from lpmppl.inference.weights import weigh
from lpmppl.report import effects, page, tables

Make = Callable[..., xr.DataTree]
NASTY = """</script><script>alert('x')</script>"&' """
MASKS = {"masks": ["mask_mandate=1@20"]}
THREE = {
    "masks": ["mask_mandate=1@10", "transmission=0.9@10"],
    "closure": ["stringency=80 on trigger@5"],
    "reopening": ["transmission=1.2@25 (Bronx/Queens, 80+)"],
}
SHAPES = {
    "one draw": {"acts": MASKS, "effects": (0.3,)},
    "draws": {"acts": MASKS, "effects": (0.3,), "draws": 5},
    "three": {"acts": THREE, "effects": (0.2, 0.6, -0.15), "draws": 3, "start": "2020-03-01"},
    "replicates": {"acts": MASKS, "effects": (0.3,), "draws": 6, "replicates": 2},
    "null": {"acts": {"nothing": ["stimulus=0@30"]}, "effects": (0.0,), "draws": 4},
    "one of two": {"acts": {"a": ["x=1@9"], "b": ["y=1@3"]}, "effects": (0.0, 0.2), "draws": 4},
    "no strata": {"acts": MASKS, "effects": (0.3,), "by": (), "draws": 2},
    "one day": {"acts": {"masks": ["mask_mandate=1@0"]}, "effects": (0.5,), "days": 1},
    "many": {"acts": {f"p{k}": [f"x={k}@{k}"] for k in range(12)}, "effects": tuple(k / 20 for k in range(12))},
    "hostile": {"acts": {NASTY: [f"{NASTY}=1@3"], "w" * 150: ["what is this", "y=<b>@4"]}, "effects": (0.1, 0.2)},
}


class Text(HTMLParser):
    """Checks that every tag is closed where it should be, and collects what can be read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.read: list[str] = []
        self.unfolded: list[str] = []
        self.figures = 0
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)
            self.figures += tag == "figure" and "details" not in self.open

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.read.append(data)
            if "details" not in self.open:
                self.unfolded.append(data)


def words(html: str) -> str:
    """What a reader sees, on one line."""
    return re.sub(r"\s+", " ", " ".join(Text(html).read).replace("\u00a0", " "))


def drawings(html: str, label: str = "") -> list[ET.Element]:
    """The figures whose description begins so."""
    found = [ET.fromstring(s) for s in re.findall(r"<svg.*?</svg>", html, flags=re.S)]
    return [d for d in found if d.attrib.get("aria-label", "").startswith(label)]


def totals(tree: xr.DataTree) -> np.ndarray:
    """What infections add up to: shape (draws, worlds)."""
    values = tree["prior_predictive"]["infections"].transpose("chain", "draw", "policy", ...).to_numpy()[0]
    return values.reshape(*values.shape[:2], -1).sum(-1)


@pytest.fixture(scope="module", params=SHAPES)
def any_page(request: pytest.FixtureRequest, make_policies: Make) -> str:
    """The page of a run of any shape."""
    return page.render(make_policies(**SHAPES[request.param]))


def test_any_counterfactual_makes_a_sound_page_that_stands_alone(any_page: str) -> None:
    html = any_page
    assert not re.search(r"\b(nan|NaN|None|inf|Infinity)\b", words(html))
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)""", html)
    assert html.count("<script>") == 1
    assert len(html.encode()) < 1_000_000
    for drawing in drawings(html):
        assert not re.search(r"\bnan\b|\binf\b|NaN|Infinity", ET.tostring(drawing, encoding="unicode"))


def test_every_drawing_keeps_its_text_inside(any_page: str) -> None:
    for drawing in drawings(any_page):
        width, height = (float(v) for v in drawing.attrib["viewBox"].split()[2:])
        for text in drawing.iter("text"):
            x, y, long = float(text.attrib["x"]), float(text.attrib["y"]), 5.5 * len(text.text or "")
            left = x - long * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
            assert left >= -8, text.text
            assert left + long <= width + 8, text.text
            assert 8 <= y <= height, text.text


def test_the_effect_is_said_with_its_interval_and_relative_to_what_was(make_policies: Make) -> None:
    tree = make_policies(MASKS, (0.3,), draws=5)
    total = totals(tree)
    effect = total[:, 1] - total[:, 0]
    low, high = (-np.quantile(effect, q) for q in (0.95, 0.05))
    relative = -100 * effect.mean() / total[:, 0].mean()
    said = words(page.render(tree))
    assert f"{-effect.mean():,.0f} fewer new infections" in said
    assert f"new infections (90 % of draws: {low:,.0f} to {high:,.0f} fewer), −{relative:.0f} %" in said
    assert f"−{-effect.mean():,.0f} −{high:,.0f} to −{low:,.0f} −{relative:.0f} %" in said
    assert f"masks {total[:, 1].mean():,.0f}" in said
    assert f"{total[:, 0].mean():,.0f} as it was" in said
    peaks = tree["prior_predictive"]["infectious"].sum(["borough", "age"]).max("day").to_numpy()[0]
    assert f"{(peaks[:, 0] - peaks[:, 1]).mean():,.0f} fewer infectious people at the peak" in said


def test_an_effect_for_the_worse_and_one_either_way_are_said_so() -> None:
    worse = effects.Effect("deaths", "people", 4.0, 1.0, 7.5, 40.0, False, 9)
    assert effects.sentence(worse) == "4 more deaths (90 % of draws: 1 to 7.5 more), +10 %"
    either = effects.Effect("spending", "dollars", -4.0, -10.0, 7.5, 0.0, False, 9)
    assert effects.sentence(either) == "4 dollars less spending (90 % of draws: 10 less to 7.5 more)"
    shifted = effects.Effect("claims", "people", 0.0, 0.0, 0.0, 40.0, True, 9, shifted=True)
    assert effects.sentence(shifted) == "no difference in all in claims, though on single days"


def test_a_single_draw_has_no_intervals(make_policies: Make) -> None:
    html = page.render(make_policies(MASKS, (0.3,)))
    said = words(html)
    assert "fewer new infections, −" in said
    assert "90 %" not in said and "draws" not in said
    assert 'class="band"' not in html and 'class="whisker"' not in html


def test_a_null_effect_is_exactly_none_and_is_not_drawn(make_policies: Make) -> None:
    html = page.render(make_policies({"nothing": ["stimulus=0@30"]}, (0.0,), draws=4))
    said = words(html)
    assert "No effect, exactly: every tally is what it was, on every day and in every group." in said
    assert said.count("exactly 0") == 4  # three tallies, and a stock on the last day
    assert not drawings(html, "Difference in") and not drawings(html, "Effect on")
    beside = page.render(make_policies({"a": ["x=1@9"], "b": ["y=1@3"]}, (0.0, 0.2), draws=4))
    plot = json.loads(drawings(beside, "Difference in new infections")[0].attrib["data-plots"])[0]
    assert [series["name"] for series in plot["series"]] == ["b"]
    assert "No effect, exactly: a." in words(beside)


@pytest.mark.parametrize(
    ("acts", "question"),
    [
        (MASKS, "What would “masks” have done among 84,000 people of NYC in 60 days?"),
        ({"x=2@5": ["x=2@5"]}, "What would x = 2 from day 5 have done among"),
        ({"a": ["x=1@3"], "b": ["x=2@3"]}, "What would “a” and “b” have done among"),
        ({f"p{k}": [f"x={k}@3"] for k in range(7)}, "What would each of 7 policies have done among"),
    ],
)
def test_the_question_names_the_policies(make_policies: Make, acts: dict[str, list[str]], question: str) -> None:
    html = page.render(make_policies(acts, (0.1,) * len(acts), by=()))
    assert question in words(html)


def test_what_a_policy_does_is_said_with_its_days_and_for_whom(make_policies: Make) -> None:
    said = words(page.render(make_policies(THREE, (0.2, 0.6, -0.15), start="2020-03-01")))
    assert "mask_mandate = 1 and transmission = 0.9 from 11 Mar 2020" in said
    assert "stringency = 80 on a trigger watched from 6 Mar 2020" in said
    assert "transmission = 1.2 (Bronx/Queens, 80+) from 26 Mar 2020" in said


def test_policies_are_marked_on_their_days(make_policies: Make) -> None:
    html = page.render(make_policies(THREE, (0.2, 0.6, -0.15)))
    for label in ("Difference in new infections", "New infections over 60 days"):
        drawing = drawings(html, label)[0]
        left, _, right, _ = json.loads(drawing.attrib["data-plots"])[0]["box"]
        marks = [float(e.attrib["x1"]) for e in drawing.iter("line") if e.attrib["class"] == "mark"]
        expected = [left + (right - left) * day / 59 for day in (5, 10, 25)]
        np.testing.assert_allclose(marks, expected, atol=0.11)
        named = [e.text for e in drawing.iter("text") if e.attrib["class"] == "marktext"]
        assert named == ["closure (trigger)", "masks", "reopening"]


def test_names_of_policies_that_act_close_to_each_other_do_not_collide(make_policies: Make) -> None:
    crowd = {f"policy number {k}": [f"x={k}@{k}"] for k in range(5)}
    for drawing in drawings(page.render(make_policies(crowd, (0.1,) * 5, by=())), "Difference in"):
        boxes = [(0.0, 70.0, 12.0)]  # the unit
        for text in (e for e in drawing.iter("text") if e.attrib["class"] == "marktext"):
            x, y, half = float(text.attrib["x"]), float(text.attrib["y"]), 2.75 * len(text.text or "")
            boxes.append((x - half, x + half, y))
        assert len(boxes) == 6
        for i, (left, right, y) in enumerate(boxes):
            assert all(abs(y - v) >= 12 or right <= a or b <= left for a, b, v in boxes[:i])


def test_daily_effects_pass_through_the_data_below_zero_and_can_be_read_off(make_policies: Make) -> None:
    tree = make_policies(THREE, (0.2, 0.6, -0.15), draws=3)
    days = tree["prior_predictive"]["infections"].sum(["borough", "age"]).mean(["chain", "draw"]).to_numpy()
    drawing = drawings(page.render(tree), "Difference in new infections")[0]
    plot = json.loads(drawing.attrib["data-plots"])[0]
    (left, top, right, bottom), least, most = plot["box"], plot["least"], plot["most"]
    lines = [p for p in drawing.iter("path") if p.attrib.get("class") == "line"]
    assert least < 0 < most and plot["signed"] and len(lines) == 3
    for k, (line, series) in enumerate(zip(lines, plot["series"], strict=True), 1):
        effect = days[k] - days[0]
        np.testing.assert_allclose(series["values"], effect, atol=0.006)
        points = np.array([[float(v) for v in p.split(",")] for p in line.attrib["d"][1:].split("L")])
        np.testing.assert_allclose(points[:, 0], np.linspace(left, right, 60), atol=0.11)
        np.testing.assert_allclose(points[:, 1], bottom - (bottom - top) * (effect - least) / (most - least), atol=0.11)
    zero = bottom - (bottom - top) * -least / (most - least)
    assert any(abs(float(e.attrib["y1"]) - zero) < 0.11 for e in drawing.iter("line") if e.attrib["class"] == "axis")


def test_bars_of_groups_go_to_either_side_of_zero_in_proportion(make_policies: Make) -> None:
    tree = make_policies({"masks": ["x=1@10"], "reopening": ["x=2@10"]}, (0.2, -0.1), draws=3)
    found = tree["prior_predictive"]["infections"].sum(["day", "age"]).mean(["chain", "draw"]).to_numpy()
    residents = tree["constant_data"]["people"].sum("age").to_numpy()
    expected = ((found[1:] - found[0]) / residents * 1e5).T.ravel()
    drawing = drawings(page.render(tree), "Effect on New infections by borough")[0]
    rects = list(drawing.iter("rect"))
    starts, widths = (np.array([float(r.attrib[a]) for r in rects]) for a in ("x", "width"))
    zero = float(next(e for e in drawing.iter("line") if e.attrib["class"] == "axis").attrib["x1"])
    below = expected < 0
    np.testing.assert_allclose(widths / widths.max(), abs(expected) / abs(expected).max(), atol=0.01)
    np.testing.assert_allclose(np.where(below, starts + widths, starts), zero, atol=0.11)
    values = [e.text for e in drawing.iter("text") if e.attrib["class"] == "value"]
    assert values[0] == f"−{-expected[0]:,.0f}" and values[1] == f"+{expected[1]:,.0f}"
    assert len([p for p in drawing.iter("path") if p.attrib["class"] == "whisker"]) == len(rects)


def test_people_between_outcomes_are_counted_said_and_drawn(make_policies: Make) -> None:
    tree = make_policies({"masks": ["x=1@10"], "reopening": ["x=2@10"]}, (0.2, -0.1), draws=3)
    html = page.render(tree)
    said = words(html)
    counts = tree["flows"]["infected"].sum(["borough", "age"]).mean(["chain", "draw"])
    share = fates(tree, "infected").sel(estimate="mean")
    had = float(counts.sel(was="yes", policy="masks").sum())
    averted = float(counts.sel(was="yes", would="no", policy="masks"))
    caused = float(counts.sel(was="no", would="yes", policy="reopening"))
    necessity = 100 * float(share["necessity"].sel(policy="masks"))
    sufficiency = 100 * float(share["sufficiency"].sel(policy="reopening"))
    assert f"Infected: {had:,.0f} people as it was. Under “masks”, {averted:,.0f} of them would not" in said
    assert f"would not (necessity: {necessity:.0f} %)" in said
    assert f"{caused:,.0f} of the {84_000 - had:,.0f} others would (sufficiency: {sufficiency:.1f} %)" in said
    (drawing,) = drawings(html, "Infected?")
    named = [e.text for e in drawing.iter("text")]
    assert f"{averted:,.0f} no" in named and f"{caused:,.0f} no" in named and f"{had:,.0f} yes" in named
    thick = {p.attrib["class"]: float(re.findall(r"v([\d.]+)", p.attrib["d"])[0]) for p in drawing.iter("path")}
    both = float(counts.sel(was="yes", would="yes", policy="masks"))
    paths = [(p.attrib["class"], float(re.findall(r"v([\d.]+)", p.attrib["d"])[0])) for p in drawing.iter("path")]
    assert [kind for kind, _ in paths] == ["stream both", "stream averted", "stream both", "stream caused"]
    assert paths[1][1] / paths[0][1] == pytest.approx(averted / both, rel=0.01)
    assert set(thick) == {"stream both", "stream averted", "stream caused"}


def test_of_many_policies_figures_show_those_that_do_most_and_tables_all(make_policies: Make) -> None:
    shares = (0.05, 0.4, 0.1, 0.5, 0.15, 0.45, 0.2, 0.35)
    tree = make_policies({f"p{k}": [f"x={k}@3"] for k in range(8)}, shares, draws=2, by=("borough",))
    html = page.render(tree)
    plot = json.loads(drawings(html, "Difference in new infections")[0].attrib["data-plots"])[0]
    assert [series["name"] for series in plot["series"]] == ["p1", "p3", "p5", "p6", "p7"]
    assert "the 5 of 8 policies that do most to new infections" in words(html)
    total = totals(tree).mean(0)
    for k in range(8):
        assert f"p{k} −{total[0] - total[k + 1]:,.0f}" in words(html)


def test_draws_of_chance_are_told_from_those_of_parameters(make_policies: Make) -> None:
    tree = make_policies(MASKS, (0.3,), draws=6, replicates=2, by=())
    said = words(page.render(tree))
    parts = tree["effects"]["infections"].sel(policy="masks")
    chance, parameters = (float(parts.sel(estimate=e)) for e in ("sd_chance", "sd_parameters"))
    assert "sd by chance sd by parameters" in said
    assert f"{chance:,.0f} {parameters:,.0f}" in said
    assert (
        "3 draws of the parameters from their priors, with 2 draws of chance for each; given: latent_period = 3.4"
        in said
    )
    fitted = make_policies(MASKS, (0.3,), draws=2, draws_from="posterior", by=())
    assert "2 draws of the parameters from a posterior, with one draw of chance" in words(page.render(fitted))
    assert "the parameters at their defaults, with one draw of chance" in words(
        page.render(make_policies(MASKS, (0.3,)))
    )


def test_draws_count_by_their_weights(make_policies: Make) -> None:
    tree = make_policies(MASKS, (0.3,), draws=4)
    seen = tree["prior_predictive"]["infections"].isel(chain=0, draw=0, policy=0).sum(["borough", "age"]).to_numpy()
    weighted = weigh(tree, {"infections": seen[:30]}, size=None, least=1.0)
    said = words(page.render(weighted))
    was, would = totals(tree)[0]
    assert f"New infections in all {was:,.0f} as it was" in said
    assert f"masks {would:,.0f}" in said
    assert "Means of 4 draws, weighted by what was observed." in said
    assert "weighted by the infections that were observed, so worth 1 draws" in said


def test_other_runs_have_no_page_of_policies(make_result: Make) -> None:
    html = page.render(make_result(worlds=("as it was", "half"), draws=3))
    assert "What the policies did" not in html and "What happens among" in html


def test_names_from_outside_are_escaped(make_policies: Make) -> None:
    html = page.render(make_policies({NASTY: [f"{NASTY}=1@3"]}, (0.1,), draws=2, draws_from=NASTY))
    assert "<script>alert" not in html
    assert "alert('x')" in unescape(html)


def test_the_rest_is_folded_where_there_are_many_tallies(make_policies: Make) -> None:
    tree = make_policies(MASKS, (0.3,), draws=2, by=("borough",), days=20)
    found = tree["prior_predictive"].to_dataset()
    more = {f"tally_{k}": found["infections"].assign_attrs(long_name=f"tally {k}", kind="flow") for k in range(20)}
    tree["prior_predictive"] = xr.DataTree(found.assign(more))
    for group in ("effects", "effects_daily", "effects_by_borough"):
        effect = tree[group].to_dataset()
        tree[group] = xr.DataTree(effect.assign(dict.fromkeys(more, effect["infections"])))
    html = page.render(tree)
    text = Text(html)
    unfolded = {int(k) for k in re.findall(r"[Tt]ally (\d+)", " ".join(text.unfolded))}
    assert unfolded == set(range(effects.MAIN - 3))
    assert set(map(int, re.findall(r"[Tt]ally (\d+)", " ".join(text.read)))) == set(range(20))
    assert 0 < 3 * text.figures < html.count("<figure")


def test_a_weighted_band_is_of_the_draws_that_count() -> None:
    values = xr.DataArray(
        [[1.0, 2.0, 30.0]], dims=("chain", "draw"), coords={"weight": ("draw", [0.5, 0.5, 0.0])}, name="x"
    )
    assert tables.mean(values) == 1.5
    assert tables.over(values)[2] <= 2.0


def test_the_days_of_triggers_and_the_price_of_what_is_averted_are_said(make_policies: Make) -> None:
    tree = make_policies({"closing": ["stringency=80 on trigger@0"], "cheque": ["stimulus=500@3"]}, (0.2, 0.1), draws=2)
    on = np.zeros((1, 2, 1, int(tree.attrs["days"])), bool)
    on[0, 0, 0, 4:8], on[0, 1, 0, 6:8] = True, True
    coords = {"policy_of": ("trigger", ["closing"]), "act": ("trigger", ["stringency=80 on trigger@0"])}
    tree["triggers"] = xr.DataTree(xr.Dataset({"in_force": (("chain", "draw", "trigger", "day"), on)}, coords))
    cost = [[[np.nan], [np.nan], [np.nan]], [[1234.0], [1000.0], [2000.0]]]
    coords = {"policy": ["closing", "cheque"], "estimate": ["mean", "low", "high"], "outcome": ["infections"]}
    dims = ("policy", "estimate", "outcome")
    tree["costs"] = xr.DataTree(
        xr.Dataset({"cost": (dims, cost, {"units": "dollars per averted: infections"})}, coords)
    )
    said = words(page.render(tree))
    assert "stringency = 80: in force on 3 days on average, first between day 4 and day 6" in said
    assert "1,234 (1,000 to 2,000) dollars for each averted of: " in said
    cost[1][2] = [np.inf]
    tree["costs"] = xr.DataTree(
        xr.Dataset({"cost": (dims, cost, {"units": "dollars per averted: infections"})}, coords)
    )
    assert "1,234 (1,000 to no bound) dollars" in words(page.render(tree))
    on[:] = False
    tree["triggers"] = xr.DataTree(
        xr.Dataset({"in_force": (("chain", "draw", "trigger", "day"), on)}, tree["triggers"].to_dataset().coords)
    )
    assert "stringency = 80: never in force" in words(page.render(tree))
