"""Sums among real parties: what `SecretShared` shares them with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lpmppl.effects.fields import Network
from lpmppl.errors import InputError, LpmError
from lpmppl.parties.client import Rounds
from lpmppl.parties.terms import Rule, Terms

__all__ = ["Remote"]


class Remote:
    """The parties of a session, as one of its clients has them: `SecretShared(parties=Remote(rounds))`.

    Each of the client's agents sends a vector with a number for each group, nothing but in its own, whatever it has to
    send; the sum that is opened is that over the agents of all clients whose parts have reached every helper. All
    clients run the same model, so that their sums are the same ones in the same order.

    Args:
        rounds: the client's rounds, begun.
        lost: for trials, given the number of a sum and that of agents, who dies in mid-upload, a Boolean of shape (n,),
            or None.
    Attributes:
        included: of each sum so far, who of the client's agents was in it, Boolean of shape (n,).
        everybody: of each sum so far, how many agents of all clients were in it.
        bytes_sent: what the client has sent to helpers.
    """

    def __init__(self, rounds: Rounds, lost: Callable[[int, int], Tensor | None] | None = None) -> None:
        self.rounds, self.lost = rounds, lost
        self.included: list[Tensor] = []
        self.everybody: list[int] = []
        self.bytes_sent = 0

    @property
    def agents(self) -> int:
        """How many agents all clients have."""
        return sum(self.rounds.session.clients.values())

    def total(self, secret: Tensor, network: Network | None, most: int, sigma: float) -> Tensor:
        """Share integers of shape (…, n) of the client's agents, and give the sums over everybody's, shape (…, G).

        Raises:
            InputError: for another number of agents than the session says.
            LpmError: for edge lists, messages that can't be proved to be in range, or what goes wrong between parties.
        """
        name = "everybody" if network is None else network.name
        n = secret.shape[-1]
        if n != self.rounds.agents:
            raise InputError(
                f"'{name}': client '{self.rounds.name}' has {self.rounds.agents} agents in the session, but {n} here"
            )
        groups, place = 1, torch.zeros(n, dtype=torch.long)
        if network is not None:
            index = getattr(network, "index", None)
            if index is None:
                raise LpmError(f"network '{name}': a message goes to many; have custodians keep it, or use groups")
            groups, place = int(network.share("sum").shape[-1]), index.long()
        rows = secret.reshape(-1, n)
        values = torch.zeros((n, len(rows), groups), dtype=torch.int64)
        values[torch.arange(n), :, place] = rows.T
        terms = Terms(sigma) if not self.rounds.session.proofs else self._proved(name, rows, most, sigma)
        turn = len(self.included)
        lost = None if self.lost is None else self.lost(turn, n)
        opened = self.rounds.sum(values.reshape(n, -1), lost, terms)
        self.included.append(opened.mine)
        self.everybody.append(opened.included)
        self.bytes_sent += opened.bytes_sent
        return opened.total.reshape(*secret.shape[:-1], groups)

    def _proved(self, name: str, rows: Tensor, most: int, sigma: float) -> Terms:
        """What is proved of messages: that each is from 0 to the largest there can be, and in one group."""
        if not most:
            raise LpmError(f"'{name}': derivatives have no range to be proved; make the session without proofs")
        if bool((rows < 0).any()):
            raise LpmError(
                f"'{name}': a message is negative, and what is proved is of 0 or more; sum the whole instead of its "
                "changes, or make the session without proofs"
            )
        rule = Rule.AT_MOST_ONE if most == 1 else Rule.AT_MOST_ONE_BOUNDED
        return Terms(sigma, rule, most.bit_length() if most > 1 else 0, len(rows))

    def __str__(self) -> str:
        session = self.rounds.session
        return f"{session.helpers} helpers and {len(session.clients)} clients"
