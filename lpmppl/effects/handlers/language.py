"""Behaviour from a language model: archetypes are asked, and agents choose with their archetype's probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.language.answers import Answers
from lpmppl.effects.language.prompts import Prompt
from lpmppl.effects.language.source import Source
from lpmppl.errors import InputError, LpmError, nearest

__all__ = ["Asked", "LanguageModel"]

_PILOT, _FLOOR = 0.5, 2
"""The share of samples that every prompt has before the rest go where answers vary, and how many it has at least."""

_ROUNDING, _OFF = 1e-9, 1e-3
"""By how much probabilities may miss 1 by rounding, and those that a source gives."""

_LETTERS = 4.0
"""Letters of English in a token, about."""


@dataclass
class Asked:
    """What was asked, and of whom.

    Attributes:
        queries: how many times the language model was asked, apart from retries.
        kept: how many answers, or sets of probabilities, were there already.
        tokens: how many tokens the prompts of those queries have, about.
        unreadable: how many answers couldn't be read, and were replaced by the fallback's probabilities.
        archetypes: by decision, how many archetypes decided each time: K_t.
    """

    queries: int = 0
    kept: int = 0
    tokens: int = 0
    unreadable: int = 0
    archetypes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def most(self) -> dict[str, int]:
        """By decision, how many archetypes decided at a time, at most."""
        return {decision: max(each) for decision, each in self.archetypes.items()}


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
        fallback: the behaviour that decides instead where an answer can't be read; None to stop there.
        dry: ask nothing, but count what would be asked, with the fallback's probabilities in place of answers.
        tell: is told how many of the queries of a decision are done, and of how many.
    Attributes:
        asked: what was asked so far.
        questions: where that is counted only, the different prompts by decision.
    Raises:
        InputError: for numbers, templates or files that can't be used; in a decision, for one without a prompt, a field
            that isn't known, or options that are fewer than two or alike.
        LpmError: where the limit is reached, an answer can't be read, or offline one is missing.
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
        fallback: Messenger | None = None,
        dry: bool = False,
        tell: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        super().__init__()
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise InputError(f"samples={samples!r}: give a whole number, 1 or more")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise InputError(f"limit={limit!r}: give a whole number of queries, or None for no limit")
        if fallback is not None and not hasattr(fallback, "_pyro_decide"):
            raise InputError(f"fallback={fallback!r} decides nothing: give a behaviour, such as Utility or Tabulated")
        if dry and fallback is None:
            raise InputError("dry=True asks nobody: give the behaviour that decides instead as fallback=")
        self.source, self.samples, self.limit = source, samples, limit
        self.offline = offline or source is None
        self.prompts = {name: Prompt(name, template) for name, template in prompts.items()}
        self.answers = answers if isinstance(answers, Answers) else Answers(answers)
        self.fallback, self.dry, self.tell = fallback, dry, tell
        self.asked = Asked()
        self.questions: dict[str, list[str]] = {}

    @cached_property
    def model(self) -> str:
        """The language model's name and settings, as answers are kept by."""
        return self.answers.model() if self.source is None else self.source.name

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
        questions = _Questions(self.prompts[name], archetypes, options, context)
        self.asked.archetypes.setdefault(name, []).append(questions.inhabited)
        texts = list(questions.places)
        rows = None
        try:
            if self.dry:
                self._count(name, texts)
            elif self.exact:
                rows = self._exact(name, texts, options)
            else:
                rows = self._sampled(name, texts, options, [questions.deciding[t] for t in texts])
        finally:
            self.answers.flush()
        chance = torch.full((questions.rows, len(options)), math.nan, dtype=torch.float64)
        unread = [1.0] * len(texts) if rows is None else [1.0 - sum(row) for row in rows]
        otherwise = None
        if any(share > _ROUNDING for share in unread):
            otherwise = self._otherwise(name, archetypes, options, context, questions.shape).reshape(chance.shape)
        for k, text in enumerate(texts):
            mine = torch.zeros(len(options), dtype=torch.float64) if rows is None else chance.new_tensor(rows[k])
            places = questions.places[text]
            chance[places] = mine if otherwise is None else mine + unread[k] * otherwise[places]
        return chance.reshape(*questions.shape, len(options)).to(archetypes.device, torch.get_default_dtype())

    def _count(self, name: str, texts: Sequence[str]) -> None:
        """Count what would be asked, where it wasn't before."""
        each = 1 if hasattr(self.source, "chances") else self.samples
        before = self.questions.setdefault(name, [])
        known = set(before)
        new = [text for text in texts if text not in known]
        before += new
        self.asked.kept += each * (len(texts) - len(new))
        self._note(new, each)

    def _exact(self, name: str, texts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        """The probabilities of options by prompt, those that weren't kept asked for."""
        model = self.model
        found = {text: self.answers.chances(model, text, options) for text in texts}
        missing = [text for text, row in found.items() if row is None]
        self.asked.kept += len(texts) - len(missing)
        self._may(name, missing, len(missing))
        at_once = 32
        for first in range(0, len(missing), at_once):
            some = missing[first : first + at_once]
            for text, row in zip(some, self.source.chances(some, options), strict=True):  # type: ignore[union-attr]
                found[text] = sure = _checked(name, model, row, len(options))
                self.answers.keep_chances(model, text, options, sure)
            self._note(some, 1)
            self.tell(name, min(first + at_once, len(missing)), len(missing))
        return [row for text in texts if (row := found[text]) is not None]

    def _sampled(
        self, name: str, texts: Sequence[str], options: Sequence[str], deciding: Sequence[float]
    ) -> list[list[float]]:
        """The shares of options among answers by prompt; what couldn't be read is missing from their sum."""
        pilot = min(self.samples, max(_FLOOR, math.ceil(_PILOT * self.samples)))
        known = [self.answers.known(self.model, text, options) for text in texts]
        got = self._answered(name, texts, options, [range(pilot)] * len(texts), known)
        more = _allotted(got, len(options), deciding, (self.samples - pilot) * len(texts))
        rest = self._answered(name, texts, options, [range(pilot, pilot + m) for m in more], known)
        rows = []
        for first, second in zip(got, rest, strict=True):
            every = [*first, *second]
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
        self._may(name, [text for text, lacks in zip(texts, missing, strict=True) if lacks], total)

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
            self._note([texts[k]], 1)
            self.tell(name, done, total)

        if total:
            asked = [k for k, lacks in enumerate(missing) if lacks]
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

    def _may(self, name: str, texts: Sequence[str], queries: int) -> None:
        """Refuse to ask offline, or beyond the limit."""
        if queries and self.offline:
            raise LpmError(
                f"decision '{name}': {queries} answers of {self.model} aren't kept in "
                f"{self.answers.path or 'memory'}, and offline nothing is asked; the first is of: {texts[0][:200]!r}"
            )
        if self.limit is not None and self.asked.queries + queries > self.limit:
            raise LpmError(
                f"decision '{name}' needs {queries:,} queries after {self.asked.queries:,}, and the limit is "
                f"{self.limit:,}; what was answered is kept: raise the limit, or ask fewer archetypes or samples"
            )

    def _note(self, texts: Sequence[str], each: int) -> None:
        self.asked.queries += each * len(texts)
        self.asked.tokens += sum(each * math.ceil(len(text) / _LETTERS) for text in texts)

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


class _Questions:
    """The prompts of one decision, each with the rows of (…, K) that it is of, and how many agents decide there."""

    def __init__(self, prompt: Prompt, archetypes: Tensor, options: Sequence[str], context: Mapping[str, Any]) -> None:
        decision, many = prompt.decision, archetypes.shape[0]
        if not many or archetypes.is_floating_point():
            raise InputError(
                f"decision '{decision}': archetypes of shape {tuple(archetypes.shape)} and {archetypes.dtype} were "
                "given; give integer codes of one or more"
            )
        codes = archetypes.reshape(many, -1).tolist()
        labels: Mapping[str, Sequence[str]] = context.get("attributes", {})
        if labels and len(labels) != len(codes[0]):
            raise InputError(
                f"decision '{decision}': its archetypes have {len(codes[0])} attributes, but labels of "
                f"{len(labels)} were given: {', '.join(labels)}"
            )
        for column, (attribute, known) in zip(archetypes.reshape(many, -1).T, labels.items(), strict=False):
            wrong = column[(column < 0) | (column >= len(known))]
            if len(wrong):
                raise InputError(
                    f"decision '{decision}': {attribute} has the code {int(wrong[0])}, but {len(known)} labels"
                )
        observed = [n for n in context if n not in ("attributes", "due")]
        prompt.check([*labels, *observed, "options"])
        shown = {n: _numbers(decision, n, context[n], many) for n in observed if n in prompt.fields}
        due = context.get("due")
        due = due() if callable(due) else due
        count = torch.ones(many) if due is None else _numbers(decision, "due", due, many)
        try:
            shape = broadcast((many,), count.shape, *(x.shape for x in shown.values()))
        except ValueError as e:
            raise InputError(
                f"decision '{decision}': what is observed has the shapes "
                f"{ {n: tuple(x.shape) for n, x in shown.items()} }, which don't go together"
            ) from e
        self.shape, self.rows = tuple(shape), math.prod(shape)
        count = count.expand(shape).reshape(-1)
        values = {n: x.expand(shape).reshape(-1) for n, x in shown.items()}
        kinds = torch.arange(many).expand(shape).reshape(-1)
        where = torch.nonzero(count > 0)[:, 0]
        self.inhabited = int(kinds[where].unique().numel())
        columns = [kinds[where].tolist(), where.tolist(), count[where].tolist()]
        seen = [x[where].tolist() for x in values.values()]
        self.places: dict[str, list[int]] = {}
        self.deciding: dict[str, float] = {}
        texts: dict[tuple[Any, ...], str] = {}
        for k, place, deciding, *numbers in zip(*columns, *seen, strict=True):
            key = (k, *numbers)
            if key not in texts:
                words = {name: labels[name][code] for name, code in zip(labels, codes[k], strict=False)}
                texts[key] = prompt.text(words, dict(zip(values, numbers, strict=True)), options)
            self.places.setdefault(texts[key], []).append(place)
            self.deciding[texts[key]] = self.deciding.get(texts[key], 0.0) + deciding


def _numbers(decision: str, name: str, value: Any, archetypes: int) -> Tensor:
    """What is observed under a name, or how many decide: float64 of shape (…, 1) or (…, K)."""
    try:
        found = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as e:
        raise InputError(f"decision '{decision}': '{name}' of its context is {value!r}; give numbers") from e
    found = found.reshape(found.shape or (1,))
    if found.shape[-1] not in (1, archetypes):
        raise InputError(
            f"decision '{decision}': '{name}' of its context has shape {tuple(found.shape)}; the last dimension must "
            f"be 1 or the {archetypes} archetypes"
        )
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"decision '{decision}': '{name}' of its context isn't finite")
    return found


def _allotted(got: Sequence[Sequence[int | None]], options: int, deciding: Sequence[float], budget: int) -> list[int]:
    """How many more samples each prompt has: in proportion to who decides and to the spread of its answers so far."""
    weight = []
    for answers, many in zip(got, deciding, strict=True):
        # An answer of each option on top: few answers that agree don't show that all would.
        shares = [(answers.count(a) + 1.0 / options) / (len(answers) + 1.0) for a in range(options)]
        weight.append(many * math.sqrt(sum(p * (1.0 - p) for p in shares)))
    total = sum(weight)
    whole = [int(budget * w / total) for w in weight]
    # What rounding leaves goes to the largest remainders, in the order of the prompts where they tie.
    order = sorted(range(len(whole)), key=lambda k: (whole[k] - budget * weight[k] / total, k))
    for k in order[: budget - sum(whole)]:
        whole[k] += 1
    return whole
