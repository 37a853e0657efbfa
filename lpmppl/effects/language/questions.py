"""The questions of one decision: what is to be asked, and for whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lpmppl.effects.features import RESERVED
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.language.prompts import Prompt
from lpmppl.errors import InputError

__all__ = ["Questions", "Texts"]

Texts: TypeAlias = dict[tuple[Any, ...], dict[int, str]]
"""Texts by what they depend on: template, options, labels and numbers, and then by the archetype's code."""

_MOST = 100_000
"""How many texts are remembered at most, some 50 MB of them."""


class Questions:
    """The different prompts of one decision, each with the rows of (…, K) that it is of.

    Args:
        prompt: the decision's template.
        archetypes: attribute codes, integers of shape (K, attributes) or (K,).
        options: what can be chosen.
        context: what the archetypes observe, their labels and how many decide, as `decide` takes it.
        texts: what was written before, which isn't written again; added to.
    Attributes:
        shape: (…, K), of worlds, draws, groups and archetypes.
        rows: how many rows these are.
        inhabited: how many archetypes somebody decides by.
        texts: the prompts, T of them, in the order in which they first come up.
        where: the rows in which somebody decides, integers of shape (n,).
        of: which prompt each of these has, integers of shape (n,).
        deciding: how many agents decide by each prompt.
    Raises:
        InputError: for archetypes, labels, fields or numbers that can't be used.
    """

    def __init__(
        self,
        prompt: Prompt,
        archetypes: Tensor,
        options: Sequence[str],
        context: Mapping[str, Any],
        texts: Texts | None = None,
    ) -> None:
        decision, many = prompt.decision, archetypes.shape[0]
        codes, labels = _coded(decision, archetypes, context.get("attributes", {}))
        observed = [n for n in context if n not in RESERVED]
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
        self.where = torch.nonzero(count > 0)[:, 0]
        self.inhabited = int((count.reshape(-1, many) > 0).any(0).sum())

        used = {n: words for n, words in labels.items() if n in prompt.fields}
        code = torch.zeros(many, dtype=torch.int64)
        for name, column in zip(labels, codes.T, strict=False):
            if name in used:
                code = code * len(used[name]) + column
        codes_here, kind = torch.unique(code[self.where % many], return_inverse=True)
        numbers, seen = _distinct([x.expand(shape).reshape(-1)[self.where] for x in shown.values()], len(self.where))
        pairs, pair = torch.unique(seen * len(codes_here) + kind, return_inverse=True)

        memory = {} if texts is None else texts
        if sum(map(len, memory.values())) > _MOST:
            memory.clear()
        about = [dict(zip(shown, row, strict=True)) for row in numbers]
        same = (prompt.template, tuple(options), *((n, *words) for n, words in used.items()))
        written = [memory.setdefault((*same, prompt.key(row)), {}) for row in about]
        found = []
        whole = codes_here.tolist()
        for each in pairs.tolist():
            mine, kind_code = each // len(whole), whole[each % len(whole)]
            text = written[mine].get(kind_code)
            if text is None:
                text = written[mine][kind_code] = prompt.text(_spelt(kind_code, used), about[mine], options)
            found.append(text)
        # In the order of rows, as whoever is asked first is asked first in every run.
        first = torch.full((len(found),), len(self.where)).scatter_reduce(0, pair, torch.arange(len(pair)), "amin")
        place: dict[str, int] = {}
        for k in first.argsort().tolist():
            place.setdefault(found[k], len(place))
        self.texts = list(place)
        self.of = torch.tensor([place[text] for text in found], dtype=torch.int64)[pair]
        deciding = torch.zeros(len(place), dtype=torch.float64)
        self.deciding: list[float] = deciding.index_add(0, self.of, count[self.where].double()).tolist()


def _coded(
    decision: str, archetypes: Tensor, labels: Mapping[str, Sequence[str]]
) -> tuple[Tensor, Mapping[str, Sequence[str]]]:
    """The archetypes' codes, of shape (K, attributes), and the labels of these, once they fit."""
    many = archetypes.shape[0]
    if not many or archetypes.is_floating_point():
        raise InputError(
            f"decision '{decision}': archetypes of shape {tuple(archetypes.shape)} and {archetypes.dtype} were "
            "given; give integer codes of one or more"
        )
    codes = archetypes.reshape(many, -1).cpu().long()
    if labels and len(labels) != codes.shape[1]:
        raise InputError(
            f"decision '{decision}': its archetypes have {codes.shape[1]} attributes, but labels of "
            f"{len(labels)} were given: {', '.join(labels)}"
        )
    for column, (attribute, known) in zip(codes.T, labels.items(), strict=False):
        wrong = column[(column < 0) | (column >= len(known))]
        if len(wrong):
            raise InputError(
                f"decision '{decision}': {attribute} has the code {int(wrong[0])}, but {len(known)} labels"
            )
    return codes, labels


def _spelt(code: int, labels: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The words of a code, that of the last attribute in its lowest place."""
    words = {}
    for name, known in reversed(list(labels.items())):
        code, mine = divmod(code, len(known))
        words[name] = known[mine]
    return words


def _distinct(columns: Sequence[Tensor], rows: int) -> tuple[list[tuple[float, ...]], Tensor]:
    """The different rows of numbers, and which of them each row is."""
    which = torch.zeros(rows, dtype=torch.int64)
    for column in columns:
        values, mine = torch.unique(column, return_inverse=True)
        _, which = torch.unique(which * len(values) + mine, return_inverse=True)
    many = int(which.max()) + 1 if rows else 0
    sample = torch.zeros(many, dtype=torch.int64).scatter(0, which, torch.arange(rows))
    return list(zip(*(column[sample].tolist() for column in columns), strict=True)) or [()] * many, which


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
    # Minus zero is written in another way, and means nothing else.
    return found + 0.0
