"""What split learning is agreed on by: every setting tells, and its session has room."""

from __future__ import annotations

import pytest

from lpmppl.errors import InputError, LpmError
from lpmppl.models.population import Population
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.encoding import Encoding
from lpmppl.parties.line import Line
from lpmppl.parties.session import COORDINATOR
from lpmppl.parties.society import society
from lpmppl.parties.split import Server
from lpmppl.parties.wire import Kind
from tests.parties.offices import AGREED, DATA, DAYS, FORM, RUNS, session

__all__ = ["session"]


def test_an_agreement_tells_every_setting():
    terms = ({"a": "infections", "b": "recoveries"}, 8, 64, 0)
    others = [
        SplitAgreement({"a": "infections", "b": "deaths"}, *terms[1:]),
        SplitAgreement({"b": "recoveries", "a": "infections"}, *terms[1:]),
        SplitAgreement({"a": {"infections": ["borough"]}, "b": "recoveries"}, *terms[1:]),
        SplitAgreement(terms[0], 9, 64, 0),
        SplitAgreement(terms[0], 8, 65, 0),
        SplitAgreement(terms[0], 8, 64, 1),
    ]
    assert len({each.fingerprint for each in (SplitAgreement(*terms), *others)}) == 7
    assert SplitAgreement(*terms).fingerprint == SplitAgreement(*terms).fingerprint


def test_a_session_has_room_for_what_is_sent():
    wide = SplitAgreement({"a": {"infections": ["borough"]}, "b": "recoveries"}, 300, 1000)
    boroughs = society(Population.of({"household": [0, 0], "borough": [0, 1]}))
    assert wide.session(boroughs).longest >= 2 * max(64 * 300 * 6, 64 * 128, 1000 * 300)
    with pytest.raises(InputError, match="one institution, a, was given"):
        SplitAgreement({"a": "infections"}, 8, 64).session(FORM)
    with pytest.raises(InputError, match="longest="):
        SplitAgreement({"a": "infections", "b": "recoveries"}, 2**15, 2**15).session(FORM)
    with pytest.raises(InputError, match=r"can't be named 'St\. Mary'"):
        SplitAgreement({"a": "infections", "St. Mary": "recoveries"}, 8, 64).session(FORM)


def test_sessions_addresses_and_data_that_do_not_fit_are_refused(session, tmp_path):
    of, keys = session
    own = Credentials(keys, COORDINATOR)
    at = {"hospitals": "127.0.0.1:1", "registry": "127.0.0.1:2"}
    with pytest.raises(InputError, match=r"the session is for model split-.*, and these"):
        SplitAgreement(AGREED.streams, DAYS, RUNS + 1, seed=4).check(of)
    with pytest.raises(InputError, match="the server needs the certificate of 'coordinator'"):
        Line(of, Credentials(keys, "registry"), at)
    with pytest.raises(InputError, match="'registry' has no address"):
        Line(of, own, {"hospitals": "127.0.0.1:1"})
    with pytest.raises(InputError, match="did you mean 'registry'"):
        Line(of, own, {**at, "registri": "127.0.0.1:1"})
    with pytest.raises(InputError, match="give host:port"):
        Line(of, own, {**at, "registry": "nowhere"})
    with pytest.raises(LpmError, match="isn't connected"):
        Line(of, own, at).ask("registry", Kind.READ, Kind.READING, 0)
    with pytest.raises(InputError, match="unknown institution 'hospital'"):
        Encoding(of, AGREED, "hospital", FORM, {}, tmp_path / "x")
    with pytest.raises(InputError, match="recoveries"):
        Encoding(of, AGREED, "hospitals", FORM, DATA["registry"], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with Line(of, own, at) as wire:
        with pytest.raises(InputError, match="more than the session's longest"):
            wire.ask("registry", Kind.READ, Kind.READING, 0, bytes(of.largest))
        with pytest.raises(InputError, match="give one model"):
            Server({"a": FORM}, AGREED, wire, tmp_path / "server")
        server = Server(FORM, AGREED, wire, tmp_path / "server")
        with pytest.raises(InputError, match="the session is for 70"):
            server.learn(71)
        with pytest.raises(InputError, match="goes on from its state folder"):
            server.resume(tmp_path / "there")
