"""Rounds between real processes: exact over exactly who is included, whoever dies."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lpmppl.errors import LpmError
from lpmppl.parties.client import Opened
from lpmppl.parties.refusals import Reason
from lpmppl.parties.wire import Kind, entries_of, packed
from tests.parties.parts import modes, numbers, session, whole
from tests.parties.processes import PATIENCE, Town, call, eventually, together, town


def check(opened: list[Opened], values: list[Tensor]) -> None:
    """All clients have the same sum, over whom each says is its own."""
    rows = torch.cat([x[each.mine] for each, x in zip(opened, values, strict=True)])
    for each in opened:
        assert each.total.tolist() == whole(rows)
        assert each.included == len(rows)


def test_agents_that_die_in_mid_upload_are_left_out_and_nobody_else(tmp_path: Path) -> None:
    of = session({"bronx": 700, "queens": 300}, least=10)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, made.client("queens", seed=3) as queens:
        for round in range(3):
            x, y = numbers(round, 700, 16), numbers(round + 9, 300, 16)
            lost = [torch.from_numpy(np.random.default_rng(round).random(n) < 0.1) for n in (700, 300)]
            opened = together(lambda: bronx.sum(x, lost[0]), lambda: queens.sum(y, lost[1]))  # noqa: B023
            check(opened, [x, y])
            assert [torch.equal(each.mine, ~gone) for each, gone in zip(opened, lost, strict=True)] == [True, True]
            assert [each.round for each in opened] == [round, round]
            assert 8 * 16 <= opened[0].bytes_sent / 700 <= 8 * 16 + 200
        assert not list(tmp_path.glob("helper-*/parts-*"))
        assert {mode for name, mode in modes(tmp_path / "helper-0").items()} == {0o600}


def held(made: Town, k: int, round: int = 0) -> int:
    """How many of bronx's agents a helper says it has."""
    message = packed(made.session, Kind.HOLDING, "bronx", f"helper-{k}", round)
    entries = entries_of(made.session, call(made, "bronx", made.helpers[k], "HOLDING", message)[72:])
    return sum(int(entry.slots.sum()) for entry in entries)


def test_too_few_open_nothing_and_the_next_round_goes_on(tmp_path: Path) -> None:
    of = session({"bronx": 20}, least=15)
    x = numbers(1, 20, 2)
    with town(tmp_path, of) as made, made.client("bronx") as bronx:
        with pytest.raises(LpmError, match=r"round 0 wasn't opened: the parts of 14 agents reached every helper"):
            bronx.sum(x, torch.arange(20) < 6)
        assert not list(tmp_path.glob("helper-*/parts-*"))
        opened = bronx.sum(x, torch.arange(20) < 5)
        check([opened], [x])
        assert (opened.round, opened.included) == (1, 15)


def test_one_sum_at_a_time(tmp_path: Path) -> None:
    with town(tmp_path, session()) as up, up.client("bronx") as bronx, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bronx.sum, numbers(1, 6, 2))
        eventually("bronx is in a sum", bronx._one.locked)
        with pytest.raises(LpmError, match="client 'bronx' is in a sum already"):
            bronx.sum(numbers(1, 6, 2))
        with up.client("queens") as queens:
            queens.sum(numbers(2, 5, 2))
        assert waiting.result(60).included == 11


def test_a_full_helper_makes_clients_wait_and_the_round_is_over_whom_it_has(tmp_path: Path) -> None:
    of = session({"bronx": 40, "queens": 40}, deadline=1.0)
    x, y = numbers(1, 40, 4), numbers(2, 40, 4)
    with (
        town(tmp_path, of, most=2000) as made,
        made.client("bronx") as bronx,
        made.client("queens") as queens,
        ThreadPoolExecutor(1) as pool,
    ):
        # One after the other: else each might be first with another helper, and nobody with all.
        first = pool.submit(bronx.sum, x)
        eventually("every helper has the first", lambda: all(held(made, k) == 40 for k in range(3)))
        second = queens.sum(y)
        opened = [first.result(PATIENCE), second]
        check(opened, [x, y])
        assert opened[0].included == 40
        reasons = {event["reason"] for helper in made.helpers for event in helper.events("refused")}
        assert reasons <= {Reason.FULL.value, Reason.LATE.value}
        assert Reason.FULL.value in reasons


def test_a_helper_that_cannot_write_takes_nothing_and_clients_wait(tmp_path: Path) -> None:
    of = session({"bronx": 6})
    x = numbers(1, 6, 4)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, ThreadPoolExecutor(1) as pool:
        (tmp_path / "helper-1").rename(tmp_path / "gone")
        pending = pool.submit(bronx.sum, x)
        eventually("it says so", lambda: made.helpers[1].events("failed"))
        assert held(made, 1) == 0
        (tmp_path / "gone").rename(tmp_path / "helper-1")
        opened = pending.result(PATIENCE)
        check([opened], [x])
        assert opened.included == 6


def test_numbers_of_another_length_are_said_to_the_client_that_has_them(tmp_path: Path) -> None:
    of = session({"bronx": 6, "queens": 5})
    y = numbers(2, 5, 2)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, made.client("queens") as queens:

        def other() -> None:
            with pytest.raises(LpmError, match=r"round 0 was opened with 3 numbers an agent, .*'queens' gave 2"):
                queens.sum(y)

        opened, _ = together(lambda: bronx.sum(numbers(1, 6, 3)), other)
        check([opened], [numbers(1, 6, 3)])


@pytest.mark.slow
def test_thirty_days_with_one_in_ten_dying_and_a_helper_killed(tmp_path: Path) -> None:
    of = session({"bronx": 3000, "queens": 2000}, least=10)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, made.client("queens") as queens:
        for day in range(30):
            x, y = numbers(day, 3000, 16), numbers(day + 99, 2000, 16)
            lost = [torch.from_numpy(np.random.default_rng(day).random(n) < 0.1) for n in (3000, 2000)]
            with ThreadPoolExecutor(2) as pool:
                pending = [pool.submit(bronx.sum, x, lost[0]), pool.submit(queens.sum, y, lost[1])]
                if day == 15:
                    made.helpers[day % 3].kill(signal.SIGKILL)
                    made.helpers[day % 3].start()
                opened = [each.result(PATIENCE) for each in pending]
            check(opened, [x, y])
            assert [torch.equal(each.mine, ~gone) for each, gone in zip(opened, lost, strict=True)] == [True, True]
