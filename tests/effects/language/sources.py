"""Sources whose probabilities are known: numbers in (0, 1) that follow from the prompt."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

__all__ = ["Exactly", "Sampled", "chances"]


def chances(prompt: str, options: Sequence[str]) -> list[float]:
    """Probabilities that differ with the prompt, between about 5 and 95 %."""
    digest = hashlib.sha256(prompt.encode()).digest()
    weight = [20 + byte for byte in digest[: len(options)]]
    return [w / sum(weight) for w in weight]


class Exactly:
    """Gives the probabilities, and keeps what it was asked."""

    name = "exactly"

    def __init__(self, of: Callable[[str, Sequence[str]], list[float]] = chances) -> None:
        self.of, self.asked = of, list[str]()

    def chances(self, prompts: Sequence[str], options: Sequence[str]) -> list[list[float]]:
        self.asked += prompts
        return [self.of(prompt, options) for prompt in prompts]


class Sampled:
    """Gives answers by these probabilities, the same for the same number of a sample; some can't be read."""

    name = "sampled"

    def __init__(self, of: Callable[[str, Sequence[str]], list[float]] = chances, unreadable: float = 0.0) -> None:
        self.of, self.unreadable, self.asked = of, unreadable, list[tuple[str, int]]()

    def answers(
        self,
        prompts: Sequence[str],
        options: Sequence[str],
        wanted: Sequence[Sequence[int]],
        keep: Callable[[int, int, int | None], None],
    ) -> None:
        # Not in the order in which they were asked: servers answer several at once.
        for k, prompt in reversed(list(enumerate(prompts))):
            for ordinal in wanted[k]:
                self.asked.append((prompt, ordinal))
                chance = random.Random(f"{prompt}/{ordinal}")
                unread = chance.random() < self.unreadable
                answer = chance.choices(range(len(options)), self.of(prompt, options))[0]
                keep(k, ordinal, None if unread else answer)
