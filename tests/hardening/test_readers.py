"""Every reader, given documents that were damaged on the way: it reads them or refuses on purpose, and soon."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.cli import spelling
from lpmppl.cli.folder import RunFolder
from lpmppl.cli.settings import Settings
from lpmppl.data import acs, contacts, downloads, google, nyc_health, opportunity, oxcgrt, recorded, store
from lpmppl.effects.language.answers import Answers
from lpmppl.effects.language.prompts import Prompt
from lpmppl.errors import InputError
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.report import datatree, page
from tests.hardening import documents
from tests.hardening.strategies import (
    CELLS,
    UNREADABLE,
    VALUES,
    byte_edits,
    bytes_after,
    clear,
    few,
    fuzz,
    fuzz_json,
    json_after,
    put,
    read_or_refused,
    table_after,
    table_edits,
    value_edits,
)

Shown = Callable[[str, float], None]

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


def many(few_of_them: int, all_of_them: int) -> Any:
    """Few inputs in every run of the tests, and as many as find something in the slow one."""
    return pytest.mark.parametrize("many", [few_of_them, pytest.param(all_of_them, marks=pytest.mark.slow)])


@many(2, 150)
@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table(kind: str, many: int, tmp_path: Path, shown: Shown) -> None:
    made, read, name = TABLES[kind]
    path, text = tmp_path / name, made()
    (tmp_path / "matrix.csv").write_text(documents.contacts()[0])
    (tmp_path / "ages.csv").write_text(documents.contacts()[1])
    path.write_text(text, encoding="utf-8")
    assert read_or_refused(lambda: read(path), tmp_path)
    damage = st.one_of(
        st.tuples(st.just(table_after), few(table_edits)),
        st.tuples(st.just(lambda text, edits: bytes_after(text.encode(), edits)), few(byte_edits)),
        st.tuples(st.just(put), st.sampled_from(UNREADABLE)),
    )

    def check(drawn: tuple[Callable[..., bytes], Any]) -> None:
        how, edits = drawn
        clear(path)
        if how is put:
            put(path, edits)
        else:
            path.write_bytes(how(text, edits))
        read_or_refused(lambda: read(path), tmp_path)

    fuzz(damage, check, many, shown)


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand New Yorkers."""
    os.environ.setdefault("LPMPPL_CACHE", str(tmp_path_factory.mktemp("cache")))
    path = tmp_path_factory.mktemp("people") / "p.zarr"
    lpm.nyc.population(1_000).save(path)
    return path


@many(6, 400)
def test_a_damaged_population(population: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    names = [str(p.relative_to(population)) for p in sorted(population.rglob("*")) if p.is_file()]
    described = [name for name in names if name.endswith("zarr.json")]
    damage = st.one_of(
        st.tuples(st.sampled_from(names), few(byte_edits)),
        st.tuples(st.sampled_from(described), few(byte_edits)),
        st.tuples(st.sampled_from([described[-1], *described]), few(value_edits)),
        st.tuples(st.sampled_from(names), st.sampled_from(UNREADABLE)),
    )
    path = tmp_path / "p.zarr"
    shutil.copytree(population, path)
    assert read_or_refused(lambda: Population.open(path), tmp_path)

    def check(drawn: tuple[str, Any]) -> None:
        name, edits = drawn
        file, whole = path / name, (population / name).read_bytes()
        clear(file)
        if isinstance(edits, str):
            put(file, edits)
        elif len(edits[0]) == 3 and edits[0][0] in ("value", "lose", "more", "wrap") and edits[0][2:] != (1,):
            file.write_bytes(_json_or_bytes(whole, edits))
        else:
            file.write_bytes(bytes_after(whole, edits))
        try:
            read_or_refused(lambda: Population.open(path), tmp_path)
        finally:
            clear(file)
            file.write_bytes(whole)

    fuzz(damage, check, many, shown)


def _json_or_bytes(whole: bytes, edits: Any) -> bytes:
    try:
        return json_after(json.loads(whole), edits)
    except ValueError:
        return bytes_after(whole, edits)


FOREIGN: dict[str, Callable[[xr.Dataset, float], xr.Dataset]] = {
    "without": lambda people, at: people.drop_vars(_one(people, at)),
    "floats": lambda people, at: people.assign({_one(people, at): lambda x: x[_one(people, at)].astype(float) + 0.5}),
    "nan": lambda people, at: people.assign({_one(people, at): lambda x: x[_one(people, at)].astype(float) * np.nan}),
    "negative": lambda people, at: people.assign(
        {_one(people, at): lambda x: -1 - x[_one(people, at)].fillna(0).astype(np.int64)}
    ),
    "huge": lambda people, at: people.assign(
        {_one(people, at): lambda x: x[_one(people, at)].fillna(0).astype(np.int64) + 2**40}
    ),
    "text": lambda people, at: people.assign({_one(people, at): lambda x: x[_one(people, at)].astype(str)}),
    "nobody": lambda people, at: people.isel(agent=slice(0, 0)),
    "one": lambda people, at: people.isel(agent=slice(0, 1)),
    "half": lambda people, at: people.isel(agent=slice(0, 500)),
    "renamed": lambda people, at: people.rename({_one(people, at): "other"}),
    "no labels": lambda people, at: people.assign({_one(people, at): people[_one(people, at)].assign_attrs(labels=[])}),
}
"""What a population of somebody else's may be like, whose checksums are right."""


def _one(people: xr.Dataset, at: float) -> str:
    names = [str(name) for name in people.data_vars]
    return names[int(at * len(names))]


@many(3, 60)
def test_a_foreign_population(population: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    whole = store.load(population)

    def check(drawn: tuple[str, float, str]) -> None:
        how, at, model = drawn
        path = tmp_path / "q.zarr"
        clear(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.save(FOREIGN[how](whole, at), path)

        def live() -> None:
            lpm.run(getattr(lpm.nyc, model)(Population.open(path)), days=1)

        read_or_refused(live, tmp_path)

    drawn = st.tuples(
        st.sampled_from(sorted(FOREIGN)),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["sir", "seirm", "seirm", "pandemic"]),
    )
    fuzz(drawn, check, many, shown)


def society(agents: int = 400) -> SIR:
    people = Population.of({"household": np.arange(agents) // 2, "borough": (np.arange(agents) % 2).astype(np.uint8)})
    return SIR(people, [people.everyone()], by={"borough": "borough"})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("result") / "results.nc"
    return datatree.save(lpm.run(society(), days=5), path)


def _written(path: Path) -> None:
    page.write(datatree.load(path), path.with_name("report.html"))
    path.with_name("report.html").unlink()


@many(6, 200)
def test_a_damaged_result(result: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    whole, path = result.read_bytes(), tmp_path / "results.nc"
    damage = st.one_of(few(byte_edits), st.sampled_from(UNREADABLE))

    def check(edits: Any) -> None:
        clear(path)
        put(path, edits) if isinstance(edits, str) else path.write_bytes(bytes_after(whole, edits))
        read_or_refused(lambda: _written(path), tmp_path)

    fuzz(damage, check, many, shown)


GROUPS: dict[str, Callable[[dict[str, xr.Dataset], str, str, Any], None]] = {
    "without": lambda groups, group, name, value: groups.__setitem__(
        group, groups[group].drop_vars(name, errors="ignore")
    ),
    "without group": lambda groups, group, name, value: groups.pop(group) and None,
    "swapped": lambda groups, group, name, value: groups.__setitem__("/", groups[group]),
    "renamed": lambda groups, group, name, value: groups.__setitem__(
        group, groups[group].rename({d: "other" for d in groups[group].dims if d in (name, "day", "chain")})
    ),
    "nan": lambda groups, group, name, value: groups.__setitem__(
        group, groups[group].map(lambda x: x.astype(float) * np.nan)
    ),
    "attr": lambda groups, group, name, value: groups["/"].attrs.__setitem__(name, value),
    "attr gone": lambda groups, group, name, value: groups["/"].attrs.pop(name, None),
    "cut": lambda groups, group, name, value: groups.__setitem__(
        group, groups[group].isel({d: slice(0, 0) for d in list(groups[group].dims)[:1]})
    ),
    "text": lambda groups, group, name, value: groups.__setitem__(group, groups[group].map(lambda x: x.astype(str))),
}
"""What a result of somebody else's may be like."""


@many(3, 60)
def test_a_foreign_result(result: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    whole, path = datatree.load(result), tmp_path / "results.nc"
    of = {key: node.to_dataset(inherit=False) for key, node in whole.subtree_with_keys}
    of["/"] = of.pop(".")
    names = sorted({str(n) for x in of.values() for n in x.variables} | {str(n) for n in whole.attrs})
    values = [v for v in VALUES if isinstance(v, str | int | float) and not isinstance(v, bool)]
    values = [v for v in values if not (isinstance(v, str) and not v.isprintable())]
    values = [v for v in values if not isinstance(v, int) or abs(v) < 2**63] + [
        '[["transmission", "x"]]',
        "{}",
        "[]",
        "{",
    ]

    def check(drawn: tuple[str, str, str, Any]) -> None:
        how, group, name, value = drawn
        groups = {key: each.copy(deep=True) for key, each in of.items()}
        GROUPS[how](groups, group, name, value)
        clear(path)
        xr.DataTree.from_dict(groups).to_netcdf(path, engine="h5netcdf")
        read_or_refused(lambda: _written(path), tmp_path)

    drawn = st.tuples(
        st.sampled_from([*sorted(GROUPS), "attr", "attr"]),
        st.sampled_from(sorted(of)),
        st.sampled_from(names),
        st.sampled_from(values),
    )
    fuzz(drawn, check, many, shown)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.npz"
    lpm.run(society(100), days=4, checkpoint=path, checkpoint_every=2)
    return path


def _meta(content: bytes, edits: Any) -> bytes:
    """A checkpoint whose description has other values, with right checksums."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["meta"] = np.array(json_after(json.loads(str(arrays["meta"])), edits).decode())
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _arrays(content: bytes, edits: Any) -> bytes:
    """A checkpoint one of whose arrays is another, with right checksums."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for place, how in edits:
        names = sorted(name for name in arrays if name not in ("meta", "sum"))
        if not names:
            break
        name = names[int(place * len(names))]
        x = arrays[name]
        match how:
            case "gone":
                del arrays[name]
            case "short":
                arrays[name] = x[..., :-1] if x.ndim else x
            case "text":
                arrays[name] = np.array("abc")
            case "float":
                arrays[name] = x.astype(float)
            case "complex":
                arrays[name] = x.astype(complex)
            case "flat":
                arrays[name] = x.reshape(-1)
            case "none":
                arrays[name] = np.zeros(0)
            case "unsigned":
                arrays[name] = np.ones(x.shape, np.uint32)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


array_edits = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["gone", "short", "text", "float", "complex", "flat", "none", "unsigned"]),
)
of_checkpoints = st.one_of(
    st.tuples(st.just(bytes_after), few(byte_edits)),
    st.tuples(st.just(_meta), few(value_edits)),
    st.tuples(st.just(_arrays), few(array_edits, 2)),
    st.tuples(st.just(put), st.sampled_from(UNREADABLE)),
)


@many(12, 500)
def test_a_damaged_checkpoint(checkpoint: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    whole, path, model = checkpoint.read_bytes(), tmp_path / "checkpoint.npz", society(100)
    path.write_bytes(whole)
    assert read_or_refused(lambda: lpm.run(model, days=4, resume=path))

    def check(drawn: tuple[Callable[..., bytes], Any]) -> None:
        how, edits = drawn
        clear(path)
        if how is put:
            put(path, edits)
        else:
            path.write_bytes(how(whole, edits))
        read_or_refused(lambda: lpm.run(model, days=4, resume=path))

    fuzz(of_checkpoints, check, many, shown)


@many(3, 100)
def test_a_damaged_network(many: int, tmp_path: Path, shown: Shown) -> None:
    """One that calibrates, kept to go on from."""
    torch.set_num_threads(1)
    network = lpm.CalibNN(society(100), "infections", 4)
    network.learn(8)
    path = tmp_path / "network.npz"
    network.save(path)
    whole = path.read_bytes()

    def check(drawn: tuple[Callable[..., bytes], Any]) -> None:
        how, edits = drawn
        clear(path)
        if how is put:
            put(path, edits)
        else:
            path.write_bytes(how(whole, edits))
        read_or_refused(lambda: network.resume(path))

    fuzz(of_checkpoints, check, many, shown)


@many(10, 300)
def test_a_damaged_network_that_decides(many: int, tmp_path: Path, shown: Shown) -> None:
    from lpmppl.effects.choices import Choices
    from lpmppl.effects.handlers.neural import ChoiceNetwork

    one, chance = torch.ones(1, dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64)
    codes = torch.zeros(1, 1, dtype=torch.int64)
    like = Choices("go", ("yes", "no"), {"age": ("young", "old")}, codes, {"risk": one}, chance, one)
    path = tmp_path / "network.pt"
    ChoiceNetwork(like, [4]).save(path)
    whole = path.read_bytes()

    def check(edits: Any) -> None:
        clear(path)
        put(path, edits) if isinstance(edits, str) else path.write_bytes(bytes_after(whole, edits))
        read_or_refused(lambda: ChoiceNetwork.load(path), tmp_path, one_line=False)

    fuzz(st.one_of(few(byte_edits), st.sampled_from(UNREADABLE)), check, many, shown)


RECORD: dict[str, Any] = {
    "status": "running",
    "command": "lpmppl simulate",
    "created": "2026-01-01T00:00:00+00:00",
    "seed": 0,
    "settings": Settings(
        "nyc", "", "sir", 1_000, 3, 0, 0, "cpu", {"beta": 0.3}, (("transmission", 0.5, 1),), by=(("age", "age_band"),)
    ).record(),
    "versions": {"lpmppl": "0"},
    "calibration": {"data": "x.csv", "vintage": "", "until": "2020-03-03", "streams": ["admissions"], "fit": []},
    "data": {},
}


@many(25, 900)
def test_a_damaged_run(many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "run" / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RECORD))

    def read() -> None:
        for kind in ("", "calibration"):
            try:
                folder = RunFolder.reopen(path.parent, kind)
            except InputError:
                continue
            try:
                Settings.read(folder.record.get("settings", {}), "--resume run")
            finally:
                folder.unlock()
        Settings.read(RunFolder.seen(path.parent).record.get("settings", {}), "run")

    fuzz_json(path, read, tmp_path, many, shown)


@many(15, 500)
def test_damaged_answers(many: int, tmp_path: Path, shown: Shown) -> None:
    asked = ("model", "Do you go out?", ("yes", "no"))
    made = tmp_path / "made.sqlite"
    with Answers(made) as answers:
        for k in range(6):
            answers.keep(*asked, k, k % 2)
        answers.keep("model", "And now?", ("yes", "no"), 0, None)
        answers.keep_chances("exact", asked[1], asked[2], [0.25, 0.75])
    whole, path = made.read_bytes(), tmp_path / "answers.sqlite"
    cells = st.sampled_from(
        [None, "", "x", b"\xff", "[", "[]", "{}", '["a"]', "[0.5]", "[1e999, 1]", -1, 2, 2**40, 0.5, "[null, 1]"]
    )
    columns = st.sampled_from(
        ["answers.answer", "answers.ordinal", "chances.chances", "questions.model", "questions.options"]
    )

    def read() -> None:
        with Answers(path) as answers:
            answers.models()
            answers.known(*asked)
            answers.known_each("model", ["And now?", "What?"], ("yes", "no"))
            answers.exact("exact")
            found = answers.chances("exact", asked[1], asked[2])
            assert found is None or (len(found) == 2 and abs(sum(found) - 1) < 1e-6), found
            answers.keep("model", "And tomorrow?", ("yes", "no"), 0, 1)

    def check(drawn: tuple[str, Any]) -> None:
        how, edits = drawn
        for each in tmp_path.glob("answers.sqlite*"):
            clear(each)
        if how == "put":
            put(path, edits)
        elif how == "bytes":
            path.write_bytes(bytes_after(whole, edits))
        else:
            path.write_bytes(whole)
            with sqlite3.connect(path) as file:
                table, _, column = edits[0].partition(".")
                file.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (edits[1],))
            file.close()
        read_or_refused(read, one_line=False)

    drawn = st.one_of(
        st.tuples(st.just("bytes"), few(byte_edits)),
        st.tuples(st.just("cell"), st.tuples(columns, cells)),
        st.tuples(st.just("put"), st.sampled_from(["folder", "loop", "empty"])),
    )
    fuzz(drawn, check, many, shown)


TEMPLATE = (
    "You are {{ age }} years old.{% if risk > 0.5 %} Risk: {{ risk | expm1 | about }}.{% endif %} "
    "{% for o in options %}{{ loop.index }}. {{ o }} {% endfor %}"
)
MARKS = ("{{", "}}", "{%", "%}", "{#", "| nothing", "| about", "risk.x.y", "age[0]", "options[9]", "1/0", "'", "(", ")")


@many(20, 600)
def test_a_damaged_prompt(many: int, shown: Shown) -> None:
    edits = st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from([*MARKS, *CELLS[:30], "{% for x in y %}"])),
        max_size=3,
    )

    def check(drawn: list[tuple[float, int, str]]) -> None:
        template = TEMPLATE
        for place, lost, new in drawn:
            at = int(place * len(template))
            template = template[:at] + new + template[at + lost :]

        def ask() -> None:
            prompt = Prompt("go", template)
            prompt.key({"risk": 0.7})
            prompt.text({"age": "old"}, {"risk": 0.7}, ("yes", "no"))
            prompt.check(["age", "risk", "options"])

        read_or_refused(ask, one_line=False)

    fuzz(edits, check, many, shown)


words = st.one_of(
    st.sampled_from(
        [*CELLS[:36], "beta=0.3", "transmission=0.3@20", "test=antigen@0", "stimulus=500@30", "a: b=1@2, c=2@3",
         "x=1@y>2<1", "x=1@y>2<1@5", "puma,age=age_band", "age=", "=1@2", "beta=", "x=1@", "x=@3", "x=1@y>",
         "x=1@y>inf"]
    ),
    st.text(max_size=12),
    st.text(alphabet="abx=@<>:,. -0123456789e_/", max_size=24),
)  # fmt: skip


@many(60, 1200)
def test_what_is_spelled_on_a_command_line(many: int, shown: Shown) -> None:
    def check(texts: list[str]) -> None:
        for read in (spelling.settings, spelling.interventions, spelling.strata, spelling.policies):
            read_or_refused(partial(read, texts), one_line=False)

    fuzz(st.lists(words, min_size=1, max_size=3), check, many, shown)


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
    whole = json.loads(beside.read_text())

    def check(drawn: tuple[str, Any]) -> None:
        how, edits = drawn
        clear(beside)
        if how == "bytes":
            beside.write_bytes(bytes_after(json.dumps(whole).encode(), edits))
        elif how == "values":
            beside.write_bytes(json_after(whole, edits))
        else:
            put(beside, edits)
        read_or_refused(lambda: downloads.fetch(source, tmp_path / "kept"))

    drawn = st.one_of(
        st.tuples(st.just("bytes"), few(byte_edits)),
        st.tuples(st.just("values"), few(value_edits)),
        st.tuples(st.just("put"), st.sampled_from(UNREADABLE)),
    )
    fuzz(drawn, check, many, shown)
