"""Populations and models in a notebook: what the drawing and the tables say is what the objects hold."""

from __future__ import annotations

import re
from html import escape, unescape
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.models import diagram, display
from lpmppl.models.model import Model, Parameter, Wrapped
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.models.substep import Substep
from tests.randomness import states

HOSTILE = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """Elements and their texts; refuses what isn't closed in order, scripts, links and anything that is loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag not in {"script", "img", "iframe", "link", "object", "foreignobject", "use", "a"}
        assert not [name for name, _ in attrs if name.startswith("on") or name in {"id", "href", "src", "xlink:href"}]
        self.found.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        assert "url(" not in data and "@import" not in data
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[str]:
        return [text for at, text in self.texts if at == tag]


def part(name: str, reads=(), writes=(), every: int = 1) -> Substep:
    return Substep(name, reads, writes, policy=lambda s: s, transition=lambda s, _: {}, every=every)


class Society(Model):
    """A model of given substeps."""

    name = "society"

    def __init__(self, *parts: Substep, people: Population | None = None, environment=(), **of) -> None:
        self.population = Population.of({"household": [0, 0, 1]}) if people is None else people
        self.parts = parts
        self.parameters = of.get("parameters", {})
        self.environment = dict.fromkeys(environment, 1.0)
        self.tallies = of.get("tallies", {"events": "what happened"})

    def initial(self, theta, start=0.0):
        return {}

    def day(self, theta):
        return lambda s: s

    def substeps(self, theta):
        return self.parts


@pytest.fixture(scope="module")
def pandemic() -> Model:
    return lpm.nyc.pandemic(lpm.nyc.population(1_000))


names = st.sampled_from("abcdef")


@given(st.lists(st.tuples(st.sets(names), st.sets(names)), min_size=1, max_size=7))
def test_every_key_that_another_writes_flows_once_and_is_of_today_where_it_was_written_before(days):
    parts = [part(str(k), reads, writes) for k, (reads, writes) in enumerate(days)]
    found = [(f.writer, f.reader, key, f.yesterday) for f in diagram.flows(parts) for key in f.keys]
    expected = {
        (writer, reader, key, reader < writer)
        for reader, (reads, _) in enumerate(days)
        for writer, (_, writes) in enumerate(days)
        for key in reads & writes
        if reader != writer
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


def segments(svg: str) -> list[tuple[str, bool, tuple[float, ...]]]:
    """The lines of lanes: colour, whether dashed, and x, where each goes straight down, and from where to where."""
    found = []
    for path in re.findall(r"<g class='lane'>.*?(<path [^>]*>)", svg, re.S):
        x, y0, y1 = re.search(r"d='M[\d.-]+ ([\d.-]+)H([\d.-]+)V([\d.-]+)'", path).group(2, 1, 3)
        colour = re.search(r"stroke='(#\w+)'", path).group(1)
        found.append((colour, "dasharray" in path, (float(x), *sorted((float(y0), float(y1))))))
    return found


@given(st.lists(st.tuples(st.sets(names), st.sets(names)), min_size=2, max_size=9))
def test_lanes_never_lie_on_one_another_and_boxes_follow_in_order(days):
    svg = diagram.diagram("m", [part(f"p{k}", reads, writes) for k, (reads, writes) in enumerate(days)])
    lanes = segments(svg)
    for (_, _, (x, low, high)), (_, _, (other, below, above)) in combinations(lanes, 2):
        assert x != other or high < below or above < low
    boxes = [
        (float(y), float(h))
        for y, h in re.findall(r"<rect x='[\d.]+' y='([\d.]+)' width='\d+' height='([\d.]+)' rx", svg)
    ]
    assert len(boxes) == len(days)
    assert all(y + h < after for (y, h), (after, _) in pairwise(boxes))
    width, height = map(float, re.search(r"viewBox='0 0 (\d+) (\d+)'", svg).groups())
    assert all(0 < x < width and 0 < low < high < height for _, _, (x, low, high) in lanes)


@given(st.lists(st.tuples(st.sets(names, min_size=2), st.sets(names, min_size=2)), min_size=2, max_size=6))
def test_every_line_comes_in_at_the_height_of_the_box_of_its_reader(days):
    parts = [part(f"p{k}", reads, writes) for k, (reads, writes) in enumerate(days)]
    svg = diagram.diagram("m", parts)
    boxes = [
        (float(y), float(h))
        for y, h in re.findall(r"<rect x='[\d.]+' y='([\d.]+)' width='\d+' height='([\d.]+)' rx", svg)
    ]
    lines = re.findall(r"<g><title>p(\d) → p(\d), (\w+): ([^<]*)</title><path d='M[\d.-]+ ([\d.]+)", svg)
    heights = [float(line[4]) for line in lines]
    assert len(lines) == len(diagram.flows(parts))
    for (writer, reader, when, _, _), y in zip(lines, heights, strict=True):
        top, height = boxes[int(reader)]
        assert top < y < top + height
        assert (when == "yesterday") == (int(reader) < int(writer))
    for (*_, a), (*_, b) in combinations([(line[2], float(line[4])) for line in lines if line[2] == "today"], 2):
        assert abs(a - b) > 10


def test_a_read_before_the_write_is_dashed_and_one_after_it_is_solid():
    svg = diagram.diagram("m", [part("first", ["old"], ["new"]), part("second", ["new"], ["old"])])
    assert sorted(dashed for _, dashed, _ in segments(svg)) == [False, True]
    yesterday = re.search(r"<g><title>second → first, yesterday: old</title>(<path[^>]*>)", svg).group(1)
    today = re.search(r"<g><title>first → second, today: new</title>(<path[^>]*>)", svg).group(1)
    assert "stroke-dasharray" in yesterday
    assert "stroke-dasharray" not in today


def test_the_pandemic_is_drawn_whole(pandemic):
    parts = pandemic.substeps(pandemic.defaults())
    page = Page(pandemic._repr_html_())
    texts, titles = page.of("text"), page.of("title")
    assert [t for t in texts if t in {p.name for p in parts}] == [p.name for p in parts]
    assert texts.count("every 7 days · agent") == sum(p.every == 7 and p.scale == "agent" for p in parts) > 0
    assert "stimulus → masking, today: savings" in titles
    assert "transmission → progression, yesterday: episode, infected, infected_at" in titles
    assert not any(t.startswith("claims →") for t in titles)
    said = [t for t in titles if re.match(r".* → .*, (today|yesterday): ", t)]
    assert len(said) == len(diagram.flows(parts))
    (box,) = [t for t in titles if t.startswith("masking\n")]
    assert "its own, from its last turn: before/mask, masked, masked/borough, masked/total" in box
    assert "as they were at the start: inclination/mask" in box
    assert "mask_mandate" not in box.rpartition("as they were at the start")[2]
    assert "⚑ mask_mandate" in texts


def test_the_tables_have_every_parameter_knob_and_tally(pandemic):
    page = Page(pandemic._repr_html_())
    cells, codes, summaries = page.of("td"), page.of("code"), page.of("summary")
    for name, p in pandemic.parameters.items():
        assert name in codes and p.source in cells and display.prior(p.prior) in cells
    for name, what in pandemic.tallies.items():
        assert name in codes and what in cells
    assert {*pandemic.environment} <= {*codes}
    assert "standard, delayed, delayed_under_65" in cells
    assert "set back once it has worked" in cells and "any household" in cells
    assert summaries == [
        f"{len(pandemic.parameters)} parameters",
        f"{len(pandemic.environment)} parts of the environment, which policies may change",
        f"{len(pandemic.tallies)} tallies, by borough × age",
    ]


def test_the_drawing_says_in_words_what_it_shows(pandemic):
    page = Page(pandemic._repr_html_())
    (svg,) = [attrs for tag, attrs in page.found if tag == "svg"]
    assert svg["role"] == "img"
    assert page.of("title")[0] == "A day of the model pandemic"
    (story,) = page.of("desc")
    assert story.startswith("In order: mobility, stimulus, labour")
    assert "stimulus reads claimants, earners of yesterday from labour" in story


def luminance(colour: str) -> float:
    channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
@pytest.mark.parametrize("colour", diagram.COLOURS)
def test_colours_stand_out_on_light_pages_and_on_dark_ones(colour, page):
    light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3.0


def test_nothing_else_has_a_colour_of_its_own(pandemic):
    html = pandemic._repr_html_() + pandemic.population._repr_html_()
    assert {*re.findall(r"#[0-9a-fA-F]{6}\b", html)} <= {*diagram.COLOURS}
    assert {*re.findall(r"(?:fill|stroke)='([^'#]*)'", html)} == {"none", "currentColor"}


def test_a_day_of_one_piece_is_one_box(small):
    model = Society(environment=["price"])
    page = Page(model._repr_html_())
    assert sum("rx" in attrs for _, attrs in page.found) == 1
    assert "of one piece" in page.of("text") and "⚑ price" in page.of("text")
    assert repr(model) == "<Society 'society': 3 agents, 0 parameters, 1 that policies may change, 1 tally>"
    assert "a day of one piece" in model._repr_html_()
    Page(SIR(small, [small.network("household")])._repr_html_())


def test_what_is_made_of_a_model_shows_its_substeps(pandemic):
    assert Page(Wrapped(pandemic)._repr_html_()).of("title") == Page(pandemic._repr_html_()).of("title")


@pytest.fixture
def small() -> Population:
    people = xr.Dataset(
        {
            "household": ("agent", np.array([0, 0, 1, 1, 1, 3], dtype=np.int32)),
            "work": ("agent", np.array([-1, 0, 1, 1, 5, 1], dtype=np.int8), {"labels": ["none", "farm", "shop"]}),
            "income": ("agent", np.array([1.0, np.nan, 3.0, 2.0, 2.0, 2.0]), {"units": "dollars", "long_name": "pay"}),
            "tall": ("agent", np.array([True, False, False, False, False, False])),
            "same": ("agent", np.full(6, 7)),
            "word": ("agent", np.array(list("abcdef"))),
        },
        attrs={"title": "village", "provenance": "counted by hand"},
    )
    return Population(people)


def rows(html: str) -> dict[str, str]:
    """What stands in the row of each name, in words."""
    found = {}
    for row in re.findall(r"<tr[^>]*><td[^>]*><code[^>]*>(.*?)</code></td>(.*?)</tr>", html):
        found.setdefault(row[0], unescape(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", row[1])).replace("\u202f", " "))
    return found


def test_a_population_says_its_groups_and_variables(small):
    html = small._repr_html_()
    Page(html)
    assert repr(small) == str(small) == "<Population 'village': 6 agents; household 3>"
    (sizes,) = re.findall(r"<code[^>]*>household</code></td>(.*?)</tr>", html)[:1]
    assert re.findall(r">([\d.,]+)<", sizes) == ["3", "2.00", "3"]
    found = rows(html[html.index("variables") :])
    assert "one of 3" in found["household"]
    assert "farm 50 %, unknown 17 %, none 17 %, code 5 17 %" in found["work"]
    assert "pay" in found["income"] and "1 … 2 … 3  dollars , unknown 17 %" in found["income"]
    assert "no 83 %, yes 17 %" in found["tall"]
    assert "always 7" in found["same"]
    assert "–" in found["word"]
    assert "counted by hand" in html


def test_bars_are_as_long_as_shares():
    work = xr.DataArray(
        np.array([0, 0, 0, 1], dtype=np.uint8), dims="agent", attrs={"labels": ["none", "farm", "shop"]}
    )
    html = Population(xr.Dataset({"work": work}))._repr_html_()
    assert re.findall(r"width='([\d.]+)' height='12.0'", html) == ["119.2", "39.2"]
    assert [t.replace("\u202f", " ") for t in Page(html).of("title")[1:]] == ["none: 75 %", "farm: 25 %"]


def test_shares_and_means_are_those_of_numpy(pandemic):
    people = pandemic.population
    found = rows(people._repr_html_().split("<summary", 1)[1])
    share = np.bincount(people["sex"].numpy()) / people.size
    assert f"female {100 * share[0]:.0f} %" in found["sex"]
    mean = display.number(float(f"{people['age'].double().mean():.4g}"))
    assert f"{people['age'].min()} … {mean} … {people['age'].max()}" in found["age"]
    sizes = people["household_size"].numpy()
    assert f"household {int((sizes > 0).sum())}" in repr(people)


def test_of_very_many_agents_some_are_read(monkeypatch):
    monkeypatch.setattr(display, "ALL", 10)
    html = Population.of({"age": np.arange(95)})._repr_html_()
    assert "of every 10th agent" in html
    assert "0 … 45 … 90" in html


def test_nobodys_words_become_markup():
    people = Population(
        xr.Dataset(
            {
                "job": ("agent", np.array([0, 1, 0], dtype=np.uint8), {"labels": [HOSTILE, "b"], "long_name": HOSTILE}),
                HOSTILE: ("agent", np.array([1.0, 2.0, 3.0]), {"units": HOSTILE}),
            },
            attrs={"title": HOSTILE, "provenance": f'{{"sources": ["{HOSTILE[:8]}", 1]}}', "x": HOSTILE},
        )
    )
    Page(people._repr_html_())
    parameter = Parameter(dist.Normal(0.0, 1.0), 0.0, HOSTILE, HOSTILE, HOSTILE)
    model = Society(
        part(HOSTILE, [HOSTILE, "price"], ["a"]),
        part("b", ["a"], [HOSTILE]),
        people=people,
        environment=["price", HOSTILE],
        parameters={HOSTILE: parameter},
        tallies={HOSTILE: HOSTILE},
    )
    html = model._repr_html_()
    Page(html)
    assert escape(HOSTILE) in html


def test_long_names_are_cut_and_what_keys_share_is_said_once():
    assert diagram._fitting(["mobility/retail", "mobility/work"]) == "mobility/{retail, work}"
    assert diagram._fitting(["a" * 40]) == "a" * 32 + "…"
    assert diagram._fitting(["a" * 20, "b" * 20, "c"]) == "a" * 20 + " +2"


@given(st.lists(st.text("ab/", min_size=1, max_size=40), min_size=1, max_size=6, unique=True))
def test_words_beside_a_box_fit(keys):
    assert len(diagram._fitting(keys)) <= diagram.WORDS


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (dist.Normal(0.0, 1.0), "normal, −1.6 to 1.6"),
        (dist.HalfNormal(1.0), "halfnormal, 0.063 to 2"),
        (dist.Beta(1.0, 1.0), "beta, 0.05 to 0.95"),
        (dist.Gamma(1.0, 2.0), "gamma, 0.026 to 1.5"),
        (dist.Exponential(1.0), "exponential, 0.051 to 3"),
        (dist.LogNormal(torch.tensor([0.0]), torch.tensor([1.0])).to_event(1), "log-normal, 0.19 to 5.2"),
        (dist.Dirichlet(torch.ones(3)), "dirichlet"),
        (dist.Poisson(2.0), "poisson, rate 2"),
        (dist.Bernoulli(0.25), "bernoulli, probs 0.25"),
    ],
)
def test_priors_are_said(p, words):
    assert display.prior(p) == words


@pytest.mark.parametrize(
    ("prior", "quantile"), [(dist.LogNormal(-1.2, 0.3), "log-normal"), (dist.Beta(2.0, 5.0), "beta")]
)
def test_nine_tenths_of_a_priors_draws_lie_in_what_is_said(prior, quantile):
    # 20,000 draws: the share is 0.9 ± 0.0021, and the ends are rounded to two digits; wrong once in 10⁹ by chance.
    said = display.prior(prior)
    low, high = (float(x) for x in said.removeprefix(f"{quantile}, ").split(" to "))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = prior.sample((20_000,))
    assert float(((draws > low) & (draws < high)).float().mean()) == pytest.approx(0.9, abs=0.03)


def test_looking_leaves_chance_and_people_alone(pandemic):
    before, checksum = states(), pandemic.population.checksum
    assert pandemic._repr_html_() == pandemic._repr_html_()
    pandemic.population._repr_html_()
    assert states() == before
    pandemic.population.__dict__.pop("checksum")
    assert pandemic.population.checksum == checksum
