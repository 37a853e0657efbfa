"""What the sums that a run opened tell about people."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpmppl.effects.fields import Network

__all__ = ["Ledger", "Opened"]


@dataclass
class Opened:
    """The sums of one network or tally's strata that were opened.

    Attributes:
        sums: how often.
        groups: over how many groups each time.
        smallest: members of the smallest group that has any.
        bits: how much all of them can tell at most, of everybody together.
        bits_each: what they told of one person in all, on average, where messages are yes or no: the relative entropy
            of what its group's share says of it to what everybody's does.
        identified: people of whom a sum told that they have it: everybody in their group did.
        cleared: the mean share of people, over sums, of whom it told that they don't: nobody in their group did.
    """

    sums: int = 0
    groups: int = 0
    smallest: int = 0
    bits: float = 0.0
    bits_each: float = 0.0
    identified: int = 0
    cleared: float = 0.0


@dataclass
class Ledger:
    """Everything that was opened in a run, by network.

    Attributes:
        opened: by the network's name, "everybody" for sums over all.
        kept: how many sums stayed with custodians, by network.
        hidden: how many sums nobody ever had, by network.
    """

    opened: dict[str, Opened] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[str, int], Tensor] = field(default_factory=dict, repr=False)

    def keep(self, name: str) -> None:
        """Note that a sum stayed with its custodians."""
        self.kept[name] = self.kept.get(name, 0) + 1

    def hide(self, name: str) -> None:
        """Note a sum that is never opened."""
        self.hidden[name] = self.hidden.get(name, 0) + 1

    def open(
        self,
        name: str,
        network: Network | None,
        secret: Tensor,
        total: Tensor,
        sizes: Tensor,
        most: int,
        noised: bool = False,
    ) -> None:
        """Note a sum that was opened.

        Args:
            name: under which name.
            network: where it was summed, None for everybody.
            secret: what was sent, integers of shape (…, N).
            total: what was opened, shape (…, G).
            sizes: the members of each group, shape (G,).
            most: the largest absolute message there can be; 0 where there is no such.
            noised: whether there is noise in it: then it is counted, and the accountant says what it tells.
        """
        entry = self.opened.setdefault(name, Opened())
        n = sizes.double()
        most = most or (int(secret.abs().max()) if secret.numel() else 0)
        least = -most if secret.numel() and int(secret.min()) < 0 else 0
        rows = total.reshape(-1, total.shape[-1]).double()
        entry.cleared *= entry.sums / (entry.sums + len(rows))
        entry.sums += len(rows)
        entry.groups, entry.smallest = len(n), int(sizes[sizes > 0].min()) if bool((sizes > 0).any()) else 0
        if noised:
            return
        entry.bits += len(rows) * float(torch.log2(n * (most - least) + 1).sum())
        people = float(n.sum())
        if people:
            if least == 0:
                entry.cleared += float((n * (rows == 0)).sum() / people) / entry.sums
            if most > 0:
                self._identify(name, network, secret.shape[-1], (rows.abs() == n * most) & (n > 0))
                entry.identified = sum(int(x.sum()) for (of, _), x in self._known.items() if of == name)
        if people and least == 0 and most == 1:
            entry.bits_each += float((_relative_entropy(rows / n.clamp(min=1), n) * n).sum() / people)

    def _identify(self, name: str, network: Network | None, agents: int, groups: Tensor) -> None:
        some = groups.any(0)
        known = self._known.setdefault((name, agents), torch.zeros(agents, dtype=torch.bool))
        if bool(some.any()):
            known |= some.expand(agents) if network is None else network.field(some.float()).dense().cpu() > 0

    @property
    def rows(self) -> list[dict[str, object]]:
        """What every kind of party learnt, a row for each network, for tables and JSON."""
        found: list[dict[str, object]] = [
            {"network": name, "learnt by": "everybody", **vars(entry)} for name, entry in self.opened.items()
        ]
        found += [
            {"network": name, "learnt by": "custodians, of their own", "sums": sums} for name, sums in self.kept.items()
        ]
        found += [{"network": name, "learnt by": "nobody", "sums": sums} for name, sums in self.hidden.items()]
        return found


def _relative_entropy(p: Tensor, n: Tensor) -> Tensor:
    """The relative entropy of a yes of probability p (…, G) to one of the mean probability, in bits."""
    q = (p * n).sum(-1, keepdim=True) / n.sum()
    nats = torch.xlogy(p, p) - torch.xlogy(p, q) + torch.xlogy(1 - p, 1 - p) - torch.xlogy(1 - p, 1 - q)
    return nats.nan_to_num(0.0).clamp(min=0.0) / math.log(2)
