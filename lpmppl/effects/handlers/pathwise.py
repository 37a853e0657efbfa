"""Derivatives along each agent's path: how the times of its events move, and with them everything they act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.fields import Field, Leaf
from lpmppl.effects.handlers.cuts import Cuts, reached
from lpmppl.effects.handlers.noise import base_of
from lpmppl.effects.internals.segments import count, differentiated
from lpmppl.effects.tape import taping

__all__ = ["Pathwise"]

_LOOKS = 3
"""How often a site's law is looked at: what reaches it may come later."""

_FEW = 100_000
"""The most groups that are looked through for one without hazard."""


class Pathwise(Messenger):
    r"""Let tallies carry their derivative along agents' paths, in reverse mode kept only by whom something happens to.

    An event by a hazard comes when the cumulative hazard Λ meets the agent's resistance R, a fraction
    :math:`(R - \Lambda)/(\Lambda' - \Lambda)` into its step; that time moves with the parameters by :math:`-\partial
    \Lambda / h`, and with it what the agent does to others, and when (Sellke, J. Appl. Probab. 20, 1983, gives the
    resistances; Glasserman, *Gradient Estimation via Perturbation Analysis*, 1991, when such derivatives are right).

    It is right where hazards never vanish, as with contacts across a city, and where nobody acts on others sooner than
    a step after an event. It is biased where agents escape for good because a hazard falls to zero, on sparse graphs:
    `plateau` says how many stand there. It doesn't see how discrete choices by chance depend on parameters, nor
    decisions by comparison: `unseen` names the parameters that reach such. It goes inside `ExogenousNoise`.

    Args:
        parameters: the parameters, with `requires_grad`, to look for in what it doesn't see; none by default.
        tallies: the tallies whose derivatives are kept, by name; all by default.
        forward: the parameters have tangents instead (`torch.autograd.forward_ad`): one run gives how everything there
            is moves with one parameter, and keeps no tape, but tangents of all agents.

    Attributes:
        crossing: by tally and day, what is zero in value and carries how the times of that day's events move, averaged
            over the day.
        direct: by tally and day, the tally with the derivative of the values that were counted.
        stock: by tally, whether it counts who is in a state.
        risk: by hazard site, the agents' steps at risk since they first met any hazard, those at which they met none
            and all.
        unseen: parameters that its derivative isn't, or not wholly, right for, with where they enter.
    """

    reads_sparse = True

    def __init__(
        self,
        parameters: Mapping[str, Tensor] | None = None,
        tallies: Collection[str] | None = None,
        forward: bool = False,
    ) -> None:
        super().__init__()
        self.forward = forward
        self.tallies = tallies
        self.parameters = dict(parameters or {})
        self.crossing: dict[str, dict[int, Tensor]] = {}
        self.direct: dict[str, dict[int, Tensor]] = {}
        self.stock: dict[str, bool] = {}
        self._unseen: dict[str, str] = {}
        self._looks: Counter[str] = Counter()
        self.risk: dict[str, list[float]] = {}
        self._cuts = Cuts(self.parameters)

    def __enter__(self) -> Pathwise:
        self._around = ExitStack()
        self._around.enter_context(taping(self.forward))
        if self.parameters:
            self._around.enter_context(self._cuts)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._around.close()

    @property
    def unseen(self) -> dict[str, str]:
        return {**self._cuts.of, **self._unseen}

    @property
    def plateau(self) -> dict[str, float]:
        """By hazard site, the share of the time at risk, since agents first met any hazard, at which they met none."""
        return {site: none / at_risk if at_risk else 0.0 for site, (none, at_risk) in self.risk.items()}

    def _pyro_post_sample(self, msg: Message) -> None:
        fn, infer = msg["fn"], msg["infer"] or {}
        site = str(infer.get("site", msg["name"]))
        if isinstance(fn, Exposure):
            self._count(site, fn)
        elif self.parameters and not isinstance(fn, Left) and isinstance(fn, TorchDistributionMixin):
            law = base_of(fn)
            if isinstance(law, dist.Delta) or not getattr(law.support, "is_discrete", False) or msg["is_observed"]:
                return
            if self._looks[site] < _LOOKS:
                self._looks[site] += 1
                for name in law.arg_constraints:
                    x = getattr(law, name, None)
                    if isinstance(x, Tensor) and x.requires_grad:
                        for parameter in reached(x, self.parameters):
                            self._unseen.setdefault(parameter, f"site '{site}'")

    def _count(self, site: str, exposure: Exposure) -> None:
        none, total = self.risk.setdefault(site, [0.0, 0.0])
        hazard = exposure.hazard.detach() if isinstance(exposure.hazard, Tensor | Field) else exposure.hazard
        if _somewhere(hazard):
            self.risk[site][1] += count(exposure.at_risk)
            return
        with torch.no_grad():
            before = exposure.before.detach()
            since = exposure.at_risk & (before > 0)
            at_rest = since & (exposure.after.detach() == before)
            self.risk[site] = [none + count(at_rest), total + count(since)]

    def _pyro_post_tally(self, msg: Message) -> None:
        time, _, name = msg["args"][0].partition("/")
        if self.tallies is not None and name not in self.tallies:
            return
        day = int(float(time[2:]))
        unit, self.stock[name] = msg["args"][4], msg["args"][5]
        self.direct.setdefault(name, {})[day] = msg["value"] * unit
        crossing = msg["kwargs"].get("crossing")
        if crossing is not None and differentiated(moved := crossing()):
            self.crossing.setdefault(name, {})[day] = moved * unit


def _somewhere(hazard: Tensor | Field | float) -> bool:
    """Say, where it costs little, whether everybody meets some hazard: in one of the sums that make it up."""
    if not isinstance(hazard, Field):
        x = torch.as_tensor(hazard)
        return x.numel() <= _FEW and bool((x > 0).all())
    if hazard.factors and not all(isinstance(f, Tensor) and bool(f.min() > 0) for f in hazard.factors):
        return False
    leaves = sorted(hazard.leaves, key=lambda leaf: leaf.base.numel() if isinstance(leaf, Leaf) else _FEW)
    return any(
        _somewhere(leaf)
        if isinstance(leaf, Field)
        else leaf.base.numel() <= _FEW
        and bool((leaf.values > 0).all())
        and bool((torch.as_tensor(leaf.scale) > 0).all())
        for leaf in leaves
    )
