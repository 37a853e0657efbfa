"""Dated tables: what is in the file is read as it stands, and every fault is named with its place."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from lpmppl.data import series
from lpmppl.errors import InputError

WHAT = "the right file"


@pytest.fixture
def write(tmp_path):
    def text(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return text


def read(path, needed=("day", "n"), **more):
    return series.read(path, needed, WHAT, **more)


DAYS = "day,n\n2020-03-01,4\n2020-03-02,5\n2020-03-03,6\n"


def test_a_table_is_read_as_it_stands(write):
    path = write(DAYS)
    table = read(path).dated("day")
    assert list(table.days) == list(pd.to_datetime(["2020-03-01", "2020-03-02", "2020-03-03"]))
    assert table.numbers("n").tolist() == [4, 5, 6]
    assert table.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.attrs("here", days_in_mean=7) == {
        "source": "here",
        "file": "table.csv",
        "sha256": table.checksum,
        "days_in_mean": 7,
    }


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + DAYS,
        DAYS.replace("\n", "\r\n"),
        DAYS.replace("day,n", "DAY, N ") + "\n,\n",
        "day,n\n2020-03-03,6\n2020-03-01,4\n2020-03-02,5\n",
        'day,n\n"2020-03-01"," 4"\n2020-03-02,5.0\n2020-03-03,6e0\n',
        DAYS.replace("2020-03-0", "2020030"),
        DAYS.replace("2020-03-01", "03/01/2020").replace("2020-03-02", "03/02/2020").replace("2020-03-03", "3/3/2020"),
        DAYS.replace("2020-03-01", "01Mar2020").replace("2020-03-02", "02Mar2020").replace("2020-03-03", "03Mar2020"),
    ],
    ids=["byte order mark", "Windows", "case and blank lines", "order", "quotes", "digits", "American", "named month"],
)
def test_ways_to_write_the_same_table(write, content):
    table = read(write(content)).dated("day")
    assert table.days.equals(pd.date_range("2020-03-01", periods=3))
    assert table.numbers("n").tolist() == [4, 5, 6]


def test_year_month_and_day_in_columns_of_their_own(write):
    table = read(write("year,month,day,n\n2020,2,28,1\n2020,2,29,2\n2020,3,1,3\n"), ("year", "month", "day", "n"))
    assert table.dated("year", "month", "day").days.equals(pd.date_range("2020-02-28", "2020-03-01"))


def test_only_rows_that_are_asked_for(write):
    path = write("city,day,n\n1,2020-03-01,7\n2,2020-03-01,8\n1,2020-03-02,9\n")
    table = read(path, ("city", "day", "n"), where={"city": ["1"]})
    assert table.dated("day").numbers("n").tolist() == [7, 9]
    assert read(path, ("city", "n")).only("city", "2").numbers("n").tolist() == [8]
    with pytest.raises(InputError, match="no rows of city 3; give the right file"):
        read(path, ("city", "n"), where={"city": ["3"]})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ["empty", WHAT]),
        (b" \n\n", ["empty"]),
        (b",,\n,,\n", ["empty"]),
        (b"day,n\n", ["no rows"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["binary"]),
        (b"day,n\n2020-03-01,\xff\xfe4\n", ["no CSV table"]),
        (b"<!DOCTYPE html><html>404</html>", ["web page"]),
        (b'day,n\n2020-03-01,"4\n', ["no CSV table"]),
        (b"day,n\n2020-03-01,4\n2020-03-02\n", ["line 3", "1 cells", "header of 2"]),
        (b"day,n\n2020-03-01,4,5\n", ["line 2", "3 cells"]),
        (b"date,n\n2020-03-01,4\n", ["no column 'day'", "nearest is 'date'"]),
        (b"day\n2020-03-01\n", ["no column 'n'"]),
        (b"day,n,N\n2020-03-01,4,5\n", ["'n' twice"]),
        (b"day,n\n2020-03-01,4\n2020-02-30,4\n", ["line 3", "'2020-02-30'", "no date"]),
        (b"day,n\n2020-03-01,4\n01.03.2020,4\n", ["line 3", "'01.03.2020'"]),
        (b"day,n\n9999-03-01,4\n", ["line 2", "no date"]),
        (b"day,n\n2020-03-01,4\n2020-03-02,4\n2020-03-05,4\n2020-03-09,1\n", ["misses 2020-03-03", "2020-03-05"]),
        (b"day,n\n2020-03-02,4\n2020-03-01,4\n2020-03-02,4\n", ["2020-03-02 twice", "lines 2 and 4"]),
        (b"day,n\n2020-03-01,4\n2020-03-02,-1\n", ["line 3 (2020-03-02)", "'n' is '-1'", "below 0"]),
        (b"day,n\n2020-03-01,10\n2020-03-02,1\n", ["line 2 (2020-03-01)", "'n' is '10'", "above 9"]),
        (b"day,n\n2020-03-01,4.5\n", ["'4.5'", "whole"]),
        (b"day,n\n2020-03-01,many\n", ["'many'", "no number"]),
        (b"day,n\n2020-03-01,nan\n", ["'nan'", "no number"]),
        (b"day,n\n2020-03-01,inf\n", ["'inf'", "no number"]),
        (b'day,n\n2020-03-01,"1,5"\n', ["'1,5'", "no number"]),
        (b'day,n\n2020-03-01,"a\nb"\n', ["'a b'", "no number"]),
        (b"day,n\n2020-03-01,4\n2020-03-02,\n", ["line 3 (2020-03-02)", "'n' is empty"]),
        (b"day,n\n2020-03-01,4\n2020-03-02,.\n", ["line 3 (2020-03-02)", "'n' is empty"]),
        (b"day,n\n2020-03-01,\n2020-03-02,\n", ["'n' holds no number at all"]),
    ],
)
def test_faults_are_named(write, refused, content, names):
    refused(lambda path: read(path).dated("day").numbers("n", least=0, most=9, whole=True), write(content), *names)


def test_no_file(tmp_path, refused):
    refused(read, tmp_path / "none.csv", "is not there", WHAT)
    (tmp_path / "folder").mkdir()
    refused(read, tmp_path / "folder", "is a folder", WHAT)


def test_weeks(write, refused):
    content = "day,n\n2020-03-07,1\n2020-03-14,2\n2020-03-28,3\n"
    refused(lambda path: read(path).dated("day", every=7), write(content), "misses 2020-03-21", "every 7 days")
    refused(lambda path: read(path).dated("day", every=7), write(DAYS), "misses 2020-03-08")
    assert len(read(write(content.replace("03-28", "03-21"))).dated("day", every=7)) == 3


def test_missing_only_where_allowed(write, refused):
    holed = write("day,n\n2020-03-01,.\n2020-03-02,1\n2020-03-03,\n2020-03-04,2\n2020-03-05,.\n")
    ended = write("day,n\n2020-03-01,.\n2020-03-02,1\n2020-03-03,2\n2020-03-04,\n", "ended.csv")
    values = read(holed).numbers("n", missing="anywhere")
    np.testing.assert_array_equal(values, [np.nan, 1, np.nan, 2, np.nan])
    np.testing.assert_array_equal(read(ended).numbers("n", missing="at the ends"), [np.nan, 1, 2, np.nan])
    refused(lambda path: read(path).numbers("n", missing="at the ends"), holed, "line 4", "'n' is empty")
    refused(lambda path: read(path).numbers("n"), ended, "line 2", "'n' is empty")
    trimmed = read(ended).dated("day").trimmed("n")
    assert trimmed.numbers("n").tolist() == [1, 2]
    assert list(trimmed.days) == list(pd.to_datetime(["2020-03-02", "2020-03-03"]))
    refused(lambda path: read(path).trimmed("n"), write("day,n\n2020-03-01,.\n", "none.csv"), "no number at all")
