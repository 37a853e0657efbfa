"""Sessions: what all parties agree on, in a file."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.errors import InputError
from lpmppl.parties.session import Session
from tests.parties.parts import session

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", fullmatch=True).filter(
    lambda name: not re.fullmatch(r"coordinator|helper-\d+|ca", name, re.IGNORECASE)
)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(names, st.integers(2, 10**6), min_size=1),
    st.integers(2, 9),
    st.floats(0.1, 1e4),
    st.text("aβ✓", min_size=1),
)
def test_the_file_gives_the_session_back(
    tmp_path_factory: pytest.TempPathFactory, clients: dict[str, int], helpers: int, deadline: float, model: str
) -> None:
    path = tmp_path_factory.mktemp("session") / "session.json"
    made = Session.new(model=model, helpers=helpers, clients=clients, least=2, deadline=deadline)
    made.save(path)
    assert Session.open(path) == made
    assert list(Session.open(path).clients) == list(clients)
    assert Session.open(path).tag == made.tag
    assert pickle.loads(pickle.dumps(made)) == made


def test_each_session_has_an_id_of_its_own() -> None:
    assert session().id != session().id
    assert len(session().id) == 16


def test_other_terms_make_another_tag() -> None:
    one = session()
    others: list[dict[str, Any]] = [
        {"least": 3},
        {"deadline": 5.0},
        {"helpers": 2},
        {"longest": 65},
        {"clients": {"queens": 5, "bronx": 6}},
    ]
    tags = {Session(**{**one._fields(), "id": one.id, **other}).tag for other in others}
    assert len(tags | {one.tag}) == len(others) + 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"helpers": 1}, "one helper would see everyone's numbers"),
        ({"helpers": 2.5}, "whole number"),
        ({"model": ""}, "fingerprint"),
        ({"clients": {}}, "number of agents"),
        ({"clients": {"coordinator": 9}}, "can't be named 'coordinator'"),
        ({"clients": {"helper-0": 9}}, "can't be named"),
        ({"clients": {"../bronx": 9}}, "can't be named"),
        ({"clients": {"bronx": 0}}, "client 'bronx' has 0 agents"),
        ({"least": 1}, "that agent's number"),
        ({"least": 12}, "all clients together have 11"),
        ({"deadline": 0.0}, "seconds above 0"),
        ({"deadline": float("nan")}, "seconds above 0"),
        ({"longest": 0}, "longest=0"),
    ],
)
def test_what_cannot_be_a_session_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        session(**options)


def test_a_file_that_is_no_session_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    with pytest.raises(InputError, match=r"session\.json can't be read"):
        Session.open(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="can't be read as a session file"):
        Session.open(path)
    session().save(path)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "version": 1}))
    with pytest.raises(InputError, match="protocol version 1"):
        Session.open(path)
    path.write_text(json.dumps({**fields, "proofs": 1}))
    with pytest.raises(InputError, match="proofs=1: say True or False"):
        Session.open(path)
    path.write_text(json.dumps({**fields, "proofs": True, "threshold": 2}))
    with pytest.raises(InputError, match="threshold=2: proofs need all helpers"):
        Session.open(path)
    path.write_text(json.dumps({**fields, "helpers": 1}))
    with pytest.raises(InputError, match="one helper would see"):
        Session.open(path)


def test_an_unknown_client_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'queens'"):
        session().agents("queen")
