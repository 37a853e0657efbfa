"""How the numbers of a round are given, besides how many there are: with what noise, and what is proved of them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from lpmppl.effects.internals.circuits import AtMostOne, AtMostOneBounded, Booleans, Bounded
from lpmppl.effects.internals.validity import Circuit
from lpmppl.errors import InputError
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session

__all__ = ["PLAIN", "SIZE", "Rule", "Terms"]

_FORM = struct.Struct("<dBBH")
SIZE = _FORM.size
"""The bytes that terms take."""

_LOUDEST = 2.0**40


class Rule(IntEnum):
    """What is proved of an agent's numbers."""

    NOTHING = 0
    BOOLEANS = 1
    AT_MOST_ONE = 2
    BOUNDED = 3
    AT_MOST_ONE_BOUNDED = 4


class Terms(NamedTuple):
    """What all clients of a round must say alike.

    Args:
        sigma: the standard deviation of the noise that each helper adds to its sum; 0 for none.
        rule: what is proved.
        bits: of a number, where they are bounded.
        rows: how many rows of as many numbers each there are, where at most one of each isn't 0.
    """

    sigma: float = 0.0
    rule: Rule = Rule.NOTHING
    bits: int = 0
    rows: int = 1

    def circuit(self, d: int) -> Circuit | None:
        """What checks an agent's d numbers; None where nothing is proved.

        Raises:
            InputError: for numbers that it can't be of.
        """
        kinds: dict[Rule, Callable[[], Circuit]] = {
            Rule.BOOLEANS: lambda: Booleans(d),
            Rule.AT_MOST_ONE: lambda: AtMostOne(d, rows=self.rows),
            Rule.BOUNDED: lambda: Bounded(d, self.bits),
            Rule.AT_MOST_ONE_BOUNDED: lambda: AtMostOneBounded(d, self.bits, rows=self.rows),
        }
        return kinds[self.rule]() if self.rule else None

    def words(self, d: int) -> int:
        """How many words an agent's d numbers take, with their proof."""
        circuit = self.circuit(d)
        return d if circuit is None else circuit.words

    def check(self, session: Session, d: int) -> None:
        """Refuse what a session doesn't allow of d numbers.

        Raises:
            Refused: by name.
        """
        if not (math.isfinite(self.sigma) and 0 <= self.sigma <= _LOUDEST):
            raise Refused(Reason.NOISE, f"noise of {self.sigma:g} can't be added; give from 0 to {_LOUDEST:g}")
        if session.threshold is not None and self != PLAIN:
            raise Refused(Reason.PROOF, "a session with a threshold has neither proofs nor noise; leave it out")
        if session.proofs and not self.rule:
            raise Refused(Reason.PROOF, "the session is one of numbers that are proved to be valid, and these aren't")
        try:
            words = self.words(d)
        except InputError as e:
            raise Refused(Reason.PROOF, str(e)) from e
        if words > session.longest:
            raise Refused(
                Reason.LENGTH,
                f"{d} numbers with their proof are {words} words, more than the session's longest={session.longest}",
            )

    def packed(self) -> bytes:
        """The terms in a message."""
        return _FORM.pack(*self)

    @classmethod
    def of(cls, content: bytes | memoryview) -> Terms:
        """The terms that a message has, refused where there is no such rule."""
        sigma, rule, bits, rows = _FORM.unpack(content)
        if rule not in Rule._value2member_map_:
            raise Refused(Reason.PROOF, f"there is no rule {rule} that numbers could be proved to keep")
        return cls(sigma, Rule(rule), bits, rows)


PLAIN = Terms()
"""No noise, and nothing that is proved."""
