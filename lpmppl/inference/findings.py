"""What verifying a model found: each finding with its numbers, and all of them in words."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pandas as pd

__all__ = ["SEVERITIES", "Finding", "Verification"]

SEVERITIES = ("broken", "warning", "kept", "doesn't apply")
"""From what makes a model wrong to what couldn't be asked of it."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check says of a model.

    Args:
        check: the check's name, one of `lpmppl.inference.verify.CHECKS`.
        severity: "broken", "warning", "kept" or "doesn't apply".
        where: the substep, site, tally, parameter or key that it is of; "" for the whole model.
        words: what was found, a sentence.
        numbers: what was measured, by name.
    """

    check: str
    severity: str
    where: str
    words: str
    numbers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        return f"{self.where}: {self.words}" if self.where else self.words


@dataclass(frozen=True)
class Verification:
    """What `verify` found of a model, in the order of its checks.

    Attributes:
        model: the model's name.
        findings: all findings.
        days: how many days were played.
        agents: of how many agents.
        seed: the seed of their chance.
        runs: how many runs it took.
    """

    model: str
    findings: Sequence[Finding]
    days: int
    agents: int
    seed: int
    runs: int

    @property
    def ok(self) -> bool:
        """Whether nothing was broken; warnings don't count."""
        return not self.broken

    @property
    def broken(self) -> list[Finding]:
        """What makes the model wrong."""
        return [f for f in self.findings if f.severity == "broken"]

    def of(self, severity: str) -> Iterator[Finding]:
        """The findings of one severity."""
        return (f for f in self.findings if f.severity == severity)

    def to_frame(self) -> pd.DataFrame:
        """A row for each finding: check, severity, where, words and numbers."""
        columns = ["check", "severity", "where", "words", "numbers"]
        rows = [(f.check, f.severity, f.where, f.words, dict(f.numbers)) for f in self.findings]
        return pd.DataFrame(rows, columns=columns)

    def _summary(self) -> str:
        many = {s: sum(1 for _ in self.of(s)) for s in SEVERITIES}
        said = ", ".join(f"{many[s]} {s}" for s in SEVERITIES)
        return f"{self.model}: {said} ({self.agents:,} agents, {self.days} days, seed {self.seed}, {self.runs} runs)"

    def __str__(self) -> str:
        lines = [self._summary()]
        for severity in SEVERITIES:
            if found := list(self.of(severity)):
                lines += ["", severity]
                for f in found:
                    lines += textwrap.wrap(f"{f.check}: {f}", 110, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(f.severity)}</td><td>{html.escape(f.check)}</td><td>{html.escape(f.where)}</td>"
            f"<td>{html.escape(f.words)}</td></tr>"
            for severity in SEVERITIES
            for f in self.of(severity)
        )
        head = "".join(f"<th>{name}</th>" for name in ("severity", "check", "where", "found"))
        summary = html.escape(self._summary())
        return f"<table><caption>{summary}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
