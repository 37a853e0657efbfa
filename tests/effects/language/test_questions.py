"""The questions of a decision are those that a template gives row by row, however few of them are written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.effects.language import questions as module
from lpmppl.effects.language.prompts import Prompt
from lpmppl.effects.language.questions import Questions
from lpmppl.errors import InputError

KINDS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
LABELS = {"age": ("young", "old"), "work": ("none", "office", "service")}
OPTIONS = ("isolate", "go on")
TEMPLATES = [
    "{{ age }} {{ risk | about }} {{ share | percent }}",
    "{{ work }}: {{ risk }}",
    "{% if work == 'none' %}{{ age }}{% else %}{{ risk | round }}{% endif %}",
    "{% if risk > 2 %}high{% elif share %}some{% endif %}, {{ options | join('/') }}",
    "{{ 'high' if risk else age }} {{ options[risk > 2] }} {{ work | upper }}",
    "{% set risk = risk * 2 %}{{ risk | about }}{% for share in (1, 2) %}{{ share }}{% endfor %}{{ share }}",
    "{% macro told(risk) %}{{ risk }}/{{ share }}{% endmacro %}{{ told(risk | about) }}",
    "{% with risk = share %}{{ risk }}{% endwith %}{{ risk | about }}",
    "{% if share > 0 %}{{ (risk / share) | about }}{% else %}{{ risk }}{% endif %} {{ age }}",
    "{% filter upper %}{{ age }} {{ risk | about }}{% endfilter %}",
    "{{ risk | about ~ age }} {{ [risk, share] | max }} {{ risk is divisibleby 2 }}",
    "{{ -risk }} {{ risk * share }}",
    "nobody in particular",
]
NUMBERS = st.sampled_from([-0.0, 0.0, 0.04, 0.3, 0.34, 1.0, 1.2, 2.0, 2.4, 3.0, 30.0])


def one_by_one(template: str, context: dict[str, Any], due: torch.Tensor) -> list[str | None]:
    """The text of every row where somebody decides, each written by itself."""
    prompt, found = Prompt("isolate", template), []
    shown = {name: x for name, x in context.items() if name in prompt.fields}
    shape = torch.broadcast_shapes((6,), due.shape, *(x.shape for x in shown.values()))
    values = {name: (x + 0.0).expand(shape).reshape(-1).tolist() for name, x in shown.items()}
    for row, many in enumerate(due.expand(shape).reshape(-1).tolist()):
        words = {name: LABELS[name][int(KINDS[row % 6, k])] for k, name in enumerate(LABELS)}
        observed = {name: each[row] for name, each in values.items()}
        found.append(prompt.text(words, observed, OPTIONS) if many > 0 else None)
    return found


@settings(deadline=None, max_examples=60)
@given(
    template=st.sampled_from(TEMPLATES),
    risk=st.lists(st.lists(NUMBERS, min_size=6, max_size=6), min_size=1, max_size=3),
    share=st.lists(NUMBERS, min_size=1, max_size=1),
    due=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_each_row_has_its_own_text_in_the_order_of_rows(template, risk, share, due):
    context = {
        "risk": torch.tensor(risk, dtype=torch.float64),
        "share": torch.tensor(share, dtype=torch.float64),
    }
    texts, due = {}, torch.tensor(due)
    for shift in (0.0, 0.01, 0.0):  # what was written for one day is there for another
        observed = {**context, "risk": context["risk"] + shift}
        expected = one_by_one(template, observed, due)
        found = Questions(
            Prompt("isolate", template), KINDS, OPTIONS, {**observed, "attributes": LABELS, "due": due}, texts
        )
        rows = dict(zip(found.where.tolist(), found.of.tolist(), strict=True))
        assert [found.texts[rows[k]] if k in rows else None for k in range(found.rows)] == expected
        assert found.texts == list(dict.fromkeys(text for text in expected if text is not None))
        many = due.expand(found.shape).reshape(-1).tolist()
        for text, deciding in zip(found.texts, found.deciding, strict=True):
            assert deciding == sum(n for n, mine in zip(many, expected, strict=True) if mine == text)
        assert found.inhabited == int((due > 0).sum())


def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are written from here on."""
    texts, write = [], Prompt.text

    def noted(self, *what):
        texts.append(write(self, *what))
        return texts[-1]

    monkeypatch.setattr(Prompt, "text", noted)
    return texts


def test_what_reads_alike_is_written_once_in_all_days(monkeypatch: pytest.MonkeyPatch):
    texts, memory = written(monkeypatch), {}
    prompt = Prompt("isolate", "{{ age }} {{ risk | expm1 | about }}{% if fatigue > 0.5 %}, tired{% endif %}")
    for day in range(50):
        context = {"risk": 1.0 + day / 1000, "fatigue": day / 1000, "unused": float(day), "attributes": LABELS}
        found = Questions(prompt, KINDS, OPTIONS, context, memory)
        assert found.texts == ["young 2", "old 2"]
        assert found.deciding == [3.0, 3.0]
    assert texts == ["young 2", "old 2"]
    Questions(prompt, KINDS, OPTIONS, {"risk": 1.0, "fatigue": 0.6, "attributes": LABELS}, memory)
    assert texts[2:] == ["young 2, tired", "old 2, tired"]


@pytest.mark.parametrize("other", ["options", "labels", "template"])
def test_texts_of_other_options_labels_and_templates_are_others(other: str):
    memory: dict = {}
    template, options, labels = "{{ age }} {{ options | join }}", OPTIONS, LABELS
    first = Questions(Prompt("isolate", template), KINDS, options, {"attributes": labels}, memory).texts
    if other == "options":
        options = ("stay", "leave")
    elif other == "labels":
        labels = {**LABELS, "age": ("18–39", "65 and over")}
    else:
        template += "?"
    again = Questions(Prompt("isolate", template), KINDS, options, {"attributes": labels}, memory).texts
    assert not set(first) & set(again)
    assert again == Questions(Prompt("isolate", template), KINDS, options, {"attributes": labels}).texts


def test_texts_are_forgotten_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST", 20)
    memory: dict = {}
    for day in range(50):
        found = Questions(Prompt("a", "{{ risk }}"), KINDS, OPTIONS, {"risk": torch.arange(6) + 6.0 * day}, memory)
        assert found.texts == [str(6.0 * day + k) for k in range(6)]
        assert sum(map(len, memory.values())) <= 26


def test_a_template_that_fails_for_some_fails_as_it_did(monkeypatch: pytest.MonkeyPatch):
    prompt = Prompt("isolate", "{% if age == 'old' %}{{ (1 / risk) | about }}{% else %}{{ age }}{% endif %}")
    context = {"attributes": LABELS, "risk": 0.0}
    young = torch.tensor([1, 1, 1, 0, 0, 0])
    assert Questions(prompt, KINDS, OPTIONS, {**context, "due": young}).texts == ["young"]
    with pytest.raises(InputError, match=r"can't be filled in.*division"):
        Questions(prompt, KINDS, OPTIONS, context)
    assert Questions(prompt, KINDS, OPTIONS, {**context, "risk": 0.5}).texts == ["young", "2"]


@pytest.mark.parametrize(
    ("template", "alike", "other"),
    [
        ("{{ risk | about }}", 2.9, 4.0),
        ("{% if risk > 2.5 %}a{% endif %}", 9.0, 2.0),
        ("{% if risk %}a{% endif %}", 9.0, 0.0),
        ("{{ 'a' if risk > 2.5 else age }}", 9.0, 2.0),
        ("{{ risk }}", 3.0, 3.1),
        ("{% set risk = risk | about %}{{ risk }}", 3.0, 3.1),
        ("{% macro a(x) %}{{ x | about }}{% endmacro %}{{ a(risk) }}", 3.0, 2.9),
    ],
)
def test_keys_are_as_coarse_as_a_template_rounds(template: str, alike: float, other: float):
    key = Prompt("isolate", template).key
    assert key({"risk": 3.0}) == key({"risk": alike}) != key({"risk": other})


def test_numbers_that_are_equal_but_written_differently_are_told_apart():
    prompt = Prompt("d", "{{ (n | int) + 9007199254740992.0 }} {{ (n | int) + 9007199254740992 }}")
    keys = {prompt.key({"n": n}) for n in (0.0, 1.0, 2.0)}
    assert len(keys) == len({prompt.text({}, {"n": n}, ()) for n in (0.0, 1.0, 2.0)}) == 3
