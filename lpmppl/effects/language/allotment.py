"""Where samples of answers go: to whom many listen, and whose answers vary."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["allotted", "pilot"]

_PILOT, _FLOOR = 0.5, 2
"""The share of samples that every prompt has before the rest go where answers vary, and how many it has at least."""


def pilot(samples: int) -> int:
    """How many samples every prompt has, of M on average.

    >>> pilot(1), pilot(3), pilot(10)
    (1, 2, 5)
    """
    return min(samples, max(_FLOOR, math.ceil(_PILOT * samples)))


def allotted(got: Sequence[Sequence[int | None]], options: int, deciding: Sequence[float], budget: int) -> list[int]:
    r"""How many more samples each prompt has: in proportion to who decides and to the spread of its answers so far.

    .. math:: m_k \propto n_k \sqrt{\sum_a p_{ka} (1 - p_{ka})}

    which is Neyman's allocation, with an answer of each option on top: few that agree don't show that all would.

    Args:
        got: the answers so far, by prompt.
        options: how many options there are, A.
        deciding: how many agents decide by each prompt, n.
        budget: the samples to give, in all.
    Source: Neyman, "On the two different aspects of the representative method", Journal of the Royal Statistical
        Society 97 (1934).

    >>> allotted([[0, 0], [0, 1], [0, 1]], 2, [10.0, 10.0, 30.0], 100)
    [16, 21, 63]
    """
    weight = []
    for answers, many in zip(got, deciding, strict=True):
        shares = [(answers.count(a) + 1.0 / options) / (len(answers) + 1.0) for a in range(options)]
        weight.append(many * math.sqrt(sum(p * (1.0 - p) for p in shares)))
    total = sum(weight)
    whole = [int(budget * w / total) for w in weight]
    # What rounding leaves goes to the largest remainders, in the order of the prompts where they tie.
    order = sorted(range(len(whole)), key=lambda k: (whole[k] - budget * weight[k] / total, k))
    for k in order[: budget - sum(whole)]:
        whole[k] += 1
    return whole
