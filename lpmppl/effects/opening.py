"""What may be opened of sums that were shared in secret."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpmppl.effects.fields import Network
from lpmppl.errors import InputError, LpmError

__all__ = ["HOMES", "Compared", "Custodian", "Noised", "Opening"]

HOMES = ("household", "workplace")
"""Networks whose groups have a custodian of their own: a household its home, staff and pupils their institution."""


_LOUDEST = 1e6
"""The largest noise, in messages."""


@dataclass(frozen=True)
class Opening:
    """What every way of opening knows: whose sums stay at home.

    Args:
        keep: networks whose sums stay with the custodian of each group, by name; nobody else ever has them.
    """

    keep: Collection[str] = HOMES

    def __post_init__(self) -> None:
        names = isinstance(self.keep, Collection) and not isinstance(self.keep, str)
        if not names or not all(isinstance(name, str) for name in self.keep):
            raise InputError(f"keep={self.keep!r}: give the names of networks in a list, such as {list(HOMES)}")
        object.__setattr__(self, "keep", tuple(self.keep))

    def keeps(self, network: Network | None) -> bool:
        """Whether a network's sums stay with custodians."""
        # Strata of a tally are for all to see, whatever they are called.
        return network is not None and network.name in self.keep and not getattr(network, "dims", None)

    def hides(self, network: Network | None) -> bool:
        """Whether nobody ever has a network's sums."""
        return False

    def check(self, name: str, sizes: Tensor) -> None:
        """Refuse groups that may not be opened; those of any size may, unless it is said otherwise."""

    @property
    def _kept(self) -> str:
        return f"sums of {' and '.join(self.keep)} stay with their custodians" if self.keep else "nothing stays at home"


@dataclass(frozen=True)
class Custodian(Opening):
    """Sums over groups of so many members are opened, as they are; where a group is smaller, the run is refused.

    A sum over many tells little of one of them, but not nothing: one of 0 says that nobody there has it.

    Args:
        keep: as for `Opening`.
        least: the fewest members of a group whose sum is opened.
    Raises:
        InputError: for fewer than 2.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000), by={"borough": "borough"})
    >>> with lpm.SecretShared(parties=2, opening=Custodian(least=10), quiet=True):
    ...     shared = lpm.run(model, days=3)["prior_predictive"]["infections"]
    >>> bool((shared == lpm.run(model, days=3)["prior_predictive"]["infections"]).all())
    True
    """

    least: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.least, bool) or not isinstance(self.least, int) or self.least < 2:
            raise InputError(f"least={self.least!r}: give a whole number, 2 or more; the sum over one is what it has")

    def check(self, name: str, sizes: Tensor) -> None:
        """Refuse a network with a group that has members, but too few.

        Raises:
            LpmError: naming the network, its smallest group and what to do.
        """
        # No group has more members than a population.
        few = sizes[(sizes > 0) & (sizes.long() < min(self.least, 2**32))]
        if few.numel():
            smallest = int(few.min())
            known = f", or say {type(self).__name__}(least={smallest}) if that may be known" if smallest > 1 else ""
            raise LpmError(
                f"'{name}' has {few.numel()} groups of fewer than {self.least} members, the smallest of {smallest}, "
                f"and their sums would tell of each: sum over coarser groups (by=…) or simulate more people{known}"
            )

    def __str__(self) -> str:
        return f"custodian mode: {self._kept}, others are opened over groups of {self.least} or more"


@dataclass(frozen=True)
class Compared(Custodian):
    r"""Sums over networks are never opened to anybody, only whether an agent's cumulative hazard passes its resistance.

    .. math:: [\Lambda_i > R_i], \qquad \Lambda_i' = \Lambda_i + 1_{risk} \Delta t \sum_l c_{il} S_l

    is found of shares of the sums S, and its one bit is told to the agent alone. Hazards must be linear in the sums.
    Results, which are sums over strata and over everybody, are opened as by `Custodian`.

    Args:
        keep: as for `Opening`.
        least: the fewest members of a stratum whose sum is opened.
    Raises:
        InputError: for fewer than 2.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000), by={"borough": "borough"})
    >>> with lpm.SecretShared(parties=3, opening=Compared(), quiet=True):
    ...     shared = lpm.run(model, days=3)["prior_predictive"]["infections"]
    >>> bool((shared == lpm.run(model, days=3)["prior_predictive"]["infections"]).all())
    True
    """

    def hides(self, network: Network | None) -> bool:
        """Whether nobody ever has a network's sums: those of strata are results."""
        return network is not None and not self.keeps(network) and not getattr(network, "dims", None)

    def __str__(self) -> str:
        return (
            f"comparison mode: {self._kept}, those of other networks are never opened while fewer than half of the "
            f"parties collude, results are over groups of {self.least} or more"
        )


@dataclass(frozen=True)
class Noised(Opening):
    r"""Sums are opened with discrete Gaussian noise of every party.

    A sum of messages of at most Δ with noise of standard deviation σΔ from one party that tells it nobody satisfies
    :math:`\rho = 1 / 2\sigma^2` of zero-concentrated differential privacy, whatever the others add; those of all sums
    of a run add up. The noise of m parties has m times the variance. Messages are 0 or more, and what
    noise brings out of the range of their sums is brought back to its edge.

    Args:
        keep: as for `Opening`.
        sigma: σ, in units of the largest message.
    Raises:
        InputError: for a σ that isn't a number above 0.
    Source: Canonne, Kamath and Steinke (2020); Bun and Steinke, "Concentrated Differential Privacy", TCC 2016.

    >>> round(Noised(sigma=50.0).epsilon(sums=300, delta=1e-6), 2)
    1.88
    """

    sigma: float = field(default=math.nan, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.sigma, int | float) and 0 < self.sigma <= _LOUDEST):
            raise InputError(
                f"sigma={self.sigma!r}: give the noise's standard deviation in messages, above 0 and up to {_LOUDEST:g}"
            )

    @classmethod
    def within(cls, epsilon: float, delta: float, sums: int, keep: Collection[str] = HOMES) -> Noised:
        r"""The least noise with which so many sums satisfy (ε, δ)-differential privacy.

        .. math:: \varepsilon = \rho + 2 \sqrt{\rho \ln(1/\delta)}

        Raises:
            InputError: for numbers that are out of range.

        >>> round(Noised.within(epsilon=1.0, delta=1e-6, sums=300).sigma, 1)
        92.7
        """
        numbers = all(isinstance(x, int | float) for x in (epsilon, delta, sums))
        if not (numbers and 1e-6 <= epsilon < math.inf and 0 < delta < 1 and sums >= 1):
            raise InputError(
                f"epsilon={epsilon}, delta={delta}, sums={sums}: give ε from 1e-6, δ between 0 and 1, 1 sum or more"
            )
        log = -math.log(delta)
        rho = (math.sqrt(log + epsilon) - math.sqrt(log)) ** 2
        return cls(keep, sigma=math.sqrt(sums / (2 * rho)))

    def epsilon(self, sums: int, delta: float) -> float:
        """What ε so many sums of a run come to at δ, about everything that one person sent in it."""
        if not (isinstance(delta, int | float) and 0 < delta < 1 and sums >= 0):
            raise InputError(f"sums={sums}, delta={delta}: give 0 sums or more, and δ between 0 and 1")
        rho = sums / (2 * self.sigma**2)
        return rho + 2 * math.sqrt(rho * -math.log(delta))

    def __str__(self) -> str:
        return f"noised mode: {self._kept}, others are opened with noise of {self.sigma:g} messages from every party"


def sizes_of(network: Network | None, agents: int) -> Tensor:
    """How many members each group of a network has, those elsewhere included, int64 of shape (G,)."""
    if network is None:
        return torch.tensor([agents])
    here = network.total(torch.ones(network.agents, dtype=torch.int64))
    share = network.share("mean")
    told = torch.where(share > 0, (1.0 / share.double().clamp(min=1e-12)).round(), 0.0).long()
    return torch.maximum(here, told.to(here.device))
