"""Sums that nobody sees the parts of: the same model under secret sharing, and in its fixed-point arithmetic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from numbers import Integral
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lpmppl._compat import Message, Messenger, handler_stack
from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.fields import Network, summed
from lpmppl.effects.handlers.compared import Comparing, InClear
from lpmppl.effects.handlers.readers import reader
from lpmppl.effects.internals.honest_majority import HonestMajority
from lpmppl.effects.internals.in_process import InProcess, noised
from lpmppl.effects.internals.segments import empty, put
from lpmppl.effects.internals.shares import decoded, encoded
from lpmppl.effects.ledger import Ledger
from lpmppl.effects.opening import Compared, Custodian, Noised, Opening, sizes_of
from lpmppl.effects.tape import on_tape
from lpmppl.errors import InputError, LpmError

__all__ = ["FixedPoint", "Parties", "SecretShared"]


@runtime_checkable
class Parties(Protocol):
    """Those among whom sums are shared, behind `SecretShared`."""

    @property
    def agents(self) -> int | None:
        """How many agents there are in all, None where all of them are here."""
        ...

    def total(self, secret: Tensor, network: Network | None, most: int, sigma: float) -> Tensor:
        """Share integers of shape (…, N) and give their opened sums, int64 of shape (…, G).

        `most` is the largest absolute message there can be, 0 where there is no such; `sigma` the standard deviation of
        the noise that each party adds to its sum, 0 for none.
        """
        ...


class FixedPoint(Messenger):
    """Add up as secret sharing does, but in the clear: what `SecretShared` must equal bit for bit.

    Integer messages are added as ever. Derivatives, which are floating point elsewhere, are rounded to whole multiples
    of 2⁻ᶠ before they are added up.

    Args:
        opening: which sums stay with custodians and which are opened; `Custodian()` by default.
        fraction_bits: f, of derivatives.
        lost: for trials, given the number of a sum (0, 1, …) and N, whose parts are lost in it, a Boolean of shape
            (N,), or None for nobody's.
        ledger: whether to keep what is opened and what it tells, which takes a few passes over all agents a sum.
    Attributes:
        opened: how many sums were opened so far, one for each world and draw.
        kept: how many stayed with custodians.
        hidden: how many nobody ever had, under `Compared`, one for each world and draw.
        ledger: what was opened, where `ledger=True`.
    Raises:
        LpmError: by the network's name, for a group that is too small to be opened, or any, maximum or reverse-mode
            derivative over groups that are opened.
    """

    def __init__(
        self,
        *,
        opening: Opening | None = None,
        fraction_bits: int = 32,
        lost: Callable[[int, int], Tensor | None] | None = None,
        ledger: bool = False,
    ) -> None:
        super().__init__()
        opening = Custodian() if opening is None else opening
        if not isinstance(opening, Custodian | Noised):
            raise InputError(f"opening={opening!r}: say Custodian(least=…), Noised(sigma=…) or Compared()")
        if lost is not None and not callable(lost):
            raise InputError(f"lost={lost!r}: give a function of a sum's number and how many agents there are")
        if isinstance(fraction_bits, bool) or not isinstance(fraction_bits, int) or not 0 <= fraction_bits <= 62:
            raise InputError(f"fraction_bits={fraction_bits!r}: give a whole number from 0 to 62")
        self.opening, self.fraction_bits, self.lost = opening, fraction_bits, lost
        self.opened, self.kept, self.hidden, self._turn = 0, 0, 0, 0
        self.comparing = Comparing(InClear()) if isinstance(opening, Compared) else None
        self.ledger = Ledger() if ledger else None
        self._sizes: dict[tuple[int, int], tuple[Network | None, Tensor]] = {}

    def __enter__(self) -> Self:
        if any(isinstance(handler, FixedPoint) for handler in handler_stack()):
            raise LpmError("one secret sharing stands inside another, whose promise it would break: keep one")
        super().__enter__()
        return self

    @property
    def agents(self) -> int | None:
        """How many agents there are in all, None where all of them are here."""
        return None

    def _total(self, secret: Tensor, network: Network | None, most: int, sigma: float) -> Tensor:
        return noised(summed(secret, network), sigma)

    def _pyro_ring_sum(self, msg: Message) -> None:
        if msg["done"]:
            return
        integers, network, onto, most = _arguments(*msg["args"], **msg["kwargs"])
        if _public(network) or self._stays(network):
            return
        if on_tape():
            raise LpmError(f"'{_name(network)}': {_REVERSE}")
        secret = _everybodys(integers)
        if self.comparing is not None and network is not None and self.opening.hides(network):
            kind = integers.dtype if onto is None else onto.dtype
            msg["value"] = self._hide(self.comparing, secret, network, onto, most, kind)
            msg["done"] = True
            return
        noisy = isinstance(self.opening, Noised)
        if noisy and onto is None and secret.numel() and int(secret.min()) < 0:
            raise LpmError(f"'{_name(network)}': a message is negative, and sums that are noised are of 0 or more")
        total = self._open(secret, network, most)
        total = total if onto is None else onto.long() + total
        if noisy:
            # What is known to lie in a range is brought back into it: nothing is learnt by that.
            total = total.clamp(min=0).minimum(most * self._members(network, secret.shape[-1]).to(total.device))
        msg["value"] = total.to(integers.dtype if onto is None else onto.dtype)
        msg["done"] = True

    def _pyro_ghost_sum(self, msg: Message) -> None:
        if msg["done"]:
            return
        ghost, network = msg["args"]
        if _public(network) or self._stays(network):
            return
        name = _name(network)
        value = ghost.value if isinstance(ghost, Sparse) else ghost
        if value.requires_grad:
            raise LpmError(f"'{name}': {_REVERSE}")
        if isinstance(self.opening, Noised):
            raise LpmError(f"'{name}': derivatives have no bound, so that no noise hides them; open by Custodian(…)")
        if self.opening.hides(network):
            raise LpmError(f"'{name}': derivatives of sums that nobody has are none's to give; open by Custodian(…)")
        tangent = forward_ad.unpack_dual(ghost.dense() if isinstance(ghost, Sparse) else ghost).tangent
        if tangent is None:
            return
        many = self.agents or ghost.shape[-1]
        total = decoded(self._open(encoded(tangent, self.fraction_bits, many, name), network), self.fraction_bits)
        msg["value"] = forward_ad.make_dual(torch.zeros_like(total), total)
        msg["done"] = True

    def _pyro_in_clear(self, msg: Message) -> None:
        what, remedy = msg["args"]
        raise LpmError(f"{what} would be seen in the clear, and can't be under secret sharing: {remedy}")

    def _pyro_simulate(self, msg: Message) -> None:
        self._check()
        if self.comparing is not None:
            self.comparing.begin()

    def _check(self) -> None:
        if name := reader():
            raise LpmError(
                f"{name} reads agents one by one, which nobody may under secret sharing: leave it out, or don't share "
                "in secret"
            )

    def _pyro_steps(self, msg: Message) -> None:
        # A solver inside has simulated before `simulate` comes to a handler outside, but not its steps.
        self._check()
        if self.comparing is not None and not msg["done"]:
            self.comparing.steps(msg["args"][2])

    def _pyro_post_steps(self, msg: Message) -> None:
        if self.comparing is not None:
            self.comparing.stepped(msg["args"][3])

    def _pyro_happens(self, msg: Message) -> None:
        if self.comparing is not None and not msg["done"]:
            name, exposure = msg["args"]
            msg["args"] = name, self.comparing.tested(name, exposure)

    def _pyro_aggregate(self, msg: Message) -> None:
        _, network, _, reduce = msg["args"]
        if reduce in ("max", "any") and not self.opening.keeps(network):
            raise LpmError(
                f"network '{network.name}': reduce='{reduce}' isn't a sum, so that it can't be shared in secret; send "
                "with sum or mean, or have custodians keep the network"
            )

    def _stays(self, network: Network | None) -> bool:
        if network is None or not self.opening.keeps(network):
            return False
        self.kept += 1
        if self.ledger is not None:
            self.ledger.keep(network.name)
        return True

    def _hide(
        self, comparing: Comparing, secret: Tensor, network: Network, onto: Tensor | None, most: int, dtype: torch.dtype
    ) -> Tensor:
        """Sums that are never opened, of shape (…, G)."""
        secret = self._less_lost(secret)
        self.hidden += secret.shape[:-1].numel()
        if self.ledger is not None:
            self.ledger.hide(network.name)
        return comparing.total(secret, network, onto, most, self._members(network, secret.shape[-1]), dtype)

    def _less_lost(self, secret: Tensor) -> Tensor:
        """What is sent, but for what is lost of this sum."""
        gone = None if self.lost is None else self.lost(self._turn, secret.shape[-1])
        self._turn += 1
        return secret if gone is None else torch.where(gone, 0, secret)

    def _open(self, secret: Tensor, network: Network | None, most: int = 0) -> Tensor:
        """The opened sums of integers, int64 of shape (…, G)."""
        name, sizes = _name(network), self._members(network, secret.shape[-1])
        self.opening.check(name, sizes)
        secret = self._less_lost(secret)
        total = self._total(secret, network, most, self._sigma(name, network, secret, most))
        self.opened += secret.shape[:-1].numel()
        if self.ledger is not None:
            self.ledger.open(name, network, secret, total, sizes, most, isinstance(self.opening, Noised))
        return total

    def _sigma(self, name: str, network: Network | None, secret: Tensor, most: int) -> float:
        """The noise that each party adds; 0 where sums are opened as they are."""
        if not isinstance(self.opening, Noised):
            return 0.0
        if network is not None and network.reach and getattr(network, "index", None) is None:
            raise LpmError(f"network '{name}': a message goes to many, which one noise doesn't hide; keep it at home")
        if secret.numel() and int(secret.abs().max()) > most:
            raise LpmError(
                f"'{name}': a message of {int(secret.abs().max())} was given where noise is for messages of {most} or "
                "less; declare its bound"
            )
        return self.opening.sigma * most

    def _members(self, network: Network | None, agents: int) -> Tensor:
        key = id(network), agents
        if key not in self._sizes:
            self._sizes[key] = network, sizes_of(network, self.agents or agents)
        return self._sizes[key][1]


class SecretShared(FixedPoint):
    r"""Share every sum in secret among m parties, of whom no m − 1 together learn anything of an agent's message.

    .. math:: x_i = \sum_{k=1}^m s_{ik}, \qquad \sigma_k = \sum_i s_{ik}, \qquad \sum_i x_i = \sum_k \sigma_k
        \pmod{2^{64}}

    which are eqs. 9–10 of the LPM paper among m helpers instead of N agents. The model doesn't change, and neither do
    its results: shares are added in the integers in which messages are anyway. Everybody sends something for every sum,
    so that who is silent isn't told apart. What a sum tells once it is opened is another matter, and `opening` says
    which are: `docs/threat-model.md`.

    What goes through `aggregate` and `tally` is shared, tangents of forward-mode derivatives (`Pathwise(forward=True)`)
    included. What reads many agents by other means is refused by name: handlers that look at agents one by one
    (`Sources`, `Flips`, `Decided` and others), counts of archetypes, and the queue for vaccines.

    Args:
        parties: m, all of them in this process, or those among whom to share (`lpmppl.parties.Remote`).
        opening: what may be opened: `Custodian(least=…)`, as it is by default, `Noised(sigma=…)`, or `Compared()` for
            3 parties or more, of whom fewer than half may look at what they have together.
        fraction_bits: of derivatives.
        lost: as for `FixedPoint`.
        ledger: as for `FixedPoint`.
        quiet: don't say on stderr what is opened.
    Raises:
        InputError: for fewer than two parties; in a run, as for `FixedPoint`.
        LpmError: where the package cryptography isn't installed.

    >>> from lpmppl.effects.ops import tally
    >>> with SecretShared(parties=3, quiet=True) as secret:
    ...     total = tally("ill", torch.arange(1000) < 20)
    >>> total.item(), secret.opened
    (20, 1)
    """

    def __init__(
        self,
        parties: int | Parties = 3,
        *,
        opening: Opening | None = None,
        fraction_bits: int = 32,
        lost: Callable[[int, int], Tensor | None] | None = None,
        ledger: bool = False,
        quiet: bool = False,
    ) -> None:
        super().__init__(opening=opening, fraction_bits=fraction_bits, lost=lost, ledger=ledger)
        among = InProcess(parties) if isinstance(parties, int | Integral) else parties
        if not isinstance(among, Parties):
            raise InputError(f"parties={parties!r}: give a whole number, 2 or more, or lpmppl.parties.Remote(…)")
        if isinstance(opening, Compared):
            if not isinstance(among, InProcess):
                raise InputError(f"parties={parties!r}: comparisons are among parties in this process; give a number")
            self.comparing = Comparing(HonestMajority(among.count))
        self.parties = among
        self.quiet = quiet

    @property
    def agents(self) -> int | None:
        """How many agents there are in all, None where all of them are here."""
        return self.parties.agents

    def __enter__(self) -> Self:
        super().__enter__()
        if not self.quiet:
            print(self, file=sys.stderr)
        return self

    def __str__(self) -> str:
        return f"secret sharing among {self.parties}, {self.opening}"

    def _total(self, secret: Tensor, network: Network | None, most: int, sigma: float) -> Tensor:
        return self.parties.total(secret, network, most, sigma)


_REVERSE = (
    "a derivative backwards adds up over agents where nobody can share it; ask for it forwards, with "
    "Pathwise(forward=True)"
)


def _arguments(
    integers: Tensor | Sparse, network: Network | None, onto: Tensor | None = None, most: int = 1
) -> tuple[Tensor | Sparse, Network | None, Tensor | None, int]:
    return integers, network, onto, most


def _everybodys(integers: Tensor | Sparse) -> Tensor:
    """What everybody sends, int64 of shape (…, N): nothing, too, so that who sends isn't told apart."""
    if not isinstance(integers, Sparse):
        return integers.long()
    cohort = integers.cohort
    out = empty(cohort.shape, torch.int64, cohort.where.device).zero_()
    put(out.view(-1), cohort.where, integers.value.long())
    return out


def _name(network: Network | None) -> str:
    return "everybody" if network is None else network.name


def _public(network: Network | None) -> bool:
    return bool(getattr(network, "public", False))
