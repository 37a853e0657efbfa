"""One process that has loaded lpmppl, from which commands are forked; and numbers for the end of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from tests.hardening.forks import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Commands in processes of their own, which begin at once."""
    pytest.importorskip("fcntl", reason="needs fork")
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


@pytest.fixture
def shown(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Keep a number, such as how many inputs a test had, for the end of the report."""
    return record_property


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs there were, in all and by what they were, and each other number by its test."""
    inputs: dict[str, int] = defaultdict(int)
    others: dict[str, list[str]] = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            path, _, test = report.nodeid.partition("::")
            for what, number in report.user_properties:
                if what == "inputs":
                    inputs[PurePosixPath(path).stem.removeprefix("test_")] += number
                else:
                    others[what].append(f"{test} {number:.3g}")
    if inputs:
        each = ", ".join(f"{kind} {number:,}" for kind, number in sorted(inputs.items()))
        terminalreporter.write_line(f"{sum(inputs.values()):,} inputs: {each}")
    for what, said in others.items():
        terminalreporter.write_line(f"{what}: {', '.join(said)}")
