"""Every reader of data, given files damaged on the way: it reads them or refuses on purpose, and soon."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from lpmppl.data import acs, contacts, downloads, google, nyc_health, opportunity, oxcgrt, recorded
from tests.hardening import documents
from tests.hardening.strategies import (
    CELLS,
    Shown,
    few,
    fuzz,
    fuzz_file,
    fuzz_json,
    many,
    of_bytes,
    read_or_refused,
    replaced,
    table_after,
    table_edits,
)

TABLES: dict[str, tuple[Callable[[], str], Callable[[Path], Any], str]] = {
    "by day": (documents.by_day, nyc_health.read, "data-by-day.csv"),
    "rates": (documents.rates, nyc_health.weekly_rates, "weekly-case-rate-age.csv"),
    "tests": (documents.tests, nyc_health.tests, "tests.csv"),
    "tests by age": (documents.tests_by_age, nyc_health.tests_by_age, "testing-by-age.csv"),
    "vintages": (documents.vintages, nyc_health.vintages, "vintages.csv"),
    "mobility": (documents.mobility, google.read, "mobility.csv"),
    "city mobility": (documents.city_mobility, google.read, "mobility.csv"),
    "stringency, long": (documents.stringency_long, oxcgrt.read, "OxCGRT_timeseries_StringencyIndex_v1.csv"),
    "stringency, compact": (documents.stringency_compact, oxcgrt.read, "OxCGRT_compact.csv"),
    "stringency, wide": (documents.stringency_wide, oxcgrt.read, "OxCGRT_timeseries_StringencyIndex_v1.csv"),
    "jobs": (documents.jobs, opportunity.employment, "jobs.csv"),
    "claims": (documents.claims, opportunity.claims, "claims.csv"),
    "spending": (documents.spending, opportunity.spending, "spending.csv"),
    "matrix": (
        lambda: documents.contacts()[0],
        lambda path: contacts.bands(contacts.read(path, path.with_name("ages.csv"), "overall")),
        "matrix.csv",
    ),
    "ages": (
        lambda: documents.contacts()[1],
        lambda path: contacts.bands(contacts.read(path.with_name("matrix.csv"), path, "overall")),
        "ages.csv",
    ),
    "acs": (documents.acs, acs.read, "acs.csv"),
    "counts": (documents.counts, lambda path: _seen(path), "counts.csv"),
}


def _seen(path: Path) -> Any:
    from lpmppl.parties.institution import seen

    return seen(path, ["infections", "recoveries"], 4)


@many(2, 150)
@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table(kind: str, many: int, tmp_path: Path, shown: Shown) -> None:
    made, read, name = TABLES[kind]
    path = tmp_path / name
    (tmp_path / "matrix.csv").write_text(documents.contacts()[0])
    (tmp_path / "ages.csv").write_text(documents.contacts()[1])
    path.write_text(made(), encoding="utf-8")
    assert read_or_refused(lambda: read(path), tmp_path)

    def cells(whole: bytes, edits: Any) -> bytes:
        return table_after(whole.decode(), edits)

    damage = st.one_of(st.tuples(st.just(cells), few(table_edits)), of_bytes, replaced)
    found = [(cells, [("more cells", 0.5, 0.0, "")]), (cells, [("cell", 0.0, 0.0, "9" * 400)])]
    fuzz_file(path, lambda: read(path), many, shown, damage, tmp_path, found=found)


series = st.one_of(
    st.lists(st.floats(), max_size=5),
    st.lists(st.floats(0, 100), min_size=4, max_size=4),
    st.lists(st.sampled_from([*CELLS[:30]]), max_size=5),
    st.sampled_from([None, 3, "abc", [[1.0]], [None] * 4, [10**400] * 4]),
)
dates = st.one_of(
    st.just(["2020-03-01", "2020-03-02", "2020-03-03", "2020-03-04"]),
    st.lists(st.sampled_from(CELLS), max_size=5),
    st.lists(st.dates(), max_size=4),
    st.sampled_from([None, 3, [1, 2, 3, 4], [0.5] * 4, [["2020-03-01"]]]),
)


@many(30, 600)
def test_what_was_recorded_elsewhere(many: int, shown: Shown) -> None:
    def check(drawn: tuple[Any, Any, list[Any], Any]) -> None:
        days, stringency, activity, admissions = drawn
        names = dict(zip(recorded.ACTIVITIES, activity, strict=False))
        read_or_refused(lambda: recorded.Recorded(days, stringency, names, admissions).smoothed(), one_line=False)

    fuzz(st.tuples(dates, series, st.lists(series, min_size=2, max_size=3), series), check, many, shown)


@many(10, 200)
def test_what_stands_beside_a_download(many: int, tmp_path: Path, shown: Shown) -> None:
    source = downloads.Source("mine", (tmp_path / "elsewhere" / "a.csv").as_uri(), "none", "none")
    digest = hashlib.sha256(source.url.encode()).hexdigest()
    place = tmp_path / "kept" / f"mine-{digest[:8]}" / source.file
    place.parent.mkdir(parents=True)
    place.write_text("a\n1\n")
    downloads.fetch(source, tmp_path / "kept")
    beside = place.with_name(f"{place.name}.json")
    fuzz_json(beside, lambda: downloads.fetch(source, tmp_path / "kept"), None, many, shown)
