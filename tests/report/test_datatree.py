"""Results go to disk and come back, and other files are refused."""

from pathlib import Path

import pytest
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.report import datatree


def test_a_result_comes_back_as_it_was(result: xr.DataTree, tmp_path: Path) -> None:
    back = datatree.load(datatree.save(result, tmp_path / "results.nc"))
    xr.testing.assert_identical(back, result)


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lpmppl simulate"):
        datatree.load(tmp_path / "results.nc")


@pytest.mark.parametrize("keep", [0, 100, 5000, -300])
def test_a_truncated_file_is_refused_in_one_line(result: xr.DataTree, tmp_path: Path, keep: int) -> None:
    path = datatree.save(result, tmp_path / "results.nc")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"results\.nc") as caught:
        datatree.load(path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_refused_in_one_line_and_leaves_what_was_there(result: xr.DataTree, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    path = datatree.save(result, tmp_path / "results.nc")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match="can't write") as caught:
            datatree.save(result, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.nc"]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", [1])}).to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    with pytest.raises(InputError, match="no result of lpmppl"):
        datatree.load(tmp_path / "results.nc")
