"""What agents' adjoints come to on the groups of a hazard, from step to step: only those that change are added up.

On the way back an agent's adjoint stays what it is for all its time at risk before its event. So the sums on groups
stand, but for the agents to whom something happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lpmppl.effects.fields import Shape
from lpmppl.effects.internals.segments import BLOCK, bare, blocked, changes, send_back, take
from lpmppl.effects.pullbacks import Bits, Found, Met

__all__ = ["Standing", "can_stand"]


def can_stand(step: Met) -> bool:
    """Say whether a field is a sum on groups times values of each agent, of which no derivative is wanted."""
    factors = [f.value for f in step.plain_factors]
    return not step.by_agent and step.flat and all(isinstance(f, Tensor) and bare(f) for f in factors)


class Standing:
    """Sums of agents' adjoints on the groups of a field, in one row of the leading dimensions.

    Args:
        step: the field, which `can_stand`.
        agents: how many there are.
    """

    def __init__(self, step: Met, agents: int) -> None:
        self.of = _parts(step)
        self._seen = torch.zeros(agents)
        self._sums = [torch.zeros(leaf.groups, dtype=torch.float64) for leaf in step.plain_leaves]

    def fits(self, step: Met) -> bool:
        """Say whether another step's field has the same groups and values of agents."""
        return len(self.of) == len(_parts(step)) and all(map(_same, self.of, _parts(step)))

    def take_up(self, step: Met, adjoint: Tensor, risk: Bits, lead: Shape, row: Shape, found: Found) -> None:
        """Bring the sums up to date, and take them to what a step's field was made of.

        Args:
            step: the field.
            adjoint: of the cumulative hazard after the step, flat, float64.
            risk: who was at risk.
            lead: the leading dimensions.
            row: the row of them.
            found: the adjoints of the field's inputs.
        """
        where, weight = self._changes(adjoint, risk)
        for factor in step.plain_factors:
            assert isinstance(factor.value, Tensor)
            weight = weight * take(factor.value, where)

        def share() -> Callable[[slice], None]:
            return lambda leaves: self._send(step, where, weight, leaves)

        blocked(len(self._sums), share, block=1)
        for leaf, sums in zip(step.plain_leaves, self._sums, strict=True):
            if leaf.wanted:
                leaf.give(sums, lead, row, found)

    def _changes(self, adjoint: Tensor, risk: Bits) -> tuple[Tensor, Tensor]:
        """Whose adjoint at risk isn't what it was, and by how much."""
        parts: dict[int, tuple[Tensor, Tensor]] = {}

        def work() -> Callable[[slice], None]:
            def block(agents: slice) -> None:
                bits = risk.kept[agents.start // 8 : -(-agents.stop // 8)]
                parts[agents.start] = changes(adjoint[agents], bits, self._seen[agents], agents.start)

            return block

        blocked(adjoint.shape[0], work, BLOCK)
        where, weight = (torch.cat([parts[k][i] for k in sorted(parts)]) for i in (0, 1))
        return where, weight

    def _send(self, step: Met, where: Tensor, weight: Tensor, leaves: slice) -> None:
        for leaf, sums in zip(step.plain_leaves[leaves], self._sums[leaves], strict=True):
            send_back(sums, where if leaf.index is None else take(leaf.index, where), weight)


def _parts(step: Met) -> Sequence[Tensor | None]:
    factors = [f.value for f in step.plain_factors if isinstance(f.value, Tensor)]
    return [leaf.index for leaf in step.plain_leaves] + factors


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
