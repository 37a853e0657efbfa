"""What archetypes decided in a run, kept: to fit other behaviours to, or to look at."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.choices import Choices
from lpmppl.effects.features import RESERVED
from lpmppl.effects.internals.segments import broadcast
from lpmppl.errors import InputError, nearest

__all__ = ["Decided"]


class Decided(Messenger):
    """Keep the probabilities of every decision of a run with who decided and what they observed, whatever decides.

    Attributes:
        decisions: by name, the choices of each time that it was decided.

    >>> from lpmppl.effects.handlers import Utility
    >>> from lpmppl.effects.ops import decide
    >>> with Decided() as kept, Utility({"go": {"go": {"risk": -1.0}}}):
    ...     context = {"risk": 0.5, "attributes": {"age": ["young", "old"]}}
    ...     chance = decide("go", torch.arange(2), ["go", "stay"], context)
    >>> kept["go"].observed["risk"].tolist(), kept["go"].weight.tolist()
    ([0.5, 0.5], [1.0, 1.0])
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, list[Choices]] = {}

    def _pyro_post_decide(self, msg: Message) -> None:
        name, archetypes, options, context = msg["args"]
        chance: Tensor = msg["value"].detach().cpu().double()
        many = archetypes.shape[0]
        codes = archetypes.reshape(many, -1).cpu().long()
        labels = context.get("attributes") or {
            f"attribute {k + 1}": tuple(map(str, range(int(column.max()) + 1))) for k, column in enumerate(codes.T)
        }
        due = context.get("due", 1.0)
        given = {"due": due() if callable(due) else due}
        given |= {n: x for n, x in context.items() if n not in RESERVED}
        seen = {n: torch.as_tensor(x, dtype=torch.float64).detach().cpu() for n, x in given.items()}
        shape = broadcast((many,), chance.shape[:-1], *(x.shape for x in seen.values()))
        rows = {n: x.expand(shape).reshape(-1) for n, x in seen.items()}
        chance = chance.expand(*shape, len(options)).reshape(-1, len(options))
        weight = rows.pop("due")
        deciding = weight > 0
        if not bool(deciding.any()):
            return
        self.decisions.setdefault(name, []).append(
            Choices(
                name,
                tuple(options),
                {n: tuple(words) for n, words in labels.items()},
                codes[torch.arange(many).expand(shape).reshape(-1)[deciding]],
                {n: x[deciding] for n, x in rows.items()},
                # Shares to more digits than those in which they were given add up to 1.
                chance[deciding] / chance[deciding].sum(-1, keepdim=True),
                weight[deciding],
            )
        )

    def __getitem__(self, decision: str) -> Choices:
        """All choices of a decision.

        Raises:
            InputError: for a decision that nobody took, or that was taken among different options, by archetypes of
                different attributes, or with different observations.
        """
        if decision not in self.decisions:
            raise InputError(nearest("decision that was taken", decision, self.decisions))
        first, *others = each = self.decisions[decision]
        for other in others:
            for what in ("options", "attributes", "observed"):
                mine, its = (list(getattr(x, what)) for x in (first, other))
                if mine != its or (what == "attributes" and first.attributes != other.attributes):
                    raise InputError(
                        f"decision '{decision}' was taken with other {what}, {mine} and {its}, or other labels: keep "
                        "each with a Decided of its own"
                    )
        return Choices(
            decision,
            first.options,
            first.attributes,
            torch.cat([c.codes for c in each]),
            {n: torch.cat([c.observed[n] for c in each]) for n in first.observed},
            torch.cat([c.chance for c in each]),
            torch.cat([c.weight for c in each]),
        )
