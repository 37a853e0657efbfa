"""Every command with every option, good and bad: it succeeds, or says in one line why not and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import strategies as st

from lpmppl.cli.app import app, invoke
from lpmppl.errors import InputError
from lpmppl.parties.certificates import issue
from lpmppl.parties.session import Session
from tests.hardening import documents
from tests.hardening.strategies import Shown, clear, fuzz, listing, no_network, soon

Given = dict[str, list[str | None]]

SMALL: Given = {"--agents": ["1000"], "--days": ["2"]}
SOCIETY: Given = {**SMALL, "--model": ["sir"]}
PARTY: Given = {"--session": ["s.json"], "--certificates": ["certificates"], "--state": ["new"]}
ELSEWHERE: Given = {
    "--helpers": ["127.0.0.1:1"],
    "--coordinator": ["127.0.0.1:1"],
    "--people": ["p.zarr"],
    "--out": ["new"],
}
TERMS: Given = {
    "--institution": ["hospitals=infections", "registry=recoveries"],
    "--days": ["4"],
    "--simulations": ["8"],
}

BASE: dict[str, tuple[list[str], Given]] = {
    "simulate": (["nyc"], {**SOCIETY, "--checkpoint-every": ["1"]}),
    "counterfactual": (["nyc"], {**SOCIETY, "--do": ["transmission=0.5@1"]}),
    "sensitivity": (["nyc"], {**SOCIETY, "--of": ["infections"], "--wrt": ["beta"], "--draws": ["2"],
                    "--no-audit": [None]}),
    "calibrate": (
        ["nyc"],
        {"--agents": ["1000"], "--data": ["data.csv"], "--until": ["2020-03-04"], "--coarse": ["0"], "--rounds": ["1"],
         "--simulations": ["2"], "--stream": ["nothing"]},
    ),
    "forecast": (["run"], {}),
    "report": (["run"], {}),
    "doctor": ([], {}),
    "population nyc": ([], {"--agents": ["1000"], "--out": ["new"]}),
    "population describe": (["p.zarr"], {"--agents": ["1000"]}),
    "behaviour show": (["nyc"], SMALL),
    "behaviour cost": (["nyc"], SMALL),
    "party session": ([], {"--out": ["new"], "--client": ["bronx=20", "queens=30"]}),
    "party certificates": ([], {"--session": ["s.json"], "--out": ["new"]}),
    "party people": ([], {"--agents": ["1000"], "--out": ["new"]}),
    "party aggregator": ([], {**PARTY, "--index": ["0"]}),
    "party coordinator": ([], {**PARTY, "--helpers": ["127.0.0.1:1"]}),
    "party client": ([], {**ELSEWHERE, "--session": ["s.json"], "--certificates": ["nowhere"], "--name": ["bronx"]}),
    "party calibrate": (
        [],
        {**ELSEWHERE, "--session": ["s.json"], "--certificates": ["nowhere"], "--name": ["bronx"],
         "--data": ["counts.csv"]},
    ),
    "party institution": ([], {**PARTY, **TERMS, "--name": ["hospitals"], "--data": ["counts.csv"]}),
    "party server": (
        [],
        {**PARTY, **TERMS, "--certificates": ["nowhere"], "--people": ["p.zarr"], "--institutions": ["a=127.0.0.1:1"],
         "--out": ["new"]},
    ),
    "party demo": ([], {"--agents": ["999"]}),
    "party leakage": (["nyc"], SOCIETY),
}  # fmt: skip
"""The smallest sensible line of each command, by which nobody is reached and little is computed."""

HELD = {"party client": {"--certificates"}, "party calibrate": {"--certificates"}, "party server": {"--certificates"}}
HELD |= {"party demo": {"--agents"}}
"""What stays as it is, because the command would start others or wait for them."""

LARGE = ("--agents", "--days", "--coarse", "--draws", "--simulations", "--rounds", "--replicates", "--ahead", "--ranks",
         "--samples", "--clients", "--within", "--helpers", "--until", "--start", "--vintage")  # fmt: skip
"""What decides how much is computed: never left out where it is given, and never large."""

NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "2.5",
    "nan",
    "inf",
    "-inf",
    "1e3",
    "x",
    "",
    " ",
    "٣",
    str(2**31),
    str(2**63),
    str(10**30),
    "9" * 400,
]
COUNTS = ["1", "2", "0", "-1", "2.5", "x", "", "1e3", "nan", str(10**30), "9" * 5000]
PEOPLE = ["1000", "1200", "999", "0", "-1", "1e3", "x", "", str(10**30), "2.5"]
DATES = [
    "2020-03-01",
    "2020-03-02",
    "2020-02-30",
    "2020-13-01",
    "0001-01-01",
    "9999-12-31",
    "20200301",
    "x",
    "",
    "2020-03-01T00",
]
READ = ["p.zarr", "run", "stopped", "broken", "data.csv", "vintages.csv", "counts.csv", "s.json", "notes.txt",
        "empty", "loop",
        "dangling", "é", "nowhere", "nowhere/x", "/proc/nowhere", "/dev/null", "x" * 300, ".", "", "run/results.nc",
        "a/" * 2000]  # fmt: skip
WRITTEN = ["new", "new/a", "run", "stopped", "notes.txt", "p.zarr", "loop", "dangling", "nowhere/x",
           "/proc/nowhere", "x" * 300,
           "é", ".", "", "empty", "a/" * 2000]  # fmt: skip
ACTS = ["transmission=0.5@1", "transmission=0.5@0", "transmission=-1@1", "transmission=1e308@1", "transmission=x@1",
        "stimulus=500@1", "test=antigen@0", "test=nothing@0", "schools=0@1", "transmission=0.5@9",
        "transmission=0.5@-1",
        "x=1@1", "=", "@", "transmission=0.5@transmission>0.1", "transmission=0.5@nothing>1<0", "a: transmission=0.5@1",
        "transmission=0.5@1,transmission=0.4@1", "stringency=50@1", "transmission=0.5@" + "9" * 30,
        "é=1@1"]  # fmt: skip
SET = ["beta=0.3", "beta=-1", "beta=1e308", "beta=0", "gamma=1e-300", "betta=1", "beta=nan", "beta", "=",
       "initial_infected=2",
       "initial_infected=1", "mortality=1", "latent_mean=1e-9", "é=1", "beta=1=2", "beta=" + "9" * 400]  # fmt: skip
WORDS = ["nyc", "nyk", "", "é", "x" * 300, "-", "--", "-x", "\u202e", "a b", "[red]", "{}", "%s", "0"]
VALUES: dict[str, list[str]] = {
    **dict.fromkeys(("--agents",), PEOPLE),
    **dict.fromkeys(LARGE[1:-3], COUNTS),
    "--ranks": ["0", "-1", "x", str(10**30), "2.5"],
    **dict.fromkeys(("--until", "--start", "--vintage"), DATES),
    **dict.fromkeys(("--out", "--csv", "--state", "--risk", "--folder"), WRITTEN),
    "--cache": ["new", "run", "notes.txt", "loop", "dangling", "nowhere/x", "kept.sqlite", "empty", "é"],
    **dict.fromkeys(("--resume", "--population", "--posterior", "--before", "--data", "--session", "--certificates",
    "--people"), READ),
    **dict.fromkeys(("--intervene", "--do"), ACTS),
    "--set": SET,
    "--by": ["borough", "age=age_band", "puma", "household", "x", "age", ",", "borough,borough", "a=borough",
             "day=borough", "é=puma"],
    "--model": ["sir", "seirm", "pandemic", "seir", "", "Model", "population", "STRATA"],
    "--device": ["cpu", "cuda", "cuda:99", "meta", "mps", "cpu:1", "abacus", "", "xla"],
    "--behaviour": ["utility", "llm", "x", ""],
    "--llm-url": ["x", "", "http://", "ftp://a", "http://[", "http://a b"],
    "--llm-model": ["nothing-of-that-name", "", "run", "."],
    "--of": ["infections", "deaths", "recoveries", "x", ""],
    "--wrt": ["beta", "gamma", "all", "x", ""],
    "--estimator": ["auto", "differences", "pathwise", "flips", "score", "straight-through", "gumbel-softmax",
                    "mean-field", "x"],
    "--stream": ["admissions", "deaths", "cases", "x", "nothing"],
    "--fit": ["beta", "all", "x", ""],
    "--guide": ["normal", "x", ""],
    "--geo": ["puma", "borough", "x", ""],
    "--decision": ["isolate", "test", "x", ""],
    "--client": ["bronx=1", "bronx=0", "bronx", "=3", "bronx=x", "bronx=" + "9" * 30, "ca=3", "helper-0=3", "é=3",
                 "bronx=٣", "bronx=²"],
    "--institution": ["hospitals=infections", "a=recoveries", "hospitals=x", "hospitals", "=",
                      "hospitals=infections,infections"],
    "--institutions": ["a=127.0.0.1:1", "a", "=", "a=b=c"],
    "--streams": ["infections", "x", ",", "infections,recoveries"],
    "--name": ["bronx", "hospitals", "x", "../x", "é", "coordinator", ""],
    "--coordinator": ["127.0.0.1:1", "x", "", "127.0.0.1:99999"],
    "--host": ["127.0.0.1", "x", ""],
    "--port": ["0", "1", "65536", "-1", "x"],
    "--metrics": ["0", "65536", "-1", "x"],
}  # fmt: skip
"""What is given to an option; others get numbers."""


def commands() -> dict[str, Any]:
    """All commands by name, with their own options, as the program has them."""
    found: dict[str, Any] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, each in getattr(command, "commands", {}).items():
            walk(each, (*path, name))
        if not hasattr(command, "commands"):
            found[" ".join(path)] = command

    walk(typer.main.get_command(app), ())
    return found


def options(name: str) -> dict[str, tuple[bool, bool]]:
    """The options of a command: whether each is a flag, and may be repeated."""
    return {
        option: (bool(parameter.is_flag), bool(parameter.multiple))
        for parameter in commands()[name].params
        if type(parameter).__name__.endswith("Option")
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


def lines(name: str) -> st.SearchStrategy[list[str]]:
    """Command lines: the smallest sensible one after a few edits."""
    arguments, given = BASE[name]
    known = options(name)
    free = [option for option in known if option not in HELD.get(name, ())]

    def value(option: str) -> st.SearchStrategy[str | None]:
        return st.none() if known[option][0] else st.sampled_from(VALUES.get(option, NUMBERS))

    edits: list[st.SearchStrategy[Any]] = [
        st.tuples(st.just("argument"), st.just(""), st.sampled_from([*WORDS, *READ]))
    ]
    if free:
        put = st.sampled_from(free).flatmap(lambda option: st.tuples(st.just("set"), st.just(option), value(option)))
        again = st.sampled_from(free).flatmap(lambda option: st.tuples(st.just("more"), st.just(option), value(option)))
        lost = st.tuples(st.just("lose"), st.sampled_from(free), st.none())
        edits += [put, put, put, again, lost]

    def made(changes: list[tuple[str, str, str | None]]) -> list[str]:
        line, options = list(arguments), {option: list(values) for option, values in given.items()}
        for kind, option, new in changes:
            match kind:
                case "set":
                    options[option] = [new]
                case "more" if option not in LARGE or option not in options:
                    options[option] = [*options.get(option, []), new]
                case "lose" if option not in LARGE:
                    options.pop(option, None)
                case "argument":
                    line = [new or ""] if line and (new or "").startswith("x") else [*line, new or ""]
        pairs = ((option, value) for option, values in options.items() for value in values)
        words = (word for pair in pairs for word in (pair[:1] if pair[1] is None else pair))
        return [*name.split(), *line, *words]

    return st.lists(st.one_of(*edits), max_size=3).map(made)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything that commands read, good and damaged."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pristine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPMPPL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["lpmppl"])
        patch.setattr("lpmppl.cli.party.serve", nobody)
        patch.setattr("lpmppl.cli.split.serve", nobody)
        patch.chdir(folder)
        small = ["--model", "sir", "--agents", "1000", "--days", "2"]
        for line in (
            ["population", "nyc", "--agents", "1000", "--out", "p.zarr"],
            ["simulate", "nyc", *small, "--out", "run"],
            ["simulate", "nyc", *small, "--out", "stopped"],
        ):
            assert ended(line)[0] == 0, ended(line)
        record = json.loads((folder / "stopped" / "run.json").read_text())
        (folder / "stopped" / "run.json").write_text(json.dumps({**record, "status": "running"}))
        (folder / "broken").mkdir()
        (folder / "broken" / "run.json").write_text('{"status": "running", "settings": {"name": 3}}')
        (folder / "broken" / "results.nc").write_bytes((folder / "run" / "results.nc").read_bytes()[:3000])
        (folder / "data.csv").write_text(documents.by_day(9, date(2020, 2, 28)))
        (folder / "vintages.csv").write_text(documents.vintages())
        (folder / "counts.csv").write_text(documents.counts())
        (folder / "notes.txt").write_text("not a file of lpmppl's")
        (folder / "é").write_text("é")
        (folder / "empty").write_bytes(b"")
        (folder / "loop").symlink_to("loop")
        (folder / "dangling").symlink_to("nothing")
        session = Session.new(model="sir-1", helpers=2, clients={"bronx": 20, "hospitals": 30})
        session.save(folder / "s.json")
        issue(folder / "certificates", session.parties)
        yield folder


def nobody(party: Callable[[], Any]) -> None:
    """Stand in for a party that would answer for ever."""
    raise InputError("in tests nobody answers")


def ended(line: list[str]) -> tuple[int, str, str]:
    """Run a command line in this process: its exit code, and what it said on stdout and stderr."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), no_network(), soon():
            code = invoke(line)
        for file in (out, err):
            file.flush()
            file.seek(0)
        return code, out.read(), err.read()


UNFINISHED = (".part", ".partial", ".building", ".new", ".old")


CHEAP = ("simulate", "report", "party session", "party aggregator", "party certificates")
"""Of which a few lines are tried in every run of the tests."""

TRIED = [pytest.param(name, 3) for name in CHEAP]
TRIED += [pytest.param(name, 75, marks=pytest.mark.slow) for name in BASE]


@pytest.mark.parametrize(("name", "many"), TRIED)
def test_a_command_succeeds_or_says_why_not(name: str, many: int, pristine: Path, tmp_path: Path, shown: Shown) -> None:
    work = tmp_path / "work"
    shutil.copytree(pristine, work, symlinks=True)
    os.chdir(work)
    before = listing(work)

    def check(line: list[str]) -> None:
        nonlocal before
        try:
            code, out, err = ended(line)
            assert code in (0, 2) or (line[0] == "doctor" and code == 1), (code, out, err)
            assert "Traceback" not in out + err
            after = listing(work)
            if code == 2 and err:
                said = [each for each in err.splitlines() if not each.startswith("lpmppl: warning: ")]
                assert len(said) == 1 and said[0].startswith("lpmppl: "), err
                assert len(said[0]) > len("lpmppl: x")
            if code == 2 and "report.html" not in out and line[:2] != ["population", "nyc"]:
                assert {n for n in after if n not in before} == set()
                assert {n for n in before if after.get(n) != before[n] and not n.startswith("stopped")} == set()
            assert not [n for n in after if n.endswith(UNFINISHED)]
            if code == 0 and "--json" in line:
                json.loads(out.splitlines()[-1])
        finally:
            if listing(work) != before:
                for entry in work.iterdir():
                    clear(entry)
                shutil.copytree(pristine, work, symlinks=True, dirs_exist_ok=True)
                before = listing(work)

    try:
        fuzz(lines(name), check, many, shown)
    finally:
        os.chdir(pristine)


def test_every_command_is_tried() -> None:
    assert set(BASE) == set(commands())
    for name in BASE:
        computes = {option for option in options(name) if option == "--agents"}
        assert computes <= set(BASE[name][1]), f"{name} would run with all of New York"
