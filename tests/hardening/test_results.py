"""Results and posteriors, damaged on the way or somebody else's: they are read, or refused on purpose."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.report import datatree, page
from tests.hardening import documents
from tests.hardening.documents import society
from tests.hardening.strategies import (
    VALUES,
    Shown,
    bytes_after,
    clear,
    fuzz,
    fuzz_file,
    many,
    of_bytes,
    read_or_refused,
    replaced,
)
from tests.hardening.test_commands import ended


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("result") / "results.nc"
    return datatree.save(lpm.run(society(), days=5), path)


def _written(path: Path) -> None:
    page.write(datatree.load(path), path.with_name("report.html"))
    path.with_name("report.html").unlink()


@many(6, 200)
def test_a_damaged_result(result: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "results.nc"
    path.write_bytes(result.read_bytes())
    fuzz_file(path, lambda: _written(path), many, shown, st.one_of(of_bytes, replaced), tmp_path)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_a_result_with_another_byte_is_refused(result: Path, place: float, tmp_path: Path) -> None:
    """Even where HDF5 would read it as other numbers, or for ever."""
    path = tmp_path / "results.nc"
    path.write_bytes(bytes_after(result.read_bytes(), [("flip", place, 1)]))
    with pytest.raises(InputError, match="damaged"):
        datatree.load(path)


def test_a_damaged_result_that_others_wrote_leaves_nothing_half_open(result: Path, tmp_path: Path) -> None:
    """It has no checksum by which that is known before h5netcdf opens it."""
    path = tmp_path / "results.nc"
    datatree.load(result).to_netcdf(path, engine="h5netcdf")
    assert read_or_refused(lambda: _written(path), tmp_path)
    content = bytearray(path.read_bytes())
    # The place of the root group.
    content[65] ^= 255
    path.write_bytes(content)
    assert not read_or_refused(lambda: _written(path), tmp_path)
    # Where something is collected that can't be closed, the test fails.
    gc.collect()


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


Foreign = tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]


def foreign(result: Path) -> Foreign:
    """What may be done to a result, and what writes it then."""
    whole = datatree.load(result)
    of = {key: node.to_dataset(inherit=False) for key, node in whole.subtree_with_keys}
    of["/"] = of.pop(".")
    names = sorted({str(n) for x in of.values() for n in x.variables} | {str(n) for n in whole.attrs})
    values = [v for v in VALUES if isinstance(v, str | int | float) and not isinstance(v, bool)]
    values = [v for v in values if not (isinstance(v, str) and not v.isprintable())]
    values = [v for v in values if not isinstance(v, int) or abs(v) < 2**63]
    values += ['[["transmission", "x"]]', "{}", "[]", "{", "[1, 2]", '{"beta": "x"}']

    def write(drawn: tuple[str, str, str, Any], path: Path) -> None:
        how, group, name, value = drawn
        groups = {key: each.copy(deep=True) for key, each in of.items()}
        clear(path)
        try:
            GROUPS[how](groups, group, name, value)
            xr.DataTree.from_dict(groups).to_netcdf(path, engine="h5netcdf")
        except (ValueError, UserWarning):
            # Nobody can write that.
            hypothesis.reject()

    drawn = st.tuples(
        st.sampled_from([*sorted(GROUPS), "attr", "attr"]),
        st.sampled_from(sorted(of)),
        st.sampled_from(names),
        st.sampled_from(values),
    )
    return drawn, write


@many(3, 60)
def test_a_foreign_result(result: Path, many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "results.nc"
    drawn, write = foreign(result)

    def check(edits: Any) -> None:
        write(edits, path)
        read_or_refused(lambda: _written(path), tmp_path)

    fuzz(drawn, check, many, shown)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a calibration, with two weeks more, and the data that it was fitted to."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("fit")
    (folder / "data.csv").write_text(documents.by_day(30, date(2020, 2, 28)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lpmppl"])
        patch.setenv("LPMPPL_CACHE", str(tmp_path_factory.mktemp("cache")))
        line = ["calibrate", "nyc", "--agents", "1000", "--coarse", "0", "--rounds", "1", "--simulations", "2",
                "--stream", "admissions", "--fit", "beta", "--data", "data.csv", "--until", "2020-03-06",
                "--ahead", "14", "--out", "fit"]  # fmt: skip
        assert ended(line)[0] == 0, ended(line)
        yield folder


READERS: dict[str, tuple[list[str], int]] = {
    "forecast": (["forecast", "fit"], 150),
    "report": (["report", "fit"], 50),
    "counterfactual": (["counterfactual", "nyc", "--agents", "1000", "--days", "2", "--do", "transmission=0.5@1",
                        "--draws", "2", "--posterior", "fit/results.nc"], 30),
    "calibrate": (["calibrate", "nyc", "--agents", "1000", "--coarse", "0", "--rounds", "1", "--simulations", "2",
                   "--stream", "admissions", "--fit", "beta", "--data", "data.csv", "--until", "2020-03-03",
                   "--before", "fit/results.nc"], 10),
}  # fmt: skip
"""Commands that read what a calibration found, and how many foreign ones each is given."""


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_foreign_posterior(name: str, fit: Path, shown: Shown) -> None:
    line, many = READERS[name]
    path = fit / "fit" / "results.nc"
    whole = path.read_bytes()
    drawn, write = foreign(path)

    def check(edits: Any) -> None:
        write(edits, path)
        code, out, err = ended(line)
        assert code in (0, 2), (code, out, err)
        said = [each for each in err.splitlines() if not each.startswith("lpmppl: warning: ")]
        assert len(said) == (code == 2) and "Traceback" not in out + err, err

    try:
        assert ended(line)[0] == 0, ended(line)
        fuzz(drawn, check, many, shown)
    finally:
        path.write_bytes(whole)
