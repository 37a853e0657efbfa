"""The map of a result: its numbers are the result's, it stands alone, and it says what it can't draw."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.data.acs import shipped
from lpmppl.data.areas import PUMAS
from lpmppl.errors import InputError
from lpmppl.report import hexagons, tables
from lpmppl.report import map as maps
from lpmppl.report.places import places

KINDS = {"u1": "<u1", "u2": "<u2", "u4": "<u4", "f4": "<f4", "f8": "<f8"}
CODES = list(PUMAS)


def result(
    values: np.ndarray, labels: list[str], dim: str = "puma", worlds: tuple[str, ...] = (), **more
) -> xr.DataTree:
    """A result with a flow of shape (draw, [world,] day, area), its running stock, and what counts no people."""
    dims = ("draw", *(("policy",) if worlds else ()), "day", dim)
    flow = xr.DataArray(values, dims=dims, coords={dim: labels, **({"policy": list(worlds)} if worlds else {})})
    flow = flow.expand_dims("chain")
    outcomes = xr.Dataset(
        {
            "infections": flow.assign_attrs(kind="flow", long_name="new infections", units="people per day"),
            "ill": flow.cumsum("day").assign_attrs(kind="stock", long_name="ill", units="people"),
            "reports": (2 * flow).assign_attrs(kind="flow", long_name="reports", units="reports per day"),
            "tests": flow.sum(dim).assign_attrs(kind="flow", long_name="tests", units="people per day"),
        }
    )
    people = xr.DataArray(1_000 + 10 * np.arange(len(labels)), dims=(dim,), coords={dim: labels})
    attrs = {
        "agents": int(people.sum()),
        "days": values.shape[-2],
        "seed": 0,
        "model": "sir",
        "population": "nyc",
    } | more
    groups = {
        "/": xr.Dataset(attrs=attrs),
        "/prior_predictive": outcomes,
        "/constant_data": xr.Dataset({"people": people}),
    }
    return xr.DataTree.from_dict(groups)


def counts(days: int, areas: int, draws: int = 1, worlds: int = 0, most: int = 40) -> np.ndarray:
    shape = (draws, *((worlds,) if worlds else ()), days, areas)
    return np.random.default_rng(5).integers(0, most, shape)


class Scripts(HTMLParser):
    """The text of every script of a page by its id, as a browser cuts it out, and every address that it names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.addresses: list[str] = []
        self.at: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        self.at = (said.get("id") or "code") if tag == "script" else None
        if tag in ("link", "img", "iframe", "object"):
            self.addresses.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.at = None

    def handle_data(self, data: str) -> None:
        if self.at:
            self.found[self.at] = self.found.get(self.at, "") + data


def read(page: str) -> tuple[dict, bytes, Scripts]:
    """What a page holds: its description and its unpacked numbers."""
    scripts = Scripts()
    scripts.feed(page)
    assert set(scripts.found) == {"about", "blob", "code"}
    return json.loads(scripts.found["about"]), zlib.decompress(base64.b64decode(scripts.found["blob"])), scripts


def array(raw: bytes, where: dict, *shape: int) -> np.ndarray:
    """An array of the page, as the browser reads it."""
    return np.frombuffer(raw, KINDS[where["kind"]], where["count"], where["at"]).reshape(shape)


def test_the_numbers_of_the_page_are_those_of_the_result():
    values = counts(30, 55)
    about, raw, _ = read(maps.render(result(values, CODES)))
    assert [a["label"] for a in about["areas"]] == CODES
    assert about["people"] == [1_000 + 10 * k for k in range(55)]
    assert [t["name"] for t in about["tallies"]] == ["infections", "ill", "reports"]
    assert [(t["people"], t["stock"]) for t in about["tallies"]] == [(True, False), (True, True), (False, False)]
    for tally, expected in zip(about["tallies"], (values, values.cumsum(1), 2 * values), strict=True):
        assert np.array_equal(array(raw, tally["mean"], 1, 30, 55), expected)
        assert "band" not in tally


def test_other_strata_are_added_up():
    by_age = counts(10, 55 * 3).reshape(1, 10, 55, 3)
    tree = result(by_age.sum(-1), CODES)
    deep = xr.DataArray(
        by_age[None], dims=("chain", "draw", "day", "puma", "age"), coords={"puma": CODES, "age": list("abc")}
    )
    both = tree["prior_predictive"].to_dataset()[["infections"]]
    tree["prior_predictive"] = xr.DataTree(xr.Dataset({"infections": deep.assign_attrs(both["infections"].attrs)}))
    about, raw, _ = read(maps.render(tree))
    assert np.array_equal(array(raw, about["tallies"][0]["mean"], 10, 55), by_age[0].sum(-1))


def test_draws_give_means_with_the_band_of_what_is_shown():
    values = counts(12, 5, draws=30, worlds=3).astype(float)
    tree = result(values, CODES[:5], worlds=("as it was", "masks", "tests"))
    about, raw, _ = read(maps.render(tree))
    assert about["worlds"] == ["as it was", "masks", "tests"]
    flow, stock = about["tallies"][:2]
    assert np.array_equal(array(raw, flow["mean"], 3, 12, 5), values.mean(0).astype("f4"))
    week = np.stack([values[:, :, max(0, d - 6) : d + 1].mean(2) for d in range(12)], 2)
    for name, series in {"daily": values, "week": week, "sum": values.cumsum(2)}.items():
        ends = [array(raw, end, 3, 12, 5) for end in flow["band"][name]]
        np.testing.assert_allclose(ends, np.quantile(series, (0.05, 0.95), axis=0), rtol=1e-6, atol=1e-6)
        # The worlds of a draw share everybody's chance: the band is of their difference, not a difference of bands.
        gaps = [array(raw, end, 2, 12, 5) for end in flow["gap"][name]]
        expected = np.quantile(series[:, 1:] - series[:, :1], (0.05, 0.95), axis=0)
        np.testing.assert_allclose(gaps, expected, rtol=1e-6, atol=1e-5)
    assert set(stock["band"]) == {"daily", "week"}


def test_draws_may_have_weights():
    values = counts(4, 3, draws=6).astype(float)
    tree = result(values, CODES[:3])
    weighted = tree["prior_predictive"].to_dataset().assign_coords(weight=("draw", [0.0, 0.0, 0.5, 0.0, 0.5, 0.0]))
    tree["prior_predictive"] = xr.DataTree(weighted)
    about, raw, _ = read(maps.render(tree))
    assert np.array_equal(array(raw, about["tallies"][0]["mean"], 4, 3), values[[2, 4]].mean(0).astype("f4"))
    low, high = (array(raw, end, 4, 3) for end in about["tallies"][0]["band"]["daily"])
    assert (low >= values[[2, 4]].min(0)).all() and (high <= values[[2, 4]].max(0)).all()


def test_what_is_unknown_stays_unknown():
    values = counts(6, 4).astype(float)
    values[0, 2, 1] = np.nan
    about, raw, _ = read(maps.render(result(values, CODES[:4])))
    found = array(raw, about["tallies"][0]["mean"], 6, 4)
    assert np.array_equal(found, values[0].astype("f4"), equal_nan=True)


@pytest.mark.parametrize(("days", "areas"), [(1, 1), (1, 55), (90, 1), (2, 2)])
def test_one_day_or_one_area_will_do(days, areas):
    about, raw, _ = read(maps.render(result(counts(days, areas), CODES[:areas])))
    assert (about["days"], len(about["cells"])) == (days, areas)
    assert np.array_equal(array(raw, about["tallies"][0]["mean"], days, areas), counts(days, areas)[0])


def test_nothing_at_all_is_a_map_of_noughts():
    about, raw, _ = read(maps.render(result(np.zeros((1, 5, 55), int), CODES)))
    assert not array(raw, about["tallies"][0]["mean"], 5, 55).any()


@given(st.lists(st.integers(0, 2**40) | st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=30))
def test_packing_keeps_whole_numbers_and_seven_digits_of_others(values):
    packed = maps.Packed()
    packed.add(np.arange(3))
    where = packed.add(np.array(values, dtype=float))
    raw = zlib.decompress(base64.b64decode(packed.text()))
    found = array(raw, where, len(values)).astype(float)
    if np.isfinite(values).all() and all(v >= 0 and float(v).is_integer() for v in values):
        assert found.tolist() == [float(v) for v in values]
    np.testing.assert_allclose(found, np.array(values, dtype=float), rtol=1e-7, atol=1e-30, equal_nan=True)


def test_labels_can_break_nothing():
    nasty = ["</script><script>alert(1)</script>", 'a"b', "<!--about-->", "x & y", "</SCRIPT >", "<!--"]
    tree = result(counts(3, 6, worlds=2), nasty, dim="area", worlds=("<b>one</b>", "<!--js-->"))
    page = maps.render(tree)
    about, _, _ = read(page)
    assert [a["name"] for a in about["areas"]] == nasty
    assert about["worlds"] == ["<b>one</b>", "<!--js-->"]
    assert page.count("<script") == 3 and "alert(1)</script>" not in page and "<b>one" not in page


def test_the_page_needs_nothing_but_itself():
    page = maps.render(result(counts(3, 55), CODES), back="report.html")
    scripts = read(page)[2]
    assert scripts.addresses == ["report.html"]
    urls = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert urls <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page and "@import" not in page and "url(" not in page and "fetch(" not in page


def test_without_a_script_there_is_a_table_of_totals():
    values = counts(9, 55, worlds=2)
    page = maps.render(result(values, CODES, worlds=("as it was", "masks")))
    row = page.split('<th scope="row">Harlem</th>')[1].split("</tr>")[0]
    k = CODES.index("4110")
    cells = re.findall(r"<td>([^<]*)</td>", row)
    assert cells[0] == f"{1_000 + 10 * k:,}"
    assert cells[1:3] == [f"{values[0, w, :, k].sum():,}" for w in (0, 1)]
    # Of people in a state, the most on a day.
    assert cells[3] == f"{values[0, 0, :, k].cumsum().max():,}"
    assert '<details id="figures" open>' in page


def test_a_result_by_borough_colours_all_hexagons_of_each_borough():
    boroughs = ["Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island"]
    page = maps.render(result(counts(4, 5), boroughs, dim="borough"))
    about, raw, _ = read(page)
    assert len(about["cells"]) == 55
    where = {boroughs[a]: sum(1 for c in about["cells"] if c[2] == a) for a in range(5)}
    assert where == {b: sum(area.borough == b for area in PUMAS.values()) for b in boroughs}
    assert "that of the whole borough" in page
    assert array(raw, about["tallies"][0]["mean"], 4, 5).shape == (4, 5)


@pytest.mark.parametrize(("days", "draws"), [(20, 3), pytest.param(120, 10, marks=pytest.mark.slow)])
def test_four_hundred_areas_with_draws_and_worlds_stay_below_15_megabytes(days, draws):
    labels = [f"area {k}" for k in range(400)]
    values = counts(days, 400, draws=draws, worlds=2, most=2_000)
    page = maps.render(result(values, labels, dim="area", worlds=("as it was", "masks")))
    about, raw, _ = read(page)
    assert len(page) < 15e6
    assert len({(x, y) for x, y, _ in about["cells"]}) == 400
    assert np.array_equal(array(raw, about["tallies"][0]["mean"], 2, days, 400), values.mean(0).astype("f4"))


def test_the_geography_is_found_or_asked_for():
    tree = result(counts(3, 4), ["a", "b", "c", "d"], dim="district")
    with pytest.raises(InputError, match=r"by district.*by=\{\"puma\": \"puma\"\}, or --by puma"):
        maps.render(tree)
    assert read(maps.render(tree, geo="district"))[0]["areas"][3]["name"] == "d"
    with pytest.raises(InputError, match="did you mean 'district'"):
        maps.render(tree, geo="districts")
    bare = result(counts(3, 4), ["a", "b", "c", "d"])
    bare["prior_predictive"] = xr.DataTree(bare["prior_predictive"].to_dataset()[["tests"]])
    with pytest.raises(InputError, match="the tallies have no areas"):
        maps.render(bare)
    with pytest.raises(InputError, match="nothing to map"):
        maps.render(xr.DataTree.from_dict({"/": xr.Dataset(attrs={"agents": 3})}))


def test_districts_go_before_boroughs(make_result):
    tree = make_result(days=5)
    assert maps.dimension(tree) == "borough"
    assert maps.dimension(result(counts(3, 55), CODES)) == "puma"


def test_a_result_that_doesnt_say_how_many_people_has_counts_alone():
    tree = result(counts(3, 4), CODES[:4])
    del tree["constant_data"]
    assert read(maps.render(tree))[0]["people"] is None


def test_it_is_written_whole(tmp_path):
    tree = result(counts(3, 4), CODES[:4])
    assert maps.write(tree, tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "map.html"
    assert maps.write(tree, tmp_path / "a.html").read_text("utf-8") == maps.render(tree)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "new"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be made"):
        maps.write(tree, tmp_path / "file")


def test_a_notebook_shows_it_in_a_frame_of_its_own():
    page = maps.Map(maps.render(result(counts(3, 4), CODES[:4])))
    frame = page._repr_html_()
    assert frame.startswith("<iframe") and 'sandbox="allow-scripts"' in frame
    import html

    assert html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == page.html
    assert "kB" in repr(page)


# The layout


def test_every_district_of_the_population_has_a_name_and_a_place():
    assert set(shipped().pumas) == set(PUMAS)
    boroughs = dict(zip(shipped().pumas, shipped().boroughs, strict=True))
    names = ("Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island")
    for code, area in PUMAS.items():
        assert area.borough == names[boroughs[code]]
        assert 40.5 < area.latitude < 40.92 and -74.26 < area.longitude < -73.7
    assert len({area.name for area in PUMAS.values()}) == 55


def test_new_york_looks_like_new_york():
    laid = places(CODES)
    at = dict(zip(CODES, laid.cells, strict=True))
    where = {code: hexagons.centres(cell) for code, cell in at.items()}
    boroughs = {area.borough for area in PUMAS.values()}
    middle = {b: np.mean([where[c] for c in CODES if PUMAS[c].borough == b], 0) for b in boroughs}
    assert len({tuple(c) for c in laid.cells.tolist()}) == 55
    # x grows to the east and y to the south.
    assert middle["Staten Island"][0] < middle["Brooklyn"][0] < middle["Queens"][0]
    assert middle["Bronx"][1] < middle["Manhattan"][1] < middle["Brooklyn"][1] < middle["Staten Island"][1]
    assert where["4112"][1] < where["4110"][1] < where["4107"][1] < where["4104"][1] < where["4121"][1]
    assert where["4501"][1] < where["4502"][1] < where["4503"][1]
    # Land is one piece, but for the Rockaways.
    for borough in middle:
        mine = [c for c in CODES if PUMAS[c].borough == borough and c != "4414"]
        reached, edge = {mine[0]}, [mine[0]]
        while edge:
            one = edge.pop()
            new = [c for c in mine if c not in reached and hexagons.apart(at[one], at[c]) == 1]
            reached |= set(new)
            edge += new
        assert reached == set(mine), borough
    # Staten Island is an island.
    island = [at[c] for c in CODES if PUMAS[c].borough == "Staten Island"]
    assert all(hexagons.apart(a, at[c]) > 1 for a in island for c in CODES if PUMAS[c].borough != "Staten Island")
    # Neighbours, such as these, stay neighbours.
    for a, b in [
        ("4109", "4110"),
        ("4110", "4111"),
        ("4301", "4303"),
        ("4305", "4316"),
        ("4411", "4408"),
        ("4209", "4211"),
    ]:
        assert hexagons.apart(at[a], at[b]) <= 2, (a, b)


def test_labels_of_boroughs_cover_no_hexagon_and_no_other_label():
    laid = places(CODES)
    centres = hexagons.centres(laid.cells)
    boxes = []
    for group in laid.outlines():
        x, y = group["label"]
        half = 0.16 * len(group["name"])
        assert not ((abs(centres[:, 0] - x) < half + 0.3) & (abs(centres[:, 1] - y) < 0.5)).any(), group["name"]
        assert all(abs(x - u) > half + v or abs(y - w) > 0.5 for u, w, v in boxes), group["name"]
        boxes.append((x, y, half))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**20))
def test_no_two_areas_share_a_hexagon(n, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 2)) * rng.choice([1e-3, 1.0, 1e5])
    # Some places are the same, or in a line.
    points[rng.random(n) < 0.3] = points[0]
    if seed % 3 == 0:
        points[:, 1] = 0.0
    cells = hexagons.cartogram(points)
    assert cells.shape == (n, 2) and len(np.unique(cells, axis=0)) == n and cells.min() >= 0


def test_neighbours_on_a_grid_stay_neighbours():
    grid = hexagons.centres(np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2))
    cells = hexagons.cartogram(grid * 7.0)
    pairs = [(i, j) for i in range(36) for j in range(i)]
    near = np.array([np.hypot(*(grid[i] - grid[j])) < 1.01 for i, j in pairs])
    apart = np.array([hexagons.apart(cells[i], cells[j]) for i, j in pairs])
    assert (apart[near] == 1).mean() > 0.85 and apart[near].max() <= 2


@pytest.mark.parametrize("n", [1, 2, 7, 8, 19, 400])
def test_a_spiral_has_no_holes(n):
    cells = hexagons.spiral(n)
    assert len(np.unique(cells, axis=0)) == n
    distance = hexagons.apart(cells, cells[0])
    assert (np.diff(distance) >= 0).all() and 3 * distance[-1] * (distance[-1] - 1) + 1 <= n


def test_the_outline_of_a_ring_of_seven():
    sides = hexagons.outline(hexagons.spiral(7))
    assert len(sides) == 18
    # Every corner of it is met by two of its sides.
    ends = np.round(np.concatenate(sides), 6)
    assert (np.unique(ends, axis=0, return_counts=True)[1] == 2).all()


@given(st.integers(0, 2**20), st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_points_are_gathered_in_the_hexagon_they_lie_in(seed, most):
    points = np.random.default_rng(seed).normal(size=(300, 2)) * 1e3
    code, cells = hexagons.binned(points, most)
    assert len(cells) <= most and set(code.tolist()) == set(range(len(cells)))
    # Who shares a hexagon lies near the others in it, the nearer the more hexagons there are.
    middle = np.stack([points[code == k].mean(0) for k in range(len(cells))])
    own = np.hypot(*(points - middle[code]).T)
    spread = np.ptp(points, axis=0).max()
    assert own.max() <= 1.2 * spread / max(1.0, np.sqrt(len(cells)) - 1.5)


def test_places_that_are_none_are_refused():
    with pytest.raises(InputError, match="two areas of 'area' are called 'a'"):
        places(["a", "b", "a"])
    with pytest.raises(InputError, match="no place of the area 'b'"):
        places(["a", "b"], {"a": (0.0, 0.0)})
    with pytest.raises(InputError, match="place of the area 'b' is"):
        places(["a", "b", "c"], {"a": (0.0, 0.0), "b": (float("nan"), 0.0), "c": (1.0, 1.0)})


def test_the_place_of_areas_is_upwards_and_to_the_right():
    laid = places(
        ["west", "east", "north", "south"], {"west": (0, 0), "east": (9, 0), "north": (4.5, 4), "south": (4.5, -4)}
    )
    x, y = hexagons.centres(laid.cells).T
    assert x[0] < x[1] and y[2] < y[3]


def test_totals_of_the_page_and_of_the_report_agree(make_result):
    tree = make_result(days=20, agents=84_000)
    about, raw, _ = read(maps.render(tree))
    for tally in about["tallies"]:
        city = tables.city(tables.tallies(tree)[tally["name"]]).to_numpy()[0, 0]
        assert np.array_equal(array(raw, tally["mean"], 20, 5).sum(1), city)


def test_more_areas_than_can_be_made_room_for_are_refused():
    labels = [str(k) for k in range(501)]
    with pytest.raises(InputError, match="501 areas of 'ward' are too many"):
        places(labels, {x: (float(k), 0.0) for k, x in enumerate(labels)}, "ward")


def without(tree, **parts):
    """A result of which only some of each dimension are left."""
    left = tree.copy(deep=True)
    left["prior_predictive"] = xr.DataTree(left["prior_predictive"].to_dataset().isel(parts))
    return left


def saying(tree, **attrs):
    left = tree.copy(deep=True)
    left.attrs.update(attrs)
    return left


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda t: maps.render(None), "NoneType is no result"),
        (lambda t: maps.render(t["prior_predictive"].to_dataset()), "Dataset is no result"),
        (lambda t: maps.render(t, geo=[]), "geo= is list; give the name of a dimension"),
        (lambda t: maps.render(t, laid={}), "laid= is dict; give what lpmppl.report.places.places lays out"),
        (lambda t: maps.render(t, laid=places(["a"])), "laid= has 1 areas, but 'borough' has 5"),
        (lambda t: maps.render(t, back=3), "back= is int; give an address"),
        (lambda t: maps.render(without(t, borough=slice(0, 0)), "borough"), "has no borough"),
        (lambda t: maps.render(without(t, day=slice(0, 0))), "has no day; keep one or more"),
        (lambda t: maps.render(without(t, draw=slice(0, 0))), "has no draw"),
        (lambda t: maps.render(saying(t, agents="x")), "the result says 'x' of its agents"),
        (lambda t: maps.render(saying(t, days=None)), "the result says nothing of its days"),
        (lambda t: maps.render(saying(t, model=3)), "the result says 3 of its model"),
        (lambda t: maps.Map("").write(3), "path=3 was given"),
        (lambda t: places([]), r"the areas of 'area' are \[\]; give one label or more"),
        (lambda t: places(None), "the areas of 'area' are None"),
        (lambda t: places([3]), r"are \[3\]; give one label or more, in words"),
        (lambda t: places(["a"], 3), "where=3 was given; give x and y of each area"),
        (lambda t: places(["a"], {"a": None}), "the place of the area 'a' is None; give x and y"),
        (lambda t: places(["a"], {"a": (1,)}), "the place of the area 'a' is"),
        (lambda t: places(["a"], {"a": (1, 2, 3)}), "the place of the area 'a' is"),
        (lambda t: places(["a"], {"a": ("x", "y")}), "the place of the area 'a' is"),
        (lambda t: places(["a"], {"a": (1e308, 1)}), "the place of the area 'a' is"),
    ],
)
def test_what_a_map_cant_use_is_said_in_words(make_result, call, said):
    with pytest.raises(InputError, match=said):
        call(make_result(days=3))


def test_areas_whose_people_nobody_counted_have_no_number_per_head(make_result):
    tree = make_result(days=3)
    other = tree["prior_predictive"].to_dataset().assign_coords(borough=[f"ward {k}" for k in range(5)])
    tree["prior_predictive"] = xr.DataTree(other)
    assert read(maps.render(tree, "borough"))[0]["people"] is None
