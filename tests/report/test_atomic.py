"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from lpmppl.errors import InputError
from lpmppl.report.atomic import replacing


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, stop: type[BaseException]) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")
    with pytest.raises(stop), replacing(target) as part:
        part.write_text("half of the n")
        raise stop
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_the_target_changes_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")
    with replacing(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't write") as caught, replacing(tmp_path / "no" / "a.txt") as part:
        part.write_text("x")
    assert "\n" not in str(caught.value)
