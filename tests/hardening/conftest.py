"""One process that has loaded lpmppl, from which commands are forked; and numbers for the end of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hardening.forks import Forks


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Commands in processes of their own, which begin at once."""
    pytest.importorskip("fcntl", reason="needs fork")
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


SAID: dict[str, dict[str, float]] = {}


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keep a number, such as how many inputs a test had, for the end of the report."""
    return lambda what, number: SAID.setdefault(what, {}).__setitem__(request.node.name, number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs there were in all, and each other number by its test."""
    for what, numbers in SAID.items():
        if what == "inputs":
            terminalreporter.write_line(f"{sum(numbers.values()):,} inputs in {len(numbers)} tests")
        else:
            terminalreporter.write_line(f"{what}: {', '.join(f'{n} {x:.3g}' for n, x in numbers.items())}")
