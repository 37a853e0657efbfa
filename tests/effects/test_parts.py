"""What ranks keep of a run: a file each, all of one step or none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from lpmppl.effects.internals import checkpoints
from lpmppl.effects.internals.parts import Part, load, save
from lpmppl.errors import InputError, LpmError

META = {"tag": "t", "dt": 1.0, "applied": [], "splits": {}, "plates": []}
IDS = [torch.tensor([5, 0, 2]), torch.tensor([1, 3, 4, 6])]
HOMES = [torch.tensor([2]), torch.tensor([0, 1])]


@dataclass
class One:
    """One rank of two, whose partner has written what it says."""

    rank: int
    count: int = 2
    others: int = 1
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def agree(self, what: str, size: int = 0, each: int = 0) -> list[int]:
        self.asked.append((what, size, each))
        return [each, self.others]


def part(rank: int, **options: Any) -> Part:
    return Part(One(rank, **options), IDS[rank], HOMES[rank], 7, 3)  # type: ignore[arg-type]


def keep(path, step, town=((9, 0, 4, 4, 1, 1), (0, 7, 4, 4, 1, 1)), **options):
    """Both ranks' files; the last of them names the step."""
    for rank in (1, 0):
        arrays = {
            "state/mine": IDS[rank].double() * step,
            "state/worlds": torch.stack([IDS[rank], -IDS[rank]])[:, None],
            "state/home": HOMES[rank] * 10,
            "state/town": torch.tensor(town[rank]),
            "record/ill": torch.arange(step),
        }
        save(path, part(rank, **options), arrays, {**META, "step": step})


def test_all_of_it_comes_back_to_one_process_and_to_any_part(tmp_path):
    path = tmp_path / "c.npz"
    keep(path, 4)
    whole, meta = load(path, None)
    assert meta["step"] == 4
    assert whole["state/mine"].tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert whole["state/worlds"].tolist() == [[list(range(7))], [[-k for k in range(7)]]]
    assert whole["state/home"].tolist() == [0, 10, 20]
    assert whole["state/town"].tolist() == [9, 7, 4, 4, 1, 1]
    assert whole["record/ill"].tolist() == [0, 1, 2, 3]
    assert not [name for name in whole if name.startswith("ids/")]
    mine, _ = load(path, Part(One(0), torch.tensor([6, 1]), torch.tensor([1]), 7, 3))  # type: ignore[arg-type]
    assert mine["state/mine"].tolist() == [24, 4]
    assert mine["state/worlds"].tolist() == [[[6, 1]], [[-6, -1]]]
    assert mine["state/home"].tolist() == [10]
    assert mine["state/town"].tolist() == [9, 7, 4, 4, 1, 1]
    checkpoints.save(path, whole, {**META, "step": 4})
    again, _ = load(path, part(1))
    assert again["state/mine"].tolist() == [4, 12, 16, 24]


PLACES = [torch.tensor([0, 2, 3, 7]), torch.tensor([2, 3, 5])]


def with_places(rank, places=PLACES, count=9):
    return part(rank)._replace(groups={"workplace": (places[rank], count)})


def keep_places(path, sums):
    for rank in (1, 0):
        arrays = {"state/work": torch.tensor(sums[rank]), "state/mine": IDS[rank].double()}
        save(path, with_places(rank), arrays, {**META, "step": 4})


def test_groups_that_a_rank_has_some_of_are_put_together(tmp_path):
    """Also where one rank has, by chance, as many of them as agents or households; what none has is 0."""
    path = tmp_path / "c.npz"
    keep_places(path, [[[1.0, math.nan, 3, 4]], [[math.nan, 3, 6]]])
    whole, _ = load(path, None)
    np.testing.assert_array_equal(whole["state/work"], [[1, 0, math.nan, 3, 0, 6, 0, 4, 0]])
    other = with_places(1, [torch.tensor([1]), torch.tensor([3, 7])])
    mine, _ = load(path, other)
    assert mine["state/work"].tolist() == [[3, 4]]
    assert mine["state/mine"].tolist() == [1, 3, 4, 6]
    checkpoints.save(path, whole, {**META, "step": 4})
    assert load(path, other)[0]["state/work"].tolist() == [[3, 4]]


def test_groups_of_which_ranks_have_different_sums_are_refused_by_name(tmp_path):
    path = tmp_path / "c.npz"
    keep_places(path, [[1, 2, 3, 4], [2, 9, 6]])
    with pytest.raises(LpmError, match="'state/work' differs between ranks"):
        load(path, None)


def test_only_the_last_steps_files_stay(tmp_path):
    path = tmp_path / "c.npz"
    for step in (4, 8):
        keep(path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "c.npz.8.0-of-2", "c.npz.8.1-of-2"]


def test_where_one_rank_could_not_write_the_last_step_stays(tmp_path):
    path = tmp_path / "c.npz"
    keep(path, 4)
    with pytest.warns(UserWarning, match="can't be written by all ranks"):
        keep(path, 8, others=0)
    assert load(path, None)[1]["step"] == 4
    full = patch.object(checkpoints, "save", side_effect=OSError(28, "No space left on device"))
    with full, pytest.warns(UserWarning, match=r"by all ranks \(No space left on device\)"):
        keep(path, 8)
    assert load(path, None)[1]["step"] == 4
    assert not list(tmp_path.glob("*.8.*"))


def test_where_the_file_that_names_the_step_could_not_be_written_the_last_step_stays(tmp_path):
    path = tmp_path / "c.npz"
    keep(path, 4)
    written = checkpoints.save

    def full(at, *rest):
        if at == path:
            raise OSError(28, "No space left on device")
        written(at, *rest)

    with patch.object(checkpoints, "save", full), pytest.warns(UserWarning, match=r"by all ranks \(No space left"):
        save(path, part(0), {"state/mine": IDS[0].double()}, {**META, "step": 8})
    assert load(path, None)[1]["step"] == 4
    assert not list(tmp_path.glob("*.8.*"))


def test_what_is_missing_or_can_not_be_of_one_run_is_refused_by_name(tmp_path):
    path = tmp_path / "c.npz"
    keep(path, 4, town=((9, 1), (8, 1)))
    with pytest.raises(LpmError, match="'state/town' differs between ranks"):
        load(path, None)
    keep(path, 4, town=((9, 1), (9, 1, 1)))
    with pytest.raises(LpmError, match="'state/town' has different shapes"):
        load(path, part(0))
    (tmp_path / "c.npz.4.1-of-2").write_text("torn")
    with pytest.raises(InputError, match=r"c\.npz\.4\.1-of-2 is damaged"):
        load(path, part(0))
    (tmp_path / "c.npz.4.1-of-2").unlink()
    with pytest.raises(InputError, match=r"c\.npz needs c\.npz\.4\.1-of-2 beside it"):
        load(path, None)
