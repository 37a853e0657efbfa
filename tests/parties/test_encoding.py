"""An institution of split learning by itself: what it answers, however often and whatever ends between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpmppl.errors import InputError
from lpmppl.inference.split import SplitCalibNN
from lpmppl.models.population import Population
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.encoding import LENGTH, PEOPLE, Encoding
from lpmppl.parties.floats import content
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.society import society
from tests.parties.offices import AGREED, DATA, DAYS, FORM, bits, encoding, session
from tests.parties.parts import no_waiting_for_disks

__all__ = ["no_waiting_for_disks", "session"]


class Script:
    """The questions of two steps and of the institution's data, as a server asks them."""

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(1)

        def some(*shape: int) -> bytes:
            return torch.rand(*shape, generator=chance).numpy().tobytes()

        self.questions: list[tuple[str, int, bytes]] = []
        for step in range(2):
            self.questions += [("plain", step, some(3, 1, DAYS, 6)), ("read", step, some(4, 1, DAYS, 6))]
            self.questions += [("learn", step, some(4, 1, 128)), ("step", step, LENGTH.pack(7.0))]
        self.questions.append(("own", 2, PEOPLE.pack(300) + np.zeros((2, DAYS)).tobytes()))

    @staticmethod
    def answer(of: Encoding, question: tuple[str, int, bytes]) -> Any:
        kind, step, body = question
        if kind in ("plain", "read"):
            return of.read(step, kind == "read", body).numpy().tobytes()
        return of.own(step, body)[0] if kind == "own" else getattr(of, kind)(step, body)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 2), st.booleans()), min_size=9, max_size=9))
def test_answers_are_the_same_however_often_and_whatever_ends_between(session, tmp_path_factory, fates):
    folder, script = tmp_path_factory.mktemp("one"), Script().questions
    straight = encoding(session[0], "hospitals", folder / "straight")
    expected = [Script.answer(straight, question) for question in script]
    other = encoding(session[0], "hospitals", folder / "other")
    for k, (question, (times, ended)) in enumerate(zip(script, fates, strict=True)):
        if ended:
            other = encoding(session[0], "hospitals", folder / "other")
        for _ in range(times):
            try:
                found = Script.answer(other, question)
            except Refused as e:
                assert e.reason is Reason.NOT_HELD
                begun = [each for each in script[:k] if each[1] == question[1] and each[0] in ("read", "learn")]
                found = [Script.answer(other, each) for each in [*begun, question]][-1]
            assert found == expected[k]
    assert bits(other.part) == bits(straight.part)
    assert {path.name for path in (folder / "other" / "hospitals").iterdir()} == {
        "owner", "own", "step-0000000001", "step-0000000002"
    }  # fmt: skip


def test_the_last_step_may_be_taken_again_otherwise_and_no_earlier_one(session, tmp_path):
    one = encoding(session[0], "hospitals", tmp_path)
    for question in Script().questions[:-1]:
        Script.answer(one, question)
    (_, again), script = (one, encoding(session[0], "hospitals", tmp_path)), Script().questions
    before = bits(again.part)
    assert before == bits(one.part)
    Script.answer(again, script[5])
    assert bits(again.part) != before
    Script.answer(again, ("learn", 1, bytes(4 * 128 * 4)))
    assert Script.answer(again, ("learn", 1, bytes(4 * 128 * 4))) == 0.0
    with pytest.raises(Refused, match="conflict: step 1 has another derivative"):
        Script.answer(again, script[6])
    Script.answer(again, ("step", 1, LENGTH.pack(3.0)))
    assert bits(again.part) != before
    with pytest.raises(Refused, match="conflict: step 1 was taken with another length"):
        Script.answer(again, script[7])
    with pytest.raises(Refused, match="late: 'hospitals' has taken step 0, and step 2 is next"):
        Script.answer(again, script[1])


def test_own_data_are_read_once_and_then_nothing_is_learnt(session, tmp_path):
    one, script = encoding(session[0], "hospitals", tmp_path), Script().questions
    with pytest.raises(Refused, match="early: 'hospitals' has learnt nothing yet"):
        Script.answer(one, ("own", 0, script[-1][2]))
    answers = [Script.answer(one, question) for question in script]
    for each in (one, encoding(session[0], "hospitals", tmp_path)):
        assert Script.answer(each, script[-1]) == answers[-1]
        with pytest.raises(Refused, match="other-set: 'hospitals' has read its data, once"):
            Script.answer(each, ("own", 2, PEOPLE.pack(301) + script[-1][2][8:]))
        for step in (1, 2):
            with pytest.raises(Refused, match="late: 'hospitals' has read its data, and learns no more"):
                Script.answer(each, ("read", step, script[1][2]))
        assert len(Script.answer(each, ("plain", 2, script[0][2]))) == 3 * 128 * 4


def test_series_by_strata_are_read_as_in_one_place(tmp_path):
    people = Population.of({"household": [0, 0, 1, 1], "borough": [0, 0, 1, 1]})
    whose = {"b": "recoveries", "a": {"infections": ["borough"]}}
    model, agreed = society(people), SplitAgreement(whose, DAYS, 64, seed=9)
    network, of = SplitCalibNN(model, whose, DAYS, seed=9), agreed.session(model)
    x, names = network.tasks[""].input(torch.arange(3.0 * 3 * DAYS).reshape(3, -1).double()), agreed.names(model)
    for name, institution in network.institutions.items():
        one = Encoding(of, agreed, name, model, None, tmp_path / name)
        mine = [k for k, n in enumerate(names) if n in institution.series]
        there = institution.read(x[:, mine], [names[k] for k in mine], learning=False)
        assert torch.equal(one.read(0, False, content(x[:, mine])), there)
    assert len(names) == 3


def test_weights_of_its_own_are_nobody_elses_and_stay(session, tmp_path):
    shared = encoding(session[0], "hospitals", tmp_path / "shared")
    one = encoding(session[0], "hospitals", tmp_path / "one", own_weights=True)
    two = encoding(session[0], "hospitals", tmp_path / "two", own_weights=True)
    assert len({tuple(bits(each.part)) for each in (shared, one, two)}) == 3
    assert bits(encoding(session[0], "hospitals", tmp_path / "one", own_weights=True).part) == bits(one.part)
    assert bits(encoding(session[0], "hospitals", tmp_path / "again").part) == bits(shared.part)


def test_a_state_folder_of_something_else_is_not_used(session, tmp_path):
    encoding(session[0], "hospitals", tmp_path)
    with pytest.raises(InputError, match="belongs to another session or party"):
        Encoding(session[0], AGREED, "registry", FORM, DATA["registry"], tmp_path / "hospitals")
    (tmp_path / "hospitals" / "step-0000000000").write_bytes(bytes(100))
    with pytest.raises(InputError, match="hospitals is damaged"):
        encoding(session[0], "hospitals", tmp_path)


def test_a_gradient_that_is_no_number_is_refused(session, tmp_path):
    one, script = encoding(session[0], "hospitals", tmp_path), Script().questions
    Script.answer(one, script[1])
    with pytest.raises(Refused, match="range: the gradient of 'hospitals' is of length"):
        Script.answer(one, ("learn", 0, np.full((4, 1, 128), 3e38, "<f4").tobytes()))
    assert Script.answer(one, script[1]) == Script.answer(encoding(session[0], "hospitals", tmp_path / "x"), script[1])


def test_data_beyond_all_runs_are_told_the_institution_and_not_the_server(session, tmp_path, recwarn):
    many = {"infections": [300.0] * DAYS}
    one = Encoding(session[0], AGREED, "hospitals", FORM, many, tmp_path / "one")
    for question in Script().questions[:-1]:
        Script.answer(one, question)
    found, said = one.own(2, Script().questions[-1][2])
    assert "infections: more or fewer were seen than in any of 2 runs" in said
    assert len(found) == 128 * 4
    assert not recwarn.list
