"""Estimators that pretend events are fractions: cheap, common elsewhere, and biased wherever groups are small."""

from __future__ import annotations

import math
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import dense
from lpmppl.effects.conversions import Conversions
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers.noise import base_of
from lpmppl.effects.internals.segments import differentiated
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.effects.relaxed import Relaxed, opened
from lpmppl.errors import InputError

__all__ = ["GumbelSoftmax", "MeanField", "Relaxing", "StraightThrough"]

_FINE = 2.0**-10
"""The coarsest unit in which fractions of people can be added up."""


class Relaxing(Messenger):
    """Give the events of hazards and yes-or-no sites a derivative as if they were fractions.

    The site's value is a `Relaxed`: the model's logic, choices and products carry it, and whatever else looks at it is
    refused by name, such as a cohort of those to whom something happens. It goes inside `ExogenousNoise`, and works in
    both modes of autograd.

    Raises:
        InputError: at a site of another discrete law that depends on what derivatives are taken of.
    """

    reads_sparse = True

    def __enter__(self) -> Self:
        found = super().__enter__()
        self._conversions = Conversions(Relaxed)
        self._conversions.__enter__()
        return found

    def __exit__(self, *error: Any) -> None:
        self._conversions.__exit__(*error)
        super().__exit__(*error)

    def _pyro_sample(self, msg: Message) -> None:
        fn = msg["fn"]
        if isinstance(fn, Left):
            event = fn.event
            msg["fn"] = Left(_held(fn.exposure), event.plain if isinstance(event, Relaxed) else event)
        elif isinstance(fn, Exposure):
            msg["infer"] = {**(msg["infer"] or {}), "relaxed": (_chance(fn), fn.at_risk)}
            msg["fn"] = _held(fn)

    def _pyro_post_sample(self, msg: Message) -> None:
        fn, infer = msg["fn"], msg["infer"] or {}
        if isinstance(fn, Left):
            msg["value"] = dense(msg["value"]).detach()
            return
        alone = infer.get("agents") is None
        if msg["is_observed"] or not isinstance(fn, TorchDistributionMixin) or (alone and "step" not in infer):
            return
        site, law = str(infer.get("site", msg["name"])), base_of(fn)
        if alone:
            _check_law(site, law, type(self).__name__)
            return
        if isinstance(law, Exposure):
            chance, at_risk = infer["relaxed"]
        elif isinstance(law, dist.Bernoulli) and differentiated(law.probs):
            chance, at_risk = law.probs.double().expand(msg["value"].shape), None
        elif isinstance(law, dist.Bernoulli) or not getattr(law.support, "is_discrete", False):
            return
        else:
            _check_law(site, law, type(self).__name__)
            return
        msg["value"] = _moved(site, msg["value"], self._soft(site, msg["value"], chance, infer), at_risk)

    def _soft(self, site: str, value: Tensor, chance: Tensor, infer: Message) -> Tensor:
        """What derives in the place of the value, of what came out and its chance, in float64."""
        return chance


class StraightThrough(Relaxing):
    r"""Derive every event as if it were its probability: :math:`\partial y := \partial p` (Bengio et al., 2013).

    It is right to some ten percent in large well-mixed groups and biased wherever those are small or an agent meets few
    others: several times too great with households, a hundred times on sparse graphs (docs/gradients.md). The bias
    doesn't shrink with the number of agents.
    """


class GumbelSoftmax(Relaxing):
    r"""Derive every event as a softened threshold of its noise, the two-category Gumbel-softmax.

    In its straight-through form (Jang et al., ICLR 2017)

    .. math:: \partial y := \partial\, \sigma\big((\operatorname{logit} p - \operatorname{logit} u) / \tau\big)

    It is biased on every topology: beyond all bounds where chances are small, since a softened event of chance p has a
    slope of up to 1/p, and towards zero, with a spread without bound, as τ falls. No τ is safe from one transmission
    rate or topology to another.

    Args:
        tau: the temperature, above 0.
        seed: the seed of the noise u, which is drawn as the site came out: below p where the event did.
        draw: which draw of it.
    Raises:
        InputError: for a temperature that isn't above 0.
    """

    def __init__(self, tau: float = 1.0, seed: int = 0, draw: int = 0) -> None:
        if not 0.0 < tau < math.inf:
            raise InputError(f"tau={tau} was given; give a temperature above 0")
        super().__init__()
        self.tau, self.seed, self.draw = tau, seed, draw

    def _soft(self, site: str, value: Tensor, chance: Tensor, infer: Message) -> Tensor:
        key, step = stream(self.seed, f"{site}/relaxed"), infer.get("step", 0)
        p = chance.detach()
        v = uniform(infer["agents"], key, self.draw, step)
        u = torch.where(value > 0, p * v, p + (1 - p) * v)
        possible = (p > 0) & (p < 1)
        safe, u = torch.where(possible, chance, 0.5), torch.where(possible, u, 0.5)
        soft = torch.sigmoid((torch.logit(safe) - torch.logit(u)) / self.tau)
        return torch.where(possible, soft, 0.0)


class MeanField(Relaxing):
    r"""Let every agent be infected, recover and so on by a fraction, its probability, instead of by chance.

    What comes out is the society that :math:`y := p` makes, in which the attributes of an agent and of its neighbours
    are independent (Van Mieghem et al., IEEE/ACM Trans. Netw. 17, 2009, 1). It is right for large well-mixed groups as
    steps get short, and puts outbreaks too high on sparse graphs and in households, where whoever infected someone
    counts among those it infects; nothing dies out.

    Raises:
        InputError: where a network adds messages up in units too coarse for fractions.
    """

    def _pyro_sample(self, msg: Message) -> None:
        infer, law = msg["infer"] or {}, msg["fn"]
        if infer.get("agents") is None or msg["done"] or msg["value"] is not None:
            return
        if isinstance(law, Left):
            h = law.exposure.met
            # The mean of a truncated exponential; its series where the hazard is all but nothing.
            large = h.detach() > 1e-3
            near = torch.where(large, h, 1.0)
            msg["value"] = torch.where(large, 1 - 1 / near + 1 / torch.expm1(near.clamp(max=50.0)), 0.5 + h / 12)
        elif isinstance(law, Exposure):
            msg["fn"] = _held(law)
            msg["value"] = _fraction(msg, _chance(law), law.at_risk)
        elif isinstance(base := base_of(law), dist.Bernoulli):
            msg["value"] = _fraction(msg, base.probs.double().expand(law.batch_shape))
        else:
            return
        msg["done"] = msg["stop"] = True

    def _pyro_post_sample(self, msg: Message) -> None:
        if not isinstance(msg["value"], Relaxed) and not isinstance(msg["fn"], Left):
            super()._pyro_post_sample(msg)

    def _pyro_aggregate(self, msg: Message) -> None:
        network = msg["args"][1]
        if network.quantum > _FINE:
            raise InputError(
                f"network '{network.name}' adds messages up in units of {network.quantum:g}, too coarse for the "
                f"fractions of MeanField; give it a quantum of {_FINE:g} or less"
            )


def _fraction(msg: Message, chance: Tensor, at_risk: Tensor | None = None) -> Relaxed:
    """A site's chance in the place of its value."""
    site = str(msg["infer"].get("site", msg["name"]))
    return Relaxed.of(chance.detach() > 0, chance, site, fraction=True, part_of=at_risk)


def _moved(site: str, value: Tensor, soft: Tensor, at_risk: Tensor | None) -> Relaxed:
    """What came out, with another's derivative."""
    return Relaxed.of(value.detach(), value.detach().double() + (soft - soft.detach()), site, part_of=at_risk)


def _chance(exposure: Exposure) -> Tensor:
    """The probability of an event, by how far its agent is at risk: float64 of shape (…, N)."""
    at_risk = opened(exposure.at_risk)
    return -torch.expm1(-exposure.met) * at_risk.double()


def _held(exposure: Exposure) -> Exposure:
    """The exposure by which noise decides."""
    at_risk = exposure.at_risk
    return exposure.held(at_risk.plain if isinstance(at_risk, Relaxed) else at_risk)


def _check_law(site: str, law: Any, estimator: str) -> None:
    """Refuse a discrete law that depends on what derivatives are taken of, where its value carries none."""
    parts = (getattr(law, name, None) for name in law.arg_constraints)
    if getattr(law.support, "is_discrete", False) and any(isinstance(x, Tensor) and differentiated(x) for x in parts):
        raise InputError(
            f"site '{site}': {estimator} has no derivative for {type(law).__name__}, but for agents' yes or no; "
            "ask for estimator='flips' or 'differences'"
        )
