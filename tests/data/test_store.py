"""Populations on disk: whole or not at all, and damage is seen."""

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from lpmppl.data import store
from lpmppl.errors import InputError


@pytest.fixture
def saved(village, tmp_path):
    return store.save(village, tmp_path / "village.zarr")


def chunk(path, name):
    """The largest file of a variable's chunks."""
    return max((path / name / "c").rglob("*"), key=lambda file: file.is_file() and file.stat().st_size)


def refused(path, match):
    with pytest.raises(InputError, match=match) as error:
        store.load(path)
    assert "\n" not in str(error.value)


def test_round_trip(village, saved, tmp_path):
    again = store.load(saved)
    xr.testing.assert_identical(again, village)
    assert {name: again[name].dtype for name in again.variables} == {
        name: village[name].dtype for name in village.variables
    }
    assert [file.name for file in tmp_path.iterdir()] == ["village.zarr"]
    store.save(again, tmp_path / "copy.zarr")
    xr.testing.assert_identical(store.load(tmp_path / "copy.zarr"), village)


def test_interrupted_while_zarr_goes_on_writing_nothing_is_left(village, tmp_path, monkeypatch):
    def late(folder):
        time.sleep(0.04)
        (folder / "age").mkdir(parents=True, exist_ok=True)
        (folder / "age" / "zarr.json").write_text("{}")

    def interrupted(_, folder, **__):
        folder.mkdir()
        threads.append(threading.Thread(target=late, args=(folder,)))
        threads[0].start()
        raise KeyboardInterrupt

    threads = []
    monkeypatch.setattr(xr.Dataset, "to_zarr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save(village, tmp_path / "village.zarr")
    threads[0].join()
    assert list(tmp_path.iterdir()) == []


def test_provenance_is_in_the_attributes(saved):
    attrs = dict(zarr.open_group(saved, mode="r").attrs)
    provenance = json.loads(attrs["provenance"])
    assert provenance["agents"] == 1000 and provenance["seed"] == 1
    assert len(provenance["tables_sha256"]) == 64 and provenance["sources"]
    assert {"builder", "created", "lpmppl", "tables"} <= set(provenance)
    assert attrs["format"] == store.FORMAT


def test_truncated_chunk(saved):
    file = chunk(saved, "age")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refused(saved, "truncated or damaged")


def test_flipped_byte(saved):
    file = chunk(saved, "household")
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 0xFF
    file.write_bytes(raw)
    refused(saved, "damaged")


def test_missing_chunk_is_not_read_as_zeros(saved):
    chunk(saved, "age").unlink()
    refused(saved, "'age' does not match its checksum")


def test_missing_variable(saved):
    shutil.rmtree(saved / "sex")
    refused(saved, "lost its variable 'sex'")


@pytest.mark.parametrize("name", ["zarr.json", "age/zarr.json"])
def test_truncated_metadata(saved, name):
    file = saved / name
    file.write_text(file.read_text()[:40])
    refused(saved, "truncated or damaged")


def edit(path, change):
    """Change a zarr.json as one changes a text."""
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def test_another_label(saved):
    file = saved / "borough" / "zarr.json"
    file.write_text(file.read_text().replace("Manhattan", "Atlantis"))
    refused(saved, "'borough' does not match its checksum")


def test_labels_lost(saved):
    edit(saved / "borough" / "zarr.json", lambda meta: meta["attributes"].pop("labels"))
    refused(saved, "'borough' does not match its checksum")


def test_another_dimension(saved):
    edit(saved / "workplace_size" / "zarr.json", lambda meta: meta.update(dimension_names=["other"]))
    refused(saved, "'workplace_size' does not match its checksum")


@pytest.mark.parametrize("name", ["provenance", "title", "more"])
def test_another_attribute(saved, name):
    edit(saved / "zarr.json", lambda meta: meta["attributes"].update({name: "nonsense"}))
    refused(saved, "attributes do not match their checksum")


@pytest.mark.parametrize("checksums", ["[]", "{}", '{"variables": 3, "attrs": ""}', "nonsense"])
def test_damaged_checksums(saved, checksums):
    edit(saved / "zarr.json", lambda meta: meta["attributes"].update(checksums=checksums))
    refused(saved, "truncated or damaged")


def test_attributes_of_every_kind_come_back(tmp_path):
    attrs = {"text": "é", "whole": 3, "real": 0.1, "list": ["a", "b"], "pair": (1, 2), "yes": True, "nan": float("nan")}
    attrs |= {"numpy": np.float64(0.1), "array": np.arange(3), "nested": {"a": [1, {"b": None}]}}
    values = {"x": ("agent", np.array([True, False]), attrs), "y": ("agent", np.array([0.5, np.nan], "float32"))}
    dataset = xr.Dataset(values, coords={"code": ("agent", [1, 2], attrs), "one": 1}, attrs=attrs)
    again = store.load(store.save(dataset, tmp_path / "a.zarr"))
    xr.testing.assert_equal(again, dataset)
    assert set(again.coords) == {"code", "one"}
    assert again["x"].attrs["list"] == ["a", "b"]
    store.save(again, tmp_path / "b.zarr")
    xr.testing.assert_equal(store.load(tmp_path / "b.zarr"), dataset)


def test_foreign_and_absent(tmp_path):
    refused(tmp_path / "none.zarr", "no population at")
    (tmp_path / "notes.txt").write_text("no")
    refused(tmp_path / "notes.txt", "not a Zarr folder")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "not a Zarr folder")
    xr.Dataset({"x": ("n", np.arange(3))}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    refused(tmp_path / "other.zarr", "not a population of lpmppl")


def test_another_format(saved):
    zarr.open_group(saved, mode="r+").attrs["format"] = 99
    refused(saved, "format 99")


def test_nothing_is_overwritten_unasked(village, saved, tmp_path):
    with pytest.raises(InputError, match="exists"):
        store.save(village, saved)
    store.save(village.assign(age=village["age"] + np.uint8(1)), saved, overwrite=True)
    assert (store.load(saved)["age"].values == village["age"].values + 1).all()
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not overwritten"):
        store.save(village, keep, overwrite=True)
    assert (keep / "thesis.txt").read_text() == "years of work"


def test_a_save_that_fails_leaves_nothing(village, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="does not exist"):
        store.save(village, tmp_path / "no" / "village.zarr")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(InputError, match="No space left"):
        store.save(village, tmp_path / "village.zarr")
    assert list(tmp_path.iterdir()) == []
