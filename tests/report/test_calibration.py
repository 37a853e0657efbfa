"""The page of a calibration says whether to believe it, and shows what was seen beside what is predicted."""

import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from lpmppl.report import calibration, datatree, page, posterior

BOROUGHS = ["Bronx", "Queens", "Staten Island"]
FINE = ["the guide converged", "restarts agree (R-hat 1.00)", "the 90 % bands hold 91% of the fitted counts"]
SECTIONS = (
    "Is it to be believed?",
    "What was seen",
    "What was learnt",
    "Which parameters go together",
    "Whether the fit has ended",
    "Whether the counts are as likely as they should be",
    "What it took",
    "What the fitted society does",
    "Over time",
    "By borough",
    "Summary",
    "Parameters",
    "Where this comes from",
)
WARNINGS = (
    "restart 1 diverged and was kept at its best: give another guide",
    "the guide still improved when its steps ended: its posterior isn't its best",
    "too confident: the 90 % bands hold 40% of the fitted counts; the model lacks something that the data have",
    "far from what their priors say: beta",
    "the response departs from runs that it hadn't seen (slope 1.15 ± 0.04): give more rounds= or rows=",
)
GAP = "the whole society departs from the coarse one by 3.1% a day, which is made up for"
SHAPES = {
    "plain": {},
    "one chain": {"chains": 1},
    "no strata": {"strata": False},
    "no start": {"start": ""},
    "days ahead": {"ahead": 10},
    "a gap": {"gap": 0.1},
    "one parameter": {"names": ("beta",)},
    "one day": {"days": 1},
}


def fitted(
    chains: int = 2,
    days: int = 30,
    strata: bool = True,
    start: str = "2020-03-01",
    ahead: int = 0,
    gap: float = 0.0,
    names: tuple[str, ...] = ("beta", "severity", "report_delay", "shift"),
    verdict: list[str] = FINE,
) -> xr.DataTree:
    """A calibration of counts by borough that are what its predictive draws are: Poisson about a wave."""
    rng = np.random.default_rng(3)
    by = {"borough": BOROUGHS} if strata else {}
    dims, size = ("day", *by), (len(BOROUGHS),) * strata

    def counts(draws: int, length: int, first: int = 0) -> xr.Dataset:
        wave = 5 + 60 * np.exp(-(((np.arange(first, first + length) - 15) / 8) ** 2))
        mean = wave.reshape(-1, *(1 for _ in size)) * np.ones(size)
        drawn = {
            n: rng.poisson(mean * k, (1, draws, length, *size)).astype(float)
            for n, k in (("admissions", 1), ("deaths", 0.2))
        }
        coords = {"chain": [0], "draw": np.arange(draws), "day": np.arange(first, first + length), **by}
        return xr.Dataset({n: (("chain", "draw", *dims), x) for n, x in drawn.items()}, coords)

    def parameters(rows: int, draws: int, width: float) -> xr.Dataset:
        z = rng.normal(size=(len(names), rows, draws))
        if len(names) > 1:
            z[1] = 0.9 * z[0] + 0.4 * z[1]
        found = {n: np.exp(width * x) if n != "shift" else width * x for n, x in zip(names, z, strict=True)}
        about = {"units": "per day", "long_name": "transmission", "source": "chosen <&>"}
        variables = {n: xr.DataArray(x, dims=("chain", "draw"), attrs=about) for n, x in found.items()}
        return xr.Dataset(variables, {"chain": np.arange(rows), "draw": np.arange(draws)})

    seen = counts(1, days).isel(chain=0, draw=0, drop=True)
    tallies = counts(4, days + ahead)
    for n, x in tallies.data_vars.items():
        x.attrs = {"kind": "flow", "long_name": str(n), "units": "people per day"}
    likely = 0.1 * rng.uniform(size=(chains, 100, days, *size)) - 2
    steps = 400 * np.exp(-np.arange(120) / 15) + rng.normal(0, 0.3, (chains, 120)) + 4000
    groups = {
        "posterior": parameters(chains, 100, 0.1),
        "prior": parameters(1, 500, 0.4),
        "posterior_predictive": counts(100, days),
        "observed_data": seen,
        "log_likelihood": xr.Dataset({n: (("chain", "draw", *dims), likely.copy()) for n in seen}, by),
        "predictions": tallies,
        "fit": xr.Dataset(
            {
                "loss": (("chain", "step"), steps),
                "centre": (("round", "parameter"), rng.normal(size=(3, len(names)))),
                **{f"gap_{n}": x * 0 + gap for n, x in seen.items()},
            },
            {"parameter": list(names)},
        ),
    }
    if ahead:
        groups["forecast"] = counts(100, ahead, days)
    if strata:
        groups["constant_data"] = xr.Dataset({"people": ("borough", np.array([300, 500, 200]))}, by)
    attrs = {
        "agents": 1000,
        "coarse_agents": 500 if gap else 1000,
        "days": days + ahead,
        "fitted_days": days,
        "model": "sir",
        "population": "Synthetic population of nyc",
        "start": start,
        "seed": 0,
        "khat": 0.2,
        "rhat": 1.0 if chains > 1 else np.nan,
        "runs": 64,
        "seconds": 3.0,
        "seconds_by_part": json.dumps({"rounds": 2.0, "whole": 0.0, "guide": 1.0}),
        "interventions": "[]",
        "set": json.dumps({"season": 0.1}),
        "verdict": json.dumps(verdict),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})


def headings(html: str) -> list[str]:
    return [unescape(h) for h in re.findall(r"<h2>(.*?)</h2>", html)]


def drawing(html: str, describe: str) -> ET.Element:
    """The first drawing whose description begins so."""
    found = re.search(rf'<svg[^>]*aria-label="{describe}.*?</svg>', html, flags=re.S)
    assert found, describe
    return ET.fromstring(found[0])


def dots(html: str, describe: str) -> int:
    return sum(p.attrib["d"].count("M") for p in drawing(html, describe).iter("path") if "seen" in p.attrib["class"])


class Nesting(HTMLParser):
    """Checks that every tag is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open += [tag] if tag != "meta" else []

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("shape", SHAPES)
def test_any_calibration_makes_a_sound_page_with_every_section(shape: str) -> None:
    html = page.render(fitted(**SHAPES[shape]))
    nesting = Nesting()
    nesting.feed(html)
    assert nesting.open == []
    left_out = {"no strata": {"By borough"}, "one parameter": {"Which parameters go together"}}.get(shape, set())
    assert headings(html) == [h for h in SECTIONS if h not in left_out]
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)""", html)
    shown = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", html, flags=re.S)
    assert not re.search(r"\b(nan|inf)\b", shown, flags=re.I)
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        found = ET.fromstring(svg)
        width, height = (float(v) for v in found.attrib["viewBox"].split()[2:])
        for text in found.iter("text"):
            x, y, long = float(text.attrib["x"]), float(text.attrib["y"]), 5.5 * len(text.text or "")
            first = x - long * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
            assert first >= -8, text.text
            assert first + long <= width + 8, text.text
            assert 8 <= y <= height, text.text


def test_a_calibration_goes_to_disk_and_comes_back(tmp_path: Path) -> None:
    tree = fitted()
    back = datatree.load(datatree.save(tree, tmp_path / "results.nc"))
    xr.testing.assert_identical(back, tree)
    assert page.render(back) == page.render(tree)


def test_the_title_asks_which_parameters_agree() -> None:
    asked = "<h1>Which parameters agree with what was seen of NYC"
    assert f"{asked} from 1 March to 30 March 2020?</h1>" in page.render(fitted())
    assert f"{asked} in 30 days?</h1>" in page.render(fitted(start=""))
    assert calibration.ask(fitted(start="2019-12-31", days=2), "").endswith("31 December 2019 to 1 January 2020?")


def test_each_sentence_of_the_verdict_is_marked_in_words() -> None:
    html = unescape(page.render(fitted(verdict=[*FINE, GAP])))
    assert "No check warns." in html
    for sentence in (*FINE, GAP):
        assert f"<b>✓ Fine:</b> {sentence}".replace(" %", "\u00a0%") in html
    tampered = unescape(page.render(fitted(verdict=[*FINE, *WARNINGS])))
    assert f"{len(WARNINGS)} of {len(FINE) + len(WARNINGS)} checks warn." in tampered
    for sentence in WARNINGS:
        assert f"<b>⚠ Warning:</b> {sentence}".replace(" %", "\u00a0%") in tampered
    assert "<script>alert" not in page.render(fitted(verdict=["<script>alert(1)</script>"]))


def test_every_observed_day_has_a_dot_and_no_other() -> None:
    tree = fitted()
    html = page.render(tree)
    assert dots(html, "Admissions each day") == 30
    assert dots(html, "Admissions by borough") == 90
    tree["observed_data"]["admissions"][4:6, 1] = np.nan
    html = page.render(tree)
    assert dots(html, "Admissions each day") == 28
    assert dots(html, "Admissions by borough") == 88
    assert dots(html, "Deaths each day") == 30
    assert "2 days were not seen whole" in html


def test_dots_lie_where_the_counts_are() -> None:
    tree = fitted()
    found = drawing(page.render(tree), "Admissions each day")
    plot = json.loads(found.attrib["data-plots"])[0]
    left, top, right, bottom = plot["box"]
    path = next(p.attrib["d"] for p in found.iter("path") if "seen" in p.attrib["class"])
    points = np.array([[float(v) for v in p.split("h")[0].split(",")] for p in path.split("M")[1:]])
    counts = tree["observed_data"]["admissions"].sum("borough").to_numpy()
    np.testing.assert_allclose(points[:, 0], np.linspace(left, right, 30), atol=0.11)
    np.testing.assert_allclose(points[:, 1], bottom - (bottom - top) * counts / plot["most"], atol=0.11)


def test_a_group_that_was_never_seen_is_in_no_sum_but_still_predicted() -> None:
    tree = fitted()
    tree["observed_data"]["deaths"][:, 2] = np.nan
    seen, made = tree["observed_data"]["deaths"], tree["posterior_predictive"]["deaths"]
    counts, band = calibration.comparable(seen, made)
    np.testing.assert_array_equal(counts, seen.isel(borough=[0, 1]).sum("borough"))
    np.testing.assert_array_equal(band[2], made.isel(borough=[0, 1]).sum("borough").median(["chain", "draw"]))
    assert np.isnan(calibration.comparable(seen, made, "borough")[0][:, 2]).all()
    assert calibration.comparable(seen, made, "borough")[1][2, :, 2].any()
    assert dots(page.render(tree), "Deaths each day") == 30


def test_the_band_goes_on_after_the_fitted_days() -> None:
    found = drawing(page.render(fitted(ahead=10)), "Admissions each day")
    assert len(json.loads(found.attrib["data-plots"])[0]["series"][0]["values"]) == 40
    assert "last day fitted" in "".join(found.itertext())


def test_places_of_counts_from_the_predictive_are_uniform_and_of_others_are_not() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.1, 30, 400)
    made = rng.poisson(mean, (200, 400)).astype(float)
    said, shares, (low, high) = calibration.pit_verdict(calibration.pit(rng.poisson(mean).astype(float), made))
    assert said == "as uniform as 400 counts can tell"
    assert shares.sum() == pytest.approx(1)
    assert low < 0.1 < high
    for seen, word in ((rng.poisson(1.5 * mean + 1), "above"), (rng.poisson(0.6 * mean), "below")):
        assert f"off: counts lie {word}" in calibration.pit_verdict(calibration.pit(seen.astype(float), made))[0]
    normal = rng.normal(size=(200, 400))
    for spread, word in ((3.0, "too narrow"), (0.2, "wider than they need be")):
        assert word in calibration.pit_verdict(calibration.pit(spread * rng.normal(size=400), normal))[0]


def test_counts_that_were_not_seen_have_no_place_and_are_not_left_out_one_by_one() -> None:
    tree = fitted()
    tree["observed_data"]["deaths"][:3] = np.nan
    tree["log_likelihood"]["deaths"][:, :, :3] = np.nan
    html = unescape(page.render(tree))
    assert "Where 81 observed counts lie" in html
    assert "Left out one by one, 171 counts" in html


def test_a_count_that_sways_the_posterior_is_named() -> None:
    tree = fitted()
    draws = np.random.default_rng(1).uniform(size=(2, 100))
    # Weights of which the mean is infinite: of a Pareto tail of 1.5, and of one that no Pareto tail fits.
    for likely, khat in (
        (1.5 * np.log(draws), r"[\d.]+"),
        (-3 * np.abs(np.random.default_rng(1).standard_cauchy((2, 100))), "without bound"),
    ):
        tree["log_likelihood"]["deaths"][:, :, 4, 1] = likely
        html = unescape(page.render(tree))
        assert re.search(
            rf"1 of their Pareto k-hats is above 0\.\d+, the largest {khat}, of deaths, 5 Mar 2020, Queens", html
        )
    tree["log_likelihood"]["deaths"][:, :, 4, 1] = -1.0
    assert "All Pareto k-hats are at most" in page.render(tree)


def test_the_posterior_is_beside_its_prior_with_what_they_share() -> None:
    tree = fitted()
    html = unescape(page.render(tree))
    beta = tree["posterior"]["beta"]
    low, middle, high = np.quantile(beta, (0.05, 0.5, 0.95))
    assert f"<td>{middle:.3g} ({low:.3g} to {high:.3g})</td>" in html
    assert "1 parameter that was held" in html
    assert "<td>0.1</td>" in html
    rng = np.random.default_rng(0)
    # Two normals of standard deviations 1 whose means are 2 apart share 2 Φ(−1) = 0.317.
    assert posterior.overlap(rng.normal(0, 1, 4000), rng.normal(2, 1, 4000)) == pytest.approx(0.317, abs=0.04)
    assert posterior.overlap(rng.uniform(1, 2, 500), rng.uniform(9, 10, 500)) < 0.01
    (a, b, r), *_ = posterior.pairs({n: x.to_numpy().ravel() for n, x in tree["posterior"].data_vars.items()})
    assert {a, b} == {"beta", "severity"}
    assert r > 0.8
    assert "Most correlated in the posterior are severity and beta" in html


def test_one_chain_says_that_there_is_none_to_compare() -> None:
    html = page.render(fitted(chains=1))
    assert "There is one chain alone" in html
    assert "R-hat of the chains" not in html
    assert len([p for p in drawing(html, "Losses of 1 chain").iter("path") if "loss" in p.attrib["class"]]) == 1


def test_the_gap_of_the_coarse_society_is_said() -> None:
    html = unescape(page.render(fitted(gap=0.1)))
    assert "learnt from 64 runs of 500 people" in html
    assert "admissions +10.5 % on average" in html
    assert "there is no coarse one" in unescape(page.render(fitted()))
