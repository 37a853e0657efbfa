"""The help is a manual, and costs nothing to ask for."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
COMMANDS = [["simulate"], ["population"], ["population", "nyc"], ["population", "describe"], ["report"], ["doctor"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(lpm: Run, command: list[str]) -> None:
    ended = lpm(*command, "--help")
    assert ended.code == 0
    assert "Example" in ended.out
    assert f"lpmppl {command[0]}" in ended.out.split("Example", 1)[1]


def test_the_first_page_names_every_command(lpm: Run) -> None:
    page = lpm("--help").out
    assert all(name in page for name in ("simulate", "population", "report", "doctor"))
    assert "Simulate whole societies" in lpm().out


def test_help_loads_nothing_heavy(environment: dict[str, str]) -> None:
    program = (
        "import sys, lpmppl.cli; print(sorted({'torch', 'pyro', 'chirho', 'xarray', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
