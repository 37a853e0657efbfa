"""A network that decides as somebody did: distilled from a language model's answers, or from any other choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers.neural import ChoiceNetwork
from lpmppl.errors import InputError, LpmError

__all__ = ["Distilled", "distil"]

_RIDGE = 1e-6
"""How much the squares of weights count beside a decision's nats: so that those that nothing tells stay small."""


@dataclass(frozen=True, eq=False)
class Distilled:
    """What was distilled, and how well.

    Attributes:
        network: the network, for `Neural`.
        divergence: how far it is from the choices that it was distilled from, nats a decision.
        held_out: the same for choices that were kept from it.
    """

    network: ChoiceNetwork
    divergence: float
    held_out: float


def distil(
    choices: Choices, hidden: Sequence[int] = (32, 32), *, steps: int = 300, held_out: float = 0.1, seed: int = 0
) -> Distilled:
    r"""Train a network to choose with the probabilities of some choices.

    .. math:: \min_\phi \sum_r w_r \sum_a p_{ra} \log \frac{p_{ra}}{q_\phi(a \mid x_r)}

    What is observed enters as numbers, so that the network also decides between the observations that were seen.

    Args:
        choices: the choices, such as `Decided` keeps of a run in which a language model decides.
        hidden: the sizes of the network's hidden layers.
        steps: how many steps of L-BFGS at most.
        held_out: the share of the choices that are kept from it, to judge it by.
        seed: the seed of its first weights, and of which choices are kept from it.
    Raises:
        InputError: for numbers that can't be used, or fewer than ten different rows of choices.
        LpmError: where the training doesn't come to numbers.

    >>> from lpmppl.effects.handlers import Decided, Utility
    >>> from lpmppl.effects.ops import decide
    >>> with Decided() as kept, Utility({"go": {"go": {"risk": -1.0, "age=old": -0.5}}}):
    ...     context = {"risk": torch.linspace(0.0, 3.0, 20)[:, None], "attributes": {"age": ["young", "old"]}}
    ...     chance = decide("go", torch.arange(2)[:, None], ["go", "stay"], context)
    >>> distil(kept["go"], hidden=[]).divergence < 1e-6  # a network without layers is a logit
    True
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r}: give a whole number, 1 or more")
    if not 0 < held_out < 1:
        raise InputError(f"held_out={held_out!r}: give a share between 0 and 1")
    # Rows that are alike are on one side, or what was learnt would be what is judged by.
    alike = torch.stack([*choices.codes.double().T, *choices.observed.values(), torch.zeros_like(choices.weight)], -1)
    kinds, kind = torch.unique(alike, dim=0, return_inverse=True)
    kept = max(1, round(held_out * len(kinds)))
    if len(kinds) < 10 or kept >= len(kinds):
        raise InputError(
            f"choices of decision '{choices.decision}' are of {len(kinds)} different rows, {kept} of them to judge by; "
            "distil from ten or more"
        )
    order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(seed))
    to_judge = torch.isin(kind, order[:kept])
    judged, learnt = choices.rows(to_judge), choices.rows(~to_judge)
    network = ChoiceNetwork(choices, hidden, seed)
    share = learnt.weight / learnt.weight.sum()
    inputs = network.inputs(learnt.features)
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        nats = -(share * (learnt.chance * network.scores(inputs).log_softmax(-1)).sum(-1)).sum()
        total: torch.Tensor = nats + _RIDGE * sum((p**2).sum() for p in network.parameters())
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    network.requires_grad_(False)
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise LpmError(f"decision '{choices.decision}': the network's weights are no numbers; give fewer steps")
    first, second = (c.divergence(network.chance(c.features)) for c in (learnt, judged))
    return Distilled(network, first, second)
