"""Where a language model's choices come from: the protocol that local models and servers follow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

__all__ = ["Choices", "Exact", "Keep", "Sampled", "Source", "seed_of"]

Keep: TypeAlias = Callable[[int, int, int | None], None]
"""Is told the number of a prompt, that of the sample, and the answer: the number of an option, None if unreadable."""

Choices: TypeAlias = Sequence[float]


class Exact(Protocol):
    """Gives the probabilities of options."""

    @property
    def name(self) -> str:
        """The model and the settings that its answers depend on."""
        ...

    def chances(self, prompts: Sequence[str], options: Sequence[str]) -> list[Choices]:
        """The probability of each option, by prompt."""
        ...


class Sampled(Protocol):
    """Gives answers by chance."""

    @property
    def name(self) -> str:
        """The model and the settings that its answers depend on."""
        ...

    def answers(
        self, prompts: Sequence[str], options: Sequence[str], wanted: Sequence[Sequence[int]], keep: Keep
    ) -> None:
        """Ask each prompt once for every number of a sample that is wanted of it, and tell `keep` what it chose."""
        ...


Source: TypeAlias = Exact | Sampled


def seed_of(prompt: str, ordinal: int, unread: int = 0) -> int:
    """The seed of a sample of a prompt's answers, the same whenever it is asked; another after one that wasn't read."""
    digest = hashlib.sha256(json.dumps([prompt, ordinal, unread]).encode()).digest()
    # Servers take it as a signed number of 32 bits.
    return int.from_bytes(digest[:4], "big") >> 1
