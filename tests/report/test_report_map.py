"""The report of a run leads to the map that lies beside it, and to nothing where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from lpmppl.cli.report import report
from lpmppl.errors import InputError
from lpmppl.report import datatree, page

Make = Callable[..., xr.DataTree]


def links(html: str) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', html)


def run(folder: Path, tree: xr.DataTree) -> Path:
    folder.mkdir()
    datatree.save(tree, folder / "results.nc")
    return folder


def test_a_report_made_with_its_map_links_to_it_and_keeps_the_link(
    make_result: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path / "a", make_result(days=10, by=("borough",)))
    report(folder)
    assert links((folder / "report.html").read_text("utf-8")) == []
    capsys.readouterr()
    report(folder, map_=True)
    assert capsys.readouterr().out.split() == [str(folder / name) for name in ("report.html", "map.html")]
    html = (folder / "report.html").read_text("utf-8")
    assert links(html) == ["map.html"] and html.index("map.html") < html.index("</header>")
    assert links((folder / "map.html").read_text("utf-8")) == ["report.html"]
    report(folder)
    assert links((folder / "report.html").read_text("utf-8")) == ["map.html"]
    (folder / "map.html").unlink()
    report(folder)
    assert links((folder / "report.html").read_text("utf-8")) == []


def test_a_result_without_areas_has_its_report_without_a_link(make_result: Make, tmp_path: Path) -> None:
    folder = run(tmp_path / "a", make_result(days=10, by=("age",)))
    with pytest.raises(InputError, match="--by puma"):
        report(folder, map_=True)
    assert links((folder / "report.html").read_text("utf-8")) == []


def test_an_address_is_no_markup(make_result: Make) -> None:
    html = page.render(make_result(days=10), 'a"><script>x</script>.html')
    assert "<script>x" not in html and links(html) == ["a&quot;&gt;&lt;script&gt;x&lt;/script&gt;.html"]
