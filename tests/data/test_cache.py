"""Built once, kept, and built again when damaged."""

import multiprocessing
import os
import warnings

import pytest
import xarray as xr

from lpmppl.data import cache, nyc, store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LPMPPL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_second_time_is_read_not_built(folder, monkeypatch):
    first = cache.population(1000, 5)
    assert [path.suffix for path in folder.iterdir()] == [".zarr"]
    monkeypatch.setattr(nyc, "build", lambda *args: pytest.fail("built again"))
    xr.testing.assert_identical(cache.population(1000, 5), first)


def test_entries_differ_by_arguments(folder):
    cache.population(1000, 0)
    assert cache.path_of(1000, 1) != cache.path_of(1000, 0) != cache.path_of(1001, 0)
    assert not cache.path_of(1000, 1).exists()


def test_damaged_entry_is_built_again_with_a_warning():
    first = cache.population(1000, 0)
    file = next(f for f in (cache.path_of(1000, 0) / "age" / "c").rglob("*") if f.is_file())
    file.write_bytes(b"")
    with pytest.warns(UserWarning, match="building it again"):
        again = cache.population(1000, 0)
    assert (again["age"].values == first["age"].values).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(cache.population(1000, 0), again)


@pytest.mark.parametrize("kind", ["empty folder", "file", "dangling link"])
def test_what_is_no_population_gives_way_to_one(kind):
    path = cache.path_of(1000, 0)
    path.parent.mkdir()
    if kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("no")
    else:
        path.symlink_to("nowhere")
    with pytest.warns(UserWarning, match="building it again"):
        first = cache.population(1000, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(cache.population(1000, 0), first)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read everything")
def test_an_entry_that_cannot_be_read_is_built_again():
    cache.population(1000, 0)
    cache.path_of(1000, 0).chmod(0)
    with pytest.warns(UserWarning, match=r"Permission denied.*building it again"):
        first = cache.population(1000, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.testing.assert_identical(cache.population(1000, 0), first)


def test_an_entry_whose_reading_fails_is_built_again(monkeypatch):
    first = cache.population(1000, 0)

    def unreadable(path):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match=r"Input/output error.*building it again"):
        patch.setattr(store, "load", unreadable)
        again = cache.population(1000, 0)
    assert (again["age"].values == first["age"].values).all()


def test_a_cache_folder_whose_name_is_too_long_costs_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("LPMPPL_CACHE", str(tmp_path / ("x" * 300)))
    with pytest.warns(UserWarning, match="set LPMPPL_CACHE to another folder") as warned:
        people = cache.population(1000, 0)
    assert people.sizes["agent"] == 1000
    assert len(warned) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("LPMPPL_CACHE", str(blocker))
    with pytest.warns(UserWarning, match="LPMPPL_CACHE"):
        people = cache.population(1000, 0)
    assert people.sizes["agent"] == 1000


def test_two_processes_at_once():
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=cache.population, args=(1000, 9)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert store.load(cache.path_of(1000, 9)).sizes["agent"] == 1000
    assert [path.suffix for path in cache.folder().iterdir()] == [".zarr"]
