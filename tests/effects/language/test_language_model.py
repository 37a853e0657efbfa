"""What a language model says becomes the probabilities of those archetypes by which somebody decides."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from lpmppl.effects.handlers import LanguageModel, Tabulated
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError, LpmError
from tests.effects.language.sources import Exactly, Sampled, chances

KINDS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
LABELS = {"age": ("young", "old"), "work": ("none", "office", "service")}
OPTIONS = ("isolate", "go on")
PROMPTS = {
    "isolate": "You are {{ age }}, your work is {{ work }}, the risk {{ risk | about }}. {{ options | join('/') }}?"
}


def asked(risk=1.0, due=None):
    context = {"attributes": LABELS, "risk": risk, **({} if due is None else {"due": due})}
    return decide("isolate", KINDS, OPTIONS, context)


def text(age: str, work: str, risk: str) -> str:
    return f"You are {age}, your work is {work}, the risk {risk}. isolate/go on?"


def test_each_archetype_has_the_probabilities_of_its_prompt():
    with LanguageModel(source := Exactly(), PROMPTS) as handler:
        found = asked()
    expected = [chances(text(a, w, "1"), OPTIONS) for a in LABELS["age"] for w in LABELS["work"]]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert (handler.asked.queries, len(source.asked), handler.asked.archetypes) == (6, 6, {"isolate": [6]})
    assert handler.asked.tokens == sum(math.ceil(len(prompt) / 4) for prompt in source.asked)


def test_worlds_and_groups_observe_their_own_and_what_reads_alike_is_asked_once():
    risk = torch.tensor([[[1.0]], [[30.0]], [[31.0]]])
    with LanguageModel(source := Exactly(), PROMPTS):
        found = asked(risk)
    assert found.shape == (3, 1, 6, 2)
    assert len(source.asked) == 12
    for world in range(3):
        with LanguageModel(Exactly(), PROMPTS):
            assert torch.equal(found[world, 0], asked(float(risk[world])))
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])


def test_only_archetypes_by_which_somebody_decides_are_asked():
    due = torch.tensor([0, 3, 0, 0, 1, 0])
    with LanguageModel(source := Exactly(), PROMPTS) as handler:
        found = asked(due=lambda: due)
        everybody = asked()
        assert len(source.asked) == 6
        nobody = asked(due=torch.zeros(6, dtype=torch.int64))
    assert source.asked[:2] == [text("young", "office", "1"), text("old", "office", "1")]
    assert torch.equal(found[due > 0], everybody[due > 0])
    assert found[due == 0].isnan().all() and nobody.isnan().all()
    assert handler.asked.archetypes == {"isolate": [2, 6, 0]}
    assert handler.asked.kept == 2


def test_other_behaviours_take_no_notice_of_who_decides():
    table = torch.tensor([0.3, 0.7])
    with Tabulated({"isolate": table}):
        assert torch.equal(asked(due=torch.zeros(6)), asked())


def test_samples_go_where_many_decide_and_answers_vary():
    sure = {text("young", work, "1") for work in LABELS["work"]}

    def of(prompt, options):
        return [1.0, 0.0] if prompt in sure else [0.5, 0.5]

    due = torch.tensor([10, 10, 10, 10, 10, 1000])
    with LanguageModel(source := Sampled(of), PROMPTS, samples=20) as handler:
        found = asked(due=due)
    assert handler.asked.queries == len(source.asked) == 20 * 6
    many = {prompt: sum(p == prompt for p, _ in source.asked) for prompt in dict(source.asked)}
    assert min(many.values()) >= 10
    assert many[text("old", "service", "1")] > 50
    assert torch.equal(found[:3], torch.tensor([[1.0, 0.0]] * 3))


def test_shares_of_answers_come_from_the_probabilities():
    """Failure rate below 1e-3: four standard errors of six shares."""
    with LanguageModel(Sampled(), PROMPTS, samples=400):
        found = asked()
    with LanguageModel(Exactly(), PROMPTS):
        exact = asked()
    error = (exact * (1 - exact) / 200).sqrt()
    assert ((found - exact).abs() < 4 * error).all()
    assert (found != exact).any()


@pytest.mark.parametrize("source", [Exactly, Sampled])
def test_answers_that_were_kept_are_not_asked_for_again(source, tmp_path: Path):
    file = tmp_path / "kept.sqlite"
    with LanguageModel(source(), PROMPTS, samples=6, answers=file) as first:
        found = asked(torch.tensor([[1.0], [20.0]]))
    assert first.asked.queries == (12 if source is Exactly else 72)
    with LanguageModel(again := source(), PROMPTS, samples=6, answers=file) as second:
        assert torch.equal(asked(torch.tensor([[1.0], [20.0]])), found)
    assert (again.asked, second.asked.queries, second.asked.kept) == ([], 0, first.asked.queries)
    with LanguageModel(None, PROMPTS, samples=6, answers=file) as third:
        assert torch.equal(asked(torch.tensor([[1.0], [20.0]])), found)
        with pytest.raises(LpmError, match=r"decision 'isolate': \d+ answers of .*sqlite.*offline.*risk 300"):
            asked(300.0)
    assert third.asked.queries == 0


def test_what_was_answered_before_an_interruption_is_kept(tmp_path: Path):
    class Cut(Sampled):
        def answers(self, prompts, options, wanted, keep):
            super().answers(prompts[:2], options, wanted[:2], keep)
            raise KeyboardInterrupt

    file = tmp_path / "kept.sqlite"
    with pytest.raises(KeyboardInterrupt), LanguageModel(Cut(), PROMPTS, samples=4, answers=file):
        asked()
    with LanguageModel(source := Sampled(), PROMPTS, samples=4, answers=file) as handler:
        found = asked()
    assert handler.asked.kept == 4
    with LanguageModel(Sampled(), PROMPTS, samples=4):
        assert torch.equal(asked(), found)
    assert len(source.asked) == 20


def test_more_queries_than_the_limit_are_refused_before_they_are_asked():
    with LanguageModel(source := Exactly(), PROMPTS, limit=9) as handler:
        asked()
        with pytest.raises(LpmError, match="needs 6 queries after 6, and the limit is 9"):
            asked(20.0)
    assert len(source.asked) == handler.asked.queries == 6


def test_unreadable_answers_stop_the_run_or_fall_back_as_was_chosen(tmp_path: Path):
    with (
        pytest.raises(LpmError, match="sampled can't be read as one of isolate, go on"),
        LanguageModel(Sampled(unreadable=0.3), PROMPTS, samples=8),
    ):
        asked()
    table = torch.tensor([0.9, 0.1])
    file = tmp_path / "kept.sqlite"
    fallback = Tabulated({"isolate": table})
    with LanguageModel(Sampled(unreadable=1.0), PROMPTS, samples=8, fallback=fallback, answers=file) as handler:
        assert torch.allclose(asked(), table.expand(6, 2))
        assert handler.asked.unreadable == 48
    with LanguageModel(None, PROMPTS, samples=8, fallback=fallback, answers=file):
        assert torch.allclose(asked(), table.expand(6, 2))
    with LanguageModel(Sampled(unreadable=0.3), PROMPTS, samples=8, fallback=fallback) as handler:
        found = asked()
    assert torch.allclose(found.sum(-1), torch.ones(6))
    assert 0 < handler.asked.unreadable < 48


def test_what_would_be_asked_can_be_counted_before():
    table = torch.tensor([0.9, 0.1])
    risk = torch.tensor([[1.0], [20.0]])
    with LanguageModel(Sampled(), PROMPTS, samples=8, fallback=Tabulated({"isolate": table}), dry=True) as dry:
        assert torch.allclose(asked(risk), table.expand(2, 6, 2))
        asked(risk)
    with LanguageModel(source := Sampled(), PROMPTS, samples=8) as real:
        asked(risk)
        asked(risk)
    # Where samples go depends on answers, which a count doesn't have.
    assert dry.asked.tokens == pytest.approx(real.asked.tokens, rel=0.01)
    assert replace(dry.asked, tokens=real.asked.tokens) == real.asked
    assert dry.asked.queries == len(source.asked)


def test_progress_counts_the_answers_of_a_decision():
    told = []
    with LanguageModel(Sampled(), PROMPTS, samples=4, tell=lambda *x: told.append(x)):
        asked()
    assert told[0] == ("isolate", 1, 12)
    assert told[11] == ("isolate", 12, 12)
    assert told[-1] == ("isolate", 12, 12)


@pytest.mark.parametrize(
    ("name", "options", "context", "words"),
    [
        ("isolat", OPTIONS, {"risk": 1.0}, "decision 'isolat'.*isolate"),
        ("isolate", ("isolate",), {"risk": 1.0}, r"options are \['isolate'\]; give two or more"),
        ("isolate", ("isolate", "isolate"), {"risk": 1.0}, "two or more different"),
        ("isolate", ("isolate", ""), {"risk": 1.0}, "two or more different"),
        ("isolate", OPTIONS, {}, "field in the prompt of decision 'isolate' 'risk'"),
        ("isolate", OPTIONS, {"risk": torch.ones(5)}, "the last dimension must be 1 or the 6 archetypes"),
        ("isolate", OPTIONS, {"risk": 1.0, "attributes": {"age": LABELS["age"]}}, "2 attributes, but labels of 1"),
        ("isolate", OPTIONS, {"risk": math.nan}, "'risk' of its context isn't finite"),
        ("isolate", OPTIONS, {"risk": "high"}, "'risk' of its context is 'high'; give numbers"),
        ("isolate", OPTIONS, {"risk": 1.0, "due": [1, 2]}, r"'due' of its context has shape \(2,\)"),
        ("isolate", OPTIONS, {"risk": torch.ones(2, 1, 1), "due": torch.ones(3, 1, 6)}, "which don't go together"),
    ],
)
def test_decisions_that_can_not_be_asked_are_refused(name, options, context, words):
    with LanguageModel(Exactly(), PROMPTS), pytest.raises(InputError, match=words):
        decide(name, KINDS, options, {"attributes": LABELS, **context})


@pytest.mark.parametrize(
    "given", [{"samples": 0}, {"samples": 2.5}, {"samples": True}, {"limit": -1}, {"limit": 1.5}, {"dry": True}]
)
def test_numbers_that_can_not_be_are_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        LanguageModel(Exactly(), PROMPTS, **given)


def test_templates_without_their_decisions_names_are_refused():
    with pytest.raises(InputError, match="prompts are list"):
        LanguageModel(Exactly(), list(PROMPTS.values()))


@pytest.mark.parametrize("row", [[1.0, 1.0], [-1.0, 2.0], [1.0], [0.2, 0.3, 0.5], [math.nan, 1.0], [math.inf, 0.0]])
def test_probabilities_that_are_none_stop_the_run_and_are_not_kept(row, tmp_path: Path):
    file = tmp_path / "kept.sqlite"
    with LanguageModel(Exactly(lambda *_: row), PROMPTS, answers=file), pytest.raises(LpmError, match="must be prob"):
        asked()
    with LanguageModel(Exactly(), PROMPTS, answers=file) as handler:
        asked()
    assert handler.asked.kept == 0


def test_probabilities_in_single_precision_are_made_to_add_up():
    row = torch.tensor([0.1, 0.2]).softmax(-1).tolist()
    assert sum(row) != 1.0
    with LanguageModel(Exactly(lambda *_: row), PROMPTS):
        assert torch.allclose(asked(), torch.tensor(row))


def test_unreadable_answers_that_were_kept_stop_a_run_without_a_fallback(tmp_path: Path):
    file, table = tmp_path / "kept.sqlite", Tabulated({"isolate": torch.tensor([0.9, 0.1])})
    with LanguageModel(Sampled(unreadable=0.5), PROMPTS, fallback=table, answers=file):
        asked()
    with LanguageModel(None, PROMPTS, answers=file), pytest.raises(LpmError, match="can't be read as one of"):
        asked()


def test_the_fallback_may_stand_around_it_already():
    table = Tabulated({"isolate": torch.tensor([0.9, 0.1])})
    with table, LanguageModel(Sampled(unreadable=1.0), PROMPTS, fallback=table):
        assert torch.allclose(asked(), table.tables["isolate"].expand(6, 2))
    with pytest.raises(InputError, match="decides nothing"):
        LanguageModel(Sampled(), PROMPTS, fallback=pyro.poutine.block_messenger.BlockMessenger())


def test_archetypes_without_labels_are_asked_by_what_they_observe():
    with LanguageModel(source := Exactly(), {"go": "the risk is {{ risk | about }}"}):
        found = decide("go", torch.arange(3), OPTIONS, {"risk": torch.tensor([1.0, 2.0, 2.0]), "unused": "text"})
    assert source.asked == ["the risk is 1", "the risk is 2"]
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("kinds", [torch.zeros(0, 2, dtype=torch.int64), KINDS.float(), KINDS - 1, KINDS + 1])
def test_archetypes_that_can_not_be_are_refused(kinds):
    with LanguageModel(Exactly(), PROMPTS), pytest.raises(InputError, match="decision 'isolate'"):
        decide("isolate", kinds, OPTIONS, {"attributes": LABELS, "risk": 1.0})
