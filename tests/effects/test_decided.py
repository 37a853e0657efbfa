"""Choices: what a run or a survey holds, row by row."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import Decided, Tabulated, Utility
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError

LABELS = {"age": ("young", "old"), "job": ("none", "some")}
TABLE = torch.cartesian_prod(torch.arange(2), torch.arange(2))
OPTIONS = ("go", "stay")
BETA = {"go": {"go": {"intercept": 0.3, "risk": -0.5, "age=old": -1.0}}}


def go(**context) -> torch.Tensor:
    return decide("go", TABLE, OPTIONS, {"attributes": LABELS, "risk": 1.0, **context})


def test_every_decision_is_kept_with_who_decides_and_what_it_observes():
    with Decided() as kept, Utility(BETA):
        first = go()
        second = go(risk=torch.tensor([[0.0], [2.0]]), due=torch.tensor([[1, 0, 0, 4], [0, 0, 3, 0]]))
    choices = kept["go"]
    assert choices.options == OPTIONS
    assert dict(choices.attributes) == LABELS
    assert choices.weight.tolist() == [1, 1, 1, 1, 1, 4, 3]
    assert choices.codes.tolist() == [*TABLE.tolist(), [0, 0], [1, 1], [1, 0]]
    assert choices.observed["risk"].tolist() == [1, 1, 1, 1, 0, 0, 2]
    expected = torch.cat([first, second[0, [0, 3]], second[1, [2]]]).double()
    assert torch.allclose(choices.chance, expected, atol=1e-7)
    assert torch.allclose(choices.chance.sum(-1), torch.ones(7, dtype=torch.float64), atol=1e-15)


def test_deciders_may_be_counted_lazily_and_those_left_out_may_be_unknown():
    class LeavesOut(Utility):
        def _pyro_decide(self, msg):
            super()._pyro_decide(msg)
            msg["value"] = msg["value"].clone()
            msg["value"][1] = torch.nan

    for handlers in ((Decided(), LeavesOut(BETA)), (LeavesOut(BETA), Decided())):
        with handlers[0], handlers[1]:
            go(due=lambda: torch.tensor([2, 0, 1, 0]))
        kept = next(h for h in handlers if isinstance(h, Decided))
        assert kept["go"].codes.tolist() == [[0, 0], [1, 0]]


def test_a_decision_that_falls_to_nobody_leaves_no_rows():
    with Decided() as kept, Utility(BETA):
        go(due=torch.zeros(4))
        with pytest.raises(InputError, match="unknown decision that was taken 'go'"):
            kept["go"]
        go()
    assert kept["go"].weight.shape == (4,)


def test_archetypes_without_labels_are_numbered():
    with Decided() as kept, Tabulated({"go": torch.tensor([0.5, 0.5])}):
        decide("go", torch.arange(3), OPTIONS)
    assert dict(kept["go"].attributes) == {"attribute 1": ("0", "1", "2")}


def test_a_table_of_respondents_becomes_choices():
    table = pd.DataFrame({"age": ["old", "young", "old"], "risk": [1, 2, 3], "go": [3, 1, 0], "stay": [1, 3, 0]})
    survey = Choices.of("go", OPTIONS, table, {"age": ("young", "old")}, ["risk"])
    # Nobody was asked in the third row.
    assert survey.codes.tolist() == [[1], [0]]
    assert survey.chance.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert survey.weight.tolist() == [4, 4]
    assert survey.features["age=old × risk"].tolist() == [1, 0]
    assert survey.divergence(survey.chance) == pytest.approx(0.0)
    assert survey.divergence(torch.full((2, 2), 0.5)) == pytest.approx(0.13081203594)


def test_observations_can_be_left_out():
    with Decided() as kept, Utility(BETA):
        go(weeks=3.0)
    assert list(kept["go"].seeing("risk").observed) == ["risk"]
    assert list(kept["go"].seeing().observed) == []
    with pytest.raises(InputError, match=r"unknown observation 'week'.*did you mean 'weeks'"):
        kept["go"].seeing("week")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": ["old", "middle", "old"]}, "unknown label of attribute 'age' 'middle'"),
        ({"go": [1, -1, 2]}, "below 0"),
        ({"go": [1, float("nan"), 2]}, "'go' isn't finite"),
        ({"go": [1, "many", 2]}, "'go' has what is no number"),
        ({"risk": [1, 2, float("inf")]}, "'risk' isn't finite"),
        ({"go": [0, 0, 0], "stay": [0, 0, 0]}, "there are none"),
    ],
)
def test_tables_that_can_not_be_used_are_refused(change, words):
    table = pd.DataFrame({"age": ["old", "young", "old"], "risk": [1, 2, 3], "go": [3, 1, 0], "stay": [1, 3, 0]})
    for column, values in change.items():
        table[column] = values
    with pytest.raises(InputError, match=words):
        Choices.of("go", OPTIONS, table, {"age": ("young", "old")}, ["risk"])


def test_columns_that_are_not_there_are_refused_by_name():
    table = pd.DataFrame({"age": ["old"], "go": [3], "stay": [1]})
    with pytest.raises(InputError, match="unknown column of the table 'risk'"):
        Choices.of("go", OPTIONS, table, ["age"], ["risk"])
    with pytest.raises(InputError, match="give two or more different names"):
        Choices.of("go", ("go", "go"), table, ["age"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": torch.zeros(3, 2, dtype=torch.int64)}, r"'codes' has shape \(3, 2\)"),
        ({"codes": torch.full((2, 2), 2)}, "age has codes 2 … 2, but 2 labels"),
        ({"chance": torch.full((2, 2), 0.6)}, "add up to 1"),
        ({"weight": torch.zeros(2)}, "above 0"),
        ({"weight": torch.zeros(0)}, "there are none"),
        ({"weight": torch.ones(2, 1)}, "weights of shape"),
        ({"observed": {"risk": torch.full((2,), torch.nan)}}, "'risk' isn't finite"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(change, words):
    fine = {
        "codes": torch.zeros(2, 2, dtype=torch.int64),
        "observed": {"risk": torch.ones(2)},
        "chance": torch.full((2, 2), 0.5),
        "weight": torch.ones(2),
    }
    with pytest.raises(InputError, match=words):
        Choices("go", OPTIONS, LABELS, **{**fine, **change})


def test_decisions_that_do_not_match_are_not_mixed():
    for other in (
        lambda: decide("go", TABLE, ("stay", "go"), {"attributes": LABELS, "risk": 1.0}),
        lambda: go(weeks=1.0),
        lambda: decide("go", TABLE, OPTIONS, {"attributes": {**LABELS, "age": ("a", "b")}, "risk": 1.0}),
        lambda: decide("go", TABLE[:, :1], OPTIONS, {"attributes": {"age": LABELS["age"]}, "risk": 1.0}),
    ):
        with Decided() as kept, Tabulated({"go": torch.tensor([0.3, 0.7])}):
            go()
            other()
        with pytest.raises(InputError, match="decision 'go' was taken with other"):
            kept["go"]


def test_parameters_of_a_behaviour_are_rows_and_no_groups():
    will = torch.tensor([[-1.0], [0.0], [2.0]])
    groups = torch.tensor([0.0, 1.0, 0.0]).reshape(3, 1)
    for rows in (will, will[:2]):
        with Utility({"go": {"go": {"intercept": rows, "risk": 1.0}}}):
            together = go(risk=groups, groups=1)
        assert together.shape == (len(rows), 3, 4, 2)
        for k, row in enumerate(rows[:, 0].tolist()):
            with Utility({"go": {"go": {"intercept": row, "risk": 1.0}}}):
                assert torch.allclose(together[k], go(risk=groups, groups=1))
    with Utility({"go": {"go": {"intercept": torch.zeros(4)}}}), pytest.raises(InputError, match=r"has shape \(4,\)"):
        go()


@pytest.mark.parametrize("name", ["intercept", "due", "groups", "a × b"])
def test_names_with_a_meaning_of_their_own_are_not_observed(name: str):
    table = pd.DataFrame({"age": ["old"], name: [1.0], "go": [3], "stay": [1]})
    with pytest.raises(InputError, match="nothing observed can be called"):
        Choices.of("go", OPTIONS, table, ["age"], [name])


def test_numbers_of_other_kinds_are_made_ones_and_words_that_are_missing_refused():
    fine = Choices("go", OPTIONS, {"age": ("young",)}, [[0]], {"risk": [1]}, torch.tensor([[0.25, 0.75]]), [3])
    assert fine.chance.dtype == fine.weight.dtype == fine.observed["risk"].dtype == torch.float64
    with pytest.raises(InputError, match="codes are whole numbers"):
        Choices("go", OPTIONS, {"age": ("young",)}, [[0.0]], {}, [[0.25, 0.75]], [3])
    with pytest.raises(InputError, match="'age' has no word in some rows"):
        Choices.of("go", OPTIONS, pd.DataFrame({"age": ["old", None], "go": [3, 1], "stay": [1, 1]}), ["age"])
