"""A person's own risk, worked out where the person is, from sums that are known there anyway."""

from __future__ import annotations

from collections import deque

import torch
import xarray as xr
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Field
from lpmppl.errors import InputError, LpmError

__all__ = ["OwnRisk"]


class OwnRisk(Messenger):
    r"""Keep the hazards of the last days of everybody here, by the network over which they come.

    .. math:: r_i = 1 - \exp\Big(-\sum_{t, k} h_{ik}(t)\Big), \qquad r_i^{-k} = 1 - \exp\Big(-\sum_{t, l \neq k}
        h_{il}(t)\Big)

    with h the hazard from network k on day t: eq. 8 of the LPM paper over a week. Nothing of it is sent anywhere: a
    device knows the sums that are opened and those of its own household, and so its own hazards.

    Args:
        site: the hazard's site.
        days: over how many of the last days.
    Raises:
        InputError: for days that aren't a number of 1 or more.
    """

    def __init__(self, site: str = "infection", days: int = 7) -> None:
        super().__init__()
        if isinstance(days, bool) or not isinstance(days, int) or days < 1:
            raise InputError(f"days={days!r}: give a whole number, 1 or more")
        self.site, self.days = site, days
        self._kept: deque[dict[str, Tensor]] = deque(maxlen=days)
        self._networks: list[str] = []
        self._at_risk: Tensor | None = None

    def _pyro_post_aggregate(self, msg: Message) -> None:
        self._networks.append(msg["args"][1].name)

    def _pyro_post_happens(self, msg: Message) -> None:
        name, exposure = msg["args"]
        if name.rpartition("/")[2] != self.site:
            return
        networks, self._networks = self._networks, []
        hazard = exposure.hazard
        if not isinstance(hazard, Field) or len(hazard.leaves) != len(networks):
            raise LpmError(f"site '{self.site}': its hazard isn't a sum over networks, whose risks could be told apart")
        self._kept.append(_by_network(hazard, networks, exposure))
        self._at_risk = exposure.at_risk.detach()

    def told(self) -> xr.Dataset:
        """Everybody's risk, and what it were without each network.

        Returns:
            over `agent`: `risk` of the event in as many days more of hazards like those of the last, given that it can
            happen; `at_risk`, whether it can; and over `network` too, `without`, the risk without its contacts.
        Raises:
            LpmError: before anything was seen of the site.
        """
        if not self._kept or self._at_risk is None:
            raise LpmError(f"nothing was seen of site '{self.site}'; ask after a run within the handler")
        total = {name: torch.stack([day[name] for day in self._kept]).sum(0) for name in self._kept[-1]}
        every = torch.stack(list(total.values()))
        whole = every.sum(0)
        scale = self.days / len(self._kept)
        return xr.Dataset(
            {
                "risk": ("agent", -torch.expm1(-whole * scale).numpy()),
                "at_risk": ("agent", self._at_risk.numpy()),
                "without": (("network", "agent"), -torch.expm1(-(whole - every).clamp(min=0.0) * scale).numpy()),
            },
            {"network": list(total)},
        )


def _by_network(hazard: Field, networks: list[str], exposure: Exposure) -> dict[str, Tensor]:
    """The hazards of one step, float64 of shape (N,), by network."""
    found: dict[str, Tensor] = {}
    for name, leaf in zip(networks, hazard.leaves, strict=True):
        part = Field((leaf,), hazard.factors).dense().detach().double() * float(exposure.dt)
        if part.dim() != 1:
            raise LpmError("risks are of one world and draw; ask for them in a run without others")
        found[name] = found[name] + part if name in found else part
    return found
