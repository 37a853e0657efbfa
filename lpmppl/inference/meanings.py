"""Whether what the model gives a meaning to is what is said: each step exactly, and over a run within chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lpmppl.errors import InputError
from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import line
from lpmppl.models.model import Meant, Model
from lpmppl.typing import State

__all__ = ["ERRORS", "Ledger", "laws"]

ERRORS = 4.0
"""Standard errors by which a sum over the run may miss its expectation, besides twice the furthest single miss.

By the normal law 6 in 100,000 of what is right lies further off; the second part covers sums of few and rare events.
"""

_CLOSE = 2e-3


@dataclass
class _Sum:
    """What was seen of one meaning over the run: how many, their sum less what was expected, and its variance."""

    many: int = 0
    off: float = 0.0
    expected: float = 0.0
    variance: float = 0.0
    furthest: float = 0.0


def laws(declared: Any) -> Mapping[str, Any]:
    """What a model declares by name; nothing where it isn't so, which is said where names are."""
    return declared if isinstance(declared, Mapping) else {}


class Ledger:
    """What every step left of the model's meanings.

    Args:
        model: the society.
        theta: the value of every parameter.
    """

    def __init__(self, model: Model, theta: Mapping[str, Tensor]) -> None:
        self.model, self.theta = model, theta
        self.sums: dict[str, _Sum] = {}
        self.broken: dict[str, Finding] = {}
        self.missing: dict[str, str] = {}
        self.counted: set[str] = set()

    def enter(self, before: State, after: State, counted: Mapping[str, Tensor]) -> None:
        """Carry a step into the ledger: its states, and the totals of its tallies and what was observed in it."""
        self.counted |= {*counted}
        for name, meaning in laws(self.model.meanings).items():
            if name in self.broken:
                continue
            t = float(before["t"])
            try:
                self._enter(name, meaning(self.theta, before, after, counted), t)
            except KeyError as e:
                # A part that was left out, or a tally that isn't counted today, leaves nothing to say.
                self.missing[name] = str(e.args[0]) if e.args else str(e)
            except Exception as e:  # noqa: BLE001 (a meaning that can't be asked is a finding)
                words = f"it stops with {type(e).__name__} on day {t:g}: {line(e)}"
                self.broken[name] = Finding("meanings", "broken", f"'{name}'", words)

    def _enter(self, name: str, meant: Meant, t: float) -> None:
        if not isinstance(meant, Meant):
            raise InputError(f"{type(meant).__name__} was given; give Meant(seen, expected)")
        seen, expected, variance = torch.broadcast_tensors(
            *(torch.as_tensor(x).detach().double().cpu() for x in (meant.seen, meant.expected, meant.variance))
        )
        known = ~expected.isnan()
        seen, expected, variance = seen[known], expected[known], variance[known]
        if not seen.numel():
            return
        sure = variance == 0
        held = self.sums.setdefault(name, _Sum())
        held.many += seen.numel()
        wrong = sure & ~torch.isclose(seen, expected, rtol=_CLOSE, atol=meant.near)
        if bool(wrong.any()) and name not in self.broken:
            number = int(wrong.sum())
            words = (
                f"it isn't so on day {t:g}: {number} of {seen.numel()} are not, such as {float(seen[wrong][0]):g} "
                f"where {float(expected[wrong][0]):g} is meant"
            )
            self.broken[name] = Finding("meanings", "broken", f"'{name}'", words, {"wrong": float(number)})
        off = (seen - expected)[~sure]
        if off.numel():
            held.off += float(off.sum())
            held.expected += float(expected[~sure].sum())
            held.variance += float(variance[~sure].sum())
            held.furthest = max(held.furthest, float(off.abs().max()))

    def findings(self, which: str) -> Iterator[Finding]:
        """What is broken, exactly or beyond chance, in a run that `which` says more of."""
        for finding in self.broken.values():
            yield Finding("meanings", "broken", finding.where, finding.words + which, finding.numbers)
        for name, held in self.sums.items():
            error = math.sqrt(held.variance)
            if name not in self.broken and not abs(held.off) <= ERRORS * error + 2 * held.furthest:
                words = (
                    f"over the run{which} {held.expected + held.off:.4g} was seen where {held.expected:.4g} ± "
                    f"{error:.3g} is meant, of {held.many}"
                )
                numbers = {"seen": held.expected + held.off, "meant": held.expected, "error": error}
                yield Finding("meanings", "broken", f"'{name}'", words, numbers)
