"""What is asked is counted, and refused before it costs more than it may."""

import math
from pathlib import Path

import pytest
import torch

from lpmppl.effects.handlers import LanguageModel, Tabulated
from lpmppl.effects.language.spending import Spending, said, tokens
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError, LpmError
from tests.effects.language.sources import Exactly, Sampled, chances

OPTIONS = ("isolate", "go on")
PROMPTS = {"isolate": "You are {{ age }}, and the risk is {{ risk | about }}. {{ options | join('/') }}?"}
LABELS = {"age": ("young", "old", "in between")}


def asked(risk=1.0, due=(1, 1, 1)):
    context = {"attributes": LABELS, "risk": risk, "due": torch.tensor(due)}
    return decide("isolate", torch.arange(3), OPTIONS, context)


def needed(risk: int, times: int = 1) -> int:
    texts = [f"You are {age}, and the risk is {risk}. isolate/go on?" for age in LABELS["age"]]
    return times * sum(math.ceil(len(text) / 4) for text in texts)


@pytest.mark.parametrize(("source", "times"), [(Exactly, 1), (Sampled, 2)])
def test_what_goes_beyond_the_budget_is_refused_before_it_is_asked(source, times, tmp_path: Path):
    each, file = 2.0 * needed(1, times) / 1e6, tmp_path / "kept.sqlite"
    with LanguageModel(mine := source(), PROMPTS, samples=times, price=2.0, budget=each, answers=file) as handler:
        found = asked()
        assert handler.spending.dollars == pytest.approx(each)
        before = len(mine.asked)
        with pytest.raises(LpmError, match=r"'isolate' needs \$.* for \d queries, with \d+ tokens.*budget is \$.*kept"):
            asked(20.0)
        assert len(mine.asked) == before == 3 * times
        assert torch.equal(asked(), found)
    with LanguageModel(again := source(), PROMPTS, samples=times, price=2.0, budget=0.0, answers=file) as free:
        assert torch.equal(asked(), found)
    assert (again.asked, free.spending.dollars) == ([], 0.0)
    with LanguageModel(None, PROMPTS, samples=times, answers=file) as unpaid:
        asked()
    assert unpaid.spending.dollars is None


def test_a_refusal_says_what_the_decision_needs():
    read = needed(1)
    with (
        LanguageModel(Exactly(), PROMPTS, price=1e6, budget=read - 1.0),
        pytest.raises(
            LpmError, match=rf"needs \${read:.2f} for 3 queries, with {read} tokens of prompts, after \$0.00"
        ),
    ):
        asked()


def test_a_prompt_that_is_read_several_times_is_paid_so_often():
    class Twice(Exactly):
        def readings(self, options):
            return len(options)

    table = Tabulated({"isolate": torch.tensor([0.9, 0.1])})
    for way in ({}, {"dry": True, "fallback": table}):
        with LanguageModel(Twice(), PROMPTS, price=1.0, **way) as handler:
            asked()
        assert (handler.asked.queries, handler.asked.tokens) == (3, needed(1, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"price": -1.0}, "price=-1.0: give dollars"),
        ({"price": math.nan}, "price=nan"),
        ({"price": True}, "price=True"),
        ({"price": "1"}, "price='1'"),
        ({"price": 1.0, "budget": math.inf}, "budget=inf"),
        ({"budget": 1.0}, "budget=1.0 needs a price"),
    ],
)
def test_amounts_that_can_not_be_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        LanguageModel(Exactly(), PROMPTS, **given)


def test_amounts_are_said_to_the_cent_or_to_two_digits():
    assert [said(x) for x in (0.0, 0.00001234, 0.1, 2.345, 12345.6)] == [
        "$0.00",
        "$0.000012",
        "$0.10",
        "$2.35",
        "$12,345.60",
    ]
    assert Spending(price=3.0).dollars == 0.0
    assert tokens("") == 0


class Half(Sampled):
    """Answers only for the young."""

    def answers(self, prompts, options, wanted, keep):
        few = [o if "young" in p else [] for p, o in zip(prompts, wanted, strict=True)]
        super().answers(prompts, options, few, keep)
        if any("young" not in p for p in prompts):
            raise LpmError("half of them")


def test_a_count_leaves_out_what_is_kept(tmp_path: Path):
    file, table = tmp_path / "kept.sqlite", torch.tensor([0.9, 0.1])
    fallback = Tabulated({"isolate": table})

    def counted():
        handler = LanguageModel(None, PROMPTS, samples=6, answers=file, fallback=fallback, dry=True, price=1e6)
        with handler:
            return handler, asked()

    nothing, found = counted()
    assert torch.allclose(found, table.expand(3, 2))
    assert (nothing.asked.queries, nothing.asked.kept) == (18, 0)
    assert nothing.spending.dollars == needed(1, 6)

    with LanguageModel(Half(), PROMPTS, samples=6, answers=file), pytest.raises(LpmError, match="half"):
        asked()
    some, found = counted()
    assert (some.asked.queries, some.asked.kept) == (15, 3)
    assert torch.allclose(found, table.expand(3, 2))

    with LanguageModel(Sampled(), PROMPTS, samples=6, answers=file) as real:
        answered = asked(due=(1, 5, 1))
    every = LanguageModel(None, PROMPTS, samples=6, answers=file, fallback=fallback, dry=True)
    with every:
        assert torch.equal(asked(due=(1, 5, 1)), answered)
        assert (every.asked.queries, every.asked.kept) == (0, 18)
        asked(20.0)
        assert every.asked.queries == 18
    assert real.asked.queries + real.asked.kept == 18


def test_a_count_leaves_out_probabilities_that_are_kept(tmp_path: Path):
    file, fallback = tmp_path / "kept.sqlite", Tabulated({"isolate": torch.tensor([0.9, 0.1])})
    with LanguageModel(Exactly(), PROMPTS, answers=file):
        answered = asked(due=(1, 0, 0))
    with LanguageModel(None, PROMPTS, answers=file, fallback=fallback, dry=True) as handler:
        found = asked()
        assert torch.equal(found[0], answered[0])
        assert torch.allclose(found[1:], torch.tensor([0.9, 0.1]).expand(2, 2))
        asked()
    assert (handler.asked.queries, handler.asked.kept) == (2, 4)
    assert answered[0].tolist() == pytest.approx(chances(handler.questions["isolate"][0], OPTIONS))


def test_nothing_is_kept_of_a_count(tmp_path: Path):
    file, fallback = tmp_path / "kept.sqlite", Tabulated({"isolate": torch.tensor([0.9, 0.1])})
    with LanguageModel(Sampled(), PROMPTS, answers=file, fallback=fallback, dry=True) as handler:
        asked()
    assert handler.answers.models() == []
