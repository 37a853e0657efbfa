"""Parties that are killed in mid-round and come back: exact over exactly who is included, no two splittings mixed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lpmppl.errors import LpmError
from lpmppl.parties import uploads
from lpmppl.parties.arithmetic import split
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.client import Rounds
from lpmppl.parties.results import Decision, Memory
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.splitting import Parted
from lpmppl.parties.wire import Entry, Kind, packed
from tests.parties.parts import messages, numbers, session, whole
from tests.parties.processes import PATIENCE, Town, call, context, eventually, together, town, two
from tests.parties.test_rounds import check, held


def test_a_helper_is_killed_and_comes_back_in_mid_round(tmp_path: Path) -> None:
    of = session({"bronx": 50, "queens": 40})
    x, y = numbers(1, 50, 4), numbers(2, 40, 4)
    with two(tmp_path, of) as (made, bronx, queens, pool):
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])
        first = pool.submit(bronx.sum, x)
        eventually("bronx is done again", lambda: len(made.coordinator.events("done")) == 3)
        made.helpers[1].kill(signal.SIGKILL)
        journals = {path.parent.name for path in tmp_path.glob("helper-*/parts-00000001")}
        assert journals == {"helper-0", "helper-1", "helper-2"}
        second = pool.submit(queens.sum, y)
        eventually("the others have queens' parts", lambda: grown(tmp_path, 90))
        made.helpers[1].start()
        opened = [first.result(PATIENCE), second.result(PATIENCE)]
        check(opened, [x, y])
        assert opened[0].included == 90
        assert made.helpers[1].events("resumed")[0]["agents"] == 50
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])


def grown(folder: Path, agents: int) -> bool:
    """Whether the helpers that are up have written down the parts of so many, each of 4 numbers or a seed: 32 bytes."""
    return all((folder / f"helper-{k}" / "parts-00000001").stat().st_size > 36 * agents for k in (0, 2))


def test_the_coordinator_is_killed_in_mid_round(tmp_path: Path) -> None:
    of = session({"bronx": 50, "queens": 40})
    x, y = numbers(1, 50, 4), numbers(2, 40, 4)
    with two(tmp_path, of) as (made, bronx, queens, pool):
        for round in range(2):
            first = pool.submit(bronx.sum, x)
            eventually("bronx is done", lambda: len(made.coordinator.events("done")) > 2 * round)  # noqa: B023
            made.coordinator.kill(signal.SIGKILL)
            made.coordinator.start()
            opened = [first.result(PATIENCE) for first in (pool.submit(queens.sum, y), first)][::-1]
            check(opened, [x, y])
            assert opened[0].included == 90
        assert made.coordinator.events("resumed")[0]["round"] == 1


def test_the_coordinator_is_killed_while_it_waits_for_a_helper(tmp_path: Path) -> None:
    of = session({"bronx": 50, "queens": 40}, deadline=3.0)
    x = numbers(1, 50, 4)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, ThreadPoolExecutor(1) as pool:
        pending = pool.submit(bronx.sum, x)
        eventually("bronx is done", lambda: made.coordinator.events("done"))
        made.helpers[2].kill(signal.SIGKILL)
        eventually("the coordinator waits", lambda: made.coordinator.events("away"))
        made.coordinator.kill(signal.SIGKILL)
        made.helpers[2].start()
        made.coordinator.start()
        opened = pending.result(PATIENCE)
        check([opened], [x])
        assert opened.included == 50


def test_a_client_that_is_too_late_is_told_the_sum_without_it(tmp_path: Path) -> None:
    of = session({"bronx": 50, "queens": 40}, deadline=3.0)
    x, y = numbers(1, 50, 4), numbers(2, 40, 4)
    with two(tmp_path, of) as (made, bronx, queens, pool):
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])
        pending = pool.submit(bronx.sum, x)
        eventually("bronx is done again", lambda: len(made.coordinator.events("done")) == 3)
        made.helpers[2].kill(signal.SIGKILL)
        eventually("the others have closed the round", lambda: made.helpers[0].events("closed")[1:])
        late = pool.submit(queens.sum, y)
        eventually("queens is late", lambda: made.helpers[0].events("refused"))
        made.helpers[2].start()
        opened = [pending.result(PATIENCE), late.result(PATIENCE)]
        check(opened, [x, y])
        assert (opened[1].included, int(opened[1].mine.sum())) == (50, 0)


def test_a_sum_that_is_given_up_and_asked_for_again_mixes_no_parts(tmp_path: Path) -> None:
    """Helpers 0 and 1 have parts of the first splitting; the second's for helper 2 alone don't count."""
    of = session({"bronx": 50, "queens": 40})
    x, y = numbers(1, 50, 4), numbers(2, 40, 4)
    with town(tmp_path, of) as made, made.client("bronx", patience=1.0) as bronx, made.client("queens") as queens:
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])
        made.helpers[2].kill(signal.SIGKILL)
        with pytest.raises(LpmError, match=r"round 1 wasn't opened within 1 s: .*helper-2 at .* doesn't answer"):
            bronx.sum(x)
        assert (held(made, 0, 1), held(made, 1, 1)) == (50, 50)
        made.helpers[2].start()
        bronx._patience = PATIENCE
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])


def test_what_was_decided_before_a_crash_is_what_is_opened(tmp_path: Path) -> None:
    """The coordinator had chosen fewer than all helpers have, and died: the round is over its choice, and no other."""
    of = session({"bronx": 6})
    x = numbers(1, 6, 4)
    with town(tmp_path, of) as made:
        for helper, message in zip(made.helpers, messages(of, "bronx", x, sharing=bytes(16)), strict=True):
            call(made, "bronx", helper, "PARTS", message)
        made.coordinator.kill(signal.SIGKILL)
        some = np.array([True, True, False, True, False, False])
        Memory(of, tmp_path / "coordinator").decide(0, Decision(4, [Entry("bronx", 4, bytes(16), some)], range(3)))
        close_all(made, 0)
        made.coordinator.start()
        with made.client("bronx") as bronx:
            opened = bronx.sum(x)
        assert opened.mine.tolist() == some.tolist()
        check([opened], [x])


def close_all(made: Town, round: int) -> None:
    for helper in made.helpers:
        call(made, COORDINATOR, helper, "CLOSE", packed(made.session, Kind.CLOSE, COORDINATOR, helper.name, round))


def _dies(folder: Path, of: Session, helpers: list[str], coordinator: str, mark: Path) -> None:
    """A client that stands still after two batches, to be killed there."""
    made = 0

    def stuck(*args: Any) -> Parted:
        nonlocal made
        made += 1
        if made > 2:
            mark.touch()
            signal.sigwait({signal.SIGUSR1})
        return split(*args)

    vars(uploads).update(split=stuck, _BATCH=64 * 10)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with Rounds(of, "bronx", Credentials(folder / "certificates", "bronx"), helpers, coordinator) as rounds:
        rounds.sum(numbers(1, 50, 4))


@pytest.mark.parametrize("comes_back", ["at once", "later"])
def test_a_client_process_is_killed_in_mid_upload_and_comes_back(tmp_path: Path, comes_back: str) -> None:
    """Whom it sent whole are included, and it isn't waited for beyond the deadline."""
    of = session({"bronx": 50, "queens": 40}, deadline=20.0 if comes_back == "at once" else 2.0)
    x, y, other = numbers(1, 50, 4), numbers(2, 40, 4), numbers(3, 50, 4)
    mark = tmp_path / "stuck"
    with town(tmp_path, of) as made, made.client("queens") as queens:
        dying = context.Process(
            target=_dies, args=(tmp_path, of, made.addresses, made.coordinator.address, mark), daemon=True
        )
        dying.start()
        try:
            eventually("it is in mid-upload", mark.exists)
            sent = 20
            eventually("the helpers have two batches", lambda: all(held(made, k) == sent for k in range(3)))
        finally:
            dying.kill()
            dying.join(PATIENCE)
            dying.close()
        if comes_back == "at once":
            with made.client("bronx") as bronx:
                back, theirs = together(lambda: bronx.sum(other), lambda: queens.sum(y))
            # What its first life had sent stays, and the others are of its second life.
            assert back.included == 90
            assert back.total.tolist() == whole(torch.cat([x[:sent], other[sent:], y]))
            assert torch.equal(back.total, theirs.total)
            return
        theirs = queens.sum(y)
        assert theirs.included == 40 + sent
        assert theirs.total.tolist() == whole(torch.cat([x[:sent], y]))
        assert made.coordinator.events("deadline")[0]["clients"] == 1
        with made.client("bronx") as bronx:
            past = bronx.sum(other)
            assert (past.total.tolist(), past.bytes_sent) == (theirs.total.tolist(), 0)
            assert past.mine.tolist() == [True] * sent + [False] * (50 - sent)
            opened = together(lambda: bronx.sum(other), lambda: queens.sum(y))
        check(opened, [other, y])
        assert opened[0].included == 90
