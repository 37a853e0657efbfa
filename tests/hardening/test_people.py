"""Populations, damaged on the way or somebody else's: they are read, or refused on purpose."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.data import store
from lpmppl.models.population import Population
from tests.hardening.strategies import (
    UNREADABLE,
    Shown,
    byte_edits,
    bytes_after,
    clear,
    few,
    fuzz,
    json_after,
    many,
    put,
    read_or_refused,
    value_edits,
)


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

    fuzz(damage, check, many, shown, [("age/zarr.json", [("value", 0.0, 2**63)])])


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
    fuzz(drawn, check, many, shown, [("huge", 0.6875, "seirm"), ("huge", 0.6875, "pandemic")])
