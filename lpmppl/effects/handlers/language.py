"""Behaviour from a language model: archetypes are asked, and agents choose with their archetype's probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.language.allotment import allotted, pilot
from lpmppl.effects.language.answers import Answers
from lpmppl.effects.language.prompts import Prompt
from lpmppl.effects.language.questions import Questions, Texts
from lpmppl.effects.language.source import Source
from lpmppl.effects.language.spending import Asked, Spending, tokens
from lpmppl.errors import InputError, LpmError, nearest

__all__ = ["Asked", "LanguageModel"]

_ROUNDING, _OFF = 1e-9, 1e-3
"""By how much probabilities may miss 1 by rounding, and those that a source gives."""

_MOST_SAMPLES = 100_000


class LanguageModel(Messenger):
    r"""Give decisions the probabilities with which a language model chooses, archetype by archetype.

    .. math:: P(a \mid k) = p_{LM}(a \mid \mathrm{prompt}(k, o_k)) \quad\text{or}\quad
        \frac 1 M \sum_{m=1}^M \mathbf 1[a_m = a], \qquad a_i \sim P(\cdot \mid k_i)

    which are eqs. 4–6 of the LPM paper: exactly where the source has probabilities, else by M sampled answers. Only
    archetypes by which somebody decides are asked; what reads alike is asked once. Half of the samples are alike for
    all, and the others go where they lower the error of the population's choices most, in proportion to how many decide
    and to the spread of the answers so far. Each agent then chooses by its own chance, as with any behaviour.

    Args:
        source: where choices come from, such as `Local` or `Server`; None for those that were kept alone.
        prompts: the template of each decision, by name (`lpmppl.effects.language.prompts`).
        samples: M, of the average archetype, where the source samples.
        answers: the file in which answers are kept, or its path; in memory by default.
        offline: ask nothing: what wasn't kept is refused.
        limit: how many queries there may be at most, in all; None for no limit.
        price: what a million tokens of prompts cost, in dollars; None where nothing is paid.
        budget: how many dollars may be spent at most, in all, by that price; None for no limit. Tokens are counted by
            the letters of prompts, one for four; answers, of a few tokens each, and retries come on top.
        fallback: the behaviour that decides instead where an answer can't be read; None to stop there.
        dry: ask nothing, but count what would be asked: decisions whose answers are all kept are theirs, and for others
            the fallback's probabilities take the place of answers.
        tell: is told how many of the queries of a decision are done, and of how many.
    Attributes:
        asked: what was asked so far.
        spending: what may be spent, and in `.dollars` what was.
        questions: where that is counted only, the different prompts by decision.
    Raises:
        InputError: for numbers, templates or files that can't be used; in a decision, for one without a prompt, a field
            that isn't known, or options that are fewer than two or alike.
        LpmError: where the limit or the budget is too small for what a decision asks next, an answer can't be read, or
            offline one is missing.
    """

    def __init__(
        self,
        source: Source | None,
        prompts: Mapping[str, str],
        *,
        samples: int = 10,
        answers: Answers | str | Path | None = None,
        offline: bool = False,
        limit: int | None = None,
        price: float | None = None,
        budget: float | None = None,
        fallback: Messenger | None = None,
        dry: bool = False,
        tell: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        super().__init__()
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise InputError(f"samples={samples!r}: give a whole number, 1 or more")
        if samples > _MOST_SAMPLES:
            raise InputError(f"samples={samples}: every answer is counted; give at most {_MOST_SAMPLES:,}")
        if fallback is not None and not hasattr(fallback, "_pyro_decide"):
            raise InputError(f"fallback={fallback!r} decides nothing: give a behaviour, such as Utility or Tabulated")
        if dry and fallback is None:
            raise InputError("dry=True asks nobody: give the behaviour that decides instead as fallback=")
        if not isinstance(prompts, Mapping):
            raise InputError(f"prompts are {type(prompts).__name__}: give a template for each decision, by its name")
        self.source, self.samples = source, samples
        self.spending = Spending(limit, price, budget)
        self.offline = offline or source is None
        self.prompts = {name: Prompt(name, template) for name, template in prompts.items()}
        self.answers = answers if isinstance(answers, Answers) else Answers(answers)
        self.fallback, self.dry, self.tell = fallback, dry, tell
        self.asked = self.spending.asked
        self.questions: dict[str, list[str]] = {}
        self._texts: Texts = {}
        self._supposed: dict[tuple[str, str], int] = {}

    @cached_property
    def model(self) -> str:
        """The language model's name and settings, as answers are kept by; "" where none is asked and none was."""
        if self.source is not None:
            return self.source.name
        return "" if self.dry and not self.answers.models() else self.answers.model()

    @cached_property
    def exact(self) -> bool:
        """Whether the language model gives probabilities, rather than answers."""
        return self.answers.exact(self.model) if self.source is None else hasattr(self.source, "chances")

    @property
    def versions(self) -> dict[str, str]:
        """What tells each decision's template from others, by decision: what a run's record keeps of it."""
        return {name: prompt.version for name, prompt in self.prompts.items()}

    def _pyro_decide(self, msg: Message) -> None:
        if msg["done"]:
            return
        name, archetypes, options, context = msg["args"]
        msg["value"] = self.decided(name, archetypes, options, context)
        msg["done"] = True

    def decided(self, name: str, archetypes: Tensor, options: Sequence[str], context: Mapping[str, Any]) -> Tensor:
        """The probabilities of a decision, shape (…, K, A); NaN for archetypes by which nobody decides."""
        if name not in self.prompts:
            raise InputError(nearest("decision", name, self.prompts))
        if len(options) < 2 or len(set(options)) < len(options) or not all(options):
            raise InputError(f"decision '{name}': its options are {list(options)}; give two or more different names")
        questions = Questions(self.prompts[name], archetypes, options, context, self._texts)
        self.asked.archetypes.setdefault(name, []).append(questions.inhabited)
        texts = questions.texts
        try:
            if self.dry:
                rows = self._count(name, texts, options, questions.deciding)
            elif self.exact:
                rows = self._exact(name, texts, options)
            else:
                rows = self._sampled(name, texts, options, questions.deciding)
        finally:
            self.answers.flush()
        mine = torch.tensor(rows, dtype=torch.float64).reshape(len(texts), len(options))
        unread = 1.0 - mine.sum(-1, keepdim=True)
        chance = torch.full((questions.rows, len(options)), math.nan, dtype=torch.float64)
        chance[questions.where] = mine[questions.of]
        if bool((unread > _ROUNDING).any()):
            otherwise = self._otherwise(name, archetypes, options, context, questions.shape).reshape(chance.shape)
            chance[questions.where] += unread[questions.of] * otherwise[questions.where]
        return chance.reshape(*questions.shape, len(options)).to(archetypes.device, torch.get_default_dtype())

    def _count(
        self, name: str, texts: Sequence[str], options: Sequence[str], deciding: Sequence[float]
    ) -> list[list[float]]:
        """Count what would be asked and isn't kept; the probabilities of options where that is nothing, else zeros."""
        before = self.questions.setdefault(name, [])
        known = set(before)
        before += [text for text in texts if text not in known]
        if self.exact:
            chances = [self.answers.chances(self.model, text, options) for text in texts]
            for text, row in zip(texts, chances, strict=True):
                self._suppose(name, text, options, range(1), {0: 0} if row else {})
            return [row or [0.0] * len(options) for row in chances]
        kept = self.answers.known_each(self.model, texts, options) if self.model else [{} for _ in texts]
        first = pilot(self.samples)
        # Where samples go follows from the first answers: where those aren't there, to all alike.
        there = [k for k, mine in enumerate(kept) if all(o in mine for o in range(first))]
        more = dict.fromkeys(range(len(texts)), self.samples - first)
        got = [[kept[k][o] for o in range(first)] for k in there]
        budget = (self.samples - first) * len(there)
        more |= zip(there, allotted(got, len(options), [deciding[k] for k in there], budget), strict=True)
        rows = []
        for k, text in enumerate(texts):
            wanted = range(first + more[k])
            self._suppose(name, text, options, wanted, kept[k])
            answers: list[int | None] = (
                [kept[k].get(o) for o in wanted] if all(o in kept[k] for o in wanted) else [None]
            )
            rows.append([answers.count(a) / len(answers) for a in range(len(options))])
        return rows

    def _suppose(
        self, name: str, text: str, options: Sequence[str], wanted: range, kept: Mapping[int, int | None]
    ) -> None:
        """Count the answers that are wanted and neither kept nor counted before."""
        told = self._supposed.get((name, text), 0)
        new = sum(o not in kept for o in wanted[told:])
        self._supposed[name, text] = max(told, len(wanted))
        self.asked.kept += len(wanted) - new
        self.spending.note(new, new * self._read(text, options))

    def _read(self, text: str, options: Sequence[str]) -> int:
        """How many tokens one query reads, about."""
        readings = getattr(self.source, "readings", None)
        return tokens(text) * (1 if readings is None else readings(options))

    def _exact(self, name: str, texts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """The probabilities of options by prompt, those that weren't kept asked for."""
        model = self.model
        found = {text: self.answers.chances(model, text, options) for text in texts}
        missing = [text for text, row in found.items() if row is None]
        self.asked.kept += len(texts) - len(missing)
        self._may(name, missing, len(missing), sum(self._read(text, options) for text in missing))
        at_once = 32
        for first in range(0, len(missing), at_once):
            some = missing[first : first + at_once]
            for text, row in zip(some, self.source.chances(some, options), strict=True):  # type: ignore[union-attr]
                found[text] = sure = _checked(name, model, row, len(options))
                self.answers.keep_chances(model, text, options, sure)
                self.spending.note(1, self._read(text, options))
            self.tell(name, min(first + at_once, len(missing)), len(missing))
        return [row for text in texts if (row := found[text]) is not None]

    def _sampled(
        self, name: str, texts: Sequence[str], options: Sequence[str], deciding: Sequence[float]
    ) -> list[list[float]]:
        """The shares of options among answers by prompt; what couldn't be read is missing from their sum."""
        first = pilot(self.samples)
        known = self.answers.known_each(self.model, texts, options)
        got = self._answered(name, texts, options, [range(first)] * len(texts), known)
        more = allotted(got, len(options), deciding, (self.samples - first) * len(texts))
        rest = self._answered(name, texts, options, [range(first, first + m) for m in more], known)
        rows = []
        for answers, others in zip(got, rest, strict=True):
            every = [*answers, *others]
            rows.append([every.count(a) / len(every) for a in range(len(options))])
        return rows

    def _answered(
        self,
        name: str,
        texts: Sequence[str],
        options: Sequence[str],
        wanted: Sequence[range],
        known: Sequence[dict[int, int | None]],
    ) -> list[list[int | None]]:
        """The answers of these numbers, by prompt: those that are known, and others, asked for and then known."""
        model = self.model
        missing = [[o for o in ordinals if o not in mine] for ordinals, mine in zip(wanted, known, strict=True)]
        total, done = sum(map(len, missing)), 0
        self.asked.kept += sum(map(len, wanted)) - total
        asked = [k for k, lacks in enumerate(missing) if lacks]
        each = {k: self._read(texts[k], options) for k in asked}
        self._may(name, [texts[k] for k in asked], total, sum(len(missing[k]) * each[k] for k in asked))

        def readable(answer: int | None) -> None:
            if answer is None and self.fallback is None:
                raise LpmError(
                    f"decision '{name}': an answer of {model} can't be read as one of {', '.join(options)}, after all "
                    "retries; give the behaviour that decides instead as fallback=, or another model"
                )

        def keep(k: int, ordinal: int, answer: int | None) -> None:
            nonlocal done
            readable(answer)
            self.answers.keep(model, texts[k], options, ordinal, answer)
            known[k][ordinal] = answer
            done += 1
            self.spending.note(1, each[k])
            self.tell(name, done, total)

        if total:
            self.source.answers(  # type: ignore[union-attr]
                [texts[k] for k in asked],
                options,
                [missing[k] for k in asked],
                lambda k, ordinal, answer: keep(asked[k], ordinal, answer),
            )
        found = [[mine[o] for o in ordinals] for ordinals, mine in zip(wanted, known, strict=True)]
        if any(None in answers for answers in found):
            readable(None)
        self.asked.unreadable += sum(each.count(None) for each in found)
        return found

    def _may(self, name: str, texts: Sequence[str], queries: int, read: int) -> None:
        """Refuse to ask offline, or beyond what may be spent."""
        if queries and self.offline:
            raise LpmError(
                f"decision '{name}': {queries} answers of {self.model} aren't kept in "
                f"{self.answers.path or 'memory'}, and offline nothing is asked; the first is of: {texts[0][:200]!r}"
            )
        self.spending.may(name, queries, read)

    def _otherwise(
        self, name: str, archetypes: Tensor, options: Sequence[str], context: Mapping[str, Any], shape: tuple[int, ...]
    ) -> Tensor:
        """The fallback's probabilities."""
        assert self.fallback is not None
        # Asked by itself: it may stand around this handler already.
        msg: Message = {"args": (name, archetypes, tuple(options), context), "done": False, "value": None}
        self.fallback._pyro_decide(msg)
        if not msg["done"]:
            raise LpmError(f"decision '{name}': the fallback doesn't decide it; give one that does")
        chance: Tensor = msg["value"]
        return chance.double().cpu().expand(*shape, len(options))


def _checked(decision: str, model: str, row: Sequence[float], options: int) -> list[float]:
    """A source's probabilities, made to add up to 1."""
    numbers = [float(x) for x in row]
    total = sum(numbers)
    if len(numbers) != options or not all(0 <= x < math.inf for x in numbers) or not abs(total - 1.0) < _OFF:
        raise LpmError(
            f"decision '{decision}': {model} gave {numbers} for {options} options; these must be probabilities, which "
            "add up to 1"
        )
    return [x / total for x in numbers]
