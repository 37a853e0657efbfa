"""What asking archetypes costs a whole city, apart from the language model's own answers.

    python bench/language.py [--agents 8400000] [--days 90] [--samples 10] [--coarse]

A run in which every decision is put into prompts, looked up and sampled, with answers that cost nothing, beside one by
utilities: a ratio of two runs, one after the other, and a third on replay of the answers that were kept. There are
1,152 archetypes, or with --coarse 96: age, income, savings and health. There are five decisions: masks, isolation,
tests, a vaccine, and what households spend of a payment.
"""

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lpmppl as lpm
from lpmppl.effects.handlers import LanguageModel
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.new_yorkers import DYNAMIC, STATIC, archetypes_of

WORK = re.compile(r"{% if employment.*?{% endif %}\n", re.S)
"""What prompts say of somebody's work."""


class Free:
    """Answers by chance, at once."""

    name = "free"

    def answers(
        self,
        prompts: Sequence[str],
        options: Sequence[str],
        wanted: Sequence[Sequence[int]],
        keep: Callable[[int, int, int | None], None],
    ) -> None:
        """Choose among the options by coins of each prompt; a seed for every answer costs more than its keeping."""
        for k, (prompt, ordinals) in enumerate(zip(prompts, wanted, strict=True)):
            coins = random.Random(f"{prompt}/{next(iter(ordinals), 0)}")
            for ordinal in ordinals:
                keep(k, ordinal, int(coins.random() * len(options)))


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=8_400_000)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--coarse", action="store_true")
    asked = parser.parse_args()
    people = lpm.nyc.population(asked.agents)
    usual = model = lpm.nyc.pandemic(people, negotiated=True)
    prompts = model.prompts
    if asked.coarse:
        static = {name: STATIC[name] for name in ("age", "income")}
        dynamic = {name: DYNAMIC[name].labels for name in ("savings", "health")}
        kinds = Archetypes(people, static, dynamic)
        model = lpm.nyc.pandemic(people, negotiated=True, archetypes=kinds)
        prompts = {name: WORK.sub("", prompt) for name, prompt in prompts.items()}
    run = lambda: lpm.run(model, days=asked.days)  # noqa: E731
    lpm.run(usual, days=8)
    utilities = seconds(lambda: lpm.run(usual, days=asked.days))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kept.sqlite"
        with LanguageModel(Free(), prompts, samples=asked.samples, answers=file) as handler:
            first = seconds(run)
        with LanguageModel(None, prompts, samples=asked.samples, answers=file) as replay:
            again = seconds(run)
    print(
        json.dumps(
            {
                **vars(asked),
                "all_archetypes": archetypes_of(model.setting).size,
                "utility_s": round(utilities, 1),
                "asked_s": round(first, 1),
                "replay_s": round(again, 1),
                "asked_ratio": round(first / utilities, 2),
                "replay_ratio": round(again / utilities, 2),
                "queries": handler.asked.queries,
                "replay_queries": replay.asked.queries,
                "most_archetypes": handler.asked.most,
            }
        )
    )


if __name__ == "__main__":
    main()
