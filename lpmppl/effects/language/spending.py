"""What a language model was asked, what that costs, and how much it may."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lpmppl.errors import InputError, LpmError

__all__ = ["Asked", "Spending", "said", "tokens"]

_LETTERS = 4.0
"""Letters of English in a token, about."""


def tokens(prompt: str) -> int:
    """How many tokens a prompt has, about: one for every four letters.

    >>> tokens("Do you wear a mask?")
    5
    """
    return math.ceil(len(prompt) / _LETTERS)


@dataclass
class Asked:
    """What was asked, and of whom.

    Attributes:
        queries: how many times the language model was asked, apart from retries.
        kept: how many answers, or sets of probabilities, were there already.
        tokens: how many tokens the prompts of those queries have, about, as often as they are read.
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


class Spending:
    """What may be asked of a language model, and what was.

    What is paid for is the prompts' tokens, about, once for every time that a prompt is read. Answers, of a few tokens
    each, aren't counted, and neither are retries.

    Args:
        limit: how many queries there may be at most, in all; None for no limit.
        price: dollars for a million tokens of prompts; None where nothing is paid.
        budget: how many dollars may be spent, in all; None for no limit.
    Raises:
        InputError: for numbers that can't be, or a budget without a price.
    """

    def __init__(self, limit: int | None = None, price: float | None = None, budget: float | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise InputError(f"limit={limit!r}: give a whole number of queries, or None for no limit")
        for what, dollars in (("price", price), ("budget", budget)):
            number = isinstance(dollars, int | float) and not isinstance(dollars, bool)
            if dollars is not None and not (number and 0 <= dollars < math.inf):
                raise InputError(f"{what}={dollars!r}: give dollars, 0 or more, or None")
        if budget is not None and price is None:
            raise InputError(
                f"budget={budget!r} needs a price: give price=, in dollars for a million tokens of prompts"
            )
        self.limit, self.price, self.budget = limit, price, budget
        self.asked = Asked()

    @property
    def dollars(self) -> float | None:
        """What was spent, in dollars; None without a price."""
        return None if self.price is None else self._dollars(self.asked.tokens)

    def note(self, queries: int, read: int) -> None:
        """Count queries, and the tokens that were read for them."""
        self.asked.queries += queries
        self.asked.tokens += read

    def may(self, decision: str, queries: int, read: int) -> None:
        """Refuse queries that go beyond the limit or the budget, before the first of them is asked.

        Raises:
            LpmError: where they do, saying what the decision needs.
        """
        if self.limit is not None and self.asked.queries + queries > self.limit:
            raise LpmError(
                f"decision '{decision}' needs {queries:,} queries after {self.asked.queries:,}, and the limit is "
                f"{self.limit:,}; what was answered is kept: raise the limit, or ask fewer archetypes or samples"
            )
        if self.budget is not None and self._dollars(self.asked.tokens + read) > self.budget * (1.0 + 1e-9):
            needed, spent = said(self._dollars(read)), said(self._dollars(self.asked.tokens))
            raise LpmError(
                f"decision '{decision}' needs {needed} for {queries:,} queries, with {read:,} tokens of prompts, after "
                f"{spent}, and the budget is {said(self.budget)}; what was answered is kept: raise the budget, or ask "
                "fewer archetypes or samples"
            )

    def _dollars(self, read: int) -> float:
        return read * (self.price or 0.0) / 1e6


def said(dollars: float) -> str:
    """An amount in words: to the cent, and small ones to two digits.

    >>> said(1234.5), said(0.00123)
    ('$1,234.50', '$0.0012')
    """
    return (
        f"${dollars:,.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.{1 - math.floor(math.log10(dollars))}f}"
    )
