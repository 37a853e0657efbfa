"""A population that ranks build together is the one that a process builds alone."""

import os
import warnings

import numpy as np
import pytest

import lpmppl as lpm
from lpmppl.data import nyc, store, together
from tests.ranks import on_ranks

AGENTS, SEED = 3000, 5


def built(ranks, cache):
    """What a rank has, and how many people were in memory at once while it was built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPMPPL_CACHE", str(cache))
        areas = []
        area = nyc.City.area
        patch.setattr(nyc.City, "area", lambda self, p: areas.append(p) or area(self, p))
        if not cache.parent.is_file():
            # By each alone it wouldn't be kept between them.
            patch.setattr("lpmppl.data.cache.nyc.build", None)
        people = lpm.nyc.population(AGENTS, SEED, ranks=ranks)
    return people.ids.tolist(), people["age"].tolist(), areas


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_build_the_population_of_one_process(tmp_path, count):
    cache, meet = tmp_path / "cache", tmp_path / "meet"
    meet.mkdir()
    found = on_ranks(meet, count, built, cache)
    alone = nyc.build(AGENTS, SEED)
    (kept,) = cache.iterdir()
    whole = store.load(kept)
    assert list(whole.variables) == list(alone.variables)
    for name, variable in alone.variables.items():
        assert whole[name].dtype == variable.dtype
        np.testing.assert_array_equal(whole[name], variable)
        assert whole[name].attrs == variable.attrs
    assert sorted(i for ids, *_ in found for i in ids) == list(range(AGENTS))
    assert all(np.array_equal(age, alone["age"].values[ids]) for ids, age, _ in found)
    # Each area was built once.
    areas = [p for *_, areas in found for p in areas]
    assert sorted(areas) == list(range(len(alone["puma"].attrs["labels"])))
    assert all(areas for *_, areas in found)


@pytest.mark.filterwarnings("ignore:the population is not kept")
def test_where_nothing_can_be_kept_each_rank_builds_the_whole(tmp_path):
    file, meet = tmp_path / "file", tmp_path / "meet"
    file.touch()
    meet.mkdir()
    found = on_ranks(meet, 2, built, file / "cache")
    alone = nyc.build(AGENTS, SEED)
    assert sorted(i for ids, *_ in found for i in ids) == list(range(AGENTS))
    assert all(np.array_equal(age, alone["age"].values[ids]) for ids, age, _ in found)


def test_an_entry_that_is_damaged_is_built_again_by_all_ranks(tmp_path, monkeypatch):
    cache, meet = tmp_path / "cache", tmp_path / "meet"
    meet.mkdir()
    monkeypatch.setenv("LPMPPL_CACHE", str(cache))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lpm.nyc.population(AGENTS, SEED)
    (entry,) = cache.iterdir()
    chunk = max(path for path in (entry / "age").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    found = on_ranks(meet, 2, built, cache)
    alone = nyc.build(AGENTS, SEED)
    assert all(np.array_equal(age, alone["age"].values[ids]) for ids, age, _ in found)
    assert [path.name for path in cache.iterdir()] == [entry.name]
    np.testing.assert_array_equal(store.load(entry)["age"], alone["age"])


def test_what_a_killed_build_left_is_swept_and_what_others_build_now_is_not(tmp_path):
    now, left = (tmp_path / f".nyc-9-0.zarr.{name}.building" for name in ("a", "b"))
    for folder in (now, left):
        folder.mkdir()
        (folder / "age.npy").touch()
    os.utime(left / "age.npy", (0, 0))
    os.utime(left, (0, 0))
    assert together.build(1000, 0, tmp_path / "city.zarr", 0, 1, lambda x: x)
    assert sorted(path.name for path in tmp_path.iterdir()) == [now.name, "city.zarr"]


def test_areas_are_shared_out_evenly():
    residents = nyc.City(100_000, 0).residents
    for count in (1, 2, 7):
        parts = together._shared_out(residents, count)
        assert sorted(p for part in parts for p in part) == list(range(len(residents)))
        held = [residents[part].sum() for part in parts]
        assert max(held) - min(held) < residents.max()


def test_what_cannot_be_kept_at_the_end_is_said_and_nothing_stays_behind(tmp_path, monkeypatch):
    path = tmp_path / "city.zarr"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "save", full)
    with pytest.warns(UserWarning, match="not kept: .*No space left.*LPMPPL_CACHE"):
        assert not together.build(1000, 0, path, 0, 1, lambda x: x)
    assert not list(tmp_path.iterdir())
